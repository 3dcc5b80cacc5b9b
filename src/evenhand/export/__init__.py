"""A model out of a finished run, checked, with an honest account of it; and the data it was trained on.

`model.export` writes a Hugging Face folder that plain transformers loads, and keeps none that does not say what the run's model
says. `card` writes the account. `rows` writes the run's pairs and answers for other tools. `adapter`, `gguf` and `hub` go further
when asked to.
"""
