"""Folders that appear complete or not at all, and a run's model written as one that other tools load."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import UserError
from evenhand.export.elsewhere import for_other_readers
from evenhand.export.subject import Subject
from evenhand.models.artifacts import GATE_FOLDER, NORMALISATION_FILE, as_eos, readable_by_all

if TYPE_CHECKING:
    import torch

    from evenhand.data.template import Renderer


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write in, which becomes `out` at the end; after an error nothing is left. Refuses to replace what exists."""
    if out.exists() or out.is_symlink():
        raise UserError("exists already", where=str(out), fix="name another --out, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield partial
        readable_by_all(partial)
        if out.exists():
            raise UserError("exists already", where=str(out), why="it appeared meanwhile", fix="name another --out")
        os.rename(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def write_model(subject: Subject, renderer: Renderer, folder: Path, dtype: torch.dtype | None) -> str:
    """The model with its tokenizer, template and generation config in `folder`; returns the precision of its weights.

    `dtype` None keeps the run's own. Raises UserError where a weight does not fit into the range of `dtype`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from evenhand.models.classifiers import known_to_transformers
    from evenhand.models.library_logging import quietly

    if subject.is_reward_model and not known_to_transformers(config := AutoConfig.from_pretrained(subject.model)):
        raise UserError(
            f"transformers has no class for a {config.model_type} reward model", where=str(subject.model),
            why="the exported folder would not load elsewhere", fix="use the run's own folder here (`evenhand score`)",
        )  # fmt: skip
    auto = AutoModelForSequenceClassification if subject.is_reward_model else AutoModelForCausalLM
    with quietly():
        model = opened(subject, auto, dtype)
        _refuse_overflow(model, subject)
        if not subject.is_reward_model:
            model.generation_config = generation_config(renderer, sampling(subject))
        model.save_pretrained(folder)
        renderer.tokenizer.save_pretrained(folder)
    if (normalisation := subject.model / NORMALISATION_FILE).is_file():
        shutil.copyfile(normalisation, folder / normalisation.name)
    if (gate := subject.model / GATE_FOLDER).is_dir():
        shutil.copytree(gate, folder / gate.name)
    for_other_readers(folder)
    return str(model.dtype).removeprefix("torch.")


def opened(subject: Subject, auto: Any, dtype: torch.dtype | None) -> Any:
    """The run's model as transformers has it; what was learned through an adapter is merged into its start."""
    from evenhand.models.adapter_files import is_adapter, trained_in
    from evenhand.models.load import load_policy, load_reward_model

    if not is_adapter(subject.model):
        return auto.from_pretrained(subject.model, dtype="auto" if dtype is None else dtype, use_safetensors=True)
    kept = trained_in(subject.model) or "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if subject.is_reward_model:
        return load_reward_model(subject.model, dtype=kept, device="cpu", labels=None).hf
    return load_policy(subject.model, dtype=kept, device="cpu").hf


def sampling(subject: Subject) -> Mapping[str, Any]:
    """How the run sampled the answers it judged."""
    judged = (subject.effective.get("evaluation") or {}).get("sampling") or {}
    return {"temperature": 1.0, "top_p": 1.0, "top_k": 0} | {k: v for k, v in judged.items() if k != "min_p" or v}


def generation_config(renderer: Renderer, judged: Mapping[str, Any]) -> Any:
    """Every token that ends an answer, and the sampler that the answers were judged under.

    The base model's own sampling defaults (a repetition penalty, a narrow top-p) are not carried over: nothing here was measured
    under them.
    """
    from transformers import GenerationConfig

    drawn = judged["temperature"] > 0
    how = dict(judged) if drawn else {}
    return GenerationConfig(
        do_sample=drawn, bos_token_id=renderer.tokenizer.bos_token_id, pad_token_id=renderer.pad_id,
        eos_token_id=as_eos(renderer.stop_ids), **how,
    )  # fmt: skip


def _refuse_overflow(model: Any, subject: Subject) -> None:
    import torch

    lost = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    if lost:
        kind = str(model.dtype).removeprefix("torch.")
        raise UserError(
            f"{len(lost)} weights are not finite in {kind}, the first is {lost[0]}", where=subject.title,
            why=f"{kind} ends at {torch.finfo(model.dtype).max:.4g}", fix="export in bfloat16 or float32",
        )  # fmt: skip
