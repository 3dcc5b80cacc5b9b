"""The pages of the site: what they tell to type works as it stands there, on a model and numbers small enough for a test."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evenhand.manual.snippets import Snippet, commands, snippets
from evenhand.run_experiment import prepare
from tests.conftest import ROOT
from tests.doctor.patients import Ward, pairs

DOCS = ROOT / "docs"
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
SMALL = {
    "tutorial.md": [
        "seeds=[0]", "data.sizes={demonstrations: 24, preferences: 24, prompts: 24, heldout_preferences: 8}",
        "model.pretrain={documents: 40, train: {epochs: 1, prompts_per_step: 16}}", "lengths={prompt: 32, completion: 8}",
        "sft.train={epochs: 1, prompts_per_step: 16}", "reward_models.rm.train={epochs: 1, prompts_per_step: 16}",
        "train={steps: 1, prompts_per_step: 4}", "arms.dpo.train={steps: 1, prompts_per_step: 4}", "evaluation.prompts=6",
        "judge.self_test=0", "runtime.workers=0",
    ],
    "first_model.md": ["evaluation.prompts=4", "runtime={workers: 0, device: cpu}", "lengths.completion=24", "train.epochs=0.2"],
}  # fmt: skip
"""What a run of the page is given besides, so that it takes seconds."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the pages' model is a tiny one under the Hub's name."""
    monkeypatch.chdir(tmp_path)
    ward = Ward(tmp_path / "ward", rows=pairs(40))
    ward.folder.mkdir()
    ward.write()
    (tmp_path / NAME).parent.mkdir()
    (tmp_path / NAME).symlink_to(ward.folder / "model")
    return tmp_path


@pytest.mark.parametrize("page", ["tutorial.md", "first_model.md", "own_reward.md", "from_trl.md"])
def test_what_a_page_tells_to_type_works(page, folder, cli):
    typed = 0
    for step in commands((DOCS / page).read_text()):
        if isinstance(step, Snippet):
            (folder / step.file).write_text(step.text)
            continue
        words = shlex.split(step)
        if words[0] != "evenhand":
            line = step.replace("python ", f"{shlex.quote(sys.executable)} ", 1)
            subprocess.run(["bash", "-c", line], check=True)
            continue
        typed += 1
        more = [*SMALL.get(page, ()), "--unchecked"] if words[1] == "run" else []
        code, out, err = cli(*words[1:], *more)
        assert code == 0, f"{step}\n{out}\n{err}"
    assert typed >= 2


def test_every_recipe_is_an_experiment(folder):
    (folder / "pairs.jsonl").write_text((folder / "ward" / "pairs.jsonl").read_text())
    files = [block for block in snippets((DOCS / "recipes.md").read_text()) if block.file]
    assert len(files) >= 6
    for block in files:
        (folder / block.file).write_text(block.text)
    for block in files:
        assert prepare(block.file).plan.nodes, block.file


def test_the_readme_s_file_is_an_experiment(folder):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (folder / "short.yaml").write_text(text)
    (folder / "tinystories.txt").write_text(
        "\n\n".join(f"Once there was a dog, the {n}th of all that lived by the sea, who ran." for n in range(1300))
    )
    arms = {
        node.name.split("/")[1]
        for node in prepare("short.yaml", [f"model.path={NAME}"]).plan.nodes
        if node.name.startswith("arms/")
    }
    assert arms == {"dpo", "rloo", "grpo"}


def test_reading_a_report_names_every_section_of_the_bar():
    bar = (ROOT / "src/evenhand/report/templates/report.html.j2").read_text().partition("{% block")[0]
    named = set(re.findall(r"\*\*(.+?)\.?\*\*", (DOCS / "reading_a_report.md").read_text()))
    sections = re.findall(r'\("[a-z-]+", "([A-Z][^"]+)", ', bar)
    assert len(sections) >= 12
    assert not set(sections) - named


def test_links_lead_to_pages_and_the_menu_to_every_page():
    missing = []
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            away = page.is_relative_to(DOCS) and not (page.parent / target).resolve().is_relative_to(DOCS)  # not on the site
            if "://" not in target and (away or not (page.parent / target).exists()):
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert not missing
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = {p for entry in menu for p in (next(iter(entry.values())) if isinstance(entry, dict) else [entry])}
    assert not [p for p in listed if not (DOCS / p).is_file()]
    assert not {p.name for p in DOCS.glob("*.md")} - listed, "pages that no menu leads to"
