"""The labelling page in a real browser: ten pairs by keyboard, a reload and a new start between them, then training on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from evenhand.judges.label_log import LabelLog
from evenhand.labelling import app
from evenhand.labelling.items import Form, from_groups
from evenhand.labelling.session import LabellingSession
from evenhand.labelling.write import preferences, write
from evenhand.run_experiment import execute, prepare
from evenhand.serve.guard import Guard
from evenhand.types import Completion, Group, Message, Prompt
from tests.doctor.patients import Ward, pairs
from tests.serving import TOKEN, serving

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"


def asked(count, answers=2):
    """Prompts of two turns; the better answer says so, once with markup in it."""
    found = []
    for i in range(count):
        turns = (Message("system", "Be kind."), Message("user", f"What is {i}?"))
        texts = [f"good: it is {i}.{HOSTILE if i == 0 else ''}", f"bad: no, not {i}."] + [
            f"fair {i} {k}" for k in range(answers - 2)
        ]
        found.append(Group(prompt=Prompt(content=turns), completions=tuple(Completion(content=t) for t in texts)))
    return found


def session(path, groups, form=Form.pair, **named):
    return LabellingSession(from_groups(groups, form, "all", 0), LabelLog(path), form=form, **{"again": 0.0, **named})


@contextmanager
def served(session, **page) -> Iterator[str]:
    """The page's address while it is served."""
    built = app.build(session, app.Page(title="Pairs", **page))
    with serving(built, app.policy()) as address:
        yield address


DONE = "document.getElementById('far').textContent.includes(': {} of ')"
GOOD = "[...document.querySelectorAll('.answer .text')].findIndex(x => x.textContent.startsWith('good'))"


def begin(browser, address, name="Ann"):
    browser.open(address)
    for letter in name:
        browser.press(letter)
    browser.press("Enter")
    browser.until("!document.getElementById('task').hidden || !document.getElementById('done').hidden")


def test_ten_pairs_by_keyboard_reload_resume_and_training_on_them(browser, tmp_path):
    path, groups = tmp_path / "labels.jsonl", asked(10)
    first = session(path, groups)
    with served(first, guidelines="Kindness first.") as address:
        begin(browser, address)
        for count in range(1, 5):
            browser.press(["1", "2"][browser.evaluate(GOOD)])
            browser.until(DONE.format(count))
        browser.press("u")  # the fourth is taken back and asked again
        browser.until(DONE.format(3))
        browser.press("r")
        for letter in "ok u1":  # letters of a reason are no keys
            browser.press(letter)
        browser.press("Enter")
        browser.press(["ArrowLeft", "ArrowRight"][browser.evaluate(GOOD)])
        browser.until(DONE.format(4))
        browser.reload()  # the same person goes on, with the same pair
        before = browser.until("document.querySelector('.answer .text')?.textContent")
        assert browser.evaluate(DONE.format(4))
        assert "owned" not in browser.evaluate("document.title")
        assert browser.problems() == []
        assert all(url.startswith(address) for url in browser.requests())
    resumed = session(path, groups)  # and after a new start of the server
    with served(resumed) as address:
        begin(browser, address)
        assert browser.evaluate("document.querySelector('.answer .text').textContent") == before
        for count in range(5, 11):
            browser.press(["1", "2"][browser.evaluate(GOOD)])
            browser.until(DONE.format(count))
        browser.until("!document.getElementById('done').hidden")
    assert len(path.read_text().splitlines()) == 12, "ten, one taken back and said again: each click is a line"
    labels = resumed.labels()
    assert [x.reason for x in labels if x.reason] == ["ok u1"]
    assert all(x.seconds > 0 for x in labels), "a browser that is driven answers in a millisecond or two, and that counts"
    found = preferences(list(resumed.items.values()), path, Form.pair, labels, "hard", 0.0)
    write(tmp_path / "pairs.jsonl", found, list(resumed.items.values()), labels)
    chosen = [max(zip(g.scores, g.completions, strict=True), key=lambda sc: sc[0])[1].text for g in found.pairs]
    assert len(chosen) == 10
    assert all(text.startswith("good") for text in chosen)
    trained(tmp_path)


def trained(folder):
    """DPO on the pairs that were just labelled."""
    ward = Ward(folder / "ward", rows=pairs(4))
    ward.folder.mkdir()
    ward.write()
    ward.experiment |= {
        "seeds": [0], "data": {"preferences": str(folder / "pairs.jsonl"), "holdout": 0.5}, "evaluation": {"prompts": 2},
        "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}}, "lengths": {"prompt": 256, "completion": 256},
        "judge": {"reward": "fair", "self_test": 0}, "runtime": {"workers": 0, "device": "cpu"},
    }  # fmt: skip
    outcome, results = execute(prepare(ward.experiment, (), folder / "run"))
    assert outcome.ok, outcome.errors
    assert results is not None
    metrics = [json.loads(line) for line in (folder / "run/arms/dpo/seed-0/metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2


def test_two_people_at_once_see_no_pair_twice_and_their_agreement(browser, tmp_path):
    both = session(tmp_path / "labels.jsonl", asked(6), people=1)
    with served(both, others={"the file": [i.group.scores for i in both.items.values()]}) as address:
        begin(browser, address, "Ann")
        ann = browser.evaluate("document.getElementById('prompt').textContent")
        other = TestClient(Guard(app.build(both, app.Page(title="")), TOKEN, app.policy()), base_url="http://localhost")
        bob = other.post(f"/{TOKEN}/next", json={"annotator": "Bob"}).json()["task"]
        assert bob["prompt"][1]["text"] not in ann
        said = {"annotator": "Bob", "item": bob["item"], "answers": bob["answers"], "label": "tie"}
        assert other.post(f"/{TOKEN}/answer", json=said).json()["progress"]["done"] == 1
        assert "already" in other.post(f"/{TOKEN}/answer", json=said).json()["note"]
        browser.press("0")
        browser.until(DONE.format(1))
        browser.evaluate("document.getElementById('show-agreement').click()")
        text = browser.until("document.getElementById('agreed').textContent")
        assert "Ann" in text
        assert "Bob" in text


@pytest.mark.parametrize("width", [390, 1280])
def test_what_can_be_answered_and_what_is_said_are_in_sight_of_long_answers(browser, tmp_path, width):
    long = [replace(g, completions=tuple(Completion(content=f"{c.text} word" * 900) for c in g.completions)) for g in asked(2)]
    with served(session(tmp_path / "labels.jsonl", long)) as address:
        browser.open(address + "#Ann", width=width)
        browser.until("document.querySelectorAll('.answer').length > 1")
        assert browser.evaluate("document.documentElement.scrollHeight") > 3000
        box = "document.getElementById('{}').getBoundingClientRect()"
        seen = f"(b => b.height > 0 && b.top >= 0 && b.bottom <= innerHeight)({box})"
        assert browser.evaluate(seen.format("choices"))
        browser.evaluate("window.fetch = () => Promise.reject(new Error('gone.')); scrollTo(0, 1500)")
        browser.press("1")
        browser.until("document.getElementById('note').textContent.startsWith('Not saved: gone.')")
        assert browser.evaluate(seen.format("note"))


@pytest.mark.parametrize(
    "body",
    [
        {"annotator": ""},
        {"annotator": "a" * 61},
        {"annotator": "a\x07b"},
        {"annotator": 3},
        {"annotator": "a", "more": 1},
        [],
        "x",
    ],
)
def test_what_is_no_request_is_refused_and_nothing_is_kept(tmp_path, body):
    one = session(tmp_path / "labels.jsonl", asked(2))
    client = TestClient(app.build(one, app.Page(title="")))
    assert client.post("/next", json=body).status_code == 422
    item = client.post("/next", json={"annotator": "a"}).json()["task"]
    good = {"annotator": "a", "item": item["item"], "answers": item["answers"], "label": "first", "seconds": 1.5}
    for wrong in (
        {"label": "best"},
        {"seconds": -1},
        {"seconds": "inf"},
        {"values": [1, 2], "label": "rating"},
        {"reason": "x" * 4001},
    ):
        assert client.post("/answer", json=good | wrong).status_code == 422
    assert not (tmp_path / "labels.jsonl").exists()
    assert client.post("/answer", json=good).status_code == 200


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("form", list(Form))
def test_every_form_works_at_both_widths(browser, tmp_path, form, width, dark):
    one = session(tmp_path / "labels.jsonl", asked(3, 2 if form is Form.pair else 4), form)
    with served(one) as address:
        browser.open(address + "#Ann", width=width, dark=dark)
        browser.until("document.querySelectorAll('.answer').length > 1")
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        keys = {"pair": "x", "ranking": "31=42", "rating": "5142"}[form.value]
        for key in keys:
            browser.press(key)
        if form is not Form.pair:
            browser.press("Enter")
        browser.until(DONE.format(1))
        assert browser.problems() == []
    (label,) = one.labels()
    assert label.label == ("both_bad" if form is Form.pair else form.value)
    assert label.scores == {"pair": (0.5, 0.5), "ranking": (1.0, 0.0, 2.0, 1.0), "rating": (5.0, 1.0, 4.0, 2.0)}[form.value]
