"""Pairs and answers for other tools: their formats to the letter, and our own readers get the same groups back."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from evenhand.data.convert import SOFT
from evenhand.data.jsonl import read_groups, write_groups, write_rows
from evenhand.data.load import load
from evenhand.errors import UserError
from evenhand.export.rows import learned_from, pairs, samples, write_pairs, write_samples
from evenhand.export.subject import find_arm
from evenhand.report.run_data import read_run
from evenhand.types import Completion, Finish, Group, Message, Prompt

TALK = (Message("system", "Be brief."), Message("user", "Red?"))


def pair(content, chosen, rejected, **more) -> Group:
    given = {"scores": (1.0, 0.0), **more}
    return Group(prompt=Prompt(content=content, meta={"topic": "x"}), completions=(chosen, rejected), **given)


def said(text: str, **more) -> Completion:
    return Completion(content=text, **more)


def rows_of(*groups: Group) -> tuple[list[dict], Counter]:
    lost: Counter[str] = Counter()
    return list(pairs(groups, lost)), +lost


def read_again(tmp_path, rows) -> list[Group]:
    write_rows(tmp_path / "rows.jsonl", rows)
    return load(str(tmp_path / "rows.jsonl")).groups


def test_a_conversation_is_lists_of_messages_and_text_is_strings():
    rows, lost = rows_of(pair(TALK, said("Yes."), said("No.")), pair("1 + 1 =", said(" 3"), said(" 2"), scores=(0.0, 1.0)))
    assert rows == [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Red?"}],
            "chosen": [{"role": "assistant", "content": "Yes."}],
            "rejected": [{"role": "assistant", "content": "No."}],
            "topic": "x",
        },
        {"prompt": "1 + 1 =", "chosen": " 2", "rejected": " 3", "topic": "x"},
    ]
    assert lost == {}


def test_our_readers_get_the_same_pairs_back(tmp_path):
    answers = ((Message("assistant", "Yes."),), (Message("assistant", "No."),))
    talk = pair(TALK, *(Completion(content=a) for a in answers))
    graded = pair(TALK, *(Completion(content=a) for a in answers), scores=(4.5, -2.0))
    assert read_again(tmp_path, rows_of(talk)[0]) == [talk]
    assert read_again(tmp_path, rows_of(graded)[0]) == [graded]
    text = pair("1 + 1 =", said(" 2"), said(" 3\nor\u2028so"))
    assert read_again(tmp_path, rows_of(text)[0]) == [text]
    flipped = pair("1 + 1 =", said(" 3"), said(" 2"), scores=(0.0, 1.0))
    assert read_again(tmp_path, rows_of(flipped)[0])[0].completions == (said(" 2"), said(" 3"))


def test_a_ranking_is_every_pair_and_what_cannot_be_said_is_counted(tmp_path):
    ranked = Group(prompt=Prompt(content="q"), completions=tuple(map(said, "abc")), scores=(0.5, 2.0, math.nan))
    rows, lost = rows_of(ranked)
    assert [(r["chosen"], r["rejected"], r["chosen_score"], r["rejected_score"]) for r in rows] == [("b", "a", 2.0, 0.5)]
    assert lost == {"answers beyond two: every pair of the ranking is a row": 1}
    rows, lost = rows_of(replace(ranked, scores=(1.0, 2.0, 3.0)))
    assert [(r["chosen"], r["rejected"]) for r in rows] == [("c", "a"), ("b", "a"), ("c", "b")]
    tied = pair("q", said("a"), said("b"), scores=(1.0, 1.0))
    empty = pair("q", said("a"), said(" "))
    cut = pair("q", said("a", tokens=(8,), finish=Finish.LENGTH), said("b"))
    soft = pair("q", said("a"), said("b"), scores=(0.7, 0.3), parts={SOFT: (0.7, 0.3)})
    rows, lost = rows_of(tied, empty, cut, soft)
    assert [(r["chosen"], r.get("chosen_probability")) for r in rows] == [("a", None), ("a", 0.7)]
    assert sorted(lost) == [
        "an answer was cut at the limit, which text does not show",
        "left out: an answer is empty",
        "left out: the answers tie",
        "soft labels: other tools take them for certain (column chosen_probability)",
    ]


def test_columns_that_readers_would_take_for_their_own_are_renamed(tmp_path):
    prompt = Prompt(content="q", meta={"messages": ["m"], "label": True, "answer": "42", "nothing": None})
    group = Group(prompt=prompt, completions=(said("a"), said("b")), scores=(1.0, 0.0))
    rows, _ = rows_of(group)
    assert {k: v for k, v in rows[0].items() if k.startswith("meta_")} == {
        "meta_messages": ["m"],
        "meta_label": True,
        "meta_answer": "42",
    }
    (again,) = read_again(tmp_path, rows)
    assert again.completions == group.completions
    assert again.prompt.content == "q"


def test_a_prompt_like_a_transcript_is_pointed_out():
    text = "\n\nHuman: Hi\n\nAssistant:"
    _, lost = rows_of(pair(text, said(" a"), said(" b")))
    assert "the prompt looks like a transcript: read it with `transcripts: verbatim`" in lost


def test_the_runs_pairs(tiny, tmp_path):
    found = {w.path.name: w.rows for w in write_pairs(read_run(tiny), tmp_path)}
    assert found == {"pairs.jsonl": 24, "heldout_pairs.jsonl": 4}
    again = load(str(tmp_path / "pairs.jsonl")).groups
    given = read_groups(tiny / "store" / ("d0" * 16) / "preferences.jsonl")
    for new, old in zip(again, given, strict=True):
        order = (0, 1) if old.scores == (1.0, 0.0) else (1, 0)
        assert new.prompt == old.prompt
        assert [c.text for c in new.completions] == [old.completions[i].text for i in order]


def test_an_arms_own_pairs_leave_out_the_prompts_that_validated(tiny):
    every, kept = (learned_from(find_arm(tiny, arm, 0)) for arm in ("dpo", "kept"))
    assert len(every) == 24
    ids = {g.prompt.id for g in kept}
    assert len(every) - len(kept) == 5
    assert ids < {g.prompt.id for g in every}


def test_an_arm_that_learns_from_single_answers(own_run, tmp_path):
    place = own_run / "arms" / "dpo" / "seed-0" / "meta.json"
    meta = json.loads(place.read_text())
    place.write_text(json.dumps(meta | {"spec": meta["spec"] | {"method": "kto", "parameters": {}}}))
    (written,) = write_pairs(read_run(own_run), tmp_path, find_arm(own_run, "dpo", 0))
    assert (written.path.name, written.rows) == ("labelled.jsonl", 48)
    first, second = (json.loads(line) for line in written.path.read_text().splitlines()[:2])
    assert first["completion"] == [{"role": "assistant", "content": "red"}]
    assert (first["label"], second["label"]) == (True, False)
    again = load(str(written.path))
    assert again.kind == "binary feedback"
    assert [g.scores for g in again.groups[:2]] == [(1.0,), (0.0,)]


def test_pairs_labelled_in_the_run_take_the_place_of_the_datas(own_run, tmp_path):
    made = own_run / "store" / ("f0" * 16)
    made.mkdir()
    write_groups(made / "preferences.jsonl", [pair("q", said("sampled"), said("worse"))])
    record = json.loads((own_run / "experiment.json").read_text())
    record["nodes"].append({"name": "preferences", "key": "f0" * 16, "inputs": {}})
    (own_run / "experiment.json").write_text(json.dumps(record))
    found = write_pairs(read_run(own_run), tmp_path / "out")
    assert [(w.path.name, w.rows) for w in found] == [("pairs.jsonl", 1)]


def test_an_arm_without_pairs_says_what_it_learned_from(own_run, tmp_path):
    for method, message in (("rloo", "its own samples"), ("sft", "demonstrations")):
        place = own_run / "arms" / "dpo" / "seed-0" / "meta.json"
        meta = json.loads(place.read_text())
        place.write_text(json.dumps(meta | {"spec": meta["spec"] | {"method": method, "parameters": {}}}))
        with pytest.raises(UserError, match=message):
            learned_from(find_arm(own_run, "dpo", 0))
    shutil.rmtree(own_run / "store")
    with pytest.raises(UserError, match="data are not there"):
        write_pairs(read_run(own_run), tmp_path)


def test_samples_are_prompts_with_completions(tiny, tmp_path):
    given = [
        Group(prompt=Prompt(content=TALK), completions=(said("Yes.", tokens=(8, 6), finish=Finish.STOP),)),
        Group(prompt=Prompt(content=TALK), completions=(said("", tokens=(6,), finish=Finish.STOP),)),
    ]
    lost: Counter[str] = Counter()
    rows = list(samples(given, "dpo", 1, {"gold": [0.25, 0.5], "outcome": [1.0, 0.0]}, lost))
    assert lost == {
        "left out: an answer is empty": 1,
        "the prompt looks like a transcript: read it with `transcripts: verbatim`": 0,
    }
    assert rows == [
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Red?"}],
            "completion": [{"role": "assistant", "content": "Yes."}],
            "arm": "dpo", "seed": 1, "prompt_id": given[0].prompt.id, "finish": "stop", "judge_score": 0.25, "outcome": 1.0,
        }
    ]  # fmt: skip
    with pytest.raises(UserError, match="no arm called 'dop'"):
        write_samples(read_run(tiny), tmp_path, "dop")
    assert write_samples(read_run(tiny), tmp_path, "dpo").rows <= 12
    written = write_samples(read_run(tiny), tmp_path)
    assert written.rows == sum(
        bool(g.completions[0].text.strip())
        for path in tiny.glob("generations/*/seed-*/generations.jsonl")
        for g in read_groups(path)
    )
    again = load(str(tmp_path / "samples.jsonl"))
    assert len(again.groups) == written.rows
    assert again.kind == "demonstrations"
    assert {g.prompt.meta["arm"] for g in again.groups} == {"sft", "dpo", "kept"}
