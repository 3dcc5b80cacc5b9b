"""Several evaluations of one run: other prompts, other judges, one correction over all; nothing is trained again for them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.evaluation.benchmarks import questions_of
from evenhand.evaluation.conversations import as_judged
from evenhand.plan.plan import build
from evenhand.results.files import load
from evenhand.run_experiment import execute, prepare
from evenhand.spec.read import read_experiment
from evenhand.stages.harness import items
from evenhand.stats.family import judged
from evenhand.stats.twoway import paired_difference
from tests.stages.performed import perform
from tests.stages.test_over_training import GIVEN

LENGTH = {"reward": {"kind": "length", "unit": "chars"}, "self_test": 0}
QUESTIONS = [
    {"question_id": 81, "turns": ["One?", "Two?"], "category": "writing"},
    {"question_id": 82, "turns": ["Three?", "Four?"], "category": "maths", "reference": ["3", "4"]},
    {"question_id": 83, "turns": ["Alone?"], "category": "maths"},
]


def given(folder: Path) -> dict[str, Any]:
    (folder / "ask.jsonl").write_text("".join(json.dumps({"prompt": f"ask {i}"}) + "\n" for i in range(7)))
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    arms = {"sft": {"method": "start"}, "dpo": {"method": "dpo"}, "ipo": {"method": "ipo"}}
    evaluations = {
        "asked": {"prompts": str(folder / "ask.jsonl"), "judge": LENGTH},
        "sums": {"world": "arithmetic", "count": 6, "completion": 4},
        "talk": {"benchmark": "mt_bench", "prompts": str(folder / "question.jsonl"), "judge": LENGTH, "completion": 4},
    }
    return {**GIVEN, "arms": arms, "evaluation": {"prompts": 6, "frontier": False}, "evaluations": evaluations}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("more")
    outcome, found = execute(prepare(given(out), out=out / "run"), workers=0)
    assert outcome.ok, outcome.errors
    assert found is not None
    return out


def test_arms_by_evaluations_under_one_correction(out: Path) -> None:
    found = load(out / "run")
    assert {n: (e.measure, e.judge, e.n_prompts) for n, e in found.evaluations.items()} == {
        "asked": ("win rate", "length", 7), "sums": ("win rate", "gold", 6), "talk": ("win rate", "length", 3),
    }  # fmt: skip
    assert {e.contrasts for e in found.evaluations.values()} == {8}
    assert {c.contrasts for c in found.contrasts if "sft" in (c.a, c.b)} == {8}
    prepared = prepare(given(out), out=out / "run")

    def read(node: str) -> list[float]:
        """The outcomes by question, a question of two turns by their mean."""
        found = json.loads((prepared.store.path(prepared.plan[node].key) / "verdicts.json").read_text())
        if "cluster" not in found:
            return found["outcome"]
        assert found["prompt_id"] == ["81:1", "81:2", "82:1", "82:2", "83:1"]
        a, b, c, d, e = found["outcome"]
        return [(a + b) / 2, (c + d) / 2, e]

    places = [prepared.plan.verdicts, *(e.verdicts for e in prepared.plan.evaluations.values())]
    rows = [(arm, paired_difference([read(v[arm][0])], [read(v["sft"][0])])) for v in places for arm in ("dpo", "ipo")]
    together = judged([d for _, d in rows], ["all"] * 8)
    mine = [found.evaluations[name].arms[arm] for name in ("asked", "sums", "talk") for arm in ("dpo", "ipo")]
    assert [m.p_holm for m in mine] == pytest.approx([j.p_holm for j in together[2:]])
    assert [m.verdict for m in mine] == [j.verdict for j in together[2:]]
    assert found.evaluations["asked"].arms["sft"].verdict == "baseline"


def test_the_second_turn_is_asked_behind_the_arms_own_first_answer_and_judged_with_it(out: Path) -> None:
    prepared = prepare(given(out), out=out / "run")
    planned = prepared.plan.evaluations["talk"]
    groups = read_groups(prepared.store.path(prepared.plan[planned.generations["dpo"][0]].key) / "generations.jsonl")
    first, second = groups[:2]
    assert [(m.role, m.text) for m in second.prompt.content] == [
        ("user", "One?"), ("assistant", first.completions[0].text), ("user", "Two?"),
    ]  # fmt: skip
    assert all(1 <= len(g.completions[0].tokens) <= 4 for g in groups)
    judged_so = as_judged(groups)[1]
    assert judged_so.prompt.text == "[turn 1]\nOne?\n\n[turn 2]\nTwo?"
    assert judged_so.completions[0].text.startswith(f"[turn 1]\n{first.completions[0].text}")
    assert as_judged(groups)[3].prompt.meta["reference"] == "[turn 1]\n3\n\n[turn 2]\n4"


def test_a_benchmark_of_a_plugin_asks_the_arms(tmp_path: Path) -> None:
    (tmp_path / "haiku.jsonl").write_text('{"season": "spring"}\n{"season": "winter"}\n')
    (tmp_path / "mine.py").write_text(
        "from evenhand.evaluation.benchmarks import asked\n"
        "from evenhand.types import Prompt\n\n\n"
        "@asked('a haiku')\n"
        "def questions(rows):\n"
        "    return [Prompt(content=f\"A haiku on {row['season']}.\", meta=row) for _, row in rows]\n"
    )
    evaluations = {"haiku": {"benchmark": "a haiku", "prompts": str(tmp_path / "haiku.jsonl"), "judge": LENGTH}}
    prepared = prepare({**GIVEN, "plugins": [str(tmp_path / "mine.py")], "evaluations": evaluations}, out=tmp_path / "run")
    node = prepared.plan["evaluations/haiku/prompts"]
    assert (node.kind, node.spec.benchmark, node.spec.count) == ("questions", "a haiku", 200)
    out = perform("questions", node.spec, {}, tmp_path / "asked")
    assert [g.prompt.content for g in read_groups(out / "heldout_prompts.jsonl")] == ["A haiku on spring.", "A haiku on winter."]
    before = node.key
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace("A haiku on", "A song of"))
    again = prepare({**GIVEN, "plugins": [str(tmp_path / "mine.py")], "evaluations": evaluations}, out=tmp_path / "run")
    assert again.plan["evaluations/haiku/prompts"].key != before


@pytest.mark.parametrize(
    ("name", "row", "prompt", "id"),
    [
        ("alpaca_eval", {"instruction": "Say.", "output": "So.", "dataset": "vicuna"}, "Say.", None),
        ("arena_hard", {"uid": "u1", "prompt": "Do.", "category": "hard"}, "Do.", "u1"),
        ("arena_hard", {"question_id": "q1", "turns": [{"content": "Old?"}], "cluster": "a"}, "Old?", "q1"),
    ],
)
def test_questions_in_their_own_form(name: str, row: dict[str, Any], prompt: str, id: str | None, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = questions_of(name, tmp_path / "asked.jsonl")
    assert (found.text, found.id if id else None) == (prompt, id)


NO_QUESTIONS = [
    ("alpaca_eval", [{"instruction": None}], "question as text in 'instruction'"),
    ("arena_hard", [{"question_id": "q1", "turns": ["Old?"]}], r"question as text in 'turns\[0\].content'"),
    ("arena_hard", [{"question_id": "q1", "turns": []}], r"question as text in 'turns\[0\].content'"),
    ("arena_hard", [{"uid": "u1", "prompt": " "}], "question as text in 'prompt'"),
    ("arena_hard", [{"uid": "u1", "prompt": "Do."}, {"uid": "u1", "prompt": "Say."}], "'u1' is there twice"),
    ("mt_bench", [{"question_id": 1, "turns": ["Do."]}, {"question_id": 1, "turns": ["Say."]}], "'1' is there twice"),
]


@pytest.mark.parametrize(("name", "rows", "says"), NO_QUESTIONS)
def test_what_is_no_question_is_said_with_its_row(name: str, rows: list[dict[str, Any]], says: str, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=says) as told:
        questions_of(name, tmp_path / "asked.jsonl")
    assert f"asked.jsonl:{len(rows)}" in str(told.value)


def test_the_page_has_the_table(out: Path) -> None:
    from evenhand.report import write

    page = Path(write(out / "run")).read_text()
    assert 'id="evaluations"' in page
    assert "One correction covers all 8 contrasts with sft" in page


def test_frame_csv_tex_and_terminal_have_the_numbers_of_the_record(out: Path) -> None:
    import evenhand
    from evenhand.report import table, write

    write(out / "run")
    results, record = evenhand.load(out / "run"), load(out / "run").evaluations
    frame = results.evaluations_frame()
    assert sorted(frame.index) == sorted((name, arm) for name in ("asked", "sums", "talk") for arm in ("sft", "dpo", "ipo"))
    with open(out / "run" / "evaluations.csv") as file:
        rows = {(row["evaluation"], row["arm"]): row for row in csv.DictReader(file)}
    tex = (out / "run" / "evaluations.tex").read_text()
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table(results))
    shown = console.export_text()
    for name, found in record.items():
        for arm, mine in found.arms.items():
            row = frame.loc[(name, arm)]
            assert (row["verdict"], row["prompts"], row["measure"]) == (mine.verdict, found.n_prompts, "win rate")
            assert rows[name, arm]["rate"] == f"{mine.rate:.6g}"
            if mine.difference is not None:
                assert (row["difference"], row["p_holm"]) == (mine.difference, mine.p_holm)
                assert (row["ci95_simultaneous_low"], row["ci95_simultaneous_high"]) == mine.ci95_simultaneous
                assert rows[name, arm]["p_holm"] == f"{mine.p_holm:.6g}"
            percent = f"{100 * mine.rate:.1f}"
            assert f"{percent}\\%" in tex.split(f"\n{arm} & ")[1].splitlines()[0]
            assert any(arm in line and f"{percent}%" in line and mine.verdict in line for line in shown.splitlines())
    for text in (tex, " ".join(shown.split())):
        assert "One correction covers all 8 contrasts with sft" in text
        assert "asked: win rate on 7 prompts, judged by length" in text


def test_files_of_evaluations_that_are_no_more_go(out: Path, tmp_path: Path) -> None:
    from evenhand.report import write

    shutil.copytree(out / "run", tmp_path / "run", symlinks=True)
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    (tmp_path / "run" / "results.json").write_text(json.dumps({**record, "evaluations": {}}))
    (tmp_path / "run" / "evaluations.csv").write_text("old")
    write(tmp_path / "run")
    assert not (tmp_path / "run" / "evaluations.csv").exists()


def test_another_evaluation_changes_no_key_of_what_is_there(tmp_path: Path) -> None:
    plain = {k: v for k, v in given(tmp_path).items() if k != "evaluations"}
    before = {n.name: n.key for n in build(read_experiment(plain).value).nodes}
    after = {n.name: n.key for n in build(read_experiment(given(tmp_path)).value).nodes}
    assert before.items() <= after.items()
    assert {n.split("/")[0] for n in after.keys() - before.keys()} == {"evaluations"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, r"evaluations\.x: it asks nothing"),
        ({"task": "gsm8k", "world": "arithmetic"}, "it asks `world` and `task`"),
        ({"task": "gsm8k", "judge": {"reward": "gold"}}, "`judge` has no effect here"),
        ({"world": "arithmetic", "shots": 3}, "`shots` has no effect here"),
        ({"world": "arithmetik"}, "did you mean 'arithmetic'"),
        ({"world": "arithmetic", "judge": {"reward": "god"}}, r"evaluations\.x\.judge\.reward"),
        ({"world": "arithmetic", "judge": {"kind": "jury", "judges": {"a": {"reward": "gold"}}}}, "a jury of one"),
        ({"world": "arithmetic", "count": 1}, "use at least 2"),
        ({"benchmark": "mt_bench"}, "asks the questions of a file"),
        ({"benchmark": "mt_bnch", "prompts": "q.jsonl"}, "did you mean 'mt_bench'"),
        ({"benchmark": "MT-Bench judgments", "prompts": "q.jsonl"}, "it has no questions to ask"),
        ({"benchmark": "mt_bench", "prompts": "no.jsonl"}, r"evaluations\.x\.prompts: no\.jsonl: there is no such file"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_experiment({**GIVEN, "evaluations": {"x": asked}})


def test_a_task_is_planned_for_every_arm_and_its_items_are_its_outcomes() -> None:
    plan = build(read_experiment({**GIVEN, "evaluations": {"maths": {"task": "gsm8k", "count": 50}}}).value)
    node = plan[plan.evaluations["maths"].verdicts["dpo"][0]]
    assert (node.kind, node.spec.task, node.spec.limit, node.inputs) == ("harness", "gsm8k", 50, {"policy": "arms/dpo/seed-0"})
    found = items({"gsm8k": {"items": [1.0, 0.0], "metric": "exact_match,flexible-extract"}}, "gsm8k")
    assert found == {"prompt_id": ["gsm8k:0", "gsm8k:1"], "outcome": [1.0, 0.0], "metric": "exact_match,flexible-extract"}
    with pytest.raises(UserError, match="no values item by item"):
        items({"gsm8k": {"items": [], "metric": "m"}}, "gsm8k")
    with pytest.raises(UserError, match="not in"):
        items({"bleu": {"items": [31.0], "metric": "m"}}, "bleu")
