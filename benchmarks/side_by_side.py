"""Questions of our own, answered by the arms of a finished run, side by side in its page of docs/results.

The held-out prompts of a public data set are somebody's text and are not shown; these questions can be. Every arm's first seed
answers greedily, and a reward scores the answers, all by the commands that a user has. The part between `<!-- answers:begin -->`
and `<!-- answers:end -->` of the page is written anew.

python -m benchmarks.side_by_side RUN_DIRECTORY examples/real_instruct/own_questions.jsonl ifeval docs/results/real_instruct.md
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

ANSWERS = re.compile(r"(<!-- answers:begin -->\n).*?(<!-- answers:end -->)", re.S)
MAX_TOKENS = 96
SHOWN = 240
"""Characters of an answer that are shown."""


def evenhand(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "evenhand", *arguments], check=True)


def answered(model: Path, questions: Path, reward: str, folder: Path) -> list[dict[str, Any]]:
    """One group per question: the model's greedy answer and its score."""
    answers, scored = folder / "answers.jsonl", folder / "scored.jsonl"
    asked = ("--prompts", str(questions), "--temperature", "0", "--max-tokens", str(MAX_TOKENS), "--out", str(answers))
    evenhand("generate", str(model), *asked)
    evenhand("score", reward, str(answers), "--out", str(scored))
    return [json.loads(line) for line in scored.read_text().splitlines()]


def cell(group: dict[str, Any]) -> str:
    """An answer as text of one table cell: what it scored, its lines kept, and where it goes on or was cut by the limit."""
    answer = group["completions"][0]
    text = answer["content"].strip()
    more = " …" if answer["finish"] == "length" or len(text) > SHOWN else ""
    return f"**{group['scores'][0]:g}** {shown(text[:SHOWN])}{more}"


def shown(text: str) -> str:
    """Text in a table of markdown, as it is."""
    escaped = escape(text, quote=False)
    for sign in "|*`_<":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return re.sub(r"\n+", "<br>", escaped)


def table(arms: dict[str, list[dict[str, Any]]]) -> str:
    """A row per question, a column per arm; the last row has each arm's mean score."""
    rows = [f"| question | {' | '.join(arms)} |", "|---" * (1 + len(arms)) + "|"]
    for number, group in enumerate(next(iter(arms.values()))):
        answers = " | ".join(cell(groups[number]) for groups in arms.values())
        rows.append(f"| {shown(group['prompt'][-1]['content'])} | {answers} |")
    means = (sum(g["scores"][0] for g in groups) / len(groups) for groups in arms.values())
    return "\n".join([*rows, f"| *mean score* | {' | '.join(f'{mean:.2f}' for mean in means)} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("reward")
    parser.add_argument("page", type=Path)
    given = parser.parse_args()
    results = json.loads((given.run / "results.json").read_text())
    seed = results["seeds"][0]
    arms = {}
    for arm in results["arms"]:
        with tempfile.TemporaryDirectory() as folder:
            arms[arm] = answered(given.run / "arms" / arm / f"seed-{seed}", given.questions, given.reward, Path(folder))
    text = given.page.read_text()
    if not ANSWERS.search(text):
        sys.exit(f"{given.page}: has no part between <!-- answers:begin --> and <!-- answers:end -->")
    said = f"Greedy answers of seed {seed}, at most {MAX_TOKENS} tokens, after the score of `{given.reward}`.\n\n{table(arms)}\n"
    given.page.write_text(ANSWERS.sub(lambda m: m[1] + said + m[2], text))


if __name__ == "__main__":
    main()
