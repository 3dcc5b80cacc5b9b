"""YAML files that people write: principles and tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from evenhand.errors import UserError


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def read_yaml(path: Path | str) -> Any:
    """What the file says; a UserError with the place when it is absent, not UTF-8 or not YAML."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), fix="check the path") from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=str(path), fix="save the file as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        why = str(getattr(error, "problem", "") or error)
        raise UserError("is not YAML", where=place, why=why, fix="put text with ? : { } [ ] , in quotes") from None
