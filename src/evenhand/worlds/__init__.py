"""Built-in task families with a known gold reward. No download; everything comes from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, cast

from evenhand.configfile.schema import from_signature
from evenhand.errors import one_of
from evenhand.protocols import Reward
from evenhand.worlds.arithmetic import Arithmetic, ArithmeticGold
from evenhand.worlds.countdown import Countdown, CountdownGold
from evenhand.worlds.labels import Annotator
from evenhand.worlds.notes import Notes, NotesGold
from evenhand.worlds.refusals import Refusals, RefusalsGold
from evenhand.worlds.world import Task, World, with_annotator

__all__ = ["WORLDS", "Annotator", "World", "get", "with_annotator"]

SMALL_LLAMA: Mapping[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "initializer_range": 0.12,  # at the usual 0.02 so narrow a model does not learn to copy within minutes
}


Made = tuple[type[Task], int, Callable[[Any], Reward], Annotator]
"""The task, the version of its data, the gold reward of a task, and who labels."""
WORLDS: Mapping[str, Made] = {
    "quickstart": (Notes, 1, lambda task: NotesGold(), Annotator(temperature=0.12, bias_per_word=0.02)),
    "countdown": (Countdown, 1, lambda task: CountdownGold(reasoning=task.reasoning), Annotator(temperature=0.3)),
    "arithmetic": (Arithmetic, 1, lambda task: ArithmeticGold(reasoning=task.reasoning), Annotator(temperature=0.3)),
    "refusals": (Refusals, 2, lambda task: RefusalsGold(), Annotator(temperature=0.2)),
}


def get(name: str, **options: Any) -> World:
    """The built-in world of that name. `options` set the fields of its task (how hard it is, how good its writer).

    >>> get("countdown", numbers=4).prompts(0, 1)[0].text
    'Use each of the numbers ... once to make ...'
    """
    kind, version, gold, annotator = WORLDS[one_of("world", name, WORLDS, where="world")]
    known = [f.name for f in fields(cast(Any, kind))]  # every task is a dataclass, which a protocol cannot say
    for option in options:
        one_of("option", option, known, where=f"world {name}")
    task = kind(**from_signature(kind, options, f"world {name}"))
    return World(name=name, version=version, task=task, gold=gold(task), annotator=annotator, shape=SMALL_LLAMA)
