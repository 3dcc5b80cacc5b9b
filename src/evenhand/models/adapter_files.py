"""Adapters in and out of folders, in peft's own format: adapter_config.json beside adapter_model.safetensors."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evenhand.errors import UserError
from evenhand.models import adapters
from evenhand.models.adapter_layers import NAME, adapted
from evenhand.models.library_logging import quietly

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk

FOLDER = "adapter"
"""Where a stage leaves what it trained, beside the merged `model/`."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_HUB_CACHE = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]+)$")


def write(model: Trunk, folder: Path, *, start: Path) -> None:
    """The adapter of `model`, for `peft.PeftModel.from_pretrained(start, folder)`; `start` is the folder it was trained from."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    whole = _whole(model)
    name, revision = base_name(start)
    tied = _tied(model.hf) and model.hf.get_input_embeddings() in whole.values()
    given = model.hf.peft_config[NAME].to_dict() | {
        "base_model_name_or_path": name, "revision": revision, "inference_mode": True, "init_lora_weights": True,
        "modules_to_save": sorted(whole) or None, "ensure_weight_tying": tied,
        "task_type": "SEQ_CLS" if _scores(model) else "CAUSAL_LM",
    }  # fmt: skip
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in given.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
    tensors = {}
    for layer_name, layer in adapted(model.hf):
        for part in ("lora_A", "lora_B"):
            tensors[f"{_PREFIX}{layer_name}.{part}.weight"] = getattr(layer, part)[NAME].weight
    for module_name, module in whole.items():
        tensors |= {f"{_PREFIX}{module_name}.{key}": p for key, p in module.named_parameters()}
    copies = {k: t.detach().to("cpu", copy=True).contiguous() for k, t in tensors.items()}
    save_file(copies, folder / WEIGHTS, {"format": "pt"})


def _whole(model: Trunk) -> dict[str, nn.Module]:
    """The modules of the network that learned all of their weights; embeddings and head that are one are named as both."""
    assert model.adapter is not None
    hf: Any = model.hf
    inside = set(hf.modules())
    found = set(adapters.saved_whole(hf, model.adapter.modules_to_save, ()).values())
    found |= {head for head in adapters.heads(model) if head in inside}
    ends = {hf.get_input_embeddings(), hf.get_output_embeddings()}
    if _tied(hf) and found & ends:
        found |= ends
    return {name: m for name, m in hf.named_modules() if m in found}


def _tied(hf: Any) -> bool:
    head = hf.get_output_embeddings()
    return head is not None and head.weight is hf.get_input_embeddings().weight


def _scores(model: Trunk) -> bool:
    from evenhand.models.heads import RewardModel

    return isinstance(model, RewardModel)


def base_name(start: Path) -> tuple[str, str | None]:
    """What the base is called in an adapter's config, and its revision: a hub name for a folder of the hub's cache.

    >>> base_name(Path("/c/models--org--small/snapshots/0ab1"))
    ('org/small', '0ab1')
    """
    start = start.resolve()
    known = _HUB_CACHE.search(start.as_posix())
    return (f"{known[1]}/{known[2]}", known[3]) if known else (str(start), None)


def is_adapter(path: str | Path) -> bool:
    """Whether a local folder holds an adapter and no model of its own."""
    folder = Path(path).expanduser()
    if not (folder / CONFIG).is_file():
        return False
    return not any(f.name != WEIGHTS for f in folder.glob("*.safetensors"))


def named_base(folder: str | Path) -> str | None:
    """The base that an adapter's config names."""
    return json.loads((Path(folder).expanduser() / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")


def is_reward(folder: str | Path) -> bool:
    """Whether an adapter is one of a sequence classifier."""
    return json.loads((Path(folder).expanduser() / CONFIG).read_text(encoding="utf-8")).get("task_type") == "SEQ_CLS"


def base_of(folder: str | Path, base: str | None = None) -> str:
    """The base of an adapter: the one that is given, else the one its config names. UserError for a folder that is not here."""
    found = base or named_base(folder)
    if not found:
        raise no_base(folder, "none is named")
    local = Path(found).expanduser()
    if not local.is_dir() and (found.startswith((".", "/", "~")) or found.count("/") > 1):
        raise no_base(folder, f"there is no folder {found}")
    return str(local) if local.is_dir() else found


def no_base(folder: str | Path, why: str) -> UserError:
    """An adapter is a change of a base model; without it there is nothing to change."""
    return UserError(
        "the base of this adapter cannot be found", where=str(folder), why=why,
        fix="name the model it was trained on: `model.base: FOLDER`, or a name on the hub",
    )  # fmt: skip


def apply(hf: Any, folder: str | Path) -> Any:
    """The base `hf` with an adapter's change merged into its weights, in their precision (give it float32).

    Raises UserError when weights of the adapter are missing, fit nowhere, or the tokenizer beside it has tokens that the
    embeddings lack.
    """
    from safetensors import safe_open

    folder = Path(folder).expanduser()
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"no {WEIGHTS}", where=str(folder), fix="save it with `safe_serialization=True`")
    with safe_open(str(folder / WEIGHTS), "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    _fit_embeddings(hf, shapes, folder)
    library = adapters.peft()
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is found below
        try:
            wrapped = library.PeftModel.from_pretrained(hf, str(folder))
        except KeyError as error:  # of a module trained whole
            raise _missing([str(error.args[0])], folder) from error
        except (RuntimeError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise UserError("the adapter does not fit its base", where=str(folder), why=line, fix="check `model.base`") from error
        _complete(set(library.get_peft_model_state_dict(wrapped, save_embedding_layers=False)), set(shapes), hf, folder)
        plain = wrapped.merge_and_unload(safe_merge=True)
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    _settle_ties(plain)
    return plain.requires_grad_(True)


def _fit_embeddings(hf: Any, shapes: dict[str, Any], folder: Path) -> None:
    """Make room for the tokens that an adapter brings; the rows themselves are in its file."""
    rows = hf.get_input_embeddings().weight.shape[0]
    brought = [s[0] for key, s in shapes.items() if key.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight"))]
    if brought and max(brought) != rows:
        hf.resize_token_embeddings(max(brought))
        return
    if (folder / "tokenizer_config.json").is_file():
        from evenhand.models.load import load_tokenizer

        if (tokens := len(load_tokenizer(folder))) > rows:
            raise UserError(
                f"the tokenizer has {tokens} tokens, the base {rows} embeddings", where=str(folder),
                why="new tokens were added, and the adapter has no embeddings for them",
                fix="train with `modules_to_save: [embed_tokens, lm_head]`, or remove the tokens",
            )  # fmt: skip


def _complete(expected: set[str], given: set[str], hf: Any, folder: Path) -> None:
    if missing := sorted(expected - given):
        raise _missing(missing, folder)

    def plain(name: str) -> str:
        return re.sub(r"\.(base_layer|original_module|modules_to_save)\.", ".", name.removeprefix(_PREFIX))

    known = {plain(name) for name in hf.state_dict()}
    strange = [k for k in sorted(given - expected) if plain(k) not in known]
    if strange:
        raise UserError(
            f"{len(strange)} weights of the adapter fit nowhere, the first is {strange[0]}", where=str(folder),
            why="it was trained on a model of another shape", fix="check `model.base`",
        )  # fmt: skip


def _missing(names: list[str], folder: Path) -> UserError:
    return UserError(
        f"{len(names)} weights of the adapter are missing, the first is {names[0]}", where=str(folder),
        why="peft would draw them at random", fix="save the adapter again, heads and `modules_to_save` with it",
    )  # fmt: skip


@torch.no_grad()
def _settle_ties(hf: Any) -> None:
    """Embeddings and head that peft took apart are one again where they are equal, and stay two where training made them so."""
    text = hf.config.get_text_config()
    head = hf.get_output_embeddings()
    if not getattr(text, "tie_word_embeddings", False) or head is None or _tied(hf):
        return
    if torch.equal(head.weight, hf.get_input_embeddings().weight):
        head.weight = hf.get_input_embeddings().weight
    else:
        text.tie_word_embeddings = hf.config.tie_word_embeddings = False
