"""What a key says: everything that decides an artifact's bytes, and nothing else."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path

import pytest
import yaml

import evenhand
from evenhand.configfile.schema import from_json, to_json
from evenhand.plan.plan import Plan, build
from evenhand.run_experiment import BUILTIN
from evenhand.spec.read import read_experiment
from evenhand.stages import KINDS, spec_class
from evenhand.store import fingerprint
from evenhand.store.fingerprint import canonical, decisive, stage_key

SRC = Path(evenhand.__file__).parent
ANSWERS = {"generate", "judge", "judge_self_test", "sample_rewards", "score_answers", "frontier", "harness"}
"""Kinds that follow training."""
EVERYTHING = """
name: everything
seeds: [0]
data: {world: quickstart, sizes: {demonstrations: 8, preferences: 8, prompts: 8, heldout_preferences: 8}}
model: {pretrain: {documents: 8, train: {steps: 1}}}
sft: {train: {steps: 1}}
initial_policy: sft
annotate: {reward: gold, prompts: 4, heldout_prompts: 4}
revise: {prompts: 4, heldout_prompts: 4}
reward_models: {rm: {train: {steps: 1}}, taken: {path: "%(model)s"}}
train: {steps: 1}
arms:
  sft: {method: start}
  dpo: {method: dpo, train: {adapter: {rank: 2}, sample_every: 1}}
  grpo: {method: grpo, reward: {kind: weighted, parts: [{reward: rm}, {reward: {kind: function, path: "%(code)s:score"}}]}}
  best: {method: best_of_n, n: 2, reward: rm}
evaluation: {prompts: 8, best_of_n: 2}
evaluations: {maths: {task: gsm8k, count: 4}, talk: {benchmark: mt_bench, prompts: "%(questions)s"}}
tune: {prompts: 2}
"""
"""An experiment with a stage of every kind but the plain base."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("keys")
    (made / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (made / "model" / name).write_text("{}")
    (made / "question.jsonl").write_text('{"question_id": 81, "turns": ["One?", "Two?"]}\n')
    (made / "score.py").write_text("def score(prompt, completion):\n    return 1.0\n")
    return made


def planned(folder: Path, *overrides: str) -> Plan:
    text = EVERYTHING % {"model": folder / "model", "code": folder / "score.py", "questions": folder / "question.jsonl"}
    return build(read_experiment(yaml.safe_load(text), overrides).value)


def keys(plan: Plan) -> dict[str, str]:
    return {node.name: node.key for node in plan.nodes}


def changed(before: Plan, after: Plan) -> set[str]:
    """Kinds of the stages of `before` whose artifacts `after` would not find."""
    kept = set(keys(after).values())
    return {node.kind for node in before.nodes if node.key not in kept}


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return planned(folder)


def test_every_kind_of_stage_is_here(plan: Plan) -> None:
    assert {node.kind for node in plan.nodes} == set(KINDS) - {"base", "further_split"}  # which tuning does not go with


def test_no_device_takes_up_what_another_made(folder: Path) -> None:
    """In bfloat16, an accelerator's default, and in float32 on both: only what needs no network is shared."""
    there = planned(folder, "runtime.device=cuda")
    for here in (planned(folder, "runtime.device=cpu"), planned(folder, "runtime.device=cpu", "model.dtype=bfloat16")):
        assert {node.kind for node in here.nodes} - changed(here, there) == {"data", "questions", "validation_split"}


def test_a_new_field_with_a_default_changes_no_key(plan: Plan) -> None:
    for node in plan.nodes:
        grown = make_dataclass(type(node.spec).__name__, [("fresh", int, 7)], bases=(type(node.spec),), frozen=True, kw_only=True)
        values = {f.name: getattr(node.spec, f.name) for f in fields(node.spec)}
        assert stage_key(node.kind, 1, grown(**values), 0, {}) == stage_key(node.kind, 1, node.spec, 0, {})
        assert stage_key(node.kind, 1, grown(**values, fresh=8), 0, {}) != stage_key(node.kind, 1, node.spec, 0, {})


def test_a_changed_default_changes_the_keys_of_those_who_use_the_new_one(plan, folder, monkeypatch) -> None:
    """The record has another first default of `clip` than the class: whoever trains with the class's own has it in the key."""
    record = {**fingerprint.recorded(), "Train": {**fingerprint.recorded()["Train"], "clip": 0.5}}
    monkeypatch.setattr(fingerprint, "recorded", lambda: record)
    same, other = planned(folder, "train.clip=0.5"), planned(folder)
    arm = "arms/grpo/seed-0"
    assert decisive(other[arm].spec)["train"]["clip"] == 1.0
    assert "clip" not in decisive(same[arm].spec)["train"], "the old default, asked for by name, is the key of old"
    assert keys(other)["data"] == keys(plan)["data"]
    assert "fit" in changed(plan, other)


def test_a_default_inside_another_is_compared_with_the_first(monkeypatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Inner:
        rate: float = 0.2

    @dataclass(frozen=True, kw_only=True)
    class Outer:
        inner: Inner = field(default_factory=Inner)

    monkeypatch.setattr(fingerprint, "recorded", lambda: {"Inner": {"rate": 0.1}, "Outer": {"inner": {}}})
    assert decisive(Outer()) == {"inner": {"rate": 0.2}}
    assert decisive(Outer(inner=Inner(rate=0.1))) == {}


def test_a_methods_parameter_is_named_where_it_is_not_the_first_default(plan, folder, monkeypatch) -> None:
    arm = "arms/dpo/seed-0"
    assert plan[arm].spec.parameters["beta"] == 0.1
    assert "parameters" not in decisive(plan[arm].spec)
    assert decisive(planned(folder, "arms.dpo.beta=0.3")[arm].spec)["parameters"] == {"beta": 0.3}
    monkeypatch.setattr(fingerprint, "recorded", lambda: {"methods.dpo": {"beta": 0.5}})
    assert decisive(plan[arm].spec)["parameters"] == {"beta": 0.1}


def test_how_a_result_is_reached_is_in_no_key(plan: Plan, folder: Path) -> None:
    assert keys(planned(folder, "train.checkpoint_every=7", "runtime.workers=1")) == keys(plan)


@pytest.mark.parametrize(
    "override", ["runtime.device=cuda", "runtime.threads=2", "model.dtype=bfloat16", "model.matmul=bfloat16"]
)
def test_machines_that_compute_otherwise_share_nothing_they_compute(plan, folder, override) -> None:
    other = planned(folder, "runtime.device=cpu", override)
    computed = {node.kind for node in plan.nodes} - {"data", "validation_split", "questions"}
    assert changed(planned(folder, "runtime.device=cpu"), other) == computed
    shared = set(keys(other).values()) & set(keys(plan).values())
    assert {node.name for node in other.nodes if node.key in shared} == {
        "data",
        "data set apart",
        "tokens/corpus",
        "evaluations/talk/prompts",
    }, "no model"


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.prompts=16", "evaluation.prompts=800", "evaluation.best_of_n=3", "evaluation.frontier=false",
        "evaluation.length_grid=[16]", "evaluation.sampling.temperature=0.5", "judge.tie=0.5", "judge.self_test=3",
        "judge.reward={kind: length, unit: words}", "judge={kind: llm, model: m}",
    ],
)  # fmt: skip
def test_evaluation_and_judge_cost_answers_and_verdicts_only(plan, folder, override) -> None:
    other = planned(folder, override)
    assert changed(plan, other) <= ANSWERS
    assert set(keys(other).values()) != set(keys(plan).values()), "something else is asked"


@pytest.mark.parametrize(
    "override", ["seeds=[0,1]", "arms.orpo={method: orpo, train: {steps: 3}}", "arms.ipo={method: ipo, train: {steps: 90}}"]
)
def test_another_seed_or_arm_costs_nothing_that_was_there(plan, folder, override) -> None:
    """Whoever adds seeds or arms to a finished run waits for those alone: a pass that they share reads every row."""
    more = planned(folder, override)
    assert changed(plan, more) == set()
    assert len(more.nodes) > len(plan.nodes)


def test_more_held_out_prompts_than_the_data_have_are_asked_of_a_stage_of_their_own(plan, folder) -> None:
    more = planned(folder, "evaluation.prompts=800")
    asked = more[more.generations["dpo"][0]].inputs["data"]
    assert (more[asked].kind, more[asked].spec.only) == ("data", ("heldout_prompts",))
    assert plan[plan.generations["dpo"][0]].inputs["data"] != asked


def test_what_a_user_wrote_is_in_the_keys_of_what_runs_it(plan, folder) -> None:
    file = folder / "score.py"
    before = file.read_text()
    file.write_text(before + "# another\n")
    other = planned(folder)
    file.write_text(before)
    assert other["arms/grpo/seed-0"].key != plan["arms/grpo/seed-0"].key
    assert other["arms/dpo/seed-0"].key == plan["arms/dpo/seed-0"].key
    assert other["reward_models/rm/seed-0"].key == plan["reward_models/rm/seed-0"].key


def test_every_spec_survives_json(plan: Plan) -> None:
    base = build(read_experiment({"name": "b", "model": {"path": "org/m"}, "data": {"world": "quickstart"}, "initial_policy":
                                   "base", "arms": {"a": {"method": "start"}}}).value)["base"]  # fmt: skip
    for node in (*plan.nodes, base):
        back = from_json(spec_class(node.kind), to_json(node.spec))
        assert type(back) is type(node.spec)
        assert canonical(to_json(back)) == canonical(to_json(node.spec)), node.name
        assert decisive(back) == decisive(node.spec), node.name


def test_the_quickstart_can_be_planned_twice() -> None:
    raw = yaml.safe_load((BUILTIN / "quickstart.yaml").read_text())
    assert keys(build(read_experiment(raw).value)) == keys(build(read_experiment(raw).value))


def test_no_setting_is_read_by_a_string_key() -> None:
    """A spec is read by attribute; what an artifact's meta.json says of it is JSON, and read by `export` alone."""
    rooms = ("stages", "plan", "runner", "results", "doctor", "tuning")
    found = [f"{path.name}:{line}" for room in rooms for path in (SRC / room).glob("*.py") for line in _by_key(path)]
    assert not found


def _by_key(path: Path) -> list[int]:
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        owner = node.value if isinstance(node, ast.Subscript) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        if name in ("spec", "setup"):
            lines.append(node.lineno)
    return lines
