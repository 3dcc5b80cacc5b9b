"""GGUF through llama.cpp's own converter, where a person names one: run it, then read what it wrote."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.errors import UserError

MAGIC = b"GGUF"
FILE = "model.gguf"
TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
TIMEOUT = 3600.0


def convert(folder: Path, converter: Path | None, *, dtype: str, timeout: float = TIMEOUT) -> tuple[Path, str]:
    """`model.gguf` in an exported folder, and a sentence on what was checked.

    `converter` is llama.cpp's `convert_hf_to_gguf.py`. Raises UserError with the command to run by hand without one, and when
    it fails, takes longer than `timeout` seconds, or writes a file that is not GGUF or has another chat template or eos token;
    such a file is removed.
    """
    target = folder / FILE
    outtype = TYPES.get(dtype, "auto")
    if converter is None:
        by_hand = shlex.join(["python", "convert_hf_to_gguf.py", str(folder), "--outfile", str(target), "--outtype", outtype])
        raise UserError(
            "no converter is named", where="--gguf",
            why=f"llama.cpp's convert_hf_to_gguf.py makes GGUF; {folder} is complete and ready for it",
            fix=f"--converter PATH next time, or now: {by_hand}",
        )  # fmt: skip
    if not converter.is_file():
        raise UserError("there is no such file", where=f"--converter {converter}", fix="give the path of convert_hf_to_gguf.py")
    command = [sys.executable, str(converter), str(folder), "--outfile", str(target), "--outtype", outtype]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            last = "; ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise _failed(f"the converter ended with code {done.returncode}", last, command)
        return target, verified(target, folder)
    except subprocess.TimeoutExpired:
        target.unlink(missing_ok=True)
        raise _failed(f"the converter was stopped after {timeout:g} s", "", command) from None
    except UserError:
        target.unlink(missing_ok=True)
        raise


def verified(path: Path, folder: Path) -> str:
    """What could be checked of a GGUF file against the folder it was made from, in words."""
    found = b""
    if path.is_file():
        with path.open("rb") as file:
            found = file.read(len(MAGIC))
    if found != MAGIC:
        raise UserError("the converter wrote no GGUF file", where=str(path), why=f"it begins with {found!r}")
    if importlib.util.find_spec("gguf") is None:
        return "it begins as GGUF does; `pip install gguf` to have its template and eos token compared"
    fields = _fields(path)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = {"tokenizer.chat_template": tokenizer.chat_template, "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id}
    for name, value in wanted.items():
        if fields.get(name) != value:
            raise UserError(f"{name} differs", where=str(path), why=f"{fields.get(name)!r:.80} is not {value!r:.80}")
    return "its chat template and eos token are the model's"


def modelfile(stops: tuple[str, ...], sampling: Mapping[str, Any]) -> str:
    """An Ollama Modelfile: the file, the stop tokens, the judged sampler. Ollama derives its own template from GGUF's."""
    quoted = [f'PARAMETER stop "{stop}"' for stop in stops if '"' not in stop and "\n" not in stop]
    drawn = [f"PARAMETER temperature {sampling['temperature']:g}", f"PARAMETER top_p {sampling['top_p']:g}"]
    drawn += [f"PARAMETER min_p {sampling['min_p']:g}"] if sampling.get("min_p") else []
    warning = "# Ollama guesses a template from the file's; compare `ollama show --template` with chat_template.jinja."
    return "\n".join([warning, f"FROM ./{FILE}", *quoted, *drawn, f"PARAMETER top_k {sampling['top_k']}", ""])


def _fields(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items() if name.startswith("tokenizer.")}


def _failed(what: str, why: str, command: list[str]) -> UserError:
    return UserError(what, where="--gguf", why=why, fix=f"run it by hand: {shlex.join(command)}")
