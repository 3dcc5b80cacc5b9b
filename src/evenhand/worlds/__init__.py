"""Built-in task families with a known gold reward. No download; everything comes from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, cast

from evenhand.configfile.schema import from_signature
from evenhand.errors import one_of
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


def _quickstart(**options: Any) -> World:
    return World(
        name="quickstart",
        version=1,
        task=Notes(**options),
        gold=NotesGold(),
        annotator=Annotator(temperature=0.12, bias_per_word=0.02),
        shape=SMALL_LLAMA,
    )


def _countdown(**options: Any) -> World:
    task = Countdown(**options)
    gold, annotator = CountdownGold(reasoning=task.reasoning), Annotator(temperature=0.3)
    return World(name="countdown", version=1, task=task, gold=gold, annotator=annotator, shape=SMALL_LLAMA)


def _arithmetic(**options: Any) -> World:
    task = Arithmetic(**options)
    gold, annotator = ArithmeticGold(reasoning=task.reasoning), Annotator(temperature=0.3)
    return World(name="arithmetic", version=1, task=task, gold=gold, annotator=annotator, shape=SMALL_LLAMA)


def _refusals(**options: Any) -> World:
    task, gold, annotator = Refusals(**options), RefusalsGold(), Annotator(temperature=0.2)
    return World(name="refusals", version=2, task=task, gold=gold, annotator=annotator, shape=SMALL_LLAMA)


WORLDS: Mapping[str, tuple[Callable[..., World], type[Task]]] = {
    "quickstart": (_quickstart, Notes),
    "countdown": (_countdown, Countdown),
    "arithmetic": (_arithmetic, Arithmetic),
    "refusals": (_refusals, Refusals),
}


def get(name: str, **options: Any) -> World:
    """The built-in world of that name. `options` set the fields of its task (how hard it is, how good its writer).

    >>> get("countdown", numbers=4).prompts(0, 1)[0].text
    'Use each of the numbers ... once to make ...'
    """
    build, task = WORLDS[one_of("world", name, WORLDS, where="world")]
    known = [f.name for f in fields(cast(Any, task))]  # every task is a dataclass, which a protocol cannot say
    for option in options:
        one_of("option", option, known, where=f"world {name}")
    return build(**from_signature(task, options, f"world {name}"))
