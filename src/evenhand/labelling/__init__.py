"""People as judges: what they are shown, what they said, how far they agree, and the page they say it on."""
