"""Values that cannot be meant are refused before anything runs, once, where they were set, with what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand.errors import UserError
from evenhand.run_experiment import prepare

BASE = """
name: ranges
data: {world: quickstart}
model: {pretrain: {documents: 32, train: {steps: 2}}}
sft: {train: {steps: 2}}
train: {steps: 2}
arms:
  sft: {method: start}
  dpo: {method: dpo, train: {clip: 1.0}}
  ipo: {method: ipo}
  ppo: {method: ppo, reward: gold}
"""

REFUSED = {
    "arms.DPO={method: dpo}": "differ in case only",
    "arms.-x={method: dpo}": "'-x' cannot be a name",
    "train.steps=0": "at least 1",
    "data.preferences={pth: x.jsonl}": "did you mean 'path'",
    "data.preferences={path: 3}": "expected a path",
    "data.prompts={recipe: shpp}": "did you mean 'shp'",
    "data.prompts={mix: [{path: x.jsonl, wight: 2}]}": "did you mean 'weight'",
    "data.prompts={name: org/set, limit: many}": "expected a whole number",
    "train.epochs=.inf": "either `steps` or `epochs`",
    "train.learning_rate=.inf": "at least 0 and finite",
    "train.warmup=100": "the share of the steps",
    "train.warmup=-0.1": "at least 0 and at most 1",
    "arms.dpo.beta=.inf": "at least 0 and finite",
    "arms.ipo.tau=.inf": "above 0 and finite",
    "arms.dpo.train={schedule: step, schedule_parameters: {every: 0}}": "at least 1",
    "arms.dpo.train={schedule: step, schedule_parameters: {factor: half}}": "a number",
    "arms.dpo.train=null": "it must be a mapping",
    "arms.dpo.sampling=[1]": "it must be a mapping",
    "sft.train=null": "it must be a mapping",
    "sft.lengths=3": "it must be a mapping",
    "model.pretrain.train=null": "it must be a mapping",
    f"arms={{{'a' * 101}: {{method: dpo}}}}": "at most 100",
    "train.steps=-3": "at least 1",
    "train.epochs=-1.5": "either `steps` or `epochs`",
    "train.prompts_per_step=0": "at least 1",
    "train.learning_rate=-1": "at least 0",
    "train.weight_decay=-0.1": "at least 0",
    "train.clip=0": "above 0",
    "train.eps=0": "above 0",
    "train.betas=[0.9,1.0]": "at least 0 and below 1",
    "train.tokens_per_microbatch=0": "at least 1",
    "train.checkpoint_every=-1": "at least 0",
    "train.schedule=cosin": "did you mean 'cosine'",
    "train.schedule_parameters.factor=0.5": "the schedule cosine has none",
    "sampling.temperature=-1": "at least 0",
    "sampling.top_p=0": "above 0 and at most 1",
    "sampling.top_k=-1": "at least 0",
    "evaluation.sampling.top_p=3": "above 0 and at most 1",
    "evaluation.prompts=0": "at least 1",
    "lengths.prompt=0": "at least 1",
    "lengths.completion=-5": "at least 1",
    "runtime.threads=0": "at least 1",
    "runtime.workers=-2": "at least 0",
    "runtime.device=cudaa": "unknown device",
    "data.holdout=2": "at least 0 and below 1",
    "data.sizes.prompts=-1": "at least 1",
    "data.sizes.promts=10": "did you mean 'prompts'",
    "data.supervise=al": "is not a choice",
    "judge.tie=-1": "at least 0",
    "model.pretrain.documents=0": "at least 1",
    "model.pretrain.train.clip=-1": "above 0",
    "sft.train.steps=0": "at least 1",
    "arms.dpo.beta=-1": "at least 0",
    "arms.dpo.train.clip=-1": "above 0",
    "arms.ipo.tau=0": "above 0",
    "arms.ppo.lam=1.5": "at least 0 and at most 1",
    "arms.ppo.updates=0": "at least 1",
    "arms.ppo.completions_per_prompt=0": "at least 1",
    "arms.ppo.kl_estimator=k9": "known: ",
    "arms.sft2={method: sft, reduce: tokens}": "unknown reduction 'tokens'",
    'arms."a/b"={method: dpo}': "'a/b' cannot be a name",
    'evaluations."../x"={world: quickstart}': "'../x' cannot be a name",
    'splits."../x"={rows: preferences}': "'../x' cannot be a name",
    "evaluations.e={world: quickstart, sampling: {temperature: -1}}": "at least 0",
    "evaluations.e={world: quickstart, judge: {tie: -1}}": "at least 0",
    "judge={kind: jury, judges: {a: {reward: gold, tie: -1}, b: {reward: gold}}}": "at least 0",
    "revise={prompts: 0}": "at least 1",
    "revise={heldout_prompts: -1}": "at least 0",
    "revise={temperature: -1}": "at least 0",
    "arms.ppo.initial_policy=ppo": "cannot start from 'ppo'",
    "arms.ppo.reward={kind: function, path: nofile.py:f}": f"arms.ppo.reward.path: there is no file {Path.cwd()}/nofile.py",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


@pytest.mark.parametrize("setting", REFUSED)
def test_it_is_refused_once_where_it_was_set(setting: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare(str(base), [setting], tmp_path / "out")
    text = str(caught.value)
    assert REFUSED[setting] in text
    if "either" not in REFUSED[setting] and '"' not in setting and "={" not in setting:
        assert text.startswith(f"command line: {setting.split('=')[0]}"), "one fault, at one place"


def test_what_an_arm_sets_itself_is_told_there(base: Path, tmp_path: Path) -> None:
    base.write_text(BASE.replace("clip: 1.0", "clip: -1.0"))
    with pytest.raises(UserError, match=r"base.yaml:9: arms.dpo.train.clip: -1 is out of range"):
        prepare(str(base), [], tmp_path / "out")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.dtype=float16", "weights in float16 are not rounded by chance"),
        ("runtime.shard=fsdp", "are not spread over ranks"),
    ],
)
def test_moments_in_eight_bits_are_refused_where_they_cannot_be(setting: str, words: str, base: Path, tmp_path: Path) -> None:
    packed = "arms.dpo.train.optimizer=adamw_8bit"
    with pytest.raises(UserError, match=words):
        prepare(str(base), [setting, "runtime.device=cpu", packed], tmp_path / "out")
    prepare(str(base), ["runtime.device=cpu", packed], tmp_path / "out")


def test_arms_that_start_from_each_other(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dpo -> ipo -> dpo"):
        prepare(str(base), ["arms.dpo.initial_policy=ipo", "arms.ipo.initial_policy=dpo"], tmp_path / "out")
    prepare(str(base), ["arms.dpo.initial_policy=ipo"], tmp_path / "out")


def test_an_arm_that_cannot_be_made_hides_no_fault_of_another(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare(str(base), ["arms.ipo.method=ipu", "arms.dpo.beta=-1"], tmp_path / "out")
    assert "unknown method 'ipu'" in str(caught.value)
    assert "arms.dpo.beta: -1 is out of range" in str(caught.value)


def test_every_method_with_its_defaults_is_in_range(tmp_path: Path) -> None:
    from evenhand.methods import METHODS
    from evenhand.spec.arms import parse_arm
    from evenhand.spec.value_ranges import arm_problems

    for name in METHODS:
        arm = parse_arm(name, {"method": name}, where=name, train={}, defaults={})
        assert not list(arm_problems(arm, {}, name)), name


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data.world=quickstar", ["did you mean 'quickstart'"]),
        ("judge={kind: llm}", ["'model' is missing"]),
        ("sampling={temprature: 1}", ["sampling.temprature", "did you mean 'temperature'"]),
        ("train={stepz: 1}", ["train.stepz", "did you mean 'steps'"]),
    ],
)
def test_a_fault_is_said_once(setting: str, words: list[str], base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare(str(base), [setting], tmp_path / "out")
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "faults" not in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("empty.yaml", "", "empty.yaml: 'name' is missing"), ("list.yaml", "- a", "begin with `name: my-experiment`")],
)
def test_files_that_are_no_experiment(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        prepare(str(tmp_path / name), [], tmp_path / "out")
    assert words in str(caught.value)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"it has no experiment.json"):
        prepare(str(tmp_path), [], tmp_path / "out")


@pytest.mark.parametrize(("supervise", "refused"), [("full", True), ("assistant", False), ("completion", False)])
def test_kto_needs_answers_apart_from_their_prompts(tmp_path: Path, supervise: str, refused: bool) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(BASE + "  kto: {method: kto}\n")
    if not refused:
        prepare(str(path), [f"data.supervise={supervise}"])
        return
    with pytest.raises(UserError, match=r"arms\.kto: kto cannot learn whole texts"):
        prepare(str(path), [f"data.supervise={supervise}"])


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("arms.dpo.temperature=0", "above 0"),
        ("arms.ppo.clip=-0.1", "at least 0"),
        ("arms.ppo.kl_target=-1", "at least 0"),
        ("arms.ppo={method: dapo, reward: gold, overlong: 1.5}", "at most 1"),
        ("arms.dpo={method: orpo, weight: -1.0}", "at least 0"),
        ("arms.dpo={method: r_dpo, alpha: -0.1}", "at least 0"),
    ],
)
def test_parameters_of_methods_have_ranges_too(tmp_path: Path, override: str, allowed: str) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(BASE)
    with pytest.raises(UserError, match=allowed):
        prepare(str(path), [override])
