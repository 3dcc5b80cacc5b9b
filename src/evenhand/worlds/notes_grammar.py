"""The language of the notes: its words, its sentence patterns, and which word may follow which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise, product

# fmt: off
PEOPLE = (
    "Mara", "Theo", "Lena", "Omar", "Nina", "Hugo", "Rosa", "Ivan",
    "Cleo", "Paul", "Edith", "Basil", "Greta", "Felix", "Vera", "Jonas",
)
TOPICS = (
    "garden", "rain", "river", "market", "kitten", "bread", "mountain",
    "school", "piano", "boat", "moon", "bridge", "forest", "picnic",
    "train", "lantern", "castle", "orchard", "sea", "snow", "village",
    "holiday", "soup", "song", "book", "horse", "concert", "bakery",
)
# fmt: on
SIGNERS = ("Tom", "Ada", "Ben", "Eve", "Sam", "Kit")
CLOSINGS = ("With love", "Your friend", "Best wishes", "Yours always")
TIMES = ("morning", "evening", "week", "month")
KIN = ("sister", "brother", "mother", "uncle", "neighbor", "teacher")

TONES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "happy": {
        "mood": ("happy", "glad", "cheerful", "joyful", "merry"),
        "look": ("bright", "golden", "lovely", "sunny", "sparkling"),
        "manner": ("happily", "gladly", "cheerfully", "brightly"),
    },
    "sad": {
        "mood": ("sad", "lonely", "sorrowful", "tearful", "gloomy"),
        "look": ("gray", "bleak", "dull", "faded", "dreary"),
        "manner": ("sadly", "bitterly", "wearily", "mournfully"),
    },
    "calm": {
        "mood": ("calm", "peaceful", "rested", "relaxed", "serene"),
        "look": ("quiet", "gentle", "still", "soft", "mild"),
        "manner": ("quietly", "gently", "softly", "calmly"),
    },
    "excited": {
        "mood": ("excited", "thrilled", "eager", "amazed", "breathless"),
        "look": ("dazzling", "wild", "grand", "splendid", "wondrous"),
        "manner": ("eagerly", "wildly", "loudly", "breathlessly"),
    },
    "worried": {
        "mood": ("worried", "nervous", "anxious", "uneasy", "troubled"),
        "look": ("dark", "strange", "shaky", "risky", "fragile"),
        "manner": ("nervously", "anxiously", "uneasily", "fearfully"),
    },
    "grateful": {
        "mood": ("grateful", "thankful", "blessed", "lucky", "touched"),
        "look": ("precious", "rare", "treasured", "cherished", "welcome"),
        "manner": ("gratefully", "thankfully", "warmly", "fondly"),
    },
}
TONE_OF = {word: tone for tone, kinds in TONES.items() for kind in kinds.values() for word in kind}

TOPIC_SENTENCES = (
    "The {topic} is {look} and {look} today.",
    "The {topic} looked {look} this {time}.",
    "I feel {mood} about the {topic}.",
    "I was {mood} when I saw the {topic}.",
    "We found the {look} {topic} this {time}.",
    "My {kin} talks {manner} about the {topic}.",
    "My {kin} felt {mood} near the {topic}.",
    "You would feel {mood} and {mood} at the {topic}.",
    "We spoke {manner} of the {look} {topic}.",
    "Everyone here is {mood} because of the {topic}.",
)
FILLERS = (
    "I hope to write again soon.",
    "There is not much more to say.",
    "The clock is on the wall.",
    "We had tea and then we had more tea.",
    "Please tell me when you can.",
    "It is what it is.",
    "My {kin} says hello to you.",
    "I will say more some other time.",
)
GREETING = "Dear {name},"
CLOSING = "{closing}, {signer}."
REQUESTS = (
    "Write to {name} about the {topic} and the {topic}. Make it {tone}.",
    "Please send {name} a note about the {topic} and the {topic} that sounds {tone}.",
)
HEADINGS = (
    "For {name}, about the {topic} and the {topic}, in {tone} words:",
    "This is what I told {name} about the {topic} and the {topic} when I was {tone}:",
)
TALE_HEADING = "About the {topic}, in {tone} words:"

ANY_TONE = {kind: tuple(w for kinds in TONES.values() for w in kinds[kind]) for kind in ("mood", "look", "manner")}
SLOTS: Mapping[str, tuple[str, ...]] = {
    **ANY_TONE,
    "name": PEOPLE,
    "topic": TOPICS,
    "tone": tuple(TONES),
    "time": TIMES,
    "kin": KIN,
    "closing": CLOSINGS,
    "signer": SIGNERS,
}


def fillings(piece: str) -> list[str]:
    """All texts a word of a pattern may stand for; its punctuation stays.

    >>> fillings("{signer}.")[:2], fillings("today.")
    (['Tom.', 'Ada.'], ['today.'])
    """
    slot = piece.strip(".,:")
    if not (slot.startswith("{") and slot.endswith("}")):
        return [piece]
    return [piece.replace(slot, word) for word in SLOTS[slot[1:-1]]]


def language() -> Iterator[str]:
    """Texts that together hold every word of the world, at every place where it can stand (for the vocabulary)."""
    for pattern in (*TOPIC_SENTENCES, *FILLERS, GREETING, CLOSING, *REQUESTS, *HEADINGS, TALE_HEADING):
        pieces = pattern.split()
        for i, piece in enumerate(pieces):
            before = "x " if i else ""  # a word inside a sentence carries its space; the first of a text may not
            yield from (before + text for text in fillings(piece))
            if i == 0:
                yield from ("x " + text for text in fillings(piece))


def word_pairs() -> frozenset[tuple[str, str]]:
    """Every pair of neighbouring words, lower case, that a sentence of a note may hold."""
    found: set[tuple[str, str]] = set()
    for pattern in (*TOPIC_SENTENCES, *FILLERS):
        options = [[text.strip(".,:").lower() for text in fillings(piece)] for piece in pattern.split()]
        for left, right in pairwise(options):
            found.update(product(left, right))
    return frozenset(found)
