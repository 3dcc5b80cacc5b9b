"""The shape of the code: imports run one way, files and functions stay small, the package is light to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "evenhand"
LAYERS = [
    {"display", "errors", "hub", "seeding", "registry", "types", "core", "stats", "__init__"},
    {"configfile", "store", "plugins", "trackers", "protocols", "data", "worlds", "models", "theory"},
    {"objectives", "engines", "rewards", "judges", "train"},
    {"methods", "evaluation", "synthesis"},
    {"stages"},
    {"spec"},
    {"plan"},
    {"runner"},
    {"results"},
    {"run_experiment", "manual"},
    {"tuning"},
    {"report", "doctor"},
    {"export"},
    {"api"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(SRC.rglob("*.py"))
MODULES = {p: p.relative_to(SRC).parts[0].removesuffix(".py") for p in FILES}
HEAVY = ("torch", "transformers", "datasets", "vllm", "ray", "wandb", "matplotlib", "pandas", "optuna")


def imports(path: Path) -> set[str]:
    """Top-level parts of evenhand that a file imports outside of `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    skipped = {
        n
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for n in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "evenhand":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("evenhand.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_run_one_way(path: Path) -> None:
    own = RANK[MODULES[path]]
    above = {name for name in imports(path) if name in RANK and RANK[name] > own}
    assert not above, f"{path.relative_to(SRC)} imports {sorted(above)}, which stand above it"


def test_every_module_has_a_layer() -> None:
    assert set(MODULES.values()) <= set(RANK)


def test_core_imports_torch_only_and_stats_numpy_only() -> None:
    allowed = {"core": {"torch", "math", "evenhand"}, "stats": {"numpy", "scipy", "evenhand"}}
    for path, module in MODULES.items():
        if module not in allowed:
            continue
        for node in ast.parse(path.read_text()).body:
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            for name in filter(None, names):
                top = name.split(".")[0]
                assert top in allowed[module] or top in sys.stdlib_module_names, f"{path}: {name}"


def test_the_loop_knows_no_method() -> None:
    text = (SRC / "train" / "loop.py").read_text().lower()
    for name in ("dpo", "grpo", "rloo", "ppo", "sft", "raft"):
        assert name not in text


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400, "split the file"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
            assert node.end_lineno - doc <= 60, f"{node.name} at line {node.lineno} is long"


def test_import_is_light() -> None:
    code = f"import sys, evenhand.cli; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "", "imported at start-up"


def test_no_pickles_and_no_remote_code() -> None:
    for path in FILES:
        text = path.read_text()
        assert "torch.load(" not in text
        assert "import pickle" not in text
        assert "trust_remote_code=True" not in text


@pytest.mark.parametrize("path", [p for p in FILES if MODULES[p] != "engines"], ids=lambda p: str(p.relative_to(SRC)))
def test_engines_are_opened_by_name(path: Path) -> None:
    """Only `open_engine` makes an engine, so that what samples anywhere is what the experiment names."""
    named = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        for name in ([node.id] if isinstance(node, ast.Name) else [node.attr] if isinstance(node, ast.Attribute) else [])
    }
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not {"LocalEngine", "VLLMEngine"} & (named | imported), "use evenhand.engines.registry.open_engine"
