"""The stages that make data: pairs labelled here, and answers revised by principles."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evenhand.plan.graph import SHARED, Graph, language_model


def annotate(graph: Graph) -> None:
    """Preference pairs of the starting policy's own answers, in place of the data's."""
    section, seed = graph.e.annotate, graph.e.seeds[0]
    if section is None:
        return
    spec = {**section.spec(), "reward": graph.reward_spec(section.reward), **_shared(graph)}
    inputs = {"start": graph.models[graph.e.start, seed], "data": graph.data}
    cost = f"{section.prompts + section.heldout_prompts} prompts x {section.completions_per_prompt}"
    if section.judge is not None:
        spec |= language_model(section.judge)
        cost += ", judged in both orders"
    else:
        inputs |= graph.reward_inputs(section.reward, seed)
    graph.add("preferences", "annotate", spec, inputs, graph.e.data.seed, "preferences", SHARED, cost)


def revise(graph: Graph) -> None:
    """Answers criticised and revised, for the splits of `making.REVISED`."""
    from evenhand.synthesis.constitution import BUILTIN, principles

    section = graph.e.revise
    if section is None:
        return
    given = {k: v for k, v in asdict(section).items() if k not in ("by", "principles")}
    words = [asdict(p) for p in principles(section.principles or BUILTIN)]
    spec = {**given, "principles": words, **_shared(graph), **(language_model(section.by) if section.by else {})}
    inputs = {"start": graph.models[graph.e.start, graph.e.seeds[0]], "data": graph.data}
    cost = f"{section.prompts + section.heldout_prompts} prompts x {1 + 2 * section.rounds} questions"
    graph.add("revisions", "revise", spec, inputs, graph.e.data.seed, "revisions", SHARED, cost)


def _shared(graph: Graph) -> dict[str, Any]:
    return {"lengths": graph.lengths, "template": graph.e.model.template, **graph.device}
