"""Healthy experiments raise no alarm: made-up ones, built-in ones, examples, and real files but for what is true of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evenhand.doctor import Diagnosis, Severity, examine
from evenhand.run_experiment import BUILTIN, prepare
from tests.doctor.patients import TEMPLATE, Ward, byte_tokenizer, demonstrations, plain

ROOT = Path(__file__).resolve().parents[2]
ALARMS = (Severity.FAIL, Severity.WARN)


def alarms(diagnosis: Diagnosis) -> set[str]:
    return {r.check.id for r in diagnosis.results if r.worst() in ALARMS}


# ---- made up -----------------------------------------------------------------------------------------------------------

HEALTHY: dict[str, Callable[[Ward], None]] = {}


def healthy(change: Callable[[Ward], None]) -> Callable[[Ward], None]:
    HEALTHY[change.__name__] = change
    return change


@healthy
def as_it_is(ward: Ward) -> None:
    pass


@healthy
def graded_pairs(ward: Ward) -> None:
    ward.rows = [{**r, "chosen_score": 4.5, "rejected_score": 2.0 + i % 3} for i, r in enumerate(ward.rows)]


@healthy
def rankings_in_any_order(ward: Ward) -> None:
    ward.rows = [
        {
            "prompt": r["prompt"],
            "completions": [r["rejected"][0]["content"], r["chosen"][0]["content"], f"good or poor {i}"],
            "scores": [1, 3, 2],
        }
        for i, r in enumerate(ward.rows)
    ]


@healthy
def tasks_with_answers_beside_pairs_without(ward: Ward) -> None:
    tasks = [{"prompt": f"What is {i} and {i}?", "answer": str(2 * i)} for i in range(120)]
    (ward.folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    ward.experiment["data"]["prompts"] = {"path": str(ward.folder / "tasks.jsonl"), "style": "chat"}
    ward.experiment["rewards"]["fair"] = {"kind": "number", "field": "answer"}


@healthy
def binary_feedback(ward: Ward) -> None:
    ward.experiment["arms"] = {"base": {"method": "start"}, "kto": {"method": "kto"}}
    ward.rows = [
        {"prompt": r["prompt"], "completion": r["chosen" if i % 2 else "rejected"], "label": bool(i % 2)}
        for i, r in enumerate(ward.rows)
    ]


@healthy
def a_preference_model(ward: Ward) -> None:
    ward.experiment["reward_models"] = {"pm": {"method": "preference_model", "train": {"steps": 2, "prompts_per_step": 4}}}


@healthy
def text_prompts_without_a_template(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(None)
    ward.rows = [
        {"prompt": r["prompt"][0]["content"], "chosen": r["chosen"][0]["content"], "rejected": r["rejected"][0]["content"]}
        for r in ward.rows
    ]


@healthy
def several_turns(ward: Ward) -> None:
    for i, row in enumerate(ward.rows):
        before = [{"role": "user", "content": f"Hello {i}"}, {"role": "assistant", "content": "Hello to you."}]
        row["prompt"] = before + row["prompt"]


@healthy
def system_turns(ward: Ward) -> None:
    for row in ward.rows:
        row["prompt"].insert(0, {"role": "system", "content": "You answer in one short sentence, and never at length."})


@healthy
def pad_is_eos(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(pad_token="</s>")


@healthy
def no_pad_token(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(pad_token=None)


@healthy
def no_bos_token(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(TEMPLATE.removeprefix("{{ bos_token }}"), bos_token=None)


@healthy
def all_answers_think(ward: Ward) -> None:
    for row in ward.rows:
        for side in ("chosen", "rejected"):
            text = row[side][0]["content"]
            row[side][0]["content"] = f"{text} <think>{text}</think>"


@healthy
def two_annotators_agree(ward: Ward) -> None:
    again = [{**r, "rejected": [{"role": "assistant", "content": r["rejected"][0]["content"] + " x"}]} for r in ward.rows[:30]]
    ward.rows += again


@healthy
def other_languages(ward: Ward) -> None:
    ward.experiment["lengths"] = {"prompt": 400, "completion": 400}
    for row in ward.rows:
        row["prompt"][0]["content"] += " Schöne Grüße, 你好, привет, 🙂"
        for side in ("chosen", "rejected"):
            row[side][0]["content"] += " naïve café über 中文"


@healthy
def held_out_prompts_by_name(ward: Ward) -> None:
    prompts = [{"prompt": [{"role": "user", "content": f"And what of question {i}, then?"}]} for i in range(40)]
    path = ward.folder / "heldout.jsonl"
    ward.after.append(lambda _: path.write_text("".join(json.dumps(p) + "\n" for p in prompts)) and None)
    ward.experiment["data"] |= {"heldout_prompts": str(path)}


@healthy
def demonstrations_and_every_turn(ward: Ward) -> None:
    ward.experiment["data"] = {
        "demonstrations": str(ward.folder / "pairs.jsonl"),
        "supervise": "assistant",
        "holdout": 0.5,
    }
    ward.experiment["arms"] = {"base": {"method": "start"}, "more": {"method": "sft"}}
    ward.rows = demonstrations()


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found(name: str, tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    HEALTHY[name](ward)
    diagnosis = ward.examine()
    assert plain(diagnosis, ALARMS) == []
    assert not [r for r in diagnosis.results if r.waived]


def test_the_full_form_finds_nothing_either(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.experiment["lengths"] = {"prompt": 128, "completion": 64}
    ward.experiment["train"]["tokens_per_microbatch"] = 1024
    diagnosis = ward.examine(quick=False)
    assert diagnosis.ok, plain(diagnosis)
    assert alarms(diagnosis) <= {"G3"}, "a model that was never trained does not stop, and that is said"
    assert [r.check.id for r in diagnosis.results if r.skipped] == ["R4", "R5", "R8"], "there is no reward model"


# ---- what comes with evenhand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(p.stem for p in BUILTIN.glob("*.yaml")))
def test_built_in_experiments(name: str, tmp_path: Path) -> None:
    assert plain(examine(prepare(name, [], tmp_path / "out"), quick=True), ALARMS) == []


def test_the_stories_example_on_real_models(real_data: Path, tmp_path: Path) -> None:
    for model in ("stories260K", "babyllama-tok361"):
        changes = [f"model.path={real_data}/models/{model}", f"data.prompts.path={real_data}/data/text/tinystories_v2.txt"]
        run = prepare(str(ROOT / "examples" / "happier_stories.yaml"), changes, tmp_path / "out")
        assert plain(examine(run, quick=True), ALARMS) == []


def test_the_countdown_example(tmp_path: Path) -> None:
    run = prepare(str(ROOT / "examples" / "countdown.yaml"), [], tmp_path / "out")
    assert plain(examine(run, quick=True), ALARMS) == []


# ---- real files --------------------------------------------------------------------------------------------------------

WORDS = {"kind": "length", "unit": "words"}
PAIRS = {"arms": {"dpo": {"method": "dpo"}}}
DEMOS = {"arms": {"more": {"method": "sft"}}}
PROMPTS = {"arms": {"grpo": {"method": "grpo", "reward": WORDS}}}
LINES = {"format": "documents", "separator": "\n", "encoding": "latin-1", "opening_words": 4}

FILES: dict[str, tuple[str, dict[str, Any], dict[str, Any], set[str]]] = {
    # file: the split it is, options, arms, and what is truly the matter with it
    "pref/dpo_en_demo.json": ("preferences", {}, PAIRS, {"D4", "D6", "D16"}),
    "pref/kto_en_demo.json": ("preferences", {}, {"arms": {"kto": {"method": "kto"}}}, {"D16"}),
    "pref/open_instruct_preference_sample.jsonl": ("preferences", {}, PAIRS, {"D4", "D16", "D18"}),
    "pref/hh_rlhf_harmless_2000.jsonl.gz": ("preferences", {"on_bad_row": "skip"}, PAIRS, set()),
    "pref/tulu_13b_11_samples_scored.jsonl.gz": ("preferences", {}, PAIRS, {"D16"}),
    "instruct/alpaca_en_demo.json": ("demonstrations", {}, DEMOS, {"D6"}),
    "instruct/alpaca_seed_tasks.jsonl": ("demonstrations", {}, DEMOS, {"D16"}),
    "instruct/self_instruct_user_oriented.jsonl": ("demonstrations", {}, DEMOS, {"D16"}),
    "instruct/gsm8k_train.jsonl": ("demonstrations", {}, DEMOS, set()),
    "instruct/gsm8k_test.jsonl": ("demonstrations", {}, DEMOS, set()),
    "instruct/mbpp.jsonl": ("demonstrations", {}, DEMOS, set()),
    "instruct/HumanEval.jsonl.gz": ("prompts", {}, PROMPTS, {"D16"}),
    "instruct/ifeval_input_data.jsonl": ("prompts", {}, PROMPTS, {"D16"}),
    "instruct/arena_hard_v2_question.jsonl": ("prompts", {}, PROMPTS, {"D16"}),
    "instruct/alpaca_eval_prompts.json": ("prompts", {}, PROMPTS, {"D16"}),
    "instruct/mt_bench_question.jsonl": ("prompts", {}, PROMPTS, {"D16"}),
    "text/tinystories_train.txt": ("demonstrations", {"opening_words": 12}, DEMOS, set()),
    "text/tinystories_v2.txt": ("demonstrations", {"opening_words": 12}, DEMOS, set()),
    "text/tinystories_val.txt": ("demonstrations", {"opening_words": 12}, DEMOS, {"D13"}),
    "text/rt-polarity.pos": ("demonstrations", LINES, DEMOS, set()),
    "text/rt-polarity.neg": ("demonstrations", LINES, DEMOS, set()),
}


@pytest.fixture(scope="module")
def gpt2(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small untrained model with a real tokenizer."""
    from evenhand.models.load import load_tokenizer, new_policy, save

    folder = tmp_path_factory.mktemp("gpt2") / "model"
    tokenizer = load_tokenizer(real_data / "models" / "tokenizer-gpt2")
    shape = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 4096}
    save(new_policy(shape, tokenizer, seed=0, device="cpu"), tokenizer, folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_real_files_raise_no_false_alarm(name: str, gpt2: Path, real_data: Path, tmp_path: Path) -> None:
    split, options, arms, known = FILES[name]
    experiment = {
        "name": "real",
        "seeds": [0, 1, 2],
        "initial_policy": "base",
        "model": {"path": str(gpt2), "template": "tulu"},
        "data": {split: {"path": str(real_data / "data" / name), **options}},
        "lengths": {"prompt": 1024, "completion": 1024},
        "train": {"steps": 2, "prompts_per_step": 4},
        "judge": {"reward": WORDS},
        "evaluation": {"prompts": 100},
        **arms,
    }
    (tmp_path / "real.yaml").write_text(yaml.safe_dump(experiment))
    diagnosis = examine(prepare(str(tmp_path / "real.yaml"), [], tmp_path / "out"), quick=True)
    assert diagnosis.ok, plain(diagnosis)
    assert alarms(diagnosis) == known, plain(diagnosis, ALARMS)
