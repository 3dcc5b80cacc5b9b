"""Preference pairs made here: the starting policy answers, a reward or a judge compares, and labels are drawn, hard or soft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from evenhand.data.jsonl import write_groups
from evenhand.engines.registry import open_engine
from evenhand.errors import UserError
from evenhand.judges import Judge, RewardJudge, account
from evenhand.rewards.general_preference import GeneralPreferenceReward
from evenhand.seeding import keyed
from evenhand.stages.common import begin, build_reward, open_policy, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.judge import JudgedBy, open_judge
from evenhand.stages.setup import Setup
from evenhand.stages.splits import read_split
from evenhand.store.whole import write_json
from evenhand.synthesis import AnnotatedPairs
from evenhand.synthesis.annotation import Labels
from evenhand.synthesis.config import Annotate
from evenhand.types import Group, Prompt, Sampling
from evenhand.worlds.labels import Annotator

PairLabeller = Callable[[list[Group], str], AnnotatedPairs]
KEPT = "answers.kept"
"""Answers sampled so far, while the stage is under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotateSpec:
    """The section `annotate`, its `reward` resolved or its `judge` named here."""

    KIND: ClassVar[str] = "annotate"
    VERSION: ClassVar[int] = 2

    section: Annotate
    reward: Mapping[str, Any] | None = None
    judge: JudgedBy | None = None
    setup: Setup

    @property
    def drawn(self) -> bool:
        """Whether labels are drawn between two answers at random, which needs no comparison but the reward's."""
        ask = self.section
        return self.judge is None and ask.choose == "random" and not ask.margin and ask.labels in (None, "drawn")


def run(spec: AnnotateSpec, context: StageContext) -> None:
    device, setup, section, out = begin(spec.setup.compute), spec.setup, spec.section, context.out
    start = context.inputs["start"]
    policy, renderer = open_policy(start, setup.compute, device), open_renderer(start, setup.template)
    generate = partial(open_engine(setup.compute.sampler, policy, renderer).generate, max_prompt=setup.lengths.prompt)
    label = drawn(spec, context, device) if spec.drawn else compared(spec, context, device)
    found = {}
    for split, count in (("preferences", section.prompts), ("heldout_preferences", section.heldout_prompts)):
        prompts = [g.prompt for g in read_split(context.inputs, split.replace("preferences", "prompts"))][:count]
        seed = keyed(context.seed, split)
        sampling = Sampling(temperature=section.temperature, max_tokens=setup.lengths.completion, seed=seed)
        if spec.drawn:
            groups = generate(prompts, section.completions_per_prompt, sampling, progress=context.report)
        else:
            groups = kept(generate, prompts, section.completions_per_prompt, sampling, context)
        found[split] = label(groups, split)
        if prompts and not found[split].pairs:
            reasons = ", ".join(f"{n} {reason}" for reason, n in found[split].left_out.items())
            raise UserError(f"no pair of {split} is left", where="annotate", why=reasons, fix="lower `margin`, or sample hotter")
        write_groups(out / f"{split}.jsonl", found[split].pairs)
    write_json(out / "labels.json", {split: account_of(f) for split, f in found.items()})
    (out / KEPT).unlink(missing_ok=True)


def kept(
    generate: Callable[..., list[Group]], prompts: list[Prompt], n: int, sampling: Sampling, context: StageContext
) -> list[Group]:
    """The policy's answers, kept piece by piece, so that a stopped stage, whose judge may be slow, samples none of them twice."""
    from evenhand.judges.cache import Cache
    from evenhand.synthesis.resume_cache import kept_answers

    cache = Cache(context.out / KEPT)
    return kept_answers(generate, prompts, n, sampling, cache=cache, identity="start", progress=context.report)


def drawn(spec: AnnotateSpec, context: StageContext, device: str) -> PairLabeller:
    """Two answers at random, scored 1 and 0 by a noisy annotator that sees the reward."""
    from evenhand.rewards.annotate import annotate

    assert spec.reward is not None
    reward, annotator = build_reward(spec.reward, context.inputs, spec.setup, device), annotator_of(spec.section)
    if isinstance(reward, GeneralPreferenceReward):  # which says the chance itself
        return by_chance(spec, context, reward.judge, "drawn")

    def label(groups: list[Group], split: str) -> AnnotatedPairs:
        found = annotate(groups, reward, annotator, seed=context.seed)
        return AnnotatedPairs(
            pairs=found.pairs, left_out={"without two different answers": found.dropped} if found.dropped else {}
        )

    return label


def compared(spec: AnnotateSpec, context: StageContext, device: str) -> PairLabeller:
    """Pairs chosen and labelled as the section says, by its reward or its judge; see `evenhand.synthesis.label`."""
    if spec.judge is not None:
        return by_chance(spec, context, open_judge(spec.judge, context, spec.setup, device), "hard")
    assert spec.reward is not None
    reward = build_reward(spec.reward, context.inputs, spec.setup, device)
    if isinstance(reward, GeneralPreferenceReward):
        return by_chance(spec, context, reward.judge, "drawn")
    annotator = RewardJudge(reward, name="annotator")
    return by_chance(spec, context, annotator, "drawn", flip=0.0)  # the annotator that sees the reward does its own flipping


def by_chance(
    spec: AnnotateSpec, context: StageContext, judge: Judge, usual: Labels, *, flip: float | None = None
) -> PairLabeller:
    """Labels by what a judge says of pairs, as `usual` where the section names no other; a share `flip` is swapped afterwards."""
    from evenhand.synthesis import flip_labels, label

    section = spec.section
    flip = section.flip if flip is None else flip

    def labelled(groups: list[Group], split: str) -> AnnotatedPairs:
        key = keyed(context.seed, split)
        found = label(
            groups, judge, choose=section.choose, labels=section.labels or usual, margin=section.margin,
            annotator=annotator_of(section), seed=key, progress=context.report,
        )  # fmt: skip
        return replace(found, pairs=tuple(flip_labels(found.pairs, flip, seed=key))) if flip else found

    return labelled


def annotator_of(section: Annotate) -> Annotator:
    return Annotator(temperature=section.noise, bias_per_word=section.bias_per_word, flip=section.flip)


def account_of(found: AnnotatedPairs) -> dict[str, Any]:
    """How many pairs, what was left out and why, and how a judge of pairs behaved."""

    judged = {"judge": account(found.verdicts)} if found.verdicts else {}
    return {"pairs": len(found.pairs), "left_out": dict(found.left_out), **judged}
