from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import evenhand.cli
from evenhand import run_experiment
from evenhand.errors import UserError
from evenhand.plan.costs.forecast import PlanCosts, StageForecast
from evenhand.results.record import ArmResult, Results
from evenhand.runner.protocol import Outcome
from evenhand.runner.state import StageStatus
from evenhand.store.store import Store


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    """An experiment of two nodes, one of them cached."""
    store = Store(tmp_path / "store", reserve=0)
    with store.open("aa" * 16, {}):
        pass
    nodes = (
        SimpleNamespace(name="sft", kind="fit", key="aa" * 16, cost="100 steps", inputs={}),
        SimpleNamespace(name="arms/dpo/seed-0", kind="fit", key="bb" * 16, cost="120 steps x 32 prompts", inputs={"s": "sft"}),
    )
    run = run_experiment.Run(
        loaded=SimpleNamespace(value=None),
        plan=SimpleNamespace(nodes=nodes),
        store=store,
        out=tmp_path / "out",
        workers=1,
        threads=1,
    )
    asked = []
    monkeypatch.setattr(run_experiment, "prepare", lambda *given: asked.append(given) or run)
    run_dir = tmp_path / "out"
    run_dir.mkdir()
    for made in ("write", "renew"):
        monkeypatch.setattr(f"evenhand.report.{made}", lambda folder: folder / "report.html")
    monkeypatch.setattr("evenhand.cli.experiments.before_run", lambda prepared, console: None)
    monkeypatch.setattr("evenhand.cli.experiments.look", lambda prepared, console: True)
    monkeypatch.setattr("evenhand.plan.parameter_count.lines", lambda experiment: ["arms.dpo: 3 of 9 weights learn"])
    known = tuple(StageForecast(node=n.name) for n in nodes)
    monkeypatch.setattr("evenhand.cli.experiments.costs_of", lambda run, **k: PlanCosts(stages=known))
    monkeypatch.setattr("evenhand.report.table", lambda results: f"table of {', '.join(results.arms)}")
    return SimpleNamespace(run=run, asked=asked)


RESULTS = Results(arms={"dpo": ArmResult()})


def outcome(**status):
    errors = {n: f"{n} broke" for n, s in status.items() if s in ("failed", "blocked")}
    return Outcome(status={n: StageStatus(s) for n, s in status.items()}, errors=errors, seconds={})


def test_help_lists_the_commands(cli):
    code, out, _ = cli("--help")
    assert code == 0
    for command in ("run", "report", "compare", "generate", "chat", "score", "env", "theory", "data"):
        assert f" {command} " in out


def test_help_is_light():
    """The console script's imports: no heavy package, whatever the order of commands."""
    program = (
        "import sys, evenhand.cli; heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'datasets', 'yaml', 'jinja2'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_plan_finds_what_is_in_the_way_and_runs_nothing(cli, tmp_path, monkeypatch):
    from tests.doctor.patients import Ward, pairs

    monkeypatch.chdir(tmp_path)
    ward = Ward(tmp_path, rows=pairs(12))
    ward.experiment["arms"]["sft"] = {"method": "sft"}
    code, out, err = cli("run", ward.write(), "--plan", "--out", tmp_path / "out")
    assert code == 2, "as `run` without --plan"
    assert "nodes, 0 cached" in out
    assert "arms.sft learns from `demonstrations`, which the data do not have" in " ".join(err.split())
    assert "It does not start like this." in err
    assert not (tmp_path / "out").exists()
    code, _, err = cli("run", tmp_path / "ward.yaml", "--plan", "--unchecked", "--out", tmp_path / "out")
    assert code == 0
    assert "demonstrations" not in err


def test_plan_shows_stages_hits_and_cost_and_runs_nothing(cli, prepared, monkeypatch):
    monkeypatch.setattr(run_experiment, "execute", lambda *a, **k: pytest.fail("ran"))
    prepared.run.store.partial("bb" * 16).mkdir()
    code, out, _ = cli("run", "quickstart", "steps=3", "seeds=[0, 1]", "--plan")
    assert code == 0
    assert prepared.asked == [("quickstart", ["steps=3", "seeds=[0, 1]"], None)]
    assert "2 nodes, 1 cached, 1 to run" in out
    assert "arms.dpo: 3 of 9 weights learn" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["sft", "fit", "cached", "100", "steps", "aaaaaaaa"] in rows
    assert ["arms/dpo/seed-0", "fit", "to", "resume", "120", "steps", "x", "32", "prompts", "bbbbbbbb"] in rows


def test_a_good_run_prints_the_table_and_the_page(cli, prepared, monkeypatch):
    monkeypatch.setattr(run_experiment, "execute", lambda *a, **k: (outcome(sft="cached", dpo="done"), RESULTS))
    code, out, _ = cli("run", "quickstart", "--quiet")
    assert code == 0
    assert "table of dpo" in out
    assert f"Report: {prepared.run.out / 'report.html'}" in out


def test_failed_cells_are_summed_up_and_exit_with_3(cli, prepared, monkeypatch):
    result = outcome(sft="done", dpo="failed", judge="blocked")
    monkeypatch.setattr(run_experiment, "execute", lambda *a, **k: (result, RESULTS))
    code, out, err = cli("run", "quickstart")
    assert code == 3
    assert "table of dpo" in out, "what can be compared is compared"
    assert "1 failed, 1 blocked" in err
    assert "dpo: dpo broke" in err
    assert str(prepared.run.out / "logs" / "dpo.log") in err


def test_a_users_error_is_a_message_and_2(cli, monkeypatch):
    def refuse(*given):
        raise UserError("unknown key 'sed'", where="x.yaml:3: sed", fix="did you mean 'seed'?")

    monkeypatch.setattr(run_experiment, "prepare", refuse)
    code, out, err = cli("run", "x.yaml")
    assert (code, out) == (2, "")
    assert err == "x.yaml:3: sed: unknown key 'sed'\n  fix: did you mean 'seed'?\n"


def test_a_bug_is_a_traceback_and_1(cli, monkeypatch):
    monkeypatch.setattr(run_experiment, "prepare", lambda *given: 1 / 0)
    code, _, err = cli("run", "x.yaml")
    assert code == 1
    assert "Traceback" in err
    assert "ZeroDivisionError" in err
    assert "bug in evenhand" in err


def test_stopping_is_no_error_to_report(cli, prepared, monkeypatch):
    def stop(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_experiment, "execute", stop)
    code, _, err = cli("run", "quickstart")
    assert code == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [("rnu", "x"), ("run",), ("run", "x", "--workers", "many"), ("run", "x", "--wrokers", "2")])
def test_a_wrong_command_line_is_2(cli, arguments):
    code, _, err = cli(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_report_is_written_again(cli, prepared):
    (prepared.run.out / "results.json").write_text(json.dumps({"arms": {"kto": {}}}))
    code, out, _ = cli("report", str(prepared.run.out))
    assert code == 0
    assert "table of kto" in out


def test_report_needs_a_run_directory(cli, tmp_path):
    code, _, err = cli("report", str(tmp_path))
    assert code == 2
    assert "has no results.json" in err


def test_env_names_what_a_bug_report_needs(cli):
    code, out, _ = cli("env")
    assert code == 0
    named = {line.split()[0] for line in out.splitlines()}
    assert {"evenhand", "python", "platform", "processor", "memory", "device", "torch", "transformers"} <= named


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_theory_prints_every_claim_and_fails_when_one_does_not_hold(cli, monkeypatch, holds, code):
    rows = [
        SimpleNamespace(claim="[a] claim", expected="0", measured=3e-9, tolerance=1e-6, holds=True),
        SimpleNamespace(claim="another", expected="> 0", measured=0.25, tolerance=1e-3, holds=holds),
    ]
    theory = ModuleType("evenhand.theory")
    theory.table = lambda: rows
    monkeypatch.setitem(sys.modules, "evenhand.theory", theory)
    ended, out, _ = cli("theory")
    assert ended == code
    assert f"{1 + holds} of 2 claims hold" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["[a]", "claim", "0", "(to", "1e-06)", "3.0e-09", "holds"] in lines
    assert ["another", ">", "0", "2.5e-01", *("holds" if holds else "DOES NOT HOLD").split()] in lines


def test_the_version_is_said(cli):
    code, out, _ = cli("--version")
    assert (code, out) == (0, f"evenhand {evenhand.__version__}\n")


@pytest.mark.parametrize("columns", ["80", None])
def test_the_plan_shows_what_is_cached_in_any_width(cli, prepared, monkeypatch, columns):
    long = SimpleNamespace(
        name="reward_models/rm/evaluation", kind="evaluate_reward_model", key="cc" * 16, cost="x" * 60, inputs={}
    )
    prepared.run.plan.nodes = (*prepared.run.plan.nodes, long)
    known = tuple(StageForecast(node=n.name) for n in prepared.run.plan.nodes)
    monkeypatch.setattr("evenhand.cli.experiments.costs_of", lambda run, **k: PlanCosts(stages=known))
    monkeypatch.setenv("COLUMNS", columns) if columns else monkeypatch.delenv("COLUMNS")
    _, out, _ = cli("run", "quickstart", "--plan")
    assert "cached" in out.splitlines()[2]
    assert "to run" in out.splitlines()[4]
    assert all(key in out for key in ("aa" * 4, "bb" * 4, "cc" * 4))
    assert ("x" * 60 in out) == (columns is None)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(28, "No space left on device"), 2, "No space left on device\n  fix: free some space"),
        (OSError(13, "Permission denied", "/ro/x"), 2, "/ro/x: Permission denied\n  fix: check the path"),
        (OSError(9, "Bad file descriptor"), 1, "This is a bug in evenhand"),
    ],
)
def test_errors_of_the_system(cli, monkeypatch, error, code, said):
    def broken(*_):
        raise error

    monkeypatch.setattr(run_experiment, "prepare", broken)
    found, _, err = cli("run", "quickstart")
    assert found == code
    assert said in err
    assert ("Traceback" in err) == (code == 1)
