"""Methods of labelled answers through the real stages: KTO's held-out loss, and references of a split of their own."""

from __future__ import annotations

import json
import math

import pytest
import torch

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.models.load import load_policy, load_tokenizer
from evenhand.stages import reference
from evenhand.stages.common import model_path
from evenhand.stages.reference import ReferenceSpec
from evenhand.stages.tokens import TokensSpec
from tests.stages.performed import perform, setup
from tests.stages.test_signals import EXPERIMENT, carried_out

STEPS = {"steps": 3, "prompts_per_step": 6, "learning_rate": 3e-3, "schedule": "constant", "evaluate_every": 3}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    arms = {"sft": {"method": "start"}, "kto": {"method": "kto", "beta": 0.5, "train": STEPS}}
    return carried_out({**EXPERIMENT, "reward_models": {}, "rewards": {}, "arms": arms}, tmp_path_factory.mktemp)


def sums(artifact, rows) -> list[float]:
    """log pi(answer | prompt) of id rows under an artifact's model, by plain transformers."""
    model = load_policy(model_path(artifact), dtype="float32", device="cpu").hf
    out = []
    for prompt, answer in rows:
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logp = model(input_ids=ids).logits[0, :-1].double().log_softmax(-1)
        out.append(float(logp[range(len(prompt) - 1, ids.shape[1] - 1), ids[0, 1:][len(prompt) - 1 :]].sum()))
    return out


def test_the_held_out_loss_of_kto_has_its_reference_point(done):
    """Recomputed from the two models: z0 is the mean log-ratio of held-out prompts with answers to other prompts, if positive."""
    from evenhand.data.template import Renderer
    from evenhand.stages.splits import singles

    _, folders = done
    last = [json.loads(x) for x in (folders["arms/kto/seed-0"] / "metrics.jsonl").read_text().splitlines()][-1]
    groups = [s for g in read_groups(folders["data"] / "heldout_preferences.jsonl") for s in singles(g)]
    renderer = Renderer(load_tokenizer(model_path(folders["sft"])))
    tokens = [renderer.tokenise(g, max_prompt=32, max_completion=12) for g in groups]
    prompts, answers = [t.prompt for t in tokens], [t.completions[0].ids for t in tokens]

    def ratios(rows):
        own, ref = sums(folders["arms/kto/seed-0"], rows), sums(folders["sft"], rows)
        return [a - b for a, b in zip(own, ref, strict=True)]

    matched = ratios(list(zip(prompts, answers, strict=True)))
    others = ratios(
        [(p, a) for i, p in enumerate(prompts) for j, a in enumerate(answers) if groups[i].prompt.id != groups[j].prompt.id]
    )
    assert abs(last["heldout/z0_raw"]) > 1e-3, "no mismatched rows: the clamp would hide it"
    assert last["heldout/z0_raw"] == pytest.approx(sum(others) / len(others), abs=3 * _spread(others) / math.sqrt(len(groups)))
    z0 = last["heldout/z0"]
    assert z0 == max(0.0, last["heldout/z0_raw"])
    sign = [1 if g.scores[0] > 0 else -1 for g in groups]
    loss = sum(1 / (1 + math.exp(0.5 * s * (r - z0))) for s, r in zip(sign, matched, strict=True)) / len(matched)
    assert last["heldout/loss"] == pytest.approx(loss, abs=1e-4)


def _spread(values) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))


def test_labels_of_another_split_get_the_references_of_that_split(done, tmp_path):
    """An arm of labelled answers may name its data, say revised answers: the reference is of those, not of the pairs."""
    _, folders = done
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    groups = read_groups(folders["data"] / "preferences.jsonl")
    write_groups(data / "preferences.jsonl", groups)
    write_groups(data / "mine.jsonl", groups[:3])
    for split, answers in (("mine", 6), ("preferences", 2 * len(groups))):
        spec = TokensSpec(split=split, form="binary", lengths=setup().lengths)
        rows = perform("tokens", spec, {"base": folders["sft"], "data": data}, tmp_path / split)
        perform("reference", ReferenceSpec(setup=setup()), {"start": folders["sft"], "tokens": rows}, out)
        assert len(reference.read_rows(out)) == answers
