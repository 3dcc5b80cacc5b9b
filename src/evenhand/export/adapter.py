"""An arm's adapter in peft's format, compared with the run's merged model, with the same card."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.export.check import check_policy
from evenhand.export.elsewhere import for_other_readers
from evenhand.export.folder import generation_config, new_folder, sampling
from evenhand.export.model import Exported, describe, stored_dtype
from evenhand.export.subject import Subject
from evenhand.models.adapter_files import CONFIG, FOLDER, WEIGHTS, quantized
from evenhand.models.adapters import round_weights
from evenhand.store.pointer import routed


def export_adapter(
    subject: Subject,
    out: Path,
    *,
    prompts: int = 8,
    license: str | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Copy the adapter of `subject` to the new folder `out`, with tokenizer, generation config and card.

    peft puts it on the base it was trained from, and the two together are compared with the run's merged model, to the precision
    that was merged in. A base that is a folder of this machine is not named in the copy. Raises UserError without an adapter,
    without peft, when the base is gone, and as `export` does.
    """
    from evenhand.models.load import load_tokenizer

    source = subject.folder / FOLDER
    if not (source / CONFIG).is_file() or not (source / WEIGHTS).is_file():
        raise UserError(f"{subject.name} has no adapter", where=str(source), fix="leave --adapter out: the whole model is there")
    if subject.is_reward_model:
        raise UserError("an adapter of a reward model is not exported", where=str(source), fix="leave --adapter out")
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    named = str(config.get("base_model_name_or_path") or "")
    base = str(routed(source, named) or named)
    renderer = Renderer(load_tokenizer(subject.model))
    own = stored_dtype(subject.model)
    with new_folder(out) as folder:
        shutil.copyfile(source / WEIGHTS, folder / WEIGHTS)
        renderer.tokenizer.save_pretrained(folder)
        for_other_readers(folder)
        generation_config(renderer, sampling(subject)).save_pretrained(folder)
        public = {**config, "base_model_name_or_path": None if _is_here(base) else base}
        (folder / CONFIG).write_text(json.dumps(public, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        say(f"copied; comparing {Path(base).name} with it, by peft, with the run's merged model")

        def opened(folder: Path, computes: str, device: str) -> Any:
            return on_base(base, folder, device, trained=source)

        found = check_policy(subject, renderer, folder, prompts=prompts, computes=own, device=device, opened=opened)
        for line in found.lines:
            say(line)
        stops = describe(subject, renderer, own, found, folder, license, adapter=True)
    return Exported(folder=out, dtype=own, checked=found, stops=stops)


def on_base(base: str, folder: Path, device: str, *, trained: Path) -> Any:
    """The adapter in `folder`, a copy of `trained`, on its base by peft, in float32, with the exported generation config.

    Of a base in four bits the weights are those that the four bits stand for.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from evenhand.models.library_logging import quietly
    from evenhand.models.load import resolve_device, whole_folder

    try:
        from peft import PeftModel
    except ImportError:
        raise UserError("peft is not installed", where="--adapter", fix="pip install peft; or leave --adapter out") from None
    if _is_here(base) and not Path(base).is_dir():
        raise UserError("the adapter's base is gone", where=base, why="the copy could not be checked", fix="leave --adapter out")
    with quietly(), warnings.catch_warnings(), whole_folder(base) as whole:
        warnings.simplefilter("ignore", FutureWarning)  # what peft calls and transformers renames is no affair of who exports
        plain = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
        if quantized(trained):
            round_weights(plain)
        model: Any = PeftModel.from_pretrained(plain, str(folder)).to(resolve_device(device)).eval()
        model.generation_config = GenerationConfig.from_pretrained(folder)
        model.base_model.model.generation_config = model.generation_config
    return model


def _is_here(base: str) -> bool:
    """Whether a base's name is a folder of this machine rather than a name on the Hub."""
    return base.startswith((".", "/", "~")) or Path(base).is_dir()
