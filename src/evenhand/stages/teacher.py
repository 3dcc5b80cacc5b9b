"""The teacher of an arm: opened beside the policy, and refused where its tokens are not the policy's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models.load import load_tokenizer
from evenhand.models.policy import Policy
from evenhand.stages.common import open_policy
from evenhand.stages.setup import Compute
from evenhand.store.pointer import model_path
from evenhand.train.cost_accounting import Ledger
from evenhand.train.policies import TEACHER

FIX = "use a teacher of the policy's own family, or learn from its answers as demonstrations: `evenhand generate`, then `sft`"


def open_teacher(
    inputs: Mapping[str, Path], renderer: Renderer, compute: Compute, device: str, ledger: Ledger | None = None
) -> Policy:
    """The teacher, frozen. Raises: UserError where it has another tokenizer than the policy."""
    check_tokenizer(inputs[TEACHER], renderer)
    return open_policy(inputs[TEACHER], compute, device, ledger).requires_grad_(False)


def check_tokenizer(teacher: Path, renderer: Renderer) -> None:
    """Every token must be the same id in both: log-probs of one model's ids mean nothing to another's vocabulary."""
    own, other = renderer.tokenizer.get_vocab(), load_tokenizer(model_path(teacher)).get_vocab()
    if own == other:
        return
    differ = next((t for t in own if other.get(t) != own[t]), None) or next(t for t in other if t not in own)
    here, there = own.get(differ, "none"), other.get(differ, "none")
    raise UserError(
        f"its tokenizer is not the policy's: {differ!r} is token {here} of the policy and {there} of the teacher",
        where=f"teacher {model_path(teacher)}", why="a teacher says how likely each of the policy's own tokens is", fix=FIX,
    )  # fmt: skip


def check_vocabulary(teacher: Policy, policy: Policy) -> None:
    """Whole distributions are compared token by token, padding of the heads included."""
    sizes = [p.hf.config.get_text_config().vocab_size for p in (policy, teacher)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"its head has {sizes[1]} tokens, the policy's {sizes[0]}", where="teacher",
            why="their distributions are compared over the whole vocabulary, and one has tokens that the other lacks",
            fix="use `on_policy_distillation`, which asks for the sampled tokens alone",
        )  # fmt: skip
