"""Models in and out of folders: transformers' format, safetensors only, no remote code unless asked for by name."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from evenhand.errors import UserError, did_you_mean
from evenhand.models import adapter_files, adapter_models, classifiers, spread_load
from evenhand.models.backbone import Trunk
from evenhand.models.guarded import guarded
from evenhand.models.heads import RewardModel, ValuePolicy, scored
from evenhand.models.library_logging import quietly
from evenhand.models.policy import Policy
from evenhand.models.save import save
from evenhand.seeding import keyed

__all__ = [
    "load_policy", "load_reward_model", "load_tokenizer", "load_value_policy", "merge_adapter", "new_policy", "reward_model_from",
    "save", "set_matmul",
]  # fmt: skip

log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
MATMULS = ("float32", "bfloat16")
"""Precisions of matrix products: those whose range gradients fit into."""


def load_policy(
    path_or_name: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    base: str | None = None,
) -> Policy:
    """A causal language model from a folder or a Hub name; from an adapter's folder, its base (or `base`) with it merged.

    `dtype` "auto" is bfloat16 on an accelerator and float32 on a processor. Raises UserError when a file or a weight is missing,
    when the weights are pickled, or when the folder's own code would have to run and `trust_remote_code` was not given.
    """
    from transformers import AutoModelForCausalLM

    hf = _network(AutoModelForCausalLM, path_or_name, dtype, device, base=base, trust_remote_code=trust_remote_code)
    _refuse_classifier(hf, path_or_name)
    return Policy(hf)


def _refuse_classifier(hf: Any, path: str | Path) -> None:
    """Where the head is tied to the embedding no weight is missing, and a classifier would answer as if it were a policy."""
    if any(name.endswith("Classification") for name in hf.config.architectures or ()):
        fix = "give a language model; a reward model scores answers (`evenhand score`)"
        raise UserError(f"these are the weights of a {hf.config.architectures[0]}", where=str(path), fix=fix)


def load_value_policy(
    path_or_name: str | Path, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False
) -> ValuePolicy:
    """A policy with a value head: the head saved with it, or one at zero when the folder has none."""
    from transformers import AutoModelForCausalLM

    model = ValuePolicy(_network(AutoModelForCausalLM, path_or_name, dtype, device, trust_remote_code=trust_remote_code))
    model.load_value_head(Path(path_or_name).expanduser())
    return model


def load_reward_model(
    path_or_name: str | Path, *, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False,
    labels: int | None = 1,
) -> RewardModel:  # fmt: skip
    """A sequence classifier with one label, such as `save` or other tools write; with `labels`, or None, that many or any."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = guarded(AutoConfig.from_pretrained, path_or_name, trust_remote_code=trust_remote_code)
    if labels is not None and config.num_labels != labels:
        raise UserError(
            f"the model has {config.num_labels} labels, a reward model has {'one' if labels == 1 else labels}",
            where=str(path_or_name),
            fix=f"use a classifier trained with num_labels={labels}; for a causal language model use reward_model_from",
        )
    auto = AutoModelForSequenceClassification if trust_remote_code else classifiers.auto_for(config)
    hf = _network(auto, path_or_name, dtype, device, trust_remote_code=trust_remote_code)
    return RewardModel(hf)


def reward_model_from(
    path_or_name: str | Path, *, seed: int, dtype: str = "auto", device: str = "auto", outputs: Sequence[str] = (),
    power: float = 0.5,
) -> RewardModel:  # fmt: skip
    """A reward model on the trunk of a causal language model; its score head starts from `seed` with std (H + 1) ** -power.

    `outputs` names what it reads besides a score: as many labels, by these names in the config; () is one score.
    """
    from transformers import AutoConfig

    given = adapter_files.base_of(path_or_name) if adapter_files.is_adapter(path_or_name) else path_or_name
    config = guarded(AutoConfig.from_pretrained, given)
    auto = classifiers.auto_for(config)
    if not classifiers.known_to_transformers(config):
        log.warning(
            "transformers has no class of its own for a %s reward model: it loads here, and elsewhere through AutoModel and "
            "`score.weight` (docs/models.md)", config.model_type,
        )  # fmt: skip
    hf = _network(auto, path_or_name, dtype, device, fresh=("score",), num_labels=len(outputs) or 1)
    if outputs:
        hf.config.id2label = dict(enumerate(outputs))
        hf.config.label2id = {name: n for n, name in enumerate(outputs)}
    return scored(hf, seed, power=power)


def new_policy(config: Mapping[str, Any], tokenizer: Any = None, *, seed: int, device: str = "auto") -> Policy:
    """A policy from scratch: `config` is a transformers config with its `model_type`; ids and vocabulary follow the tokenizer.

    Weights are drawn by transformers' own initialisation from `seed`, in float32. Raises UserError for an unknown model_type, and
    for a key that is nearly one of the kind's: transformers takes any key, and says nothing.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    named = dict(config)
    kind = named.pop("model_type", None)
    if kind not in CONFIG_MAPPING_NAMES:
        raise UserError(f"unknown model_type {kind!r}", where="model", fix=did_you_mean(str(kind), CONFIG_MAPPING_NAMES))
    known = [*vars(AutoConfig.for_model(kind)), *CONFIG_MAPPING[kind].attribute_map]
    for key in named.keys() - set(known):
        if close := get_close_matches(key, known, n=1, cutoff=0.9):
            raise UserError(f"a {kind} has no '{key}'", where="model.pretrain.shape", fix=did_you_mean(key, close))
    if tokenizer is not None:
        special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        named = {"vocab_size": len(tokenizer), **special, **named}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed("new policy", seed))
        hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **named), dtype=torch.float32)
    return Policy(hf.to(resolve_device(device)))


@contextmanager
def whole_folder(path: str | Path) -> Iterator[str | Path]:
    """The folder of a whole model, for what reads no adapters: `path` itself, or one where an adapter is merged, for a while."""
    if not adapter_files.is_adapter(path):
        yield path
        return
    with TemporaryDirectory() as scratch:
        merge_adapter(path, Path(scratch) / "model")
        yield Path(scratch) / "model"


def load_tokenizer(path_or_name: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or a Hub name; for an adapter without one, that of its base."""
    from transformers import AutoTokenizer

    if adapter_files.is_adapter(path_or_name) and not (Path(path_or_name).expanduser() / "tokenizer_config.json").is_file():
        path_or_name = adapter_files.base_of(path_or_name)
    return guarded(AutoTokenizer.from_pretrained, path_or_name, trust_remote_code=trust_remote_code)


def merge_adapter(folder: str | Path, target: Path, *, base: str | None = None) -> None:
    """Write an adapter's base, with the adapter merged in float32, as a plain model into the folder `target`.

    `base` is used in place of the one the adapter names. Weights keep the base's precision; the tokenizer is the adapter's, or
    the base's. An adapter of a sequence classifier gives a reward model, its score head taken from the adapter.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    base = adapter_files.base_of(folder, base)
    config = guarded(AutoConfig.from_pretrained, base)
    stored = next((name for name, dtype in DTYPES.items() if dtype == getattr(config, "dtype", None)), "float32")
    own = adapter_files.trained_in(folder) or stored
    if adapter_files.is_reward(folder):
        labels: dict[str, Any] = {"num_labels": 1} if adapter_files.trained_in(folder) is None else {}  # its config says
        named = {"fresh": ("score", "classifier"), **labels}
        hf = _merged(classifiers.auto_for(config), folder, base, own, "cpu", **named)
        model: Trunk = RewardModel(hf)
    else:
        model = Policy(_merged(AutoModelForCausalLM, folder, base, own, "cpu"))
    has_tokenizer = (Path(folder).expanduser() / "tokenizer_config.json").is_file()
    save(model, load_tokenizer(folder if has_tokenizer else base), target)
    adapter_models.copy_beside(Path(folder).expanduser(), target)


def _merged(auto: Any, folder: str | Path, base: str, dtype: str, device: str, **named: Any) -> Any:
    asked = resolve_dtype(dtype, resolve_device(device))
    if (own := adapter_files.trained_in(folder)) is not None:
        with nullcontext() if asked == DTYPES[own] else spread_load.read_whole(folder, f"it was trained in {own}"):
            return _as_trained(auto, Path(folder).expanduser(), base, DTYPES[own], asked, device, **named)
    try:
        with spread_load.read_whole(folder, "an adapter from elsewhere is merged into it"):
            hf = _network(auto, base, "float64" if dtype == "float64" else "float32", device, **named)
    except UserError as error:
        raise adapter_files.no_base(folder, f"{base}: {error.what}") from error
    return adapter_files.apply(hf, folder, asked)


def _as_trained(
    auto: Any, folder: Path, base: str, own: torch.dtype, asked: torch.dtype, device: str, *, config: Any = None,
    num_labels: int | None = None, **named: Any,
) -> Any:  # fmt: skip
    """An adapter that was trained here, merged into its start in the precision `own` of its training, then as `asked`."""
    from transformers import AutoConfig, GenerationConfig

    config = config or guarded(AutoConfig.from_pretrained, folder)
    if num_labels is not None:
        config.num_labels = num_labels
    fresh = tuple(named.pop("fresh", ())) + (("score", "classifier") if adapter_files.is_reward(folder) else ())

    def start(dtype: torch.dtype) -> Any:
        name = str(dtype).removeprefix("torch.")
        return _network(auto, base, name, device, fresh=fresh, config=copy.deepcopy(config), **named)

    hf = adapter_models.merge(start(own), folder)
    if asked != own:  # `hf.to(asked)` would also round what a network of that precision keeps wide: frequencies of rotations
        hf = adapter_models.with_weights(start(asked), hf)
    if hf.can_generate() and (folder / "generation_config.json").is_file():
        hf.generation_config = GenerationConfig.from_pretrained(folder)
    return adapter_models.remembered(hf, folder)


def resolve_device(device: str) -> str:
    """The device a name means: "auto" is the accelerator when there is one. Raises UserError for one that is not here.

    >>> resolve_device("cpu")
    'cpu'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UserError(f"unknown device {device!r}", where="device", fix=did_you_mean(device, ["auto", "cpu", "cuda"])) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here", where="device", why=f"{device!r} was asked for", fix="use auto or cpu")
    return device


def set_matmul(model: Trunk, name: str | None) -> None:
    """Let a model's matrix products run in the precision `name` (None: that of its weights), see `Trunk.set_matmul_dtype`.

    Raises UserError for float32 products over narrower weights: no digit would be won.
    """
    if name is None:
        return
    if name not in MATMULS:
        raise UserError(f"unknown precision {name!r}", where="matmul", fix=did_you_mean(name, MATMULS))
    dtype = DTYPES[name]
    if dtype.itemsize > model.dtype.itemsize:
        weights = str(model.dtype).removeprefix("torch.")
        raise UserError(f"{name} products of {weights} weights gain nothing", where="model.matmul", fix=f"set `dtype: {name}`")
    model.set_matmul_dtype(None if dtype == model.dtype else dtype)


def resolve_dtype(dtype: str, device: str) -> torch.dtype:
    """The precision a name means: "auto" is bfloat16 on an accelerator, float32 on a processor.

    >>> resolve_dtype("auto", "cpu")
    torch.float32
    """
    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}", where="dtype", fix=did_you_mean(dtype, ["auto", *DTYPES]))
    return DTYPES[dtype]


def _network(
    auto: Any, path: str | Path, dtype: str, device: str, *, base: str | None = None, fresh: tuple[str, ...] = (), **named: Any
) -> Any:
    """A transformers model with all its weights, except that modules named in `fresh` may start anew."""
    if base is not None or adapter_files.is_adapter(path):
        return _merged(auto, path, adapter_files.base_of(path, base), dtype, device, fresh=fresh, **named)
    refuse_pickles(Path(path).expanduser())
    device = resolve_device(device)
    named |= {"dtype": resolve_dtype(dtype, device), "use_safetensors": True}
    with quietly():
        hf, info = guarded(partial(spread_load.opened, auto), path, **named)
    missing = sorted(key for key in info["missing_keys"] if not key.startswith(fresh or ("\0",)))
    if missing:
        raise UserError(
            f"{len(missing)} weights are missing, the first is {missing[0]}",
            where=str(path),
            why="transformers would draw them at random",
            fix=f"point to a folder saved from {type(hf).__name__}",
        )
    return spread_load.on(hf, device)


def refuse_pickles(path: Path) -> None:
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in path.glob(pattern))
    if pickled:
        raise UserError(
            f"the weights are pickled ({pickled[0]})",
            where=str(path),
            why="unpickling runs code from the file",
            fix="convert them to safetensors where they come from",
        )
    raise UserError("no *.safetensors file", where=str(path), fix="point to a folder written by save_pretrained")
