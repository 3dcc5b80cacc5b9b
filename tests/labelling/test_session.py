"""Who is asked what: blind, in random order, again the other way round, shared between people, taken back."""

from __future__ import annotations

import json
import math
import random

import pytest

from evenhand.errors import UserError
from evenhand.judges.label_log import LabelLog, answer_name
from evenhand.labelling.items import Form, from_groups, from_run
from evenhand.labelling.session import GAP, LabellingSession, Stale, means
from evenhand.labelling.write import agreement, preferences, rows_by_annotator
from evenhand.results.finished_run import FinishedRun
from evenhand.results.record import Results
from evenhand.types import Completion, Group, Prompt


def groups(count, answers=("good {}", "bad {}")):
    return [
        Group(
            prompt=Prompt(content=f"question {i}"),
            completions=tuple(Completion(content=a.format(i)) for a in answers[:: 1 if i % 2 else -1]),
        )
        for i in range(count)
    ]


def session(tmp_path, count=12, form=Form.pair, answers=("good {}", "bad {}"), **named):
    items = from_groups(groups(count, answers), form, "all", 0)
    return LabellingSession(items, LabelLog(tmp_path / "labels.jsonl"), form=form, **named)


def say(session, who, task, word):
    return session.answer(who, task.item.name, task.answers, word)


def text_of(task, place):
    return task.item.group.completions[task.shown[place]].text


def prefer_good(session, who, limit=1000):
    """Answers until nothing is left; returns the tasks."""
    seen = []
    while len(seen) < limit and (task := session.next(who)) is not None:
        seen.append(task)
        say(session, who, task, "first" if text_of(task, 0).startswith("good") else "second")
    return seen


def test_the_order_is_random_by_name_and_the_same_after_a_start(tmp_path):
    first = session(tmp_path, 40, again=0)
    ann, bob = (first.next(who) for who in ("ann", "bob"))
    again = session(tmp_path, 40, again=0)
    assert again.next("ann") == ann
    seen = prefer_good(again, "ann")
    assert {t.item.name for t in seen} == set(again.items)
    assert [t.item.name for t in seen] != list(again.items)
    left = sum(text_of(t, 0).startswith("good") for t in seen)
    assert 8 <= left <= 32, "of 40 fair coins, but for one seed in 10,000"
    assert bob is not None


def test_an_item_comes_again_turned_round_after_some_others(tmp_path):
    whole = session(tmp_path, 12, again=1.0)
    seen = prefer_good(whole, "ann")
    names = [t.item.name for t in seen]
    assert len(names) == 24
    for name in set(names):
        a, b = (i for i, n in enumerate(names) if n == name)
        assert seen[a].shown == seen[b].shown[::-1]
        assert b - a > GAP or b >= 12 + 3, "sooner only where nothing new is left"
    found = agreement(list(whole.items.values()), whole.labels(), {})
    assert found["people"] == [{"name": "ann", "labels": 24, "twice": 12, "consistency": 1.0}]


def test_two_people_share_the_work_and_never_hold_the_same_item(tmp_path):
    both = session(tmp_path, 30, again=0)
    draw, held = random.Random(0), {}
    while True:
        for who in ("ann", "bob"):
            held[who] = both.next(who)
        open_now = [t.item.name for t in held.values() if t is not None]
        assert len(open_now) == len(set(open_now))
        ready = [who for who, t in held.items() if t is not None]
        if not ready:
            break
        who = draw.choice(ready)
        say(both, who, held[who], "first")
    items = [label.item for label in both.labels()]
    assert sorted(items) == sorted(both.items)


def test_with_two_people_an_item_everyone_says_something_of_each(tmp_path):
    both = session(tmp_path, 10, people=2, again=0)
    assert len(prefer_good(both, "ann")) == len(prefer_good(both, "bob")) == 10
    assert both.next("carol") is None
    everyone = session(tmp_path, 10, people=0, again=0)
    assert len(prefer_good(everyone, "carol")) == 10
    found = agreement(list(both.items.values()), both.labels(), {"file": [(math.nan, math.nan)] * 10})
    assert found["cohen"][0] == {"a": "ann", "b": "bob", "value": 1.0, "ci95": found["cohen"][0]["ci95"], "n": 10}


def test_undo_asks_again_and_skip_is_left_to_others(tmp_path):
    one = session(tmp_path, 3, again=0)
    task = one.next("ann")
    say(one, "ann", task, "tie")
    assert one.standing("ann").done == 1
    assert one.undo("ann").label == "tie"
    assert one.next("ann") == task
    assert one.undo("ann") is None
    say(one, "ann", task, "skip")
    assert task.item.name not in {t.item.name for t in prefer_good(one, "ann")}
    assert [t.item.name for t in prefer_good(one, "bob")] == [task.item.name]


def test_what_is_not_asked_is_refused(tmp_path):
    one = session(tmp_path, 3)
    task = one.next("ann")
    with pytest.raises(Stale):
        one.answer("ann", task.item.name, task.answers[::-1], "first")
    with pytest.raises(Stale):
        one.answer("bob", task.item.name, task.answers, "first")
    for word, values in (("best", ()), ("ranking", (1, 2)), ("rating", (1, 5))):
        with pytest.raises(ValueError, match="says nothing"):
            one.answer("ann", task.item.name, task.answers, word, values)
    say(one, "ann", task, "first")
    with pytest.raises(Stale):
        say(one, "ann", task, "first")
    assert len(one.labels()) == 1


@pytest.mark.parametrize(
    ("form", "values", "scores"), [(Form.ranking, (2, 1, 3), (1.0, 2.0, 0.0)), (Form.rating, (5, 1, 3), (5.0, 1.0, 3.0))]
)
def test_many_answers_are_ranked_or_rated(tmp_path, form, values, scores):
    many = session(tmp_path, 2, form, ("a {}", "b {}", "c {}"), again=0)
    task = many.next("ann")
    label = many.answer("ann", task.item.name, task.answers, form.value, values)
    assert label.scores == scores
    with pytest.raises(ValueError, match="go from 1"):
        many.answer("ann", (t := many.next("ann")).item.name, t.answers, form.value, (9, 1, 2))
    found = preferences(list(many.items.values()), many.log.path, form, many.labels(), "hard", 0.0)
    (group,) = found.pairs
    by_name = {answer_name(c.text): s for c, s in zip(group.completions, group.scores, strict=True)}
    assert [by_name[a] for a in task.answers] == list(scores)
    assert dict(found.left_out) == {"not labelled": 1}
    other = "rating" if form is Form.ranking else "ranking"
    with pytest.raises(UserError, match=f"holds {form.value} labels"):
        session(tmp_path, 2, Form(other), ("a {}", "b {}", "c {}"))


def test_labels_become_pairs_and_rows_by_annotator(tmp_path):
    both = session(tmp_path, 4, people=0, again=0)
    for who, words in (("ann", "good"), ("bob", "bad")):
        for _ in range(2):
            task = both.next(who)
            say(both, who, task, "first" if text_of(task, 0).startswith(words) else "second")
    items, labels = list(both.items.values()), both.labels()
    rows = list(rows_by_annotator(items, labels))
    assert {(r["annotator"], r[f"response_{r['label'].lower()}"].split()[0]) for r in rows} == {("ann", "good"), ("bob", "bad")}
    found = preferences(items, both.log.path, Form.pair, labels, "hard", 0.0)
    shared = len({x.item for x in labels if x.annotator == "ann"} & {x.item for x in labels if x.annotator == "bob"})
    assert len(found.pairs) == 4 - 2 * shared
    assert found.left_out.get("tied", 0) == shared
    for i in items:
        own = {x.annotator for x in labels if x.item == i.name}
        want = {("ann",): {1.0, 0.0}, ("bob",): {1.0, 0.0}, ("ann", "bob"): {0.5}}.get(tuple(sorted(own)))
        assert want is None or set(means(labels, i)) == want


def test_of_a_seed_that_the_baseline_has_not_nothing_is_asked(tmp_path):
    (tmp_path / "experiment.json").write_text(json.dumps({"store": "store", "nodes": []}))
    base, own = (
        [Group(prompt=g.prompt, completions=(c,)) for g in groups(2) for c in g.completions[place:][:1]] for place in (0, 1)
    )
    run = FinishedRun(tmp_path, "base", {"base": {"0": base}, "dpo": {"0": own, "1": own}}, Results(arms={}))
    assert [i.group.prompt.text for i in from_run(run, Form.pair)] == ["question 0", "question 1"]
