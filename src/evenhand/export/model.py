"""From a finished run to a folder that other tools load: written, checked, described, and only then there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.data.template import Renderer
from evenhand.errors import UserError, did_you_mean
from evenhand.export import card
from evenhand.export.about import About
from evenhand.export.check import Checked, check_policy, template_hash
from evenhand.export.check_scores import check_scores
from evenhand.export.folder import new_folder, write_model
from evenhand.export.subject import Subject, node
from evenhand.models.artifacts import EXPORT_RECORD

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A finished export: where it lies, what its weights are, what the check found."""

    folder: Path
    dtype: str
    checked: Checked
    stops: tuple[str, ...]
    """How the tokens that end an answer are spelled."""


def export(
    subject: Subject,
    out: Path,
    *,
    dtype: str | None = None,
    prompts: int = 8,
    license: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Write the model of `subject` to the new folder `out`: weights, tokenizer, chat template, generation config, card, record.

    `dtype` None keeps the run's. The copy is compared with the run's model on `prompts` held-out prompts before `out` appears;
    the tolerance is float32's unless the weights were narrowed. `say` is told what is under way and what was found.

    Raises UserError, leaving nothing behind, when `out` exists, the model cannot be loaded, or the check finds a difference.
    """
    from evenhand.models.load import DTYPES as TORCH
    from evenhand.models.load import load_tokenizer, refuse_pickles

    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"unknown precision '{dtype}'", where="--dtype", fix=did_you_mean(dtype, DTYPES))
    refuse_pickles(subject.model)
    renderer = Renderer(load_tokenizer(subject.model))
    own = stored_dtype(subject.model)
    with new_folder(out) as folder:
        kept = write_model(subject, renderer, folder, None if dtype is None else TORCH[dtype])
        exact = kept == own or (kept == "float32" and own in ("float16", "bfloat16"))
        computes = "float32" if exact else kept
        say(f"written as {kept}{'' if exact else f' (the run has {own})'}; comparing with the run's model")
        check = check_scores if subject.is_reward_model else check_policy
        found = check(subject, renderer, folder, prompts=prompts, computes=computes, device=device)
        for line in found.lines:
            say(line)
        stops = describe(subject, renderer, kept, found, folder, license)
    return Exported(folder=out, dtype=kept, checked=found, stops=stops)


def describe(
    subject: Subject,
    renderer: Renderer,
    dtype: str,
    found: Checked,
    folder: Path,
    license: str | None,
    *,
    adapter: bool = False,
) -> tuple[str, ...]:
    """Write record and card into a checked `folder`; returns the stop tokens as they are spelled."""
    stops = spelled(renderer)
    record = provenance(subject, renderer, dtype, found, folder)
    (folder / EXPORT_RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    about = About(subject=subject, record=record, checked=found, stops=stops, license=license, adapter=adapter)
    (folder / "README.md").write_text(card.text(about), encoding="utf-8")
    return stops


def stored_dtype(folder: Path) -> str:
    """The precision that a model folder says its weights have."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def spelled(renderer: Renderer) -> tuple[str, ...]:
    """The stop tokens as text, the one that ends an answer of a conversation first."""
    ordered = sorted(renderer.stop_ids, key=lambda i: (i != renderer.stop_id, i))
    return tuple(renderer.tokenizer.convert_ids_to_tokens(ordered))


def provenance(subject: Subject, renderer: Renderer, dtype: str, found: Checked, folder: Path) -> dict[str, Any]:
    """What a program needs to trace the model: the run, the stage's key, versions, hashes of the files, the check's numbers."""
    experiment, meta = subject.run.experiment, subject.meta
    graph = {role: given.get("key") for role, given in (meta.get("inputs") or {}).items()}
    return {
        "run": subject.run.results.name,
        "arm" if not subject.is_reward_model else "reward_model": subject.name,
        "seed": subject.seed,
        "method": subject.method or None,
        "dtype": dtype,
        "key": meta.get("key"),
        "inputs": graph,
        "data_key": node(subject.run, "data").get("key"),
        "hashes": experiment.get("hashes") or {},
        "versions": experiment.get("versions") or {},
        "template": template_hash(renderer.tokenizer),
        "fingerprint": renderer.fingerprint,
        "stop_ids": sorted(renderer.stop_ids),
        "check": found.numbers,
        "files": {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.is_file()},
    }


def sha256(path: Path) -> str:
    """The hash by which the Hub names large files."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
