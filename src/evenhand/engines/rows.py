"""Prompts as token ids and rows to sample, and sampled rows as groups: what every engine does around its sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evenhand.engines.checks import Renders, per_completion, prompt_ids
from evenhand.engines.decode_batch import DecodeRow, Sampled
from evenhand.seeding import keyed
from evenhand.types import Completion, Group, Prompt, Sampling


def asked(
    renderer: Renders, prompts: Sequence[Prompt], n: int, sampling: Sampling | Sequence[Sampling], max_prompt: int | None
) -> tuple[list[list[int]], list[DecodeRow]]:
    """The prompts' ids, and n rows for each in order. A prompt whose id occurs again continues the numbering of its answers."""
    each = per_completion(n, sampling)
    ids = [prompt_ids(renderer, p, max_prompt) for p in prompts]
    seen: dict[str, int] = {}
    rows = []
    for index, prompt in enumerate(prompts):
        offset = seen.get(prompt.id, 0)
        seen[prompt.id] = offset + n
        rows += [DecodeRow(prompt=index, key=(prompt.id, offset + i), sampling=s) for i, s in enumerate(each)]
    return ids, rows


def grouped(prompts: Sequence[Prompt], n: int, completions: Sequence[Completion]) -> list[Group]:
    """A group of n completions per prompt, in order."""
    return [Group(prompt=prompt, completions=tuple(completions[i * n : (i + 1) * n])) for i, prompt in enumerate(prompts)]


def completion(renderer: Renders, sampled: Sampled) -> Completion:
    """Sampled tokens as an answer."""
    text = renderer.decode(sampled.tokens)
    return Completion(content=text, tokens=sampled.tokens, behaviour_logp=sampled.logp, finish=sampled.finish)


def vllm_parameters(row: DecodeRow, stop_ids: Sequence[int]) -> dict[str, Any]:
    """How a row is sampled, in the words of vLLM, which its server takes as well."""
    s = row.sampling
    return {
        "temperature": s.temperature, "top_p": s.top_p, "top_k": s.top_k or -1, "min_p": s.min_p, "max_tokens": s.max_tokens,
        "seed": keyed(s.seed, "sample", *row.key) % 2**31,
        "stop_token_ids": list(stop_ids), "ignore_eos": True,  # they are the whole truth, and include eos
        "logprobs": 0,  # of the sampled token alone
    }  # fmt: skip
