"""`evenhand keys`: what an experiment file may say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evenhand.spec.find_keys import Found


def complete_key(incomplete: str) -> list[str]:
    """Paths and bare names of keys, for the completion of shells."""
    from evenhand.spec.keys import sections

    every = [key for section in sections() for key in section.keys]
    return sorted({n for key in every for n in ((key.path,) if "." in incomplete else (key.name,)) if n.startswith(incomplete)})


def keys(
    key: Annotated[
        str,
        typer.Argument(
            help="A key (train.warmup), a mapping (train), a bare name, a method (dpo), or another tool's word.",
            autocompletion=complete_key,
        ),
    ] = "",
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The JSON schema of a file, for editors.")] = False,
) -> None:
    """What an experiment file may say: type, default, unit and meaning of every key."""
    if json_schema:
        from evenhand.manual.reference import schema

        print(schema(), end="")
        return
    from evenhand.spec.find_keys import Found, find
    from evenhand.spec.keys import sections

    top = sections()[0]
    found = find(key) if key else [Found(top, k) for k in top.keys]
    if len(found) == 1:
        print("\n".join(one(found[0])))
        return
    for line in several(found):
        print(line)


def one(found: Found) -> list[str]:
    """A key in full."""
    key = found.key
    title = f" ({found.section.title})" if found.section.title and found.section.path else ""
    kind = key.type + (f", in {key.unit}" if key.unit else "")
    default = {"": "", "required": "; required"}.get(key.default, f"; default {key.default}")
    return [f"{key.path}{title}: {kind}{default}", f"  {key.meaning}"]


def several(found: Sequence[Found]) -> list[str]:
    """Keys under their mappings, methods and kinds that say the same together; of a whole section these are named only."""
    by_title: dict[tuple[str, str], list[Found]] = {}
    for f in found:
        by_title.setdefault((f.section.path, f.section.title), []).append(f)
    kinds = [title.partition(": ")[2] for _, title in by_title if ": " in title]
    named = len(kinds) > 5 and any(": " not in title for _, title in by_title)
    alike: dict[tuple[str, ...], list[str]] = {}
    for (path, title), group in by_title.items():
        if named and ": " in title:
            continue
        width = max(len(f.key.path) - len(path) for f in group)
        what, _, kind = title.partition(": ")
        said = (path, what, *(_line(f, path, width) for f in group))
        alike.setdefault(said, []).append(kind)
    lines: list[str] = []
    for (path, what, *rows), of in alike.items():
        of_what = what + (f": {', '.join(of)}" if any(of) else "")
        lines += [f"{path or 'the file'}{f' ({of_what})' if what and path else ''}", *rows]
    return lines + ([f"and those of its method or kind: {', '.join(kinds)}"] if named else [])


def _line(found: Found, path: str, width: int) -> str:
    key = found.key
    default = f" [{key.default}]" if key.default else ""
    unit = f" In {key.unit}." if key.unit else ""
    return f"  {key.path[len(path) :].lstrip('.'):<{width}} {key.meaning}{unit}{default}"


COMMANDS = (keys,)
