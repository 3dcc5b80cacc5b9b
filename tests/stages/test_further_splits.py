"""Further splits: other writers, other annotators and other sources as arms, without touching what does not name them."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from evenhand.data.config import DataConfig, Split
from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.spec.read import read_experiment
from evenhand.stages import further_split
from evenhand.stages.further_split import FurtherSplitSpec
from evenhand.stages.splits import read_split

GIVEN: dict[str, Any] = {
    "name": "t",
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "train": {"steps": 2, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}},
}
PAIRS = Split(rows="preferences", count=40)


def made(split: Split, **data: Any) -> FurtherSplitSpec:
    return FurtherSplitSpec(name="own", split=split, data=DataConfig(world="quickstart", **data), world_version=1)


def keys(extra: dict[str, Any]) -> dict[str, str]:
    return {node.name: node.key for node in build(read_experiment({**GIVEN, **extra}).value).nodes}


def test_another_annotator_labels_the_same_pairs() -> None:
    usual, _, _ = further_split.rows(made(PAIRS), 0)
    biased, _, _ = further_split.rows(made(replace(PAIRS, annotator={"bias_per_word": 10.0})), 0)
    assert [g.completions for g in usual] == [g.completions for g in biased]
    words = [[len(c.text.split()) for c in g.completions] for g in biased]
    assert all(g.scores[n.index(max(n))] == 1.0 for g, n in zip(biased, words, strict=True) if n[0] != n[1])


def test_the_annotator_of_the_data_is_changed_and_not_replaced() -> None:
    both, _, _ = further_split.rows(made(replace(PAIRS, annotator={"flip": 0.4}), annotator={"bias_per_word": 10.0}), 0)
    flipped, _, _ = further_split.rows(made(replace(PAIRS, annotator={"flip": 0.4, "bias_per_word": 10.0})), 0)
    assert both == flipped


def test_another_writer_answers_the_same_requests() -> None:
    middling, _, _ = further_split.rows(made(Split(rows="demonstrations", count=60)), 0)
    good, held, _ = further_split.rows(made(Split(rows="demonstrations", count=60, options={"skill": [1.0, 1.0]})), 0)
    assert [g.prompt for g in middling] == [g.prompt for g in good]
    assert all(g.prompt.meta["name"] in g.completions[0].text for g in good)
    assert len(held) == 6
    assert not {g.prompt.id for g in held} & {g.prompt.id for g in good}


def test_rows_of_a_file_lose_the_prompts_that_every_split_holds_out(tmp_path) -> None:
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(200)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = FurtherSplitSpec(name="own", split=Split(source=str(file)), data=DataConfig(holdout=0.25))
    (tmp_path / "out").mkdir()
    further_split.run(spec, SimpleNamespace(out=tmp_path / "out", seed=0))
    inputs = {"data": tmp_path, "splits/own": tmp_path / "out"}
    kept, held = ({g.prompt.text for g in read_split(inputs, name)} for name in ("own", "heldout_own"))
    assert kept | held == {row["prompt"] for row in rows}
    assert not kept & held
    assert 30 < len(held) < 70


def test_a_further_split_changes_only_what_names_it() -> None:
    before = keys({})
    arms = {**GIVEN["arms"], "other": {"method": "dpo", "data": "noisy"}}
    splits = {"noisy": {"rows": "preferences", "count": 20, "annotator": {"flip": 0.2}}}
    after = keys({"arms": arms, "splits": splits})
    assert {name: after[name] for name in before} == before
    assert after["arms/other/seed-0"] != after["arms/dpo/seed-0"]
    noisier = keys({"arms": arms, "splits": {"noisy": {**splits["noisy"], "annotator": {"flip": 0.3}}}})
    changed = {name for name in after if after[name] != noisier[name]}
    assert "arms/other/seed-0" in changed
    assert "arms/dpo/seed-0" not in changed


@pytest.mark.parametrize(
    ("splits", "what"),
    [
        ({"own": {"count": 5}}, "splits.own: name either `source` or `rows`"),
        ({"prompts": {"rows": "prompts"}}, "splits.prompts: 'prompts' is a split already"),
        (
            {"own": {"rows": "preferences", "annotator": {"flip": 0.7}}},
            "splits.own.annotator.flip: the annotator's flip rate is 0.7",
        ),
        ({"own": {"rows": "preferences", "annotator": {"bias": 1.0}}}, "unknown key 'bias'"),
        ({"own": {"rows": "demonstrations", "options": {"skil": [1, 1]}}}, "splits.own.options: unknown option 'skil'"),
        ({"own": {"source": "a.jsonl", "options": {"skill": [1, 1]}}}, "splits.own.options: `options` are a built-in world's"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(splits: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError) as caught:
        read_experiment({**GIVEN, "splits": splits})
    assert what in str(caught.value)


def test_the_shape_of_a_worlds_model_is_its_own_but_for_what_is_named() -> None:
    shaped = read_experiment({**GIVEN, "model": {"pretrain": {"shape": {"hidden_size": 64}, "train": {"steps": 1}}}}).value
    assert shaped.network()["hidden_size"] == 64
    assert shaped.network()["num_hidden_layers"] == 4
    plain = {node.name: node.key for node in build(read_experiment(GIVEN).value).nodes}
    assert plain["base"] != {node.name: node.key for node in build(shaped).nodes}["base"]
