"""The shape of the code: imports run one way, files and functions stay small, the package is light to import."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src" / "evenhand"
LAYERS = [
    {"display", "errors", "hub", "seeding", "registry", "types", "core", "stats", "__init__"},
    {"configfile", "store", "plugins", "trackers", "protocols", "data", "worlds", "models", "theory", "serve"},
    {"objectives", "engines", "environments", "rewards", "judges", "train"},
    {"methods", "evaluation", "synthesis"},
    {"stages"},
    {"spec"},
    {"plan"},
    {"runner"},
    {"results"},
    {"run_experiment", "manual"},
    {"tuning"},
    {"report", "doctor"},
    {"export", "labelling"},
    {"api"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(SRC.rglob("*.py"))
MODULES = {p: p.relative_to(SRC).parts[0].removesuffix(".py") for p in FILES}
HEAVY = ("torch", "transformers", "datasets", "vllm", "ray", "wandb", "matplotlib", "pandas", "optuna")


NAMES = {".".join(("evenhand", *p.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__"): p for p in FILES}


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere: inside functions and for type checking too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & NAMES.keys()
            found |= {node.module} if not inner <= NAMES.keys() else set()
    return found & NAMES.keys()


@cache
def graph() -> dict[str, set[str]]:
    """Every module of the package, and those that it imports."""
    return {name: imported(path) - {name} for name, path in NAMES.items()}


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def test_imports_run_one_way() -> None:
    """Between rooms: nothing imports what stands above it; the package itself lends its names lazily (`evenhand.run`)."""
    assert {room(name) for name in NAMES} <= set(RANK), "every module has a layer"
    wrong = {(a, b) for a, uses in graph().items() for b in uses if RANK[room(b)] > RANK[room(a)] and a != "evenhand"}
    assert not wrong, "imports of what stands above"


def test_no_circles() -> None:
    """Between files: the imports have an order."""
    inner = {name: uses - {"evenhand"} for name, uses in graph().items() if name != "evenhand"}
    order = [*graphlib.TopologicalSorter(inner).static_order()]  # raises CycleError, which names a circle
    assert set(order) >= inner.keys()


def test_core_imports_torch_only_and_stats_numpy_only() -> None:
    allowed = {"core": {"torch", "math", "typing_extensions", "evenhand"}, "stats": {"numpy", "scipy", "evenhand"}}
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


def test_files_and_functions_stay_small() -> None:
    for path in FILES:
        text = path.read_text()
        assert len(text.splitlines()) <= 400, f"{path}: split the file"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                doc = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                assert node.end_lineno - doc <= 60, f"{path}: {node.name} at line {node.lineno} is long"


def test_engines_are_opened_by_name() -> None:
    """Only `open_engine` makes an engine, so that what samples anywhere is what the experiment names."""
    made = {"LocalEngine", "VLLMEngine"}
    for path in (p for p in FILES if MODULES[p] != "engines"):
        text = path.read_text()
        if not any(name in text for name in made):
            continue
        nodes = list(ast.walk(ast.parse(text)))
        named = {n.id if isinstance(n, ast.Name) else n.attr for n in nodes if isinstance(n, ast.Name | ast.Attribute)}
        imported = {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
        assert not made & (named | imported), "use evenhand.engines.registry.open_engine"


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
