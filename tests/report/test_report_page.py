"""The page as text: complete, safe, reproducible, and honest about what is not there."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import evenhand.report
from evenhand.errors import UserError
from evenhand.report.style import ARMS
from tests.report.fake_run import HOSTILE, write_run

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Outline(HTMLParser):
    """Counts tags, and checks that every element is closed where it was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.stack: list[str] = []
        self.references: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids[str(value)] += 1
            if name in ("href", "xlink:href") and str(value).startswith("#"):
                self.references.add(str(value)[1:])
            self.references.update(re.findall(r"url\(#([^)]+)\)", str(value)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def test_the_page_is_well_formed_and_every_id_is_its_own(page: str) -> None:
    found = outline(page)
    assert found.stack == []
    assert [name for name, count in found.ids.items() if count > 1] == []
    assert found.references <= set(found.ids)


def test_model_text_never_becomes_markup(page: str) -> None:
    found = outline(page)
    assert found.tags["img"] == 0
    assert found.tags["script"] == 2  # ours and the data block
    assert "&lt;img src=x onerror=" in page
    assert "<img" not in page
    data = re.search(r'<script type="application/json" id="training-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert "<" not in data.group(1)
    rows = json.loads(data.group(1))["prompts"][3]["arms"]["dpo"]
    assert rows[0] == [0, HOSTILE, None, rows[0][3]]


def test_nothing_is_fetched(page: str) -> None:
    assert "default-src 'none'" in html.unescape(page)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", page))
    assert addresses <= {"http://www.w3.org/1999/xlink"}  # a name, not a place


def test_the_same_run_gives_the_same_bytes(run_dir: Path, tmp_path: Path) -> None:
    again = write_run(tmp_path / "run")
    evenhand.report.write(again)
    for name in ("report.html", "results.csv", "results.tex"):
        assert (again / name).read_bytes() == (run_dir / name).read_bytes()


def test_figures_follow_the_theme_and_their_downloads_stand_alone(page: str) -> None:
    assert "var(--arm-0)" in page
    assert ARMS[0].light not in page.split("</style>", 1)[1].lower()
    for link in re.findall(r'href="data:image/svg\+xml;base64,([^"]+)"', page):
        svg = ElementTree.fromstring(base64.b64decode(link))
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        assert b"var(--" not in base64.b64decode(link)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    assert "grpo" in texts  # text stays text


def test_the_numbers_behind_the_win_rate_figure_are_those_of_the_results(run_dir: Path, page: str) -> None:
    link = re.search(r'href="data:text/csv;base64,([^"]+)" download="win-rates.csv"', page)
    assert link is not None
    lines = base64.b64decode(link.group(1)).decode().splitlines()
    rates = {line.split(",")[0]: float(line.split(",")[1]) for line in lines[1:]}
    arms = json.loads((run_dir / "results.json").read_text())["arms"]
    assert rates == pytest.approx({arm: entry["win_rate"] for arm, entry in arms.items() if arm != "sft"}, abs=1e-5)
    assert list(rates.values()) == sorted(rates.values(), reverse=True)


def test_a_run_with_almost_nothing_gives_a_page_without_inventions(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"baseline": null, "arms": {"dpo": {"win_rate": NaN}}}')
    page = evenhand.report.write(tmp_path).read_text()
    found = outline(page)
    assert found.stack == []
    assert set(found.ids) == {"top", "verdict"}
    assert found.tags["svg"] == 0
    assert "no result" in page
    assert "nan" not in page.split("</style>")[1].split("<script>")[0].lower()


def test_names_may_be_hostile_too(tmp_path: Path) -> None:
    name = '<i>$x_1$</i>"&'
    arm = {"win_rate": 0.7, "ci95": [0.6, 0.8], "per_seed": [0.7], "kl": 1.0, "reward": 1.0}
    sample = {"prompt_id": "p", "prompt": "?", "gold": {name: None}, "answers": {name: ""}}
    content = {
        "baseline": "b",
        "seeds": [0],
        "arms": {"b": {"kl": 0.0, "reward": 0.0}, name: arm},
        "samples": [sample],
        "failed": [],
    }
    (tmp_path / "results.json").write_text(json.dumps(content))
    page = evenhand.report.write(tmp_path).read_text()
    assert outline(page).tags["i"] > 0
    assert "<i>$" not in page
    assert "&lt;i&gt;$x_1$&lt;/i&gt;" in page
    assert "Every stage finished" in page
    assert "(empty answer)" in page


@pytest.mark.parametrize("missing", ["experiment.json", "arms/grpo", "arms"])
def test_any_part_but_the_results_may_be_missing(run_dir: Path, tmp_path: Path, missing: str) -> None:
    folder = shutil.copytree(run_dir, tmp_path / "run")
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = outline(evenhand.report.write(folder).read_text())
    assert found.stack == []
    assert ("experiment" in found.ids) is (missing != "experiment.json")
    assert ("training" in found.ids) is (missing != "arms")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no results\.json"):
        evenhand.report.write(tmp_path)


def test_a_broken_line_is_named_by_file_and_number(run_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_dir, tmp_path / "run")
    with (folder / "arms/dpo/seed-1/metrics.jsonl").open("a") as file:
        file.write('{"step": 121, "lo')
    with pytest.raises(UserError, match=r"dpo/seed-1/metrics\.jsonl:121: this is not JSON"):
        evenhand.report.write(folder)


def test_control_characters_of_replies_are_shown_and_not_passed_on(run_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run_dir, tmp_path / "run")
    content = json.loads((folder / "results.json").read_text())
    content["samples"][0]["answers"]["dpo"] = "a\x1b]0;title\x07 b\u202ec\x85d\re\r\nf\tg"
    content["samples"][0]["prompt"] = "bell\x07 and \u2028"
    content["failed"][0]["error"] = "stopped\x1b[2J"
    (folder / "results.json").write_text(json.dumps(content))
    rows = [json.loads(line) for line in (folder / "arms/dpo/seed-0/samples.jsonl").read_text().splitlines()]
    rows[0] |= {"completion": "x\x1by\u2066", "prompt": "p\x00"}
    (folder / "arms/dpo/seed-0/samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = evenhand.report.write(folder).read_text(encoding="utf-8")
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", page) == []
    for shown in (r"\x1b]0;title\x07", r"\u202ec\x85d\x0de", r"bell\x07 and \u2028", r"stopped\x1b[2J"):
        assert shown in page
    data = re.search(r'<script type="application/json" id="training-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    texts = json.loads(data.group(1))["prompts"]
    assert any(t["prompt"] == r"p\x00" and t["arms"]["dpo"][0][1] == r"x\x1by\u2066" for t in texts)


@pytest.mark.parametrize(
    ("change", "sections"),
    [
        # of the reward models, one of the two cannot be told from guessing
        ({}, {"failed": True, "reward-models": True, "verdict": True, "budget": False}),
        ({"failed": [], "excluded": []}, {"failed": False}),
        ({"reward_models": {"rm": {"accuracy": 0.7, "ci95": [0.6, 0.8]}}}, {"reward-models": False}),
    ],
)
def test_what_has_a_warning_in_it_begins_open(
    run_dir: Path, tmp_path: Path, change: dict[str, object], sections: dict[str, bool]
) -> None:
    folder = shutil.copytree(run_dir, tmp_path / "run")
    content = json.loads((folder / "results.json").read_text()) | change
    (folder / "results.json").write_text(json.dumps(content))
    page = evenhand.report.write(folder).read_text()
    found = {name: re.search(rf'<section id="{name}"><details class="fold"( open)?>', page) for name in sections}
    assert {name: bool(match and match.group(1)) for name, match in found.items()} == sections
    assert None not in found.values()
