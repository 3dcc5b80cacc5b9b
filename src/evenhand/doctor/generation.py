"""Checks of sampling: what is sampled, and that the sampler and the trainer see one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from evenhand.doctor.context import CheckContext
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, Severity, check, fail, info, share, shortened, warn
from evenhand.engines.registry import open_engine
from evenhand.spec.checks import uncorrected
from evenhand.spec.reward_resolution import models_in, resolved_reward
from evenhand.train.examples import Example
from evenhand.train.logprobs import read
from evenhand.types import Group, Head, Sampling

MISMATCH = 0.05
"""Nats per token between sampler and trainer above which they are not one model."""


@check(
    "G1",
    "the sampler's log-probs are the trainer's",
    why="where they differ, importance ratios are wrong from the first step, and nothing in the loss shows it",
    fix="sample at the temperature that is trained at, without top-p and top-k; report it if they are off",
    quick=False,
)
def mismatch(patient: CheckContext) -> Iterator[Finding]:
    groups = rollouts(patient, prompts=4, n=2)
    gaps, ratios = gap(patient, groups)
    mean, ratio = float(np.mean(np.abs(gaps))), float(np.mean(ratios))
    seen = f"mean |difference| {mean:.1e} nats a token over {len(gaps)} tokens, mean ratio {ratio:.4f}"
    bad = mean > MISMATCH or not 0.98 <= ratio <= 1.02
    yield Finding(severity=Severity.FAIL if bad else Severity.INFO, seen=seen)


@check(
    "G2",
    "the sampler follows the weights",
    why="a sampler with old weights makes every rollout off-policy, and looks like slow learning",
    fix="report it, with the output of `evenhand env`",
    quick=False,
)
def follows(patient: CheckContext) -> Iterator[Finding]:
    policy = patient.policy
    name, weight = max(policy.hf.named_parameters(), key=lambda p: p[1].numel())
    kept = weight.detach().clone()
    before = gap(patient, rollouts(patient, prompts=2, n=2))[0]
    try:
        with torch.no_grad():
            weight.mul_(0.7)
        after = gap(patient, rollouts(patient, prompts=2, n=2))[0]
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    mean = float(np.mean(np.abs(after)))
    if mean <= max(MISMATCH, 3 * float(np.mean(np.abs(before)))):
        yield info(f"after a change of {name} they still differ by no more than {mean:.1e} nats a token")
    else:  # a NaN too
        yield fail(f"after a change of {name}, sampler and trainer differ by {mean:.3f} nats a token")


@check(
    "G3",
    "answers end before the limit",
    why="an answer that is cut cannot earn a reward for its end; with most cut, every reward is alike and nothing is learned",
    fix="raise `lengths.completion`, or teach the model to stop first (`initial_policy: sft`)",
    quick=False,
)
def cut(patient: CheckContext) -> Iterator[Finding]:
    if patient.experiment.model.path is None or not patient.online:
        raise Unavailable("the policy that will be sampled is not trained yet, or nothing is sampled")
    groups = rollouts(patient, prompts=16, n=4, longest=patient.experiment.lengths.completion)
    answers = [c for g in groups for c in g.completions]
    ended = sum(c.finish == "stop" for c in answers)
    dead = _dead(patient, groups)
    limit = patient.experiment.lengths.completion
    seen = f"{share(len(answers) - ended, len(answers))} answers of the base model are cut at {limit} tokens"
    if len(answers) - ended > 0.8 * len(answers) and dead:
        yield fail(f"{seen}, and {dead}", shortened(answers[0].text, 200))
    elif len(answers) - ended > 0.2 * len(answers):
        yield warn(seen, shortened(answers[0].text, 200))
    else:
        yield info(seen)
    if dead:
        yield warn(dead)


@check(
    "G4",
    "training samples from the whole distribution",
    why="with top-p, top-k or min-p, the sampler draws from another distribution than the one whose gradient is taken",
    fix="remove `top_p`, `top_k` and `min_p` from `sampling`; they belong into `evaluation.sampling`",
)
def truncated_sampling(patient: CheckContext) -> Iterator[Finding]:
    for name, arm in patient.online.items():
        if arm.sampling.cuts:
            yield warn(f"{name} samples with {arm.sampling.cuts}")


@check(
    "G5",
    "a group is one prompt's answers",
    why="with other prompts' answers in a group, advantages compare what cannot be compared",
    fix="report it, with the output of `evenhand env`",
    quick=False,
)
def grouping(patient: CheckContext) -> Iterator[Finding]:
    asked = patient.prompts(4)
    groups = rollouts(patient, prompts=4, n=3)
    wrong = [g for g, p in zip(groups, asked, strict=True) if g.prompt.id != p.id or len(g.completions) != 3]
    if wrong:
        yield fail(f"{len(wrong)} of {len(groups)} groups are not their prompt's")


@check(
    "G7",
    "answers of a group can differ",
    why="credit that compares a group's answers is zero when there is one of them, or when all are the same",
    fix="set `completions_per_prompt` to 2 or more, and `sampling.temperature` above 0",
)
def group_size(patient: CheckContext) -> Iterator[Finding]:
    for name, arm in patient.online.items():
        plan = patient.methods[name].rollouts
        assert plan is not None
        if plan.credit.compares and plan.completions_per_prompt < 2:
            yield fail(f"{name} compares the answers to a prompt, and samples {plan.completions_per_prompt}")
        if arm.sampling.temperature == 0 and not plan.exploration.temperatures:
            yield fail(f"{name} samples greedily: all answers to a prompt are one and the same")
        elif arm.sampling.temperature < 0.3 and not plan.exploration.temperatures:
            yield warn(f"{name} samples at temperature {arm.sampling.temperature:g}; most groups will have nothing to compare")


@check(
    "G8",
    "older samples are corrected, and grow younger",
    why="the gradient of fresh samples is biased on older ones, and samples that are all of the start's learn offline",
    fix="add `importance: 2` or `staleness: {proximal: generator}`, or fewer steps; or let it pass where that is the question",
)
def stale_samples(patient: CheckContext) -> Iterator[Finding]:
    for name, arm in patient.online.items():
        if arm.staleness is None:
            continue
        age, steps = arm.staleness.steps, arm.train.steps
        if steps is not None and age >= steps - 1:
            yield warn(f"{name} learns for {steps} steps from samples {age} steps old: all of them are the start's")
        if uncorrected(patient.methods[name], arm.staleness.proximal):
            yield info(f"{name} learns from samples {age} steps old, and nothing in its loss knows who sampled")


def rollouts(patient: CheckContext, *, prompts: int, n: int, longest: int = 32) -> list[Group]:
    """Answers of the starting model to a few of its prompts, at the temperature of the first arm that samples."""
    lengths, online = patient.experiment.lengths, list(patient.online.values())
    temperature = (online[0].sampling.temperature if online else 1.0) or 1.0
    sampling = Sampling(temperature=temperature, max_tokens=min(longest, lengths.completion), seed=0)
    engine = open_engine(patient.experiment.engine, patient.policy, patient.renderer)
    return engine.generate(patient.prompts(prompts), n, sampling, max_prompt=lengths.prompt)


def gap(patient: CheckContext, groups: Sequence[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Per token: the trainer's log-prob minus the sampler's, and the ratio of probabilities."""
    online = list(patient.online.values())
    temperature = (online[0].sampling.temperature if online else 1.0) or 1.0
    tokens = [patient.renderer.tokenise(g, max_prompt=patient.experiment.lengths.prompt, max_completion=None) for g in groups]
    rows = read(
        patient.policy, [Example(tokens=t) for t in tokens], frozenset({Head.LOGP}), tokens_per_microbatch=4096,
        temperature=temperature, device=patient.policy.device,
    )[Head.LOGP]  # fmt: skip
    ours = np.concatenate([r.numpy() for row in rows for r in row])
    theirs = np.concatenate([np.asarray(c.behaviour_logp) for t in tokens for c in t.completions])
    return ours - theirs, np.exp(ours - theirs)


def _dead(patient: CheckContext, groups: Sequence[Group]) -> str:
    """A sentence when the rewards of most groups are all alike, for the first arm whose reward needs no trained model."""
    for name, arm in patient.online.items():
        if models_in(resolved_reward(arm.reward, patient.experiment)):
            continue
        values = [s.values for s in patient.reward(arm.reward)(groups)]
        flat = sum(len(set(v)) == 1 for v in values)
        if flat > 0.5 * len(values):
            return f"{share(flat, len(values))} groups of {name} have one reward for all answers"
    return ""
