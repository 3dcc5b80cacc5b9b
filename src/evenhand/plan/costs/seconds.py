"""How long passes take: arithmetic at the measured rate of products, elementwise work at the measured bandwidth.

Both together are a bound that real layers miss by a factor of their own. A short run of two layers of the real width, where that
is cheap, measures it (`calibration`); it is 1 where nothing was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.memory import SamplingWave
from evenhand.plan.costs.network import Network
from evenhand.train import flops
from evenhand.train.flops import Work

VOCABULARY_PASSES = 8
"""Bytes that move over logits, in sizes of the logits: exponentials, sums, gradients."""
EIGHT_BIT_MOVES, ROUNDING_MOVES = 400, 200
"""Bytes that take as long as to unpack, move and pack a weight's moments, and to round it by chance (measured)."""
CALL = 25e-6
"""Seconds of the host for one operation of a decoding step."""
CALLS_PER_LAYER = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """A machine, and how much longer real layers take there than the bound says: training, and sampling."""

    machine: Machine
    train: float = 1.0
    decode: float = 1.0


def forward(network: Network, work: Work, speed: Speed) -> float:
    """A pass without gradients."""
    machine = speed.machine
    moved = network.layers * network.trunk.moved_forward.at(work.tokens) + _vocabulary(network, work) / 2
    return speed.train * (
        flops.forward(network.shape, work) / machine.rate(network.precision.products) + moved / machine.bandwidth
    )


def learn(network: Network, work: Work, speed: Speed, *, checkpointing: bool = False) -> float:
    """A micro-batch forward and back; forward alone where only a gate learns (see `gate`)."""
    machine = speed.machine
    if network.gate:
        return forward(network, work, speed)
    moved = network.layers * network.trunk.moved_backward.at(work.tokens) + _vocabulary(network, work) / 2
    back = flops.backward(network.shape, work) / machine.rate(network.precision.products) + moved / machine.bandwidth
    return (2 if checkpointing else 1) * forward(network, work, speed) + speed.train * back


def gate(network: Network, prompts: int, speed: Speed) -> float:
    """A gate forward and back, once a prompt: 6 operations a weight."""
    return speed.train * 6 * network.gate * prompts / speed.machine.rate("float32")


def update(network: Network, machine: Machine, shards: int = 1, optimizer: str = "adamw") -> float:
    """Clipping and AdamW: gradients read twice and written, then gradient, weight and both moments read, three written."""
    narrow = network.precision.size < 4
    if optimizer == "adamw_8bit":
        moved = EIGHT_BIT_MOVES + ROUNDING_MOVES * narrow
    else:
        moved = 7 * 4 + 14 * narrow
    per_weight = 3 * network.precision.size + moved
    return network.learning / shards * per_weight / machine.bandwidth


def sample(network: Network, wave: SamplingWave, speed: Speed) -> float:
    """A wave: prompts once, then a step per new token; each step reads all weights, or multiplies them with all rows."""
    machine, size = speed.machine, network.precision.size
    prompts = -(-wave.rows // wave.group)
    prefill = Work(tokens=prompts * wave.prompt, scored=prompts, pairs=prompts * wave.prompt * (wave.prompt + 1) // 2)
    weights = network.shape.weights + network.head
    arithmetic = 2 * weights * wave.rows / machine.rate(network.precision.products)
    reading = weights * size / machine.bandwidth
    context = wave.rows * (wave.prompt + wave.new / 2) * network.cached * size / machine.bandwidth
    logits = VOCABULARY_PASSES * 4 * wave.rows * network.vocabulary / machine.bandwidth
    step = speed.decode * (max(arithmetic, reading) + context) + logits + CALL * CALLS_PER_LAYER * network.layers
    return forward(network, prefill, speed) + wave.new * step


def load(network: Network) -> float:
    """Weights compared with their digest, read, looked over; the self-checks of layout and head."""
    return network.weight_bytes / DIGEST + network.weight_bytes / READ + CHECKS


def save(size: float, machine: Machine) -> float:
    """`size` bytes of weights copied, written and flushed, their digest taken."""
    return size * (1 / machine.disk + 1 / DIGEST + 1 / READ)


DIGEST, READ = 8e8, 4e8
"""Bytes per second of a digest, and of weights that are read from a file into fresh memory."""
CHECKS = 2.0
"""Seconds of the self-checks that a model passes when it is opened."""


def _vocabulary(network: Network, work: Work) -> float:
    return 0.0 if network.scores else VOCABULARY_PASSES * 4.0 * work.scored * network.vocabulary
