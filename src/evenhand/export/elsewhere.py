"""What readers other than this transformers version need to find in a model folder.

transformers 5 moved some settings: `rope_theta` into `rope_parameters`, special tokens into `extra_special_tokens`, and it
names a tokenizer class that version 4 does not know. Version 4 and converters built on it then fail, or worse, read a default:
a model with another rotary base than 10,000 loads there without a word and answers nonsense. Both spellings are written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def for_other_readers(folder: Path) -> None:
    """Add the older spellings to `config.json` and `tokenizer_config.json`; what transformers 5 reads stays the same."""
    for name, change in (("config.json", _config), ("tokenizer_config.json", _tokenizer)):
        if (folder / name).is_file():  # an adapter has no config of its own
            _rewrite(folder / name, change)


def _config(given: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and its like beside `rope_parameters`; `torch_dtype` beside `dtype`."""
    older = {"torch_dtype": given["dtype"]} if "dtype" in given else {}
    return {**older, **_older_rope(given.get("rope_parameters") or {}), **given}


def _older_rope(rope: dict[str, Any]) -> dict[str, Any]:
    """The rotary settings as version 4 spells them, for one set of all layers or for Gemma 3's two.

    >>> _older_rope({"rope_type": "linear", "rope_theta": 5e5, "factor": 4.0})
    {'rope_theta': 500000.0, 'rope_scaling': {'rope_type': 'linear', 'factor': 4.0}}
    """
    if set(rope) == {"full_attention", "sliding_attention"}:
        return _older_rope(rope["full_attention"]) | {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
    if any(isinstance(v, dict) for v in rope.values()):
        return {}  # layers that differ otherwise have no older spelling
    older = {k: v for k, v in rope.items() if k in ("rope_theta", "partial_rotary_factor")}
    scaled = rope.get("rope_type", "default") != "default"
    return older | ({"rope_scaling": {k: v for k, v in rope.items() if k != "rope_theta"}} if scaled else {})


def _tokenizer(given: dict[str, Any]) -> dict[str, Any]:
    """The class both versions know, special tokens under the older name, nothing about this machine."""
    kept = {k: v for k, v in given.items() if k not in ("is_local", "local_files_only")}
    if kept.get("tokenizer_class") == "TokenizersBackend":
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"  # which in version 4 also gives token types unless told otherwise
        kept.setdefault("model_input_names", ["input_ids", "attention_mask"])
    if isinstance(kept.get("extra_special_tokens"), list):
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    return kept


def _rewrite(path: Path, change: Any) -> None:
    given = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(given), indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
