"""Lengths that the model has room for: where nobody named them they follow its context, with one line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from evenhand.configfile.schema import Loaded, to_json
from evenhand.configfile.text_file import json_object
from evenhand.spec.experiment import Experiment
from evenhand.train.config import Lengths

_log = logging.getLogger(__name__)


def clamped(loaded: Loaded[Experiment]) -> Loaded[Experiment]:
    """The experiment with lengths that fit the model's context together, where the file names none."""
    experiment, window = loaded.value, context(loaded.value)
    own = experiment.lengths
    if window is None or own.prompt + own.completion <= window:
        return loaded
    if named := [key for key in ("prompt", "completion") if key in _given(loaded.given)]:
        _log.warning(
            "lengths: %d tokens of prompt and %d of completion are more than the %d of the model's context: prompts of more than "
            "%d will not fit (name %s)", own.prompt, own.completion, window, max(window - own.completion, 0),
            "smaller ones" if len(named) == 2 else "both",
        )  # fmt: skip
        return loaded
    fits = Lengths(prompt=window - window // 2, completion=window // 2)
    _log.warning("lengths: %d of prompt and %d of completion, which is what the model's context of %d tokens holds",
                 fits.prompt, fits.completion, window)  # fmt: skip
    value = replace(experiment, lengths=fits)
    return replace(loaded, value=value, effective=to_json(value))


def _given(given: Mapping[str, Any]) -> Mapping[str, Any]:
    named = given.get("lengths")
    return named if isinstance(named, Mapping) else {}


def context(experiment: Experiment) -> int | None:
    """Tokens that the base model has positions for, where its config is here and says so."""
    if experiment.model.pretrain is not None and experiment.data.world is not None:
        return experiment.network().get("max_position_embeddings")
    return window_of_model(str(experiment.model.path), experiment.model.revision)


def window_of_model(name: str, revision: str | None = None) -> int | None:
    """Tokens that a model has positions for, by its folder or its name on the Hub."""
    path = config_file(name, revision)
    if path is None:
        return None
    config = json_object(path)  # one that cannot be read is said where the model is opened
    inner = config.get("text_config")
    inner = inner if isinstance(inner, dict) else {}
    found = inner.get("max_position_embeddings", config.get("max_position_embeddings", config.get("n_positions")))
    return found if isinstance(found, int) and found > 1 else None


def config_file(path: str, revision: str | None) -> Path | None:
    """The config of a folder, or of a Hub model that was downloaded before."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder / "config.json" if (folder / "config.json").is_file() else None
    try:
        found = try_to_load_from_cache(path, "config.json", revision=revision)
    except HFValidationError:  # no name that the Hub could know: said where the model is opened
        return None
    return Path(found) if isinstance(found, str) else None
