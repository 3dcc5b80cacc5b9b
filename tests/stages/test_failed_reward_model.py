"""A reward model that fails costs its own column: the verdicts, the samples and the other models' scores are all there."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evenhand import worlds
from evenhand.models.load import new_policy, save
from evenhand.report.exports import results_rows
from evenhand.report.figures import csv_text
from evenhand.report.summary import summarise
from evenhand.report.terminal import VerdictTable
from evenhand.results.files import load
from evenhand.run_experiment import execute, prepare

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}


def experiment(broken: Path) -> dict[str, Any]:
    return {
        "name": "one lost", "seeds": [0, 1],
        "data": {
            "world": "quickstart",
            "sizes": {"demonstrations": 12, "preferences": 12, "heldout_preferences": 8, "heldout_prompts": 6},
        },
        "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
        "sft": {"train": {"steps": 1}},
        "lengths": {"prompt": 32, "completion": 8},
        "reward_models": {"broken": {"path": str(broken)}, "rm": {"train": {"steps": 1}}},
        "train": {"steps": 1, "prompts_per_step": 2, "sample_every": 1},
        "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}},
        "judge": {"reward": {"kind": "length", "unit": "chars"}, "self_test": 0},
        "evaluation": {"prompts": 4, "best_of_n": 3, "frontier": True},
        "runtime": {"device": "cpu"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("lost")
    tokenizer = worlds.get("quickstart").tokenizer()
    shape = {**worlds.get("quickstart").model_config(), **TINY}
    save(new_policy(shape, tokenizer, seed=0, device="cpu"), tokenizer, folder / "policy")  # which has no score for an answer
    config = folder / "policy" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_labels": 1}))
    outcome, _ = execute(prepare(experiment(folder / "policy"), out=folder / "run"), workers=0)
    return folder / "run", outcome


def test_every_verdict_is_there_and_the_lost_column_says_so(run: tuple[Path, Any]) -> None:
    out, outcome = run
    assert not outcome.ok
    assert {name.split("/")[0] for name in outcome.errors} == {"reward_models", "scores", "samples", "frontier"}
    assert all("broken" in name for name in outcome.errors)
    found = load(out)
    assert found.excluded == ()
    assert {arm: r.seeds for arm, r in found.arms.items()} == {"sft": (0, 1), "dpo": (0, 1)}
    assert found.arms["dpo"].win_rate is not None
    for arm in ("sft", "dpo"):
        assert found.arms[arm].proxies["broken"] is None
        assert found.arms[arm].proxies["rm"] is not None
    assert [(u.reward_model, u.arms, u.seeds, u.kept) for u in found.unscored] == [("broken", ("sft", "dpo"), (0, 1), ())]
    assert found.best_of_n.keys() == {"rm", "the judge itself", "length"}
    assert found.frontier["dpo"]


def test_the_page_the_terminal_and_the_csv_say_it_in_words(run: tuple[Path, Any]) -> None:
    from evenhand.report import write

    found = load(run[0])
    said = "broken scored no answer of sft and dpo: its column is empty there. No verdict needs it"
    page = Path(write(run[0])).read_text()
    assert said in page
    assert page.count("not scored") == 2
    shown = io.StringIO()
    Console(width=200, file=shown).print(VerdictTable(found))
    assert said in " ".join(shown.getvalue().split())
    rows = list(csv.DictReader(io.StringIO(csv_text(*results_rows(summarise(found))))))
    assert [row["by_broken"] for row in rows] == ["not scored", "not scored"]
    for row in rows:
        assert float(row["by_rm"]) == pytest.approx(found.arms[row["arm"]].proxies["rm"], rel=1e-5)
