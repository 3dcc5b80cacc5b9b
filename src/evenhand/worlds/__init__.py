"""Built-in task families with a known gold reward. No download; everything comes from a seed."""

from __future__ import annotations

from evenhand.errors import UserError, did_you_mean
from evenhand.worlds.labels import Annotator
from evenhand.worlds.notes import Notes, NotesGold
from evenhand.worlds.world import World, with_annotator

__all__ = ["WORLDS", "World", "get", "with_annotator"]

SMALL_LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}

WORLDS = {
    "quickstart": World(
        name="quickstart",
        version=1,
        task=Notes(),
        gold=NotesGold(),
        annotator=Annotator(temperature=0.15, bias_per_word=0.02),
        shape=SMALL_LLAMA,
    ),
}


def get(name: str) -> World:
    """The built-in world of that name.

    >>> get("quickstart").prompts(0, 1)[0].meta["tone"] in ("happy", "sad", "calm", "excited", "worried", "grateful")
    True
    """
    if name not in WORLDS:
        raise UserError(f"unknown world '{name}'", where="world", fix=did_you_mean(name, WORLDS))
    return WORLDS[name]
