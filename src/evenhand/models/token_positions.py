"""The cells [N, C] of a batch that heads compute, and the way there and back."""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.data.batch import completion_ids
from evenhand.types import Batch


class Cells:
    """Cells of a batch as flat indices; `predictor` [N, C] (on the processor) says which row of the states predicts each.

    On a processor only cells that count are computed. On an accelerator finding those would make the host wait, so all tokens are
    computed and those that do not count are zeroed.
    """

    def __init__(self, batch: Batch, predictor: Tensor) -> None:
        self._batch = batch
        device = batch.completion_mask.device
        wanted = batch.completion_mask if device.type == "cpu" else predictor >= 0
        index = wanted.flatten().nonzero()[:, 0]
        self._index, self._rows = move(index, device), move(predictor.flatten()[index], device)

    def gather(self, states: Tensor) -> Tensor:
        """[R, H] -> [M, H]: the states that predict the computed cells."""
        return states.index_select(0, self._rows)

    def ids(self) -> Tensor:
        """Token ids of the computed cells, [M]."""
        return completion_ids(self._batch).flatten().index_select(0, self._index)

    def spread(self, values: Tensor) -> Tensor:
        """[M] -> [N, C], 0 where the mask is False."""
        mask = self._batch.completion_mask
        where = (self._index // mask.shape[1], self._index % mask.shape[1])
        grid = values.new_zeros(mask.shape).index_put(where, values)
        return grid if mask.device.type == "cpu" else torch.where(mask, grid, 0.0)


def move(index: Tensor, device: torch.device) -> Tensor:
    """To a device without making the host wait."""
    return index if device.type == "cpu" else index.pin_memory().to(device, non_blocking=True)
