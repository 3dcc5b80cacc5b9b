"""FSDP2 on two processes: sharded weights, halves of a step, and the same summed gradient as one process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

WORLD = 2


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("gemma2", True)])
def test_two_ranks_give_the_gradient_of_one(tmp_path, kind, tied, checkpointing):
    args = (tmp_path / "meeting", kind, tied, checkpointing)
    torch.multiprocessing.spawn(_rank, args=args, nprocs=WORLD)


def _rank(rank: int, meeting: Path, kind: str, tied: bool, checkpointing: bool) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    from evenhand.data.batch import pack
    from evenhand.models.policy import Policy
    from tests.models.tiny_networks import assert_same_gradients, gradients, network, token_groups

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(WORLD), "LOCAL_RANK": str(rank)}
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    try:
        groups = token_groups()
        alone = Policy(network(kind, tie_word_embeddings=tied))
        expected = gradients(alone, alone(pack(groups)).logp.sum())

        policy = Policy(network(kind, tie_word_embeddings=tied))
        policy.set_checkpointing(checkpointing)
        mesh = init_device_mesh("cpu", (WORLD,))
        for part in (*policy.hf.model.layers, policy):
            fully_shard(part, mesh=mesh)
        for module in policy.modules():
            if isinstance(module, FSDPModule):  # gradients are summed: a loss is already divided by its global denominator
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        policy(pack(groups[rank::WORLD])).logp.sum().backward()
        found = {name: p.grad.full_tensor() for name, p in policy.named_parameters()}
        assert_same_gradients(found, expected, 1e-5)
    finally:
        dist.destroy_process_group()
