"""A finished run as `evenhand run` leaves it, with models of a few thousand weights, made in a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from evenhand.data.jsonl import write_groups
from evenhand.data.template import Renderer
from evenhand.engines.local import LocalEngine
from evenhand.models.load import new_policy, reward_model_from, save
from evenhand.rewards.model import Normalisation
from evenhand.types import Completion, Group, Message, Prompt, Sampling
from evenhand.worlds.tokenizer import word_tokenizer

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 128, "initializer_range": 0.3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
}  # fmt: skip
WORDS = "red green blue black white gold"
LENGTHS = {"prompt": 16, "completion": 12}
SETUP = {"compute": {"device": "cpu", "dtype": "float32"}, "lengths": LENGTHS}
TRAIN = {"steps": 3, "epochs": None, "learning_rate": 0.001, "prompts_per_step": 2}


def tokenizer() -> Any:
    return word_tokenizer([WORDS, " " + WORDS])


def chat(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def pairs(count: int, split: str) -> list[Group]:
    """Preference pairs about `count` prompts, the better answer first in every other one."""
    made = []
    for i in range(count):
        words = WORDS.split()
        answers = (Completion(content=words[i % 6]), Completion(content=f"{words[(i + 1) % 6]} {words[i % 6]}"))
        prompt = Prompt(content=chat(f"{split} {words[i % 6]} {i}"), meta={"topic": words[i % 6]})
        made.append(Group(prompt=prompt, completions=answers, scores=(1.0, 0.0) if i % 2 == 0 else (0.0, 1.0)))
    return made


def write_run(folder: Path) -> Path:
    """Arms sft (shared by both seeds), dpo and kept (two seeds each), best (best of n), and the reward model rm."""
    tok = tokenizer()
    store = folder / "store"
    keys = {"data": "d0" * 16, "base": "b0" * 16, "sft": "5f" * 16}
    _artifact(store / keys["data"], {"source": {"preferences": "org/pairs", "prompts": {"path": "/home/me/p.jsonl"}}})
    (store / keys["data"] / "description.json").write_text(
        json.dumps({"splits": {"preferences": 24, "heldout_preferences": 4}, "sources": ["preferences: pairs.jsonl, 24 pairs"]})
    )
    write_groups(store / keys["data"] / "preferences.jsonl", pairs(24, "red"))
    write_groups(store / keys["data"] / "heldout_preferences.jsonl", pairs(4, "blue"))
    _artifact(store / keys["base"], {"model": {"path": "org/base", "revision": None, "fingerprint": None}})
    _artifact(store / keys["sft"], {"method": "sft", "parameters": {}, "setup": SETUP, "train": TRAIN}, name="sft", start="base")
    heldout = [Prompt(content=chat(f"{word} please")) for word in WORDS.split()]
    start = new_policy(SHAPE, tok, seed=9, device="cpu")
    save(start, tok, store / keys["sft"] / "model")
    for arm in ("sft", "dpo", "kept"):
        for seed in (0, 1):
            place = folder / "arms" / arm / f"seed-{seed}"
            if arm == "sft":
                place.mkdir(parents=True)
                shutil.copytree(store / keys["sft"] / "model", place / "model", copy_function=_link)
                policy = start
            else:
                policy = new_policy(SHAPE, tok, seed=seed + 10 * len(arm), device="cpu")
                save(policy, tok, place / "model")
                _cell(place, arm, seed, keys)
            said = LocalEngine(policy, Renderer(tok)).generate(heldout, 1, Sampling(max_tokens=LENGTHS["completion"], seed=seed))
            write_groups(folder / "generations" / arm / f"seed-{seed}" / "generations.jsonl", said)
    _reward_model(folder / "reward_models" / "rm", store / keys["sft"] / "model", tok)
    write_record(folder / "results.json", results())
    write_record(folder / "experiment.json", experiment(keys))
    return folder


def results() -> dict[str, Any]:
    """dpo is judged worse and has more training reward; kept is inconclusive."""
    measured = {"mean_length": 9.5, "kl": 1.5, "truncated": 0.25, "gold": 0.4, "gold_per_seed": [0.4, 0.41]}
    return {
        "name": "tiny", "description": "colours", "baseline": "sft", "seeds": [0, 1], "n_prompts": 6,
        "judge": {"name": "colour", "kind": "gold", "invalid": 0.0, "self_test": {"passed": True, "n": 4}},
        "arms": {
            "sft": {"win_rate": 0.5, "per_seed": [0.5, 0.5], "method": "start", "reward": -1.0, "gold": 0.5},
            "dpo": {"win_rate": 0.31, "ci95": [0.22, 0.41], "per_seed": [0.3, 0.32], "method": "dpo", "reward": 2.0, **measured},
            "kept": {"win_rate": 0.55, "ci95": [0.4, 0.7], "per_seed": [0.58, 0.52], "method": "dpo", **measured},
            "best": {"win_rate": 0.6, "ci95": [0.5, 0.7], "per_seed": [0.6, 0.6], "method": "best_of_n"},
        },
        "contrasts": [
            {"a": "dpo", "b": "sft", "difference": -0.19, "ci95": [-0.28, -0.09], "p_holm": 0.01, "verdict": "worse"},
            {"a": "kept", "b": "sft", "difference": 0.05, "ci95": [-0.1, 0.2], "p_holm": 0.4, "verdict": "inconclusive"},
        ],
        "power": {"minimum_detectable_difference": 0.12, "median": 0.11},
        "reward_models": {"rm": {"accuracy": 0.75, "ci95": [0.7, 0.8], "length_correlation": 0.5, "n": 4}},
        "deviations": ["train.steps: 3 (dpo); 4 (kept)"], "waived": [], "failed": [], "excluded": [],
    }  # fmt: skip


def experiment(keys: dict[str, str]) -> dict[str, Any]:
    fitted = [f"arms/{arm}/seed-{seed}" for arm in ("dpo", "kept") for seed in (0, 1)]
    made = [{"name": name, "kind": "fit", "key": "a1" * 16, "inputs": {"start": "sft", "data": "data"}} for name in fitted]
    said = [{"name": f"generations/sft/seed-{s}", "key": "91" * 16, "inputs": {"policy": "sft"}} for s in (0, 1)]
    roots = [{"name": n, "kind": n, "key": k, "inputs": {"start": "base"} if n == "sft" else {}} for n, k in keys.items()]
    effective = {
        "name": "tiny", "seeds": [0, 1], "model": {"path": "org/base"}, "lengths": LENGTHS,
        "data": {"preferences": "org/pairs", "prompts": {"path": "/home/me/p.jsonl"}},
        "evaluation": {"sampling": {"temperature": 0.8, "top_p": 0.9, "top_k": 0}},
    }  # fmt: skip
    return {
        "source": "/home/me/tiny.yaml", "effective": effective, "store": "store", "nodes": [*roots, *made, *said],
        "hashes": {"effective": "e" * 32}, "versions": {"evenhand": "0.1.0", "torch": "2.13.0"},
    }  # fmt: skip


def write_record(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def _artifact(folder: Path, spec: dict[str, Any], name: str = "", start: str = "") -> None:
    folder.mkdir(parents=True)
    inputs = {"start": {"name": start, "key": "00" * 16}} if start else {}
    write_record(folder / "meta.json", {"name": name, "spec": spec, "inputs": inputs, "key": folder.name})


def _cell(place: Path, arm: str, seed: int, keys: dict[str, str]) -> None:
    train = TRAIN | ({"keep_checkpoint": "best", "validation_prompts": 5} if arm == "kept" else {})
    spec = {
        "method": "dpo", "parameters": {"beta": 0.25}, "train": train, "setup": SETUP, "data": None, "reward": None,
        "supervise": "completion",
    }  # fmt: skip
    inputs = {role: {"name": name, "key": keys[name]} for role, name in (("start", "sft"), ("data", "data"))}
    write_record(place / "meta.json", {"name": f"arms/{arm}/seed-{seed}", "spec": spec, "inputs": inputs, "key": "a1" * 16})
    ledger = {"tokens_generated": 0, "tokens_trained": 1234, "reward_calls": 0, "flops": 5.0e6, "seconds": {"train": 2.0}}
    write_record(place / "ledger.json", ledger)


def _reward_model(place: Path, start: Path, tok: Any) -> None:
    save(reward_model_from(start, seed=3, device="cpu"), tok, place / "model")
    Normalisation(shift=0.5, scale=2.0).save(place / "model")
    write_record(place / "reward.json", {"kind": "score"})
    spec = {"method": "reward_model", "parameters": {}, "setup": SETUP, "train": TRAIN}
    write_record(place / "meta.json", {"name": "reward_models/rm", "spec": spec, "inputs": {}, "key": "c3" * 16})


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
