"""Writing models: transformers' format, safetensors only, complete or not at all."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenhand.models import spread_save
from evenhand.models.adapter_layers import adapted, merged, merged_in_turn
from evenhand.models.artifacts import as_eos, readable_by_all
from evenhand.models.backbone import Trunk
from evenhand.models.equivalence import ROUNDED, Original
from evenhand.models.gate import GatedRewardModel
from evenhand.models.heads import RewardModel, ValuePolicy
from evenhand.models.library_logging import quietly


def save(model: Trunk, tokenizer: Any, folder: str | Path, *, stop_ids: Collection[int] = ()) -> None:
    """Write a model and its tokenizer (None: no tokenizer) with chat template and generation config.

    The folder appears complete or not at all; one that exists is replaced. A reward model is saved so that
    AutoModelForSequenceClassification, which reads the score at the last token that is not padding, gives the same scores.
    Adapters are merged in float32 and the weights rounded to their own precision: the folder is a plain model's. Its generation
    config ends answers at `stop_ids` (none: at the model's own), so that `generate` stops where training and sampling did.

    Of a network that processes share all of them call this, inside `spread_save.at_hand`, and the first writes the weights.
    """
    tokenizer = padded_safely(model, tokenizer)
    refuse_another(model)
    with finished(folder) as partial:
        with quietly(), merged(model.hf):
            spread_save.save_pretrained(model, partial)
        write_beside(model, tokenizer, partial, stop_ids)


@contextmanager
def finished(folder: str | Path) -> Iterator[Path]:
    """A folder to write in, which takes the place of `folder` at the end; after an error nothing has changed."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield partial
        _replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_another(model: Trunk) -> None:
    """Raises UserError where adapters, merged into their weights, would give another network than they do beside them."""
    hf: Any = model.hf
    if not adapted(hf):
        return
    live = Original.of(hf, hf.config.get_text_config().vocab_size)
    if live.finite:  # weights that have diverged are saved as they are
        allowed = None if hf.dtype.itemsize >= 4 else ROUNDED
        with merged_in_turn(hf):
            live.compare(hf, what="merging the adapter", where="save", fix="train with `adapter: null`", allowed=allowed)


def safe_pad_id(tokenizer: Any) -> int | None:
    """A token that never ends a completion, for classifiers that look for the last token that is not padding.

    Where padding is the stop token (a common habit) that search would stop one token early. None if there is no such token:
    transformers then refuses to score padded rows, which is better than scoring them wrongly.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    return next((i for i in candidates if i is not None and i != tokenizer.eos_token_id), None)


def write_beside(model: Trunk, tokenizer: Any, folder: Path, stop_ids: Collection[int] = ()) -> None:
    """What stands beside weights: a generation config that ends answers at `stop_ids`, a value head, a gate, the tokenizer."""
    if stop_ids and model.hf.can_generate():
        _ending_at(stop_ids, model.hf.generation_config).save_pretrained(folder)
    if isinstance(model, ValuePolicy):
        model.save_value_head(folder)
    if isinstance(model, GatedRewardModel):
        model.save_gate(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def padded_safely(model: Trunk, tokenizer: Any) -> Any:
    """Make a reward model's config and its tokenizer agree on a safe padding token; the caller's tokenizer stays as it is."""
    if tokenizer is None or not isinstance(model, RewardModel):
        return tokenizer
    pad = safe_pad_id(tokenizer)
    model.hf.config.get_text_config().pad_token_id = pad
    if pad is None or pad == tokenizer.pad_token_id:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return tokenizer


def _ending_at(stop_ids: Collection[int], given: Any) -> Any:
    """A copy of a generation config that ends answers at these tokens."""
    config = copy.deepcopy(given)
    config._from_model_config = False  # transformers would take such a config from the model's, which knows one end at most
    config.eos_token_id = as_eos(stop_ids)
    return config


def _replace(partial: Path, folder: Path) -> None:
    """Move a finished folder into place; a folder cannot be renamed over one that has files. Everyone may read it."""
    readable_by_all(partial)
    if not folder.exists():
        os.rename(partial, folder)
        return
    attic = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    os.rename(folder, attic / "old")
    os.rename(partial, folder)
    shutil.rmtree(attic)
