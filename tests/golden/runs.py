"""Twenty steps of any method on the tiny network: the real loop, sources, engine and optimizer; only text and reward are toys."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch

from evenhand.engines.local import LocalEngine
from evenhand.engines.mixture import MixtureEngine
from evenhand.methods import PREFERENCES, RATED, Method
from evenhand.rewards.pointwise import pointwise
from evenhand.seeding import rng
from evenhand.stages.offline import labelled
from evenhand.train import optim
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example, with_pairs
from evenhand.train.logprobs import read
from evenhand.train.loop import Loop
from evenhand.train.moving_reference import FollowingReference
from evenhand.train.offline import FixedSource, with_reference
from evenhand.train.policies import DATA, INITIAL_POLICY, MIXTURE, PREVIOUS, TEACHER
from evenhand.train.rollouts.given import GivenAnswers
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.source import RolloutSource
from evenhand.train.weights import copy_weights
from evenhand.types import Completion, Group, Head, Need, Prompt, Sampling, TokenGroup, Tokens
from tests.battery import variants
from tests.battery.world import VOCABULARY, drawn_item, logps_of, network, rated

STEPS, MAX_TOKENS, PROMPTS_PER_STEP, MICROBATCH = 20, 6, 4, 60
CONFIG = {
    "model_type": "gpt_neox", "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
"""An architecture whose norms follow the weights' precision: llama's are float32 in a float64 model too."""
COLUMNS = ("step", "loss", "grad_norm", "reward", "kl")
SMALLER: Mapping[str, Mapping[str, object]] = {
    "batched_online_dpo": {"completions_per_prompt": 5}, "vapo": {"warmup": 2}, "pass_at_k_training": {"k": 2},
    "tr_dpo": {"every": 4}, "self_distillation": {"success": 0.3, "words": "{answer} {prompt}"},
    "exact_self_distillation": {"success": 0.3, "words": "{answer} {prompt}"},
}  # fmt: skip
"""Parameters changed for speed, or so that twenty steps show something; every other method runs at its defaults."""


class Numbers:
    """A renderer whose text is token ids: "3 1 4". Id 0 stops."""

    stop_ids = frozenset({0})

    def prompt_ids(self, prompt: Prompt, max_prompt: int | None = None) -> tuple[int, ...]:
        return tuple(map(int, prompt.text.split()))

    def decode(self, ids: tuple[int, ...]) -> str:
        return " ".join(str(i) for i in ids if i != 0)

    def tokenise(self, group: Group) -> TokenGroup:
        return TokenGroup(prompt=self.prompt_ids(group.prompt), completions=tuple(map(sampled, group.completions)), group=group)


def sampled(completion: Completion) -> Tokens:
    """A completion's own ids, all of them counted."""
    ids = completion.tokens or ()
    return Tokens(ids=ids, mask=(True,) * len(ids), behaviour_logp=completion.behaviour_logp)


def even_share(prompt: Prompt, completion: Completion) -> float:
    """Share of even ids, less a little for every token: neither constant nor a matter of length alone."""
    ids = completion.tokens or (1,)
    return sum(i % 2 == 0 for i in ids) / len(ids) - 0.02 * len(ids)


def mostly_even(prompt: Prompt, completion: Completion) -> float:
    """1 where most ids are even, else 0: for methods that count right answers."""
    return float(even_share(prompt, completion) > 0.5)


COUNTS_RIGHT = ("maxrl", "pass_at_k_training")


def own_answer(prompt: Prompt) -> Group:
    """The data's own answer to a prompt: its ids, turned round, and a stop."""
    ids = (*map(int, reversed(prompt.text.split())), 0)
    return Group(prompt=prompt, completions=(Completion(content=" ".join(map(str, ids[:-1])), tokens=ids),))


def built(name: str) -> Method:
    return variants.build(name, SMALLER.get(name, {}), steps=STEPS, max_tokens=MAX_TOKENS)


def run(name: str) -> Iterator[dict[str, float]]:
    """The metrics of each step."""
    method = built(name)
    model = network(method, config=CONFIG)
    frozen = network(replace(method, network="policy"), 7, CONFIG) if method.reference == TEACHER else copy.deepcopy(model)
    frozen.requires_grad_(False)
    if method.compares_exactly:
        model.compared_to(frozen, method.measure)
    optimizer = optim.AdamW(model, learning_rate=5e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0)
    reward = mostly_even if name in COUNTS_RIGHT else even_share
    reference = None
    if method.reference_update is not None:
        reference = frozen if method.compares_exactly else copy.deepcopy(frozen)
    made = rollouts(method, model, frozen, optimizer, reward) if method.online else fixed(method, frozen, reference)
    source = made if reference is None else FollowingReference(
        source=made, policy=model, reference=reference, update=method.reference_update
    )  # fmt: skip
    factor = optim.schedule("cosine", warmup=3, steps=STEPS)
    loop = Loop(
        model=model, objective=method.objective, source=source, optimizer=optimizer, factor=factor,
        temperature=method.logit_temperature(1.0),
    )  # fmt: skip
    for _, metrics in loop.run(0, STEPS):
        yield metrics


def fixed(method: Method, frozen: torch.nn.Module, moving: torch.nn.Module | None = None) -> FixedSource:
    """Ten hand-drawn rows, their reference log-probs those of the start, or read anew off one that moves."""
    draw = rng("golden", method.data)
    items = [
        drawn_item(draw, 3 if method.data == PREFERENCES and i % 3 == 0 else 1 + (method.data == PREFERENCES), i)
        for i in range(10)
    ]
    if method.data == PREFERENCES:
        items = [with_pairs(i) for i in items]
    if method.reference != "none":
        rows = logps_of(frozen, items, temperature=method.logit_temperature(1.0))
        items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, rows, strict=True)]
    items = [rated(i, method) for i in items] if method.data == RATED else items

    def compared(items: Sequence[Example]) -> list[Example]:
        return with_reference(items, logps_of(moving, items, temperature=method.logit_temperature(1.0)))

    return FixedSource(
        items=[labelled(i, method) for i in items],
        prompts_per_step=PROMPTS_PER_STEP,
        tokens_per_microbatch=MICROBATCH,
        seed=0,
        ledger=Ledger(),
        reference=partial(logps_of, frozen) if Need.MISMATCHED in method.objective.needs else None,
        uniform=Need.UNIFORM in method.objective.needs,
        compare=None if moving is None else compared,
    )


def rollouts(
    method: Method, model: torch.nn.Module, frozen: torch.nn.Module, optimizer: optim.AdamW, reward: Callable = even_share
) -> RolloutSource:
    """Samples of the tiny network itself for a dozen prompts, scored by a program."""
    assert method.rollouts is not None
    draw = rng("golden prompts")
    prompts = [Prompt(content=" ".join(map(str, draw.integers(1, VOCABULARY, size=draw.integers(1, 5))))) for _ in range(12)]
    temperature = method.logit_temperature(1.0)

    def own(heads: frozenset[Head], items: list[Example]) -> dict:
        return read(model, items, heads, tokens_per_microbatch=MICROBATCH, temperature=temperature, device="cpu")

    previous = copy.deepcopy(frozen) if method.rollouts.exploration.partner == PREVIOUS else None

    author = {PREVIOUS: previous, INITIAL_POLICY: frozen}.get(method.rollouts.exploration.partner)
    explored = method.rollouts.exploration
    answers = {p.id: own_answer(p) for p in prompts} if explored.given or explored.partner == DATA else {}
    beside = {
        MIXTURE: lambda: MixtureEngine(model, frozen, Numbers(), share=explored.mixture),
        DATA: lambda: GivenAnswers(answers),
    }.get(explored.partner, lambda: None if author is None else LocalEngine(author, Numbers()))()

    def collected(rollout: int) -> None:
        """As the stage does it: the last round's policy catches up, and the policy starts anew where the method says so."""
        if previous is not None:
            copy_weights(model, previous)
        if method.rollouts.schedule.initialise == INITIAL_POLICY:
            copy_weights(frozen, model)
            optimizer.restart()

    return RolloutSource(
        method=method,
        prompts=prompts,
        sampler=Sampler(
            engine=LocalEngine(model, Numbers()),
            sampling=Sampling(max_tokens=MAX_TOKENS),
            partner=beside,
        ),
        reward=pointwise(reward) if method.rewarded else None,
        answers=answers,
        reader=Reader(
            tokenise=Numbers().tokenise,
            read=own,
            reference=partial(logps_of, frozen) if method.reference in (INITIAL_POLICY, TEACHER) else None,
            prompt_ids=lambda prompt: Numbers().prompt_ids(prompt),
        ),
        prompts_per_step=PROMPTS_PER_STEP,
        tokens_per_microbatch=MICROBATCH,
        seed=0,
        ledger=Ledger(),
        collected=collected,
        carried={} if previous is None else {"previous": previous},
    )


def table(rows: list[dict[str, float]]) -> str:
    """Metrics as columns of text; those of COLUMNS that the method has."""
    shown = [c for c in COLUMNS if c in rows[0]]
    lines = [" ".join(f"{c:>16}" for c in shown)]
    lines += [" ".join(f"{r[c]:>16d}" if c == "step" else f"{r[c]:>16.8e}" for c in shown) for r in rows]
    return "\n".join(lines) + "\n"


def parsed(text: str) -> dict[str, list[float]]:
    """The inverse of `table`: a list of numbers per column."""
    head, *rows = (line.split() for line in text.splitlines())
    return {name: [float(row[n]) for row in rows] for n, name in enumerate(head)}
