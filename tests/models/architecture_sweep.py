"""What works on which architecture: `python -m tests.models.architecture_sweep` writes the table of docs/models.md.

Every causal language model class of the installed transformers is made tiny and random; its log-probs are compared with a plain
forward pass, and the log-probs it was sampled with are compared with those recomputed on the same tokens.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evenhand.data.batch import pack
from evenhand.engines.local import LocalEngine
from evenhand.errors import UserError
from evenhand.models.decode import decoder_for
from evenhand.models.policy import Policy
from evenhand.types import Group, Prompt, Sampling, TokenGroup, Tokens
from tests.models.tiny_architectures import kinds, tiny
from tests.models.tiny_networks import plain_logp, rows_of, token_groups

DOCS = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- sweep -->\n", "<!-- /sweep -->\n"
HOW = {
    "SharedPrefixDecoder": "shared prefix", "PlainDecoder": "padded cache", "OwnCacheDecoder": "own cache",
    "RereadDecoder": "no cache",
}  # fmt: skip


class Numbers:
    """A renderer whose prompts are token ids in words."""

    stop_ids = frozenset({2})

    def prompt_ids(self, prompt: Prompt, max_prompt: int | None = None) -> list[int]:
        return [int(word) for word in prompt.text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass(frozen=True)
class Finding:
    """One architecture: the layout it trains in, how it is sampled, and the largest differences of log-probs, in nats."""

    kind: str
    name: str
    layout: str = ""
    sampled: str = ""
    off: float = 0.0
    sampled_off: float = 0.0
    refused: str = ""

    @property
    def row(self) -> str:
        if self.refused:
            return f"| {self.kind} | {self.name} | refused | | {self.refused} |"
        return f"| {self.kind} | {self.name} | {self.layout} | {self.sampled} | |"


def sampled_groups(hf: Any, policy: Any, prompts: Sequence[str] = ("5 6 7 8 9", "10 11", "12"), n: int = 3) -> list[TokenGroup]:
    """Answers of a tiny model to prompts of different lengths, with the log-probs they were sampled at."""
    groups = LocalEngine(policy, Numbers()).generate([Prompt(content=p) for p in prompts], n, Sampling(max_tokens=12, seed=1))
    return [_tokenised(g) for g in groups]


def _tokenised(group: Group) -> TokenGroup:
    tokens = [
        Tokens(ids=c.tokens or (), mask=(True,) * len(c.tokens or ()), behaviour_logp=c.behaviour_logp) for c in group.completions
    ]
    return TokenGroup(prompt=tuple(Numbers().prompt_ids(group.prompt)), completions=tuple(tokens), group=group)


@torch.no_grad()
def examine(kind: str) -> Finding | None:
    """What works; None for a kind that transformers itself cannot run on text alone at this size."""
    try:
        hf, groups = tiny(kind), token_groups()
        plain = plain_logp(hf, groups)
    except Exception:  # not a model of text alone, or one whose parts are not made small here; any error is possible
        return None
    name = type(hf).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            policy = Policy(hf)
        off = max(float((a - b).abs().max()) for a, b in zip(rows_of(policy(pack(groups)).logp, groups), plain, strict=True))
        how = HOW[type(decoder_for(hf)).__name__]
        batch = pack(sampled_groups(hf, policy))
    except UserError as error:
        return Finding(kind, name, refused=error.what + (f": {error.why}" if error.why else ""))
    counted = batch.completion_mask
    again = (policy(batch).logp - batch.behaviour_logp)[counted].abs().max()
    layout = "packed" if policy.layout_mode == "tree" else "padded"
    return Finding(kind, name, layout, how, off, float(again))


def table(findings: Sequence[Finding]) -> str:
    head = "| model_type | class | trains | samples | refused because |\n|---|---|---|---|---|\n"
    return head + "".join(f"{f.row}\n" for f in findings)


def main() -> None:
    looked = [(kind, examine(kind)) for kind in kinds()]
    text = DOCS.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    left = ", ".join(f"`{kind}`" for kind, found in looked if found is None)
    rows = table([found for _, found in looked if found is not None])
    DOCS.write_text(f"{before}{BEGIN}{rows}\nNot looked at, since no tiny one of text alone could be made: {left}.\n{END}{after}")
    worst = max((f.off + f.sampled_off, k) for k, f in looked if f is not None)
    print(f"{DOCS}: the largest difference is {worst[0]:.1e} nats ({worst[1]})", file=sys.stderr)


if __name__ == "__main__":
    main()
