"""`evenhand export`: a model out of a finished run, or the data it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evenhand.cli.models import quiet
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.export.model import Exported
    from evenhand.export.rows import Written
    from evenhand.export.subject import Subject


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a finished run.")],
    out: Annotated[Path, typer.Option(help="The new folder; one that exists is never replaced.")],
    arm: Annotated[str, typer.Option(help="The arm whose model is wanted; with --pairs or --samples, whose data.")] = "",
    reward_model: Annotated[str, typer.Option(help="The reward model that is wanted.")] = "",
    seed: Annotated[int | None, typer.Option(help="Which seed's model; needed where there are several.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 (default: the run's own).")] = None,
    check: Annotated[int, typer.Option(min=1, help="Held-out prompts on which the copy is compared with the run's model.")] = 8,
    license: Annotated[str | None, typer.Option(help="For the card, as the Hub names it: apache-2.0, mit, ...")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="The arm's adapter alone, in peft's format.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Preference pairs as JSONL; with --arm, those it learned from.")] = False,
    samples: Annotated[bool, typer.Option("--samples", help="The arms' answers to the held-out prompts, as JSONL.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="GGUF too, by the converter that is named.")] = False,
    converter: Annotated[Path | None, typer.Option(help="llama.cpp's convert_hf_to_gguf.py.")] = None,
    push: Annotated[str, typer.Option(help="Upload the folder to the Hub as this repository, private.")] = "",
    public: Annotated[bool, typer.Option("--public", help="With --push: for everyone to see.")] = False,
    device: Annotated[str, typer.Option(help="Where the check computes: auto, cpu or cuda.")] = "auto",
) -> None:
    """A model as a Hugging Face folder that is checked against the run's, with a card that says how it did; or the run's data."""
    if pairs or samples:
        if reward_model or adapter or gguf or push or dtype or seed is not None:
            raise UserError("--pairs and --samples write data, not models", where="command line", fix="run the command twice")
        for file in _data(run, out, arm, pairs=pairs, samples=samples):
            for line in (f"{file.rows} rows: {file.path.name}", *(f"  {count}: {what}" for what, count in file.lost.items())):
                print(line)
        return
    if bool(arm) == bool(reward_model):
        raise UserError("say what to export", where="command line", fix="--arm NAME, --reward-model NAME, --pairs or --samples")
    if gguf and (reward_model or adapter):
        raise UserError("GGUF is for whole language models", where="--gguf", fix="leave it out")
    if public and not push:
        raise UserError("--public says how to push", where="command line", fix="add --push NAME")
    from evenhand.export.adapter import export_adapter
    from evenhand.export.model import export as export_model
    from evenhand.export.subject import find_arm, find_reward_model

    quiet()
    subject = find_arm(run, arm, seed) if arm else find_reward_model(run, reward_model, seed)
    if adapter:
        if dtype is not None:
            raise UserError("an adapter is copied as it is", where="--dtype", fix="leave it out")
        made = export_adapter(subject, out, prompts=check, license=license, device=device, say=print)
    else:
        made = export_model(subject, out, dtype=dtype, prompts=check, license=license, device=device, say=print)
    print(f"written: {made.folder} (its account: {made.folder / 'README.md'})")
    missing = _gguf(subject, made, converter) if gguf else None
    if push:
        from evenhand.export.hub import push as push_folder

        print(f"pushed, {'public' if public else 'private'}: {push_folder(made.folder, push, public=public)}")
    if missing is not None:
        raise missing


def _gguf(subject: Subject, made: Exported, converter: Path | None) -> UserError | None:
    """GGUF and a Modelfile beside it; the error is raised when everything else that was asked for is done."""
    from evenhand.export.folder import sampling
    from evenhand.export.gguf import convert, modelfile

    try:
        path, checked = convert(made.folder, converter, dtype=made.dtype)
    except UserError as error:
        return error
    (made.folder / "Modelfile").write_text(modelfile(made.stops, sampling(subject)), encoding="utf-8")
    print(f"written: {path}; {checked}")
    return None


def _data(run: Path, out: Path, arm: str, *, pairs: bool, samples: bool) -> list[Written]:
    from evenhand.export.folder import new_folder
    from evenhand.export.rows import write_pairs, write_samples
    from evenhand.export.subject import any_seed
    from evenhand.report.run_data import read_run

    opened, written = read_run(run), []
    with new_folder(out) as folder:
        if pairs:
            written += write_pairs(opened, folder, any_seed(run, arm) if arm else None)
        if samples:
            written.append(write_samples(opened, folder, arm or None))
    return written
