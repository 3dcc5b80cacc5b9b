"""`evenhand init`: what it writes is read, planned and run, from pairs, prompts, demonstrations and TRL's configurations."""

from __future__ import annotations

import json

import pytest

from evenhand.cli.from_trl import carried
from evenhand.errors import UserError
from evenhand.run_experiment import execute, prepare
from evenhand.spec.arms import parse_arm
from tests.doctor.patients import Ward, pairs

ROWS = {
    "preferences": [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(40)],
    "demonstrations": [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(40)],
    "prompts": [{"prompt": f"What is {i}?"} for i in range(40)],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    ward = Ward(tmp_path_factory.mktemp("ward"))
    ward.write()
    return ward.folder / "model"


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.mark.parametrize(
    ("kind", "method", "arms"), [("preferences", "dpo", ["base", "dpo"]), ("demonstrations", "sft", ["base", "sft"]),
                                 ("prompts", "rloo", ["base", "rloo"])],
)  # fmt: skip
def test_what_it_writes_is_an_experiment(cli, model, tmp_path, kind, method, arms):
    write(tmp_path / "rows.jsonl", ROWS[kind])
    code, out, err = cli("init", "--model", model, "--data", "rows.jsonl")
    assert code == 0, err
    assert "evenhand run experiment.yaml --plan" in out
    made = prepare("experiment.yaml").loaded.value
    assert list(made.arms) == arms
    assert made.arm(method).method == method
    assert getattr(made.data, kind) == {"path": "rows.jsonl", "style": "chat"}, "the model has a template"
    assert (tmp_path / "reward.py").exists() == (kind != "preferences")
    assert cli("init", "--model", model, "--data", "rows.jsonl")[0] == 2, "one that exists is never replaced"


@pytest.mark.parametrize("kind", ["preferences", "prompts"])
def test_what_it_writes_runs(cli, model, tmp_path, kind):
    """In a folder of its own too: a reward's file is beside the experiment that names it."""
    rows = pairs(60) if kind == "preferences" else ROWS[kind]
    write(tmp_path / "rows.jsonl", rows)
    (tmp_path / "mine").mkdir()
    code, _, err = cli("init", "mine/first.yaml", "--model", model, "--data", "rows.jsonl")
    assert code == 0, err
    assert (tmp_path / "mine" / "reward.py").exists() == (kind == "prompts")
    short = ["train.epochs=0.1", "evaluation.prompts=4", "judge.self_test=0", "lengths.completion=16", "runtime.device=cpu"]
    outcome, results = execute(prepare("mine/first.yaml", short, tmp_path / "run"), workers=0)
    assert outcome.ok, outcome.errors
    assert results is not None
    assert results.judge is not None
    assert bool(results.judge.trained_on) == (kind == "prompts"), "a reward of one's own that judges too is said"


def test_few_pairs_are_judged_by_a_function_and_not_by_what_they_teach(cli, model, tmp_path):
    """Six pairs that a person labelled: a third is held out, and nothing would be left for a judge."""
    write(tmp_path / "rows.jsonl", pairs(6))
    code, out, err = cli("init", "--model", model, "--data", "rows.jsonl")
    assert code == 0, err
    made = prepare("experiment.yaml").loaded.value
    assert not made.all_reward_models()
    assert made.arm("dpo").reward is None
    assert (tmp_path / "reward.py").exists()
    code, out, err = cli("run", "experiment.yaml", "--plan")
    assert code == 0, out + err


def test_what_is_not_given_and_cannot_be_asked_is_named(cli, model, tmp_path):
    code, _, err = cli("init", "--data", "rows.jsonl")
    assert code == 2
    assert "add --model NAME" in err
    write(tmp_path / "rows.jsonl", ROWS["prompts"])
    code, _, err = cli("init", "--model", model, "--data", "rows.jsonl", "--method", "dpo")
    assert code == 2
    assert "dpo learns from pairs, these are prompts" in err


TRL = {
    "model_name_or_path": "m", "dataset_name": "d", "learning_rate": 5e-6, "num_train_epochs": 2, "seed": 3, "output_dir": "out",
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "beta": 0.2, "max_length": 100, "max_prompt_length": 60,
    "use_peft": True, "lora_r": 8, "lora_alpha": 16, "warmup_ratio": 0.1, "lr_scheduler_type": "cosine", "padding_free": True,
}  # fmt: skip


def test_an_adapter_of_theirs_keeps_its_form():
    given = carried({**TRL, "use_dora": True, "use_rslora": True})
    assert given.train["adapter"] == {"form": "dora", "rank": 8, "alpha": 16, "rslora": True}
    assert carried({**TRL, "use_dora": False}).train["adapter"] == {"rank": 8, "alpha": 16}


def test_trls_settings_mean_the_same_here():
    found = carried(TRL)
    assert (found.model, found.data, found.method, found.seeds) == ("m", "d", "dpo", (3,))
    assert found.train == {
        "prompts_per_step": 8, "epochs": 2.0, "learning_rate": 5e-6, "warmup": 0.1, "schedule": "cosine",
        "adapter": {"rank": 8, "alpha": 16},
    }  # fmt: skip
    assert found.lengths == {"prompt": 60, "completion": 40}
    assert found.arm == {"beta": 0.2}
    assert [key.partition(":")[0] for key in found.left] == ["padding_free"]


@pytest.mark.parametrize(
    ("theirs", "ours", "left"),
    [
        ("adamw_torch_fused", None, 0),
        ("paged_adamw_8bit", "adamw_8bit", 0),
        ("adamw_torch_4bit", None, 1),
        ("galore_adamw_8bit", None, 1),
        ("schedule_free_adamw", None, 1),
        ("adafactor", None, 1),
    ],
)
def test_an_optimizer_that_is_none_of_ours_is_said(theirs, ours, left):
    found = carried({**TRL, "padding_free": None, "optim": theirs})
    assert found.train.get("optimizer") == ours
    assert [key.partition(":")[0] for key in found.left] == ["optim"] * left


@pytest.mark.parametrize(
    ("given", "method", "arm", "step"),
    [
        ({"num_generations": 4, "per_device_train_batch_size": 8, "beta": 0.04, "epsilon": 0.2}, "grpo",
         {"completions_per_prompt": 4, "kl": 0.04, "low": 0.2}, 2),
        ({"loss_type": "dapo", "num_generations": 8, "per_device_train_batch_size": 16}, "dapo",
         {"completions_per_prompt": 8, "high": 0.2, "refill": 0, "overlong": 0.0}, 2),
        ({"loss_type": "ipo", "beta": 0.1}, "ipo_mean", {"tau": 0.1}, 8),
        ({"loss_type": "sigmoid", "label_smoothing": 0.1}, "cdpo", {"flip": 0.1}, 8),
        ({"rloo_k": 2, "kl_coef": 0.05}, "rloo", {"completions_per_prompt": 2, "kl": 0.05}, 4),
    ],
)  # fmt: skip
def test_a_step_of_completions_becomes_one_of_prompts(given, method, arm, step):
    found = carried(given)
    assert (found.method, found.arm, found.train["prompts_per_step"]) == (method, arm, step)
    assert not found.left


@pytest.mark.parametrize(
    ("given", "method", "arm"),
    [
        ({"loss_type": ["sigmoid"]}, "dpo", {}),
        ({"loss_type": ["nca_pair"]}, "nca_pair", {"beta": 0.1}),  # TRL's default, where the paper has .01
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [2.0, 0.5]}, "rpo", {"likelihood": 0.25}),
        ({"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}, "mpo",
         {"preference": 0.8, "quality": 0.2, "likelihood": 1.0}),
        ({"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7}, "f_dpo",
         {"divergence": "alpha", "alpha": 0.3, "beta": 0.3}),
        ({"beta": 0.3, "f_divergence_type": "js_divergence"}, "f_dpo", {"divergence": "jensen_shannon", "beta": 0.3}),
        ({"beta": 0.3, "ld_alpha": 0.4}, "ld_dpo", {"alpha": 0.4, "beta": 0.3}),
        ({"beta": 0.3, "use_weighting": True}, "wpo", {"beta": 0.3}),
        ({"loss_type": "exo_pair", "label_smoothing": 0.01}, "exo", {"flip": 0.01}),
        ({"loss_type": "discopop", "discopop_tau": 0.1}, "discopop", {"width": 0.1, "beta": 0.1}),
        ({"beta": 0.1, "discopop_tau": 0.05}, "dpo", {"beta": 0.1}),
        ({"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 64, "ref_model_mixup_alpha": 0.5}, "dpo",
         {"reference_update": {"every": 64, "mix": 0.5}, "beta": 0.1}),
        ({"beta": 0.1, "sync_ref_model": False, "ref_model_sync_steps": 64}, "dpo", {"beta": 0.1}),
        ({"loss_type": "grpo", "epsilon": 0.3}, "grpo", {"low": 0.3, "high": 0.3, "kl": 0.0}),
        ({"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4, "beta": 0.0},
         "gspo", {"low": 3e-4, "high": 4e-4, "kl": 0.0}),
        ({"loss_type": "cispo", "epsilon_high": 5.0}, "cispo", {"high": 4.0}),
        ({"num_generations": 2, "normalize_advantages": False, "epsilon": 0.1}, "rloo",
         {"completions_per_prompt": 2, "clip": 0.1}),
        ({"loss_type": "nll"}, "sft", {}),
    ],
)  # fmt: skip
def test_a_loss_is_what_it_is_there(given, method, arm):
    """Methods and settings whose step equals TRL's in tests/test_trl_losses.py; defaults are those of its trainers."""
    found = carried(given)
    assert (found.method, found.arm) == (method, arm)
    assert not found.left
    parse_arm("x", {"method": method, **arm}, where="arms.x", train={"steps": 2}, defaults={})


def test_a_sum_of_losses_that_is_no_method_is_said_with_those_that_are():
    with pytest.raises(UserError, match=r"(?s)a sum of hinge, ipo.*sigmoid with sft"):
        carried({"loss_type": ["hinge", "ipo"]})


def test_only_what_could_be_run_is_carried():
    """A schedule or a setting that is not here would be an experiment that stops at once."""
    found = carried({"loss_type": "sigmoid", "rpo_alpha": 1.0, "lr_scheduler_type": "cosine_with_restarts", "max_steps": 20,
                     "warmup_steps": 5})  # fmt: skip
    assert found.left[0] == "likelihood: dpo has no such setting (it was 1.0)"
    assert found.left[1].startswith("lr_scheduler_type: ")
    assert found.train == {"prompts_per_step": 8, "steps": 20, "warmup": 0.25}
    assert found.arm == {}
    assert carried({"warmup_steps": 0.1}).train["warmup"] == 0.1, "below one it is a share, as of transformers 5"


def test_a_whole_configuration_is_not_a_list_of_defaults():
    given = {
        "loss_type": ["sigmoid"], "logging_first_step": True, "hub_strategy": "every_save", "save_only_model": False, "fsdp": [],
        "dataloader_drop_last": False, "label_smoothing_factor": 0.0, "precompute_ref_log_probs": True, "use_peft": False,
        "lora_r": 16, "vllm_mode": "server", "neftune_noise_alpha": None, "scale_rewards": "group",
    }  # fmt: skip
    assert not carried(given).left
    asking = carried({**given, "scale_rewards": False, "neftune_noise_alpha": 5}).left
    assert [line.partition(":")[0] for line in asking] == ["neftune_noise_alpha", "scale_rewards"]


@pytest.mark.parametrize(
    ("given", "precision"),
    [
        ({"bf16": True}, {"dtype": "float32", "matmul": "bfloat16"}),
        ({"bf16": True, "torch_dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"bf16": False, "dtype": "float16"}, {"dtype": "float16"}),
        ({"bf16": True, "torch_dtype": "auto"}, {"dtype": "float32", "matmul": "bfloat16"}),
    ],
)
def test_mixed_precision_stays_mixed(given, precision):
    assert carried(given).precision == precision


def test_what_has_a_place_here_is_not_left_out_in_silence():
    said = carried({"report_to": "wandb", "use_vllm": True, "lora_r": 8, "lora_dropout": 0.05}).left
    assert said[0] == "report_to: write `tracker`"
    assert [line.partition(":")[0] for line in said] == ["report_to", "use_vllm", "lora_dropout"]
    assert not carried({"report_to": "none", "use_vllm": False, "fp16": False, "lora_r": 8, "lora_dropout": 0.0}).left


def test_a_prompt_as_long_as_both_leaves_room_for_an_answer():
    assert carried({"max_length": 512, "max_prompt_length": 600}).lengths == {"prompt": 256, "completion": 256}


def test_a_loss_without_a_counterpart_is_said():
    with pytest.raises(UserError, match="`loss_type` is 'nobody'"):
        carried({"loss_type": "nobody"})


def test_a_configuration_becomes_a_file_that_is_planned(cli, model, tmp_path):
    write(tmp_path / "rows.jsonl", ROWS["preferences"])
    own = {**TRL, "model_name_or_path": str(model), "dataset_name": "rows.jsonl", "gradient_checkpointing": True}
    (tmp_path / "trl.json").write_text(json.dumps(own))
    code, out, err = cli("init", "--from-trl", "trl.json")
    assert code == 0, err
    assert "not taken over: padding_free: it has no counterpart here" in out
    made = prepare("experiment.yaml").loaded.value
    dpo = made.arm("dpo")
    assert (dpo.parameters["beta"], dpo.train.epochs, dpo.train.prompts_per_step, dpo.train.learning_rate) == (0.2, 2.0, 8, 5e-6)
    assert dpo.train.adapter is not None
    assert (dpo.train.adapter.rank, made.lengths.prompt, made.seeds) == (8, 60, (3,))
    judge = made.all_reward_models()["judge_model"].train
    assert judge.adapter == dpo.train.adapter, "where all weights do not fit, they do not fit the judge either"
    assert judge.gradient_checkpointing


def test_a_number_of_steps_takes_the_place_of_epochs(cli, model, tmp_path):
    write(tmp_path / "rows.jsonl", ROWS["preferences"])
    own = {**TRL, "model_name_or_path": str(model), "dataset_name": "rows.jsonl", "max_steps": 6}
    (tmp_path / "trl.json").write_text(json.dumps(own))
    code, _, err = cli("init", "--from-trl", "trl.json")
    assert code == 0, err
    train = prepare("experiment.yaml").loaded.value.arm("dpo").train
    assert (train.steps, train.epochs) == (6, None)
