"""The stages that make data: pairs labelled here, and answers revised by principles."""

from __future__ import annotations

from dataclasses import replace

from evenhand.judges.config import LLM
from evenhand.plan.graph import Graph, judged_by, model_bytes
from evenhand.stages.annotate import AnnotateSpec
from evenhand.stages.revise import ReviseSpec


def annotate(graph: Graph) -> None:
    """Preference pairs of the starting policy's own answers, in place of the data's."""
    section, seed = graph.e.annotate, graph.e.seeds[0]
    if section is None:
        return
    inputs = {"start": graph.models[graph.e.initial_policy, seed], "data": graph.data}
    cost = f"{section.prompts + section.heldout_prompts} prompts x {section.completions_per_prompt}"
    reward = None
    if section.judge is not None:
        cost += ", judged in both orders"
    else:
        assert section.reward is not None
        reward = graph.reward_spec(section.reward)
        inputs |= graph.reward_inputs(section.reward, seed)
    spec = AnnotateSpec(
        section=replace(section, reward=None, judge=None), reward=reward, setup=graph.setup,
        judge=judged_by(section.judge) if section.judge is not None else None,
    )  # fmt: skip
    graph.add("preferences", spec, inputs, seed=graph.e.data.seed, row="preferences", cost=cost)


def revise(graph: Graph) -> None:
    """Answers criticised and revised, for the splits of `synthesis.config.REVISED`."""
    from evenhand.synthesis.constitution import BUILTIN, principles

    section = graph.e.revise
    if section is None:
        return
    by = section.by
    spec = ReviseSpec(
        section=replace(section, by=None, principles=None), principles=tuple(principles(section.principles or BUILTIN)),
        by=by, fingerprint=None if by is None or isinstance(by, LLM) else model_bytes(by.path), setup=graph.setup,
    )  # fmt: skip
    inputs = {"start": graph.models[graph.e.initial_policy, graph.e.seeds[0]], "data": graph.data}
    cost = f"{section.prompts + section.heldout_prompts} prompts x {1 + 2 * section.rounds} questions"
    graph.add("revisions", spec, inputs, seed=graph.e.data.seed, row="revisions", cost=cost)
