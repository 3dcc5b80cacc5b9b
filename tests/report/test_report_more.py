"""Marks of what differs, turns of conversations, and the curves of what arms share."""

from __future__ import annotations

import json

import evenhand.report
from evenhand.data.jsonl import write_groups
from evenhand.report.answers import answer_cards, marked
from evenhand.report.plots.curves import shared_figures
from evenhand.report.run_data import read_run
from evenhand.report.summary import summarise
from evenhand.types import Completion, Group, Message, Prompt
from tests.report.fake_run import write_run


def test_marks_say_what_the_baseline_lacks_and_lose_no_letter():
    base = "Tea is a drink. It is hot,\nand good."
    text = "Tea is a  warm drink. It is hot,\nand very good."
    pieces = marked(text, base)
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece.strip() for piece, new in pieces if new] == ["warm", "very"]
    assert marked(base, base) == ((base, False),)
    assert marked("", base) == (("", False),)
    assert marked("Something else entirely, without one word.", base) == (("Something else entirely, without one word.", False),)


def test_a_conversation_is_shown_turn_by_turn_with_its_roles(tmp_path):
    folder = write_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    turns = (Message("system", "Be kind."), Message("user", "<b>Hi</b>"), Message("assistant", "Yes?"), Message("user", "Tea?"))
    key = results["samples"][0]["prompt_id"] = "conversation"
    (folder / "results.json").write_text(json.dumps(results))
    for path in folder.glob("generations/*/seed-*/generations.jsonl"):
        path.unlink()
    group = Group(prompt=Prompt(content=turns, id=key), completions=(Completion(content="Tea."),))
    write_groups(folder / "generations" / "a" / "seed-0" / "generations.jsonl", [group])
    run = read_run(folder)
    (card, *rest) = answer_cards(run.results.samples, summarise(run.results), run.turns)
    assert card.turns == tuple((m.role, m.content) for m in turns)
    assert not any(other.turns for other in rest)
    page = evenhand.report.write(folder).read_text()
    assert '<span class="role">system</span>Be kind.' in page
    assert "<b>Hi</b>" not in page


def test_an_answer_of_several_turns_is_shown_with_all_of_them(tmp_path):
    """Held out and through training, whatever an environment says: as text, never as HTML."""
    folder = write_run(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    sample, hostile = results["samples"][0], "<b>42</b>"
    arm = next(iter(sample["answers"]))
    said = [["assistant", "<calc>6 * 7</calc>"], ["tool", hostile], ["assistant", "It is 42."]]
    sample["turns"] = {arm: said}
    (folder / "results.json").write_text(json.dumps(results))
    recorded = next(folder.glob(f"arms/{arm}/seed-*/samples.jsonl"), None) or next(folder.glob("arms/*/seed-*/samples.jsonl"))
    rows = [json.loads(line) for line in recorded.read_text().splitlines()]
    rows[0]["turns"] = [{"messages": [{"role": role, "content": text}], "tokens": 1} for role, text in said]
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(folder)
    (card, *_) = answer_cards(run.results.samples, summarise(run.results), run.turns)
    assert next(a.turns for a in card.rows[0] if a.arm == arm) == tuple(map(tuple, said))
    page = evenhand.report.write(folder).read_text()
    assert '<span class="role">tool</span>&lt;b&gt;42&lt;/b&gt;' in page
    assert hostile not in page
    assert "tool: \\u003cb\\u003e42" in page, "the viewer's data, in which no tag can end the script"


def test_sft_and_reward_models_have_curves_of_their_own():
    rows = {"0": [{"step": 1, "loss": 1.0, "accuracy": 0.5}, {"step": 2, "loss": 0.5, "accuracy": 0.75}]}
    figures = shared_figures({"sft": {"0": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]}, "rm": rows, "other": rows})
    assert [f.title for f in figures] == ["Fine-tuning: loss", "Reward model: loss", "Reward model: preference accuracy"]
    assert shared_figures({}) == []


def test_what_rollouts_were_worth_is_said_of_arms_that_measured_it(tmp_path):
    folder = write_run(tmp_path / "run")
    assert "rollouts were worth" not in evenhand.report.write(folder).read_text()
    results = json.loads((folder / "results.json").read_text())
    gap = {"mean": 0.00251, "largest": 0.41, "beyond_cap": 0.0125, "effective_share": 0.987, "steps": 60}
    arm = next(iter(results["arms"]))
    results["arms"][arm]["sampler_gap"] = gap
    (folder / "results.json").write_text(json.dumps(results))
    assert read_run(folder).results.arms[arm].sampler_gap.largest == 0.41
    section = evenhand.report.write(folder).read_text().split("rollouts were worth</h3>")[1].split("</table>")[0]
    for shown in ("0.0025", "0.41", "1.25", "98.7", ">60<"):
        assert shown in section, shown
    assert section.count("<tr data-arm") == 1
