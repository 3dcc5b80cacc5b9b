"""A judge that is none ends a run before any number, and the command says so by its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from evenhand.cli import app

JUDGES = """
from evenhand.judges.registry import judge
from evenhand.judges.verdict import Order, Status, Verdict
from evenhand.seeding import rng


class One:
    def __init__(self, kind):
        self.name = self.revision = self.kind = kind

    def __call__(self, comparisons, progress=None):
        return [self.verdict(c) for c in comparisons]

    def verdict(self, c):
        if self.kind == "first":
            outcome, status = 1.0, Status.READ
        elif self.kind == "unreadable":
            outcome, status = 0.5, Status.INVALID
        else:
            outcome, status = float(rng("chance", c.a.text, c.b.text).random() < 0.5), Status.READ
        return Verdict(outcome=outcome, orders=(Order(a_first=True, outcome=outcome, status=status),))


for kind in ("first", "unreadable", "chance"):
    judge(kind)(lambda context, kind=kind: One(kind))
"""
EXPERIMENT = """
name: broken
plugins: [judges.py]
data: {world: quickstart, sizes: {demonstrations: 40, preferences: 8, prompts: 8, heldout_prompts: 8}}
model: {pretrain: {documents: 20, train: {steps: 1}}}
sft: {train: {steps: 1}}
lengths: {prompt: 32, completion: 8}
train: {steps: 1, prompts_per_step: 2}
arms: {sft: {method: start}, dpo: {method: dpo}}
judge: {kind: KIND}
evaluation: {prompts: 4}
runtime: {device: cpu}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize(
    ("kind", "said"),
    [("first", "contradicts itself"), ("unreadable", "could be read"), ("chance", "contradicts itself")],
)
def test_a_broken_judge_ends_the_run(kind: str, said: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENHAND_STORE", str(store))
    Path("judges.py").write_text(JUDGES)
    Path("broken.yaml").write_text(EXPERIMENT.replace("KIND", kind))
    earlier = {name: Path("out") / name for name in ("results.json", "report.html")}  # of another experiment in this folder
    Path("out").mkdir()
    for name, path in earlier.items():
        path.write_text(name)
    found = CliRunner().invoke(app, ["run", "broken.yaml", "--out", "out", "--workers", "0", "--unchecked"])
    assert found.exit_code != 0
    assert said in found.output
    assert "%" not in found.stdout
    for name, path in earlier.items():
        assert not path.exists(), "it would be taken for this run's"
        assert path.with_name(f"earlier-{name}").read_text() == name
