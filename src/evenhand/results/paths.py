"""Texts without the folders of this machine: results are shown to others."""

from __future__ import annotations

import re
from collections.abc import Mapping


def without_folders(text: str, names: Mapping[str, str] | None = None) -> str:
    """A text without this machine's folders: those in `names` get a name, of any other path the last part is kept.

    >>> without_folders("see /home/me/run/log.txt and https://huggingface.co/org/name, 3/4 of all")
    'see log.txt and https://huggingface.co/org/name, 3/4 of all'
    >>> without_folders("weights in /data/run/store/ab12/model", {"/data/run": "", "/data": "elsewhere"})
    'weights in store/ab12/model'
    """
    for folder, name in sorted((names or {}).items(), key=lambda item: -len(item[0])):
        text = text.replace(f"{folder}/", f"{name}/" if name else "")
    return re.sub(r"(?<![\w:/.~-])~?(?:/[\w.@+-]+)+/([\w.@+-]+)", r"\1", text)
