"""A split is tokenised once: what is written is read again token for token, and every stage that reads it reads the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand import worlds
from evenhand.data.template import Renderer
from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from evenhand.stages import tokens
from evenhand.stages.common import tokenised
from evenhand.types import Completion, Finish, Group, Prompt, TokenGroup, Tokens

EXPERIMENT = {
    "name": "t", "model": {"pretrain": {"train": {"steps": 1}}}, "data": {"world": "quickstart"},
    "sft": {"train": {"steps": 1}}, "judge": {"reward": "vader"},
    "seeds": [0, 1], "annotate": {"reward": "vader"}, "train": {"steps": 2},
    "reward_models": {"rm": {"train": {"steps": 2}}},
    "arms": {
        "dpo": {"method": "dpo"}, "ipo": {"method": "ipo"}, "orpo": {"method": "orpo"}, "kto": {"method": "kto"},
        "more": {"method": "sft"}, "rloo": {"method": "rloo", "reward": "rm"},
    },
}  # fmt: skip


def ids_of(ids: tuple[int, ...], mask: tuple[bool, ...], *, truncated: bool = False, logp: tuple[float, ...] | None = None):
    return Tokens(ids=ids, mask=mask, truncated=truncated, behaviour_logp=logp)


def test_rows_come_back_token_for_token(tmp_path: Path) -> None:
    data = Group(prompt=Prompt(content="ab"), completions=(Completion(content="c"), Completion(content="d e")), scores=(1.0, 0.0))
    sampled = Completion(content="f", tokens=(7, 8, 2), behaviour_logp=(-0.5, -1.25, -0.125), finish=Finish.STOP)
    rows = [
        TokenGroup(prompt=(5,), completions=(ids_of((6, 2), (True, True)), ids_of((9,), (False,), truncated=True)), group=data),
        TokenGroup(
            prompt=(1, 1, 3),
            completions=(ids_of((7, 8), (True, True), truncated=True, logp=(-0.5, -1.25)),),
            group=Group(prompt=Prompt(content="g"), completions=(sampled,), scores=(0.25,)),
        ),
    ]
    tokens.write(tmp_path, rows)
    assert [item.tokens for item in tokens.read(tmp_path)] == rows


def test_ids_of_another_tokenizer_are_given_up_for_their_text() -> None:
    """Answers that one model sampled, labelled by people, are pairs for any other."""
    renderer = Renderer(worlds.get("quickstart").tokenizer())
    own = (*renderer.tokenizer("The rain.")["input_ids"], renderer.tokenizer.eos_token_id)
    text = renderer.decode(own)
    said = [
        Completion(content=text, tokens=ids, behaviour_logp=(-1.0,) * len(ids), finish=Finish.STOP)
        for ids in (own, tuple(reversed(own[:-1])) + own[-1:], (10_000_000,))
    ]
    assert renderer.decode(said[1].tokens or ()) != text
    for completion, kept in zip(said, (True, False, False), strict=True):
        group = Group(prompt=Prompt(content="Write."), completions=(completion,))
        (row,) = tokenised([group], renderer, None)
        assert row.completions[0].ids == own
        assert (row.completions[0].behaviour_logp is not None) == kept


@pytest.fixture(scope="module")
def plan():
    return build(read_experiment(EXPERIMENT).value)


def test_a_split_is_tokenised_once_for_reference_arms_and_seeds(plan) -> None:
    read = {a: plan[plan.arms[a][s]].inputs for a in ("dpo", "ipo", "orpo") for s in (0, 1)}
    (split,) = {inputs["tokens"] for inputs in read.values()} | {plan[read["dpo"]["reference"]].inputs["tokens"]}
    assert split == "tokens/preferences"
    assert sorted(n.name for n in plan.nodes if n.kind == "tokens") == [
        "tokens/corpus", "tokens/demonstrations", "tokens/preferences", "tokens/preferences/binary",
    ]  # fmt: skip


def test_demonstrations_do_not_wait_for_pairs_that_are_made_here(plan) -> None:
    assert "preferences" not in plan["tokens/demonstrations"].inputs
    assert plan["tokens/preferences"].inputs["preferences"] == "preferences"
    assert "tokens" not in plan[plan.arms["rloo"][0]].inputs, "answers that are sampled have their tokens"
