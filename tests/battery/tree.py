"""An enumerable world for the real objectives, sources and loop: a table instead of a transformer, a tree instead of text."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from evenhand.core import kl
from evenhand.methods import PREFERENCES, Method
from evenhand.seeding import rng
from evenhand.stages.offline import labelled
from evenhand.train import optim
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, with_pairs
from evenhand.train.logprobs import read
from evenhand.train.loop import Loop
from evenhand.train.offline import FixedSource
from evenhand.train.policies import INITIAL_POLICY, NONE, PREVIOUS, TEACHER
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.source import RolloutSource
from evenhand.train.weights import copy_weights
from evenhand.types import (
    Batch,
    Completion,
    Finish,
    Group,
    Head,
    ModelOut,
    Need,
    Prompt,
    Sampling,
    Scores,
    TokenGroup,
    Tokens,
)  # fmt: skip

Answer = tuple[int, ...]
OUTPUTS = 6
"""Numbers that a table has for every answer beside its score; small and apart, since a product of zeros has no gradient."""


class Table(nn.Module):
    """A policy over the answers of one prompt: a logit per branch of their prefix tree, a value per node, a score per answer.

    It reads the batch as a network would: token ids at the layout's spans. Every distribution over the answers is reachable.
    """

    def __init__(self, answers: Sequence[Answer], logits: Tensor | None = None) -> None:
        super().__init__()
        self.answers = tuple(answers)
        prefixes = {a[:n] for a in answers for n in range(len(a))}
        self.nodes = {p: n for n, p in enumerate(sorted(prefixes))}
        branches = sorted({a[: n + 1] for a in answers for n in range(len(a))})
        self.branches = {b: n for n, b in enumerate(branches)}
        member = torch.zeros(len(self.nodes), len(branches), dtype=torch.bool)
        for branch, n in self.branches.items():
            member[self.nodes[branch[:-1]], n] = True
        self.member = member
        self.logits = nn.Parameter(torch.zeros(len(branches), dtype=torch.float64) if logits is None else logits.clone())
        self.value = nn.Parameter(torch.zeros(len(self.nodes), dtype=torch.float64))
        self.score = nn.Parameter(torch.zeros(len(answers), dtype=torch.float64))
        apart = torch.arange(len(answers) * OUTPUTS, dtype=torch.float64).sin().reshape(len(answers), OUTPUTS)
        self.scores = nn.Parameter(apart / 10)
        self.frozen: tuple[Table, ...] = ()
        self.measure = kl.exact
        self.known: tuple[object, tuple[Tensor, Tensor]] = None, (torch.empty(0), torch.empty(0))

    def node_kl(self) -> Tensor:
        """KL to the frozen table of the branches at every node (nats), or another measure, by listing them."""
        own, ref = (torch.where(t.member, t.logits, -torch.inf).log_softmax(-1) for t in (self, self.frozen[0]))
        return self.measure(own, ref.detach())

    def node_reference_kl(self) -> Tensor:
        """KL of the frozen table's branches to this one's at every node."""
        own, ref = self.branch_logp()[0], self.frozen[0].branch_logp()[0].detach()
        return torch.where(self.member, ref.exp() * (ref - own), 0.0).sum(-1)

    def node_reference_entropy(self) -> Tensor:
        """The frozen table's entropy at every node, as a share of that of all branches."""
        return self.frozen[0].branch_logp()[1].detach() / math.log(len(self.branches))

    def node_collision(self) -> Tensor:
        own = self.branch_logp()[0].detach()
        return torch.where(self.member, (2 * own).exp(), 0.0).sum(-1).log()

    def branch_logp(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """log-prob of every branch, and entropy of every node (nats)."""
        table = torch.where(self.member, self.logits / temperature, -torch.inf).log_softmax(-1)
        entropy = -(table.exp() * torch.where(self.member, table, 0.0)).sum(-1)
        return table[self.member.int().argmax(0), torch.arange(table.shape[1])], entropy

    def distribution(self, temperature: float = 1.0) -> Tensor:
        """log-prob of every answer, in their order."""
        logp, _ = self.branch_logp(temperature)
        return torch.stack([sum(logp[self.branches[a[: n + 1]]] for n in range(len(a))) for a in self.answers])

    def places(self, texts: tuple[Answer, ...], width: int) -> tuple[Tensor, Tensor]:
        """The branch and the node of every token, [answers, width]; kept for the next step, which may have the same rows."""
        if self.known[0] != (texts, width):
            branch = [[self.branches[a[: n + 1]] if n < len(a) else 0 for n in range(width)] for a in texts]
            node = [[self.nodes[a[:n]] if n < len(a) else 0 for n in range(width)] for a in texts]
            self.known = (texts, width), (torch.tensor(branch), torch.tensor(node))
        return self.known[1]

    def forward(self, batch: Batch, reads: frozenset[Head], *, temperature: float = 1.0) -> ModelOut:
        ids = batch.ids.tolist()
        texts = tuple(tuple(ids[s.start : s.stop]) for s in batch.layout.completions)
        branch, node = self.places(texts, batch.completion_mask.shape[1])
        logp, entropy = self.branch_logp(temperature)

        def laid(source: Tensor, index: Tensor) -> Tensor:
            return torch.where(batch.completion_mask, source[index], 0.0)

        return ModelOut(
            logp=laid(logp, branch),
            entropy=laid(entropy, node) if Head.ENTROPY in reads else None,
            value=laid(self.value, node) if Head.VALUE in reads else None,
            kl=laid(self.node_kl(), node) if Head.KL in reads else None,
            reference_kl=laid(self.node_reference_kl(), node) if Head.REFERENCE_KL in reads else None,
            reference_entropy=laid(self.node_reference_entropy(), node) if Head.REFERENCE_ENTROPY in reads else None,
            collision=laid(self.node_collision(), node) if Head.COLLISION in reads else None,
            score=self.score[[self.answers.index(a) for a in texts]] if Head.SCORE in reads else None,
            scores=self.scores[[self.answers.index(a) for a in texts]] if Head.SCORES in reads else None,
        )


class TableEngine:
    """Samples whole answers of a table. Draws are systematic: n evenly spaced quantiles with one random offset, shuffled.

    Every answer comes with its exact probability and next to no variance, so that few samples show where a method goes.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], n: int, sampling: Sampling | Sequence[Sampling], *, max_prompt: int | None = None
    ) -> list[Group]:
        each = [sampling] * n if isinstance(sampling, Sampling) else list(sampling)
        choices = {temperature: self._choices(temperature) for temperature in {s.temperature for s in each}}
        groups = []
        for place, prompt in enumerate(prompts):
            draw = rng(each[0].seed, prompt.id, place)
            levels = draw.permutation((np.arange(n) + draw.random()) / n).tolist()
            picked = tuple(_at(u, *choices[s.temperature]) for u, s in zip(levels, each, strict=True))
            groups.append(Group(prompt=prompt, completions=picked))
        return groups

    def _choices(self, temperature: float) -> tuple[list[float], list[Completion]]:
        """Upper edges of the answers' shares of [0, 1], and the answers as completions."""
        temperature = temperature or 1e-9  # greedy
        logp = self.table.branch_logp(temperature)[0].tolist()
        rows = [tuple(logp[self.table.branches[a[: n + 1]]] for n in range(len(a))) for a in self.table.answers]
        done = zip(self.table.answers, rows, strict=True)
        answers = [Completion(content=str(a), tokens=a, behaviour_logp=row, finish=Finish.STOP) for a, row in done]
        return self.table.distribution(temperature).exp().cumsum(0).tolist(), answers


def _at(level: float, edges: Sequence[float], answers: Sequence[Completion]) -> Completion:
    return answers[min(bisect(edges, level), len(answers) - 1)]


def group_of(answers: Sequence[Answer], scores: Sequence[float], prompt: str = "?") -> Group:
    """A scored group of given answers."""
    completions = tuple(Completion(content=str(a), tokens=a) for a in answers)
    return Group(prompt=Prompt(content=prompt), completions=completions, scores=tuple(scores))


def tokenise(group: Group) -> TokenGroup:
    tokens = [Tokens(ids=c.tokens, mask=(True,) * len(c.tokens), behaviour_logp=c.behaviour_logp) for c in group.completions]
    return TokenGroup(prompt=(0,), completions=tuple(tokens), group=group)


def logps(table: Table, items: Sequence[Example]) -> list:
    return read(table, items, frozenset({Head.LOGP}), tokens_per_microbatch=10_000, temperature=1.0, device="cpu")[Head.LOGP]


def train(table: Table, method: Method, source, *, steps: int, rate: float) -> Table:
    """The real loop; the rate falls linearly to zero, so that what is left is the method's fixed point."""
    optimizer = optim.AdamW(table, learning_rate=rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    loop = Loop(
        model=table, objective=method.objective, source=source, optimizer=optimizer, clip=0.0,
        factor=optim.schedule("linear", warmup=0, steps=steps), temperature=method.logit_temperature(1.0),
    )  # fmt: skip
    for _ in loop.run(0, steps):
        pass
    return table


def fit_fixed(method: Method, groups: Sequence[Group], start: Table, *, steps: int = 400, rate: float = 0.1) -> Table:
    """Train on fixed groups, all of them in every step; the reference is the start."""
    frozen = Table(start.answers, start.logits.detach())
    items = [Example(tokens=tokenise(g)) for g in groups]
    items = [with_pairs(i) for i in items] if method.data == PREFERENCES else items
    items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, logps(frozen, items), strict=True)]
    source = FixedSource(
        items=[labelled(i, method) for i in items], prompts_per_step=len(items), tokens_per_microbatch=100_000, seed=0,
        ledger=Ledger(),
        reference=partial(logps, frozen) if Need.MISMATCHED in method.objective.needs else None,
        uniform=Need.UNIFORM in method.objective.needs,
    )  # fmt: skip
    table = Table(start.answers, start.logits.detach())
    table.frozen = (frozen,) if method.compares_exactly else ()
    fixed = source if Need.UNIFORM in method.objective.needs else _Repeated(source)
    return train(table, method, fixed, steps=steps, rate=rate)


class _Repeated:
    """The first step of a source whose steps are all alike, made once."""

    def __init__(self, source: FixedSource) -> None:
        self.first = source.step(0)

    def step(self, index: int):
        return self.first


def fit_online(
    method: Method, reward: dict[Answer, float], start: Table, *, prompts: int = 2, steps: int = 150, rate: float = 0.1,
    teacher: Table | None = None, answers: Sequence[Answer] = (),
) -> Table:  # fmt: skip
    """Train on rollouts of the table; every prompt is the same one, under different names so that draws differ. `answers` are the
    data's own, of one prompt after the other."""
    frozen, table = teacher or Table(start.answers, start.logits.detach()), Table(start.answers, start.logits.detach())
    score = lambda groups: [Scores(tuple(reward[c.tokens] for c in g.completions)) for g in groups]  # noqa: E731
    table.frozen = (frozen,) if method.compares_exactly else ()  # in a tuple: no submodule, and so not trained
    table.measure = method.measure
    own = lambda heads, items: read(table, items, heads, tokens_per_microbatch=10_000, temperature=1.0, device="cpu")  # noqa: E731
    partner, other = method.rollouts.exploration.partner, Table(start.answers, start.logits.detach())
    reference = partial(logps, frozen) if method.reference in (INITIAL_POLICY, TEACHER) else None
    asked = [Prompt(content=str(n)) for n in range(prompts)]
    known = {p.id: group_of([answers[n % len(answers)]], (0.0,), p.text) for n, p in enumerate(asked) if answers}
    source = RolloutSource(
        method=method, prompts=asked, reward=score if method.rewarded else None, answers=known,
        sampler=Sampler(
            engine=TableEngine(table), sampling=Sampling(), partner=None if partner == NONE else TableEngine(other)
        ),
        reader=Reader(tokenise=tokenise, read=own, reference=reference), prompts_per_step=prompts, tokens_per_microbatch=10_000,
        seed=0, ledger=Ledger(), collected=lambda _: copy_weights(table, other) if partner == PREVIOUS else None,
    )  # fmt: skip
    return train(table, method, source, steps=steps, rate=rate)
