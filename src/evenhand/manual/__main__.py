"""`python -m evenhand.manual` renews every file of a checkout that is made from the code, and names those that changed.

With `--check` nothing is written; it ends with 1 where a file is out of date.
"""

from __future__ import annotations

import sys

from evenhand.manual.generated import GENERATED


def main(check: bool) -> int:
    """Write (or only name) what is out of date; 1 when a check finds something."""
    stale = []
    for path, text in GENERATED.items():
        before = path.read_text(encoding="utf-8")
        if (now := text(before)) != before:
            stale.append(path)
            if not check:
                path.write_text(now, encoding="utf-8")
    print("\n".join(f"{'out of date' if check else 'written'}: {path}" for path in stale) or "everything is current")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
