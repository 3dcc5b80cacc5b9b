"""Every causal language model class of transformers: right, or refused."""

from __future__ import annotations

import pytest

from tests.models.architecture_sweep import DOCS, examine
from tests.models.tiny_architectures import kinds

FEW = ("llama", "gemma4_text", "gemma3n_text", "deepseek_v3", "mamba", "rwkv", "bart", "qwen3_next")
"""One of each way: packed, shared keys, heads of two sizes, own cache, no cache, no position ids, hybrid."""


def right(kind: str) -> None:
    found = examine(kind)
    if found is None:
        pytest.skip("no tiny one of text alone can be made")
    assert found.refused or (found.off < 2e-5 and found.sampled_off < 2e-5), found
    assert found.row in DOCS.read_text(), "python -m tests.models.architecture_sweep"


@pytest.mark.parametrize("kind", FEW)
def test_a_few_architectures_are_right(kind: str) -> None:
    right(kind)
    assert not examine(kind).refused


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in kinds() if k not in FEW])
def test_every_architecture_is_right_or_refused(kind: str) -> None:
    right(kind)
