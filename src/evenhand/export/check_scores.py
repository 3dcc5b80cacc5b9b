"""Does an exported reward model give the run's scores? Plain transformers against the run's model, answer by answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.export.check import TOKENS_PER_MICROBATCH, TOLERANCE, Checked, differs, same_rendering, sampled_answers
from evenhand.export.subject import Subject
from evenhand.types import Group, TokenGroup

Outputs = list[float]
"""What a reward model says of one answer: its score, or several."""


def check_scores(subject: Subject, renderer: Renderer, folder: Path, *, prompts: int, computes: str, device: str) -> Checked:
    """Compare an exported reward model with the run's on answers to `prompts` held-out prompts; UserError where they differ.

    Plain transformers scores every answer twice: alone, and in a padded batch, where a padding token that is also a stop token
    would move the place that is read. Differences are measured in the standard deviation of the run's training answers.
    """
    from evenhand.rewards.model import Normalisation

    groups = [g for g in sampled_answers(subject, prompts) if not ends_in_padding(g, renderer)]
    if not groups:
        raise UserError("has no answers to check with", where=str(subject.run.folder), why="every one ends in a padding token")
    same_rendering(renderer, folder, [g.prompt for g in groups])
    limits = subject.lengths
    tokens = [renderer.tokenise(g, max_prompt=limits["prompt"], max_completion=limits["completion"]) for g in groups]
    heard = listen(folder, tokens, computes, device)
    own = _run_scores(subject, renderer, tokens, device)
    scale, allowed = Normalisation.load(subject.model).scale, TOLERANCE[computes].score
    worst = float((torch.tensor(heard) - torch.tensor(own)).abs().max()) / scale  # [alone and padded, answers, outputs]
    if not worst <= allowed:  # a NaN differs too
        raise differs(f"scores differ by up to {worst:.3g} standard deviations", f"{computes} allows {allowed:g}")
    return Checked(
        lines=(
            f"scores of {len(groups)} answers, alone and padded, differ by at most {worst:.2g} standard deviations "
            f"({computes} may differ by {allowed:g})",
            "prompts render to the same ids",
        ),
        numbers={"prompts": len(groups), "max_dscore": worst, "computes": computes, "tolerance": {"score": allowed}},
    )  # fmt: skip


def ends_in_padding(group: Group, renderer: Renderer) -> bool:
    """Whether an answer was cut right behind a padding token that the policy sampled.

    Classifiers of transformers look for the last token that is not padding, so no folder could give such an answer its score.
    """
    tokens = group.completions[0].tokens
    return tokens is not None and len(tokens) > 0 and tokens[-1] == renderer.tokenizer.pad_token_id


@torch.no_grad()
def listen(folder: Path, tokens: Sequence[TokenGroup], computes: str, device: str) -> tuple[list[Outputs], list[Outputs]]:
    """Outputs by plain transformers of the exported folder: of each row alone, and of all rows padded to one length."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from evenhand.models.library_logging import quietly
    from evenhand.models.load import DTYPES, resolve_device

    rows = [[*t.prompt, *t.completions[0].ids] for t in tokens]
    with quietly():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=DTYPES[computes])
        model = model.to(resolve_device(device)).eval()
        alone = [model(torch.tensor([row], device=model.device)).logits[0].float().tolist() for row in rows]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.pad_token_id is None:
            return alone, alone
        batch = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt").to(model.device)
        padded = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float().tolist()
    return alone, padded


def _run_scores(subject: Subject, renderer: Renderer, tokens: Sequence[TokenGroup], device: str) -> list[Outputs]:
    """The same by the run's own model: its one score, or every output of a model of several."""
    from evenhand.models.load import load_reward_model
    from evenhand.rewards.model import ModelReward

    model = load_reward_model(subject.model, dtype="float32", device=device, labels=None)
    reward = ModelReward(
        model, renderer, max_prompt=None, max_completion=None, tokens_per_microbatch=TOKENS_PER_MICROBATCH,
    )  # fmt: skip
    if model.outputs == 1:
        return [[score] for (score,) in reward.by_microbatch(tokens, reward.scores)]
    return [list(row) for (row,) in reward.outputs(tokens)]
