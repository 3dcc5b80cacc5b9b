"""What a loss of pairs shows of itself: which answer it sees ahead, and by how much."""

from __future__ import annotations

import pytest
import torch

from evenhand.objectives import Pairwise, SteeredPairs
from evenhand.train.examples import Example, assemble
from evenhand.types import Completion, Group, ModelOut, Prompt, TokenGroup, Tokens


def told(objective) -> dict[str, float]:
    """Four tokens of log-prob -1/2 (reference -1/4) against one of -1 (reference -3)."""
    group = Group(prompt=Prompt(content="?"), completions=(Completion(content="a"), Completion(content="b")), scores=(1.0, 0.0))
    tokens = tuple(Tokens(ids=(3,) * n, mask=(True,) * n) for n in (4, 1))
    reference = (torch.full((4,), -0.25), torch.tensor([-3.0]))
    item = Example(
        tokens=TokenGroup(prompt=(1,), completions=tokens, group=group), per_token={"ref_logp": reference}, pairs=((0, 1),),
        margin=(1.0,), pair_weight=(1.0,),
    )  # fmt: skip
    out = ModelOut(logp=torch.tensor([[-0.5] * 4, [-1.0, 0.0, 0.0, 0.0]]))
    batch = assemble([item])
    if isinstance(objective, SteeredPairs):
        (batch,) = objective.prepare([batch], [out])
    return {name: float(w.total / w.count) for name, w in objective(out, batch).metrics.items()}


@pytest.mark.parametrize(
    ("objective", "margin"),
    [
        (Pairwise(loss="dpo"), -1.0 - 2.0),
        (Pairwise(loss="dpo_norm"), -0.25 - 2.0),
        (Pairwise(loss="local"), -2.0 + 1.0),
        (Pairwise(loss="simpo", parameters={"beta": 2.0, "margin": 0.5}), -0.5 + 1.0),
        (SteeredPairs(loss="simpo", rule="margin_by_advance", parameters={"beta": 2.0},
                      rule_parameters={"margin": 1.0, "alpha": 0.2, "decay": 0.9}), -0.5 + 1.0),
    ],
)  # fmt: skip
def test_the_margin_is_the_one_that_the_loss_sees(objective, margin):
    """Of a loss per token the longer answer may be ahead that is behind as a whole."""
    found = told(objective)
    assert found["margin"] == pytest.approx(margin)
    assert found["accuracy"] == float(margin > 0)
    assert (found["chosen_logp"], found["rejected_logp"]) == (-2.0, -1.0)
