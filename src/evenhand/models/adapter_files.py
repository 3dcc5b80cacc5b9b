"""Adapters in and out of folders, in peft's own format: adapter_config.json beside adapter_model.safetensors."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenhand.configfile.text_file import json_object
from evenhand.errors import UserError
from evenhand.models import adapters
from evenhand.models.adapter_layers import NAME, adapted, learned
from evenhand.models.equivalence import ROUNDED, Original
from evenhand.models.guarded import guarded
from evenhand.models.heads import RewardModel
from evenhand.models.layer_turns import in_turn
from evenhand.models.library_logging import quietly
from evenhand.store import pointer
from evenhand.store.pointer import ADAPTER, TRAINED, routed

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk

FOLDER = ADAPTER
"""Where a stage leaves what it trained."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MERGE_ELSEWHERE = "merge it with the tool that made it, and give the merged model's folder"
PREFIX = "base_model.model."
_LOOKED_AT = 1 << 20
"""Bytes of a file of the start that are compared at most whenever an adapter is opened; of larger ones the size is."""
_HUB_CACHE = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]+)$")


def write(model: Trunk, folder: Path, *, start: Path, name: str | None = None) -> None:
    """The adapter of `model`, for `peft.PeftModel.from_pretrained(start, folder)`; `start` is the folder it was trained from.

    `name` is what the config calls it, where that is not its `base_name`.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    whole = _whole(model)
    name, revision = (name, None) if name is not None else base_name(start)
    tied = _tied(model.hf) and model.hf.get_input_embeddings() in whole.values()
    config: Any = model.hf.peft_config[NAME]
    given = config.to_dict() | {
        "base_model_name_or_path": name, "revision": revision, "inference_mode": True, "init_lora_weights": True,
        "modules_to_save": sorted(whole) or None, "ensure_weight_tying": tied,
        "task_type": "SEQ_CLS" if isinstance(model, RewardModel) else "CAUSAL_LM",
    }  # fmt: skip
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in given.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n")
    copies: dict[str, Tensor] = {}
    layers = dict(adapted(model.hf))
    for module_name in in_turn(model.hf, [*layers, *whole]):
        parts = learned(layers[module_name]) if module_name in layers else dict(whole[module_name].named_parameters())
        copies |= {f"{PREFIX}{module_name}.{key}": t.detach().to("cpu", copy=True).contiguous() for key, t in parts.items()}
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
    return getattr(head, "weight", None) is not None and head.weight is hf.get_input_embeddings().weight


def base_name(start: Path) -> tuple[str, str | None]:
    """What the base is called in an adapter's config, and its revision: a hub name for a folder of the hub's cache.

    >>> base_name(Path("/c/models--org--small/snapshots/0ab1"))
    ('org/small', '0ab1')
    """
    start = start.resolve()
    known = _HUB_CACHE.search(start.as_posix())
    return (known[1].replace("--", "/"), known[2]) if known else (str(start), None)


def is_adapter(path: str | Path) -> bool:
    """Whether a local folder holds an adapter and no model of its own."""
    folder = Path(path).expanduser()
    if not (folder / CONFIG).is_file():
        return False
    return not any(f.name != WEIGHTS for f in folder.glob("*.safetensors"))


def named_base(folder: str | Path) -> str | None:
    """The base that an adapter's config names."""
    return config_of(folder).get("base_model_name_or_path")


def is_reward(folder: str | Path) -> bool:
    """Whether an adapter is one of a sequence classifier."""
    return config_of(folder).get("task_type") == "SEQ_CLS"


def config_of(folder: str | Path) -> dict[str, Any]:
    """An adapter's config. UserError for one that cannot be read."""
    if not (found := json_object(Path(folder).expanduser() / CONFIG)):
        raise _damaged(CONFIG, folder, "it is no JSON object")
    return found


def weights_of(folder: str | Path, device: str = "cpu") -> Any:
    """An adapter's file of weights, opened by safetensors. UserError where it is not there or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(Path(folder).expanduser() / WEIGHTS), "pt", device=device)
    except FileNotFoundError:
        raise UserError(f"no {WEIGHTS}", where=str(folder), fix="save it with `safe_serialization=True`") from None
    except SafetensorError as error:
        raise _damaged(WEIGHTS, folder, str(error)) from error


def _damaged(name: str, folder: str | Path, why: str) -> UserError:
    return UserError(f"{name} is damaged", where=str(folder), why=why, fix="save or copy the adapter again")


def base_of(folder: str | Path, base: str | None = None) -> str:
    """The base of an adapter: the one that is given, else the one its config names. UserError for a folder that is not here.

    Of an adapter that was trained here it is the start, which must still be what it was.
    """
    if base is None and (start := _start_of(Path(folder).expanduser())) is not None:
        return str(start)
    found = base or named_base(folder)
    if not found:
        raise no_base(folder, "none is named")
    if base is None and (led := routed(Path(folder).expanduser(), found)) is not None:
        return str(led)
    local = Path(found).expanduser()
    if not local.is_dir() and (found.startswith((".", "/", "~")) or found.count("/") > 1):
        raise no_base(folder, f"there is no folder {found}")
    return str(local) if local.is_dir() else found


def trained_in(folder: str | Path) -> str | None:
    """The precision in which an adapter was trained here; None for one from elsewhere."""
    found = json_object(Path(folder).expanduser() / TRAINED).get("dtype")
    return None if found is None else str(found)


def quantized(folder: str | Path) -> bool:
    """Whether an adapter was trained here on a start in four bits."""
    return bool(json_object(Path(folder).expanduser() / TRAINED).get("quantize"))


def _start_of(folder: Path) -> Path | None:
    """The model that an adapter was trained from here, if it can be found. UserError where it has changed since."""
    told = json_object(folder / TRAINED)
    artifact = pointer.routed_artifact(folder, str(told.get("start", "")))
    if artifact is None:
        return None
    if why := pointer.damage(artifact, up_to=_LOOKED_AT):
        raise UserError("the start of this adapter has changed", where=str(folder), why=why, fix="restore it, or run again")
    if (known := told.get("start_weights")) and pointer.recorded_weights(artifact) not in ("", known):
        raise UserError(
            "the start of this adapter has other weights than it was trained on", where=str(folder),
            why="its stage was made again since, by other versions or on another device",
            fix="run again with a new --out and store, which makes both anew",
        )  # fmt: skip
    return pointer.model_path(artifact)


def root_of(folder: str | Path, base: str | None = None) -> str:
    """The whole model below an adapter: of one that was trained on an adapter, the base of that."""
    found = base_of(folder, base)
    return root_of(found) if is_adapter(found) else found


def no_base(folder: str | Path, why: str) -> UserError:
    """An adapter is a change of a base model; without it there is nothing to change."""
    return UserError(
        "the base of this adapter cannot be found", where=str(folder), why=why,
        fix="name the model it was trained on: `model.base: FOLDER`, or a name on the hub",
    )  # fmt: skip


def apply(hf: Any, folder: str | Path, dtype: torch.dtype | None = None) -> Any:
    """The base `hf` with an adapter's change merged into its weights, in their precision (give it float32), then as `dtype`.

    Raises UserError when weights of the adapter are missing, fit nowhere, or the tokenizer beside it has tokens that the
    embeddings lack; and when the merged network computes something else than the live adapter on its base.
    """
    folder = Path(folder).expanduser()
    with weights_of(folder) as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    _fit_embeddings(hf, shapes, folder)
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is missing is found below
        wrapped = _live(hf, shapes, folder)
        original = Original.of(wrapped, hf.config.get_text_config().vocab_size, tokens=_trained_tokens(wrapped))
        plain = _merged(wrapped, folder)
    original.compare(plain, what="merging the adapter", where=str(folder), fix=MERGE_ELSEWHERE)
    if dtype is not None and dtype != plain.dtype:
        name, fix = str(dtype).removeprefix("torch."), "set `dtype` to bfloat16 or float32"
        original.compare(plain.to(dtype), what=f"rounding to {name}", where=str(folder), fix=fix, allowed=ROUNDED)
    return plain.requires_grad_(True)


def _live(hf: Any, shapes: Mapping[str, Any], folder: Path) -> Any:
    """peft's own model of an adapter on its base, complete."""
    library = adapters.peft()
    try:
        wrapped = library.PeftModel.from_pretrained(hf, str(folder))
    except KeyError as error:  # of a module trained whole
        raise _missing([str(error.args[0])], folder) from error
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError("the adapter does not fit its base", where=str(folder), why=line, fix="check `model.base`") from error
    _complete(set(library.get_peft_model_state_dict(wrapped, save_embedding_layers=False)), set(shapes), hf, folder)
    return wrapped.eval()


def _trained_tokens(wrapped: Any) -> list[int]:
    """The tokens whose vectors alone an adapter trained; any few tokens might miss them."""
    given = getattr(wrapped.peft_config[wrapped.active_adapter], "trainable_token_indices", None) or ()
    lists = given.values() if isinstance(given, Mapping) else [given]
    return sorted({int(i) for indices in lists for i in indices})


def _merged(wrapped: Any, folder: Path) -> Any:
    tied = _tied(wrapped.get_base_model())
    _take_apart(wrapped)
    try:
        plain = wrapped.merge_and_unload(safe_merge=True)
    except (RuntimeError, ValueError, AttributeError, NotImplementedError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError("this adapter cannot be merged", where=str(folder), why=line, fix=MERGE_ELSEWHERE) from error
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    _settle_ties(plain, tied)
    head = plain.get_output_embeddings()
    if isinstance(head, nn.Linear):  # peft gives one that is tied to trained embeddings their numbers
        head.out_features, head.in_features = head.weight.shape
    return plain


def _take_apart(wrapped: Any) -> None:
    """Give embeddings and head that are one weight a copy each: an adapter on either must not move the other when merged."""
    network = wrapped.get_base_model()
    owners = [m for end in (network.get_input_embeddings(), network.get_output_embeddings()) for m in _weights(end)]
    seen: set[int] = set()
    for module in owners:
        if id(module.weight) in seen:
            module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=module.weight.requires_grad)
        seen.add(id(module.weight))


def _weights(end: nn.Module | None) -> Iterator[Any]:
    """The layers below an end of the network, wrapped or not, that have its weight (embeddings and linear layers alone)."""
    for module in () if end is None else end.modules():
        if isinstance(module, nn.Embedding | nn.Linear) and "lora_" not in type(module).__name__.lower():
            yield module


def _fit_embeddings(hf: Any, shapes: Mapping[str, Any], folder: Path) -> None:
    """Make room for the tokens that an adapter brings; the rows themselves are in its file."""
    embeddings = hf.get_input_embeddings()
    rows = embeddings.weight.shape[0]
    name = next(n for n, m in hf.named_modules() if m is embeddings)
    brought = [shapes[k][0] for part in ("", ".base_layer") if (k := f"{PREFIX}{name}{part}.weight") in shapes]
    if brought and max(brought) != rows:
        hf.resize_token_embeddings(max(brought))
        return
    if (folder / "tokenizer_config.json").is_file():
        from transformers import AutoTokenizer

        if (tokens := len(guarded(AutoTokenizer.from_pretrained, folder, trust_remote_code=False))) > rows:
            raise UserError(
                f"the tokenizer has {tokens} tokens, the base {rows} embeddings", where=str(folder),
                why="new tokens were added, and the adapter has no embeddings for them",
                fix="train with `modules_to_save: [embed_tokens, lm_head]`, or remove the tokens",
            )  # fmt: skip


def _complete(expected: set[str], given: set[str], hf: Any, folder: Path) -> None:
    if missing := sorted(expected - given):
        raise _missing(missing, folder)

    def plain(name: str) -> str:
        return re.sub(r"\.(base_layer|original_module|modules_to_save)\.", ".", name.removeprefix(PREFIX))

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
def _settle_ties(hf: Any, tied: bool) -> None:
    """Embeddings and head that were taken apart are one again where they are equal, and stay two where training made them so.

    `tied`: they were one before the merge, after which peft may have changed the config.
    """
    text = hf.config.get_text_config()
    head = hf.get_output_embeddings()
    if not (tied or getattr(text, "tie_word_embeddings", False)) or head is None or _tied(hf):
        return
    if torch.equal(head.weight, hf.get_input_embeddings().weight):
        head.weight = hf.get_input_embeddings().weight
        text.tie_word_embeddings = hf.config.tie_word_embeddings = True
    else:
        text.tie_word_embeddings = hf.config.tie_word_embeddings = False
