"""Preference pairs made here: the starting policy answers, a reward or a judge compares, and labels are drawn, hard or soft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.data.jsonl import write_groups
from evenhand.engines.local import LocalEngine
from evenhand.errors import UserError
from evenhand.judges import account
from evenhand.seeding import keyed
from evenhand.stages.common import build_reward, open_policy, open_renderer, read_split, setup, write_json
from evenhand.types import Group, Prompt, Sampling
from evenhand.worlds.labels import Annotator

if TYPE_CHECKING:
    from evenhand.synthesis import Labelled

Label = Callable[[list[Group], str, Callable[..., None]], "Labelled"]
KEPT = "answers.kept"
"""Answers sampled so far, while the stage is under way."""


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    device = setup(spec)
    policy, renderer = open_policy(inputs["start"], spec, device), open_renderer(inputs["start"], spec["template"])
    generate = partial(LocalEngine(policy, renderer).generate, max_prompt=spec["lengths"]["prompt"])
    plain = "judge" not in spec and not {"choose", "margin"} & spec.keys() and spec.get("labels", "drawn") == "drawn"
    label = drawn(spec, seed, inputs, device) if plain else compared(spec, seed, inputs, out, device)
    found = {}
    for split, count in (("preferences", spec["prompts"]), ("heldout_preferences", spec["heldout_prompts"])):
        prompts = [g.prompt for g in read_split(inputs, split.replace("preferences", "prompts"))][:count]
        sampling = Sampling(temperature=spec["temperature"], max_tokens=spec["lengths"]["completion"], seed=keyed(seed, split))
        if plain:
            groups = generate(prompts, spec["completions_per_prompt"], sampling, progress=lambda d, n: report(d, n))
        else:
            groups = kept(generate, prompts, spec["completions_per_prompt"], sampling, out, report)
        found[split] = label(groups, split, report)
        if prompts and not found[split].pairs:
            reasons = ", ".join(f"{n} {reason}" for reason, n in found[split].left_out.items())
            raise UserError(f"no pair of {split} is left", where="annotate", why=reasons, fix="lower `margin`, or sample hotter")
        write_groups(out / f"{split}.jsonl", found[split].pairs)
    write_json(out / "labels.json", {split: account_of(f) for split, f in found.items()})
    (out / KEPT).unlink(missing_ok=True)


def kept(generate: Any, prompts: list[Prompt], n: int, sampling: Sampling, out: Path, report: Any) -> list[Group]:
    """The policy's answers, kept piece by piece, so that a stopped stage, whose judge may be slow, samples none of them twice."""
    from evenhand.judges.cache import Cache
    from evenhand.synthesis.resume_cache import kept_answers

    return kept_answers(generate, prompts, n, sampling, cache=Cache(out / KEPT), identity="start", progress=report)


def drawn(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], device: str) -> Label:
    """Two answers at random, scored 1 and 0 by a noisy annotator that sees the reward."""
    from evenhand.rewards.annotate import annotate
    from evenhand.synthesis import Labelled

    reward, annotator = build_reward(spec["reward"], inputs, spec, device), annotator_of(spec)

    def label(groups: list[Group], split: str, report: Callable[..., None]) -> Labelled:
        found = annotate(groups, reward, annotator, seed=seed)
        return Labelled(pairs=found.pairs, left_out={"without two different answers": found.dropped} if found.dropped else {})

    return label


def compared(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, device: str) -> Label:
    """Pairs chosen and labelled as the section says, by its reward or its judge; see `evenhand.synthesis.label`."""
    from evenhand.judges import RewardJudge
    from evenhand.stages.judge import open_judge
    from evenhand.synthesis import flip_labels, label

    if "judge" in spec:
        judge, usual, flip = open_judge(spec, inputs, out, device), "hard", spec["flip"]
    else:  # the annotator that sees the reward does its own flipping
        judge, usual, flip = RewardJudge(build_reward(spec["reward"], inputs, spec, device), name="annotator"), "drawn", 0.0

    def labelled(groups: list[Group], split: str, report: Callable[..., None]) -> Labelled:
        key = keyed(seed, split)
        found = label(
            groups, judge, choose=spec.get("choose", "random"), labels=spec.get("labels", usual),
            margin=spec.get("margin", 0.0), annotator=annotator_of(spec), seed=key, progress=report,
        )  # fmt: skip
        return replace(found, pairs=tuple(flip_labels(found.pairs, flip, seed=key))) if flip else found

    return labelled


def annotator_of(spec: Mapping[str, Any]) -> Annotator:
    return Annotator(temperature=spec["noise"], bias_per_word=spec["bias_per_word"], flip=spec["flip"])


def account_of(found: Labelled) -> dict[str, Any]:
    """How many pairs, what was left out and why, and how a judge of pairs behaved."""

    judged = {"judge": account(found.verdicts)} if found.verdicts else {}
    return {"pairs": len(found.pairs), "left_out": dict(found.left_out), **judged}
