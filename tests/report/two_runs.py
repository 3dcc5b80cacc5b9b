"""Run directories of a few prompts, written down by hand, to be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROMPTS = ("one?", "two?", "three?", "four?")
BASE = ["a plain answer", "a second one", "a third one", "a fourth one"]
JUDGE = {"name": "gold", "kind": "reward"}
EFFECTIVE: dict[str, Any] = {
    "name": "low", "seeds": [0], "baseline": "sft", "train": {"steps": 10, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo", "beta": 0.1}}, "rewards": {},
    "reward_models": {"rm": {"per_seed": False}}, "judge": {"reward": "gold", "self_test": 20},
    "evaluation": {"prompts": 4, "sampling": {"temperature": 1.0}}, "lengths": {"prompt": 8, "completion": 16},
    "runtime": {"workers": 2, "threads": 1},
}  # fmt: skip


def write_run(
    folder: Path,
    *,
    outcomes: Sequence[float] = (0.0, 1.0, 0.5, 0.0),
    texts: Sequence[str] = ("good one", "good two", "good three", "good four"),
    prompts: Sequence[str] = PROMPTS,
    baseline: Sequence[str] = tuple(BASE),
    effective: Mapping[str, Any] | None = None,
    keys: Mapping[str, str] | None = None,
    judge: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0,),
    arms: Sequence[str] = ("dpo",),
    evaluations: Mapping[str, Any] | None = None,
) -> Path:
    """One arm or several (all alike) against sft. `keys` replaces keys of stages, which are otherwise their names."""
    config = {**EFFECTIVE, "seeds": list(seeds), **(effective or {})}
    answers = {"sft": baseline, **dict.fromkeys(arms, texts)}
    won = sum(outcomes) / len(outcomes)
    nodes = ["data", "sft", *(f"arms/{a}/seed-{s}" for a in arms for s in seeds)]
    nodes += [f"{kind}/{a}/seed-{s}" for kind in ("generations", "verdicts") for a in answers for s in seeds]
    unique = {n: f"{folder.name}-{n}".replace("/", "-") for n in nodes} | {"data": "data", "sft": "sft"} | dict(keys or {})
    row = {"win_rate": won, "ci95": [won - 0.2, won + 0.2], "method": "dpo", "mean_length": 3.0, "kl": 2.0, "gold": won}
    cost = {"tokens_trained": 1000, "tokens_generated": 0, "reward_calls": 0, "flops": 2e9}
    _json(folder / "results.json", {
        "name": config["name"], "baseline": "sft", "judge": dict(judge or JUDGE), "n_prompts": len(prompts), "seeds": list(seeds),
        "arms": {"sft": {"win_rate": 0.5, "method": "start", "mean_length": 3.0}, **{a: {**row, "ledger": cost} for a in arms}},
        "contrasts": [{"a": a, "b": "sft", "difference": won - 0.5, "verdict": "inconclusive"} for a in arms],
        "reward_models": {"rm": {"accuracy": 0.75, "ci95": [0.7, 0.8]}},
        "samples": [
            {"prompt_id": f"p{i}", "prompt": prompt, "seed": seeds[0], "answers": {a: given[i] for a, given in answers.items()},
             "gold": {a: float(i) for a in answers}, "outcome": dict.fromkeys(arms, outcomes[i])}
            for i, prompt in enumerate(prompts)
        ],
        "evaluations": dict(evaluations or {}),
    })  # fmt: skip
    _json(folder / "experiment.json", {
        "effective": config, "store": "store", "versions": {"torch": "2.13.0"},
        "nodes": [{"name": name, "kind": "fit", "seed": 0, "key": key, "inputs": {}} for name, key in unique.items()],
    })  # fmt: skip
    for arm, given in answers.items():
        for seed in seeds:
            _answers(folder / "generations" / arm / f"seed-{seed}" / "generations.jsonl", prompts, given)
            _json(folder / "store" / unique[f"verdicts/{arm}/seed-{seed}"] / "verdicts.json", {"outcome": list(outcomes)})
            if arm in arms:
                _lines(
                    folder / "arms" / arm / f"seed-{seed}" / "metrics.jsonl", [{"step": s, "loss": 1 / s} for s in range(1, 11)]
                )
    return folder


def _answers(path: Path, prompts: Sequence[str], texts: Sequence[str]) -> None:
    rows = [
        {"prompt": p, "id": f"p{i}", "meta": {}, "completions": [{"content": t}], "scores": [None], "parts": {}}
        for i, (p, t) in enumerate(zip(prompts, texts, strict=True))
    ]
    _lines(path, rows)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
