"""The most memory that a stage holds at once, from its network and its micro-batches.

The peak is the highest of its moments: weights are read, a micro-batch runs forward and back, the optimizer moves, completions
are sampled, the model is written. What each holds is counted tensor by tensor; what the C library keeps of freed blocks is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from evenhand.core.logprob import CARRY_BYTES, CHUNK_BYTES
from evenhand.models.decode import PREFILL_TOKENS
from evenhand.models.decode_products import LIMIT
from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.network import Network
from evenhand.train.flops import Work
from evenhand.train.optimizers import state_bytes

CACHE_BYTES = 2 << 30
"""What an engine holds of keys, values and logits at most: see `engines.decode_batch`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Bytes at each moment of a stage, libraries included; a moment that does not come is 0."""

    load: float = 0
    step: float = 0
    update: float = 0
    sample: float = 0
    save: float = 0

    @property
    def peak(self) -> int:
        return round(max(self.load, self.step, self.update, self.sample, self.save))


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingWave:
    """One wave of sampling: `rows` at once, of `prompt` tokens (each prompt once for `group` rows), and `new` tokens each."""

    rows: int
    prompt: int
    new: int
    group: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLoad:
    """What a stage does with its network: `largest` is its largest micro-batch, `several` whether a step has more than one.

    `beside` are the bytes of frozen networks that it holds as well, `steps` how many optimizer steps there are. `shards` is the
    number of processes over which weights, gradients and moments are spread, `optimizer` the kind that moves them.
    """

    largest: Work
    several: bool = False
    steps: int = 0
    beside: float = 0
    checkpointing: bool = False
    sampled: SamplingWave | None = None
    writes: bool = False
    shards: int = 1
    optimizer: str = "adamw"


def held(network: Network, job: MemoryLoad, machine: Machine) -> Held:
    """Bytes of one process."""
    device = machine.kind
    base = machine.library_bytes
    weights = network.weight_bytes / job.shards + job.beside + network.unpacked_bytes
    gathered = 0.0 if job.shards == 1 else 2 * network.layer_weights * network.precision.size
    learning = network.learning / job.shards if job.steps else 0
    gradients, state = learning * network.precision.size, state_bytes(job.optimizer, network.precision.size)
    copies, moments = learning * state.copy, learning * sum(state)
    if network.gate:  # the trunk runs without gradients
        kept, back = without_gradients(network, job.largest, device), 0.0
    else:
        kept, back = activations(network, job, device), head_backward(network, job.largest, device)
    grown = gradients if job.several else 0.0
    after = moments if job.steps > 1 else copies
    step = (
        base + weights + gathered + after + max(kept + back + grown, _end_of_backward(network, job, gradients))
        if job.steps
        else 0
    )
    update = base + weights + moments + gradients + copies if job.steps else 0  # gradients as wide as the copies that they move
    if not job.steps:
        step = base + weights + without_gradients(network, job.largest, device)
    return Held(
        load=base + max(weights, network.loaded_bytes / job.shards),
        step=step, update=update,
        sample=base + weights + after + sampling(network, job.sampled, device) if job.sampled is not None else 0,
        save=base + weights + moments + written(network) if job.writes else 0,
    )  # fmt: skip


def activations(network: Network, job: MemoryLoad, device: str) -> float:
    """What the forward pass of the largest micro-batch keeps: of all layers, or of one and every layer's input."""
    tokens, trunk = job.largest.tokens, network.trunk
    states = job.largest.scored * network.hidden * network.precision.size
    kept = trunk.rest.at(tokens) + states + head_kept(network, job.largest, device)
    if not job.checkpointing:
        return kept + network.layers * trunk.layer.at(tokens)
    return kept + trunk.layer.at(tokens) + network.layers * tokens * network.hidden * network.precision.size


def head_kept(network: Network, work: Work, device: str) -> float:
    """What is carried of the vocabulary's matrix product to the backward pass."""
    if network.scores:
        return 0.0
    return min(work.scored * network.vocabulary * product_size(network), CARRY_BYTES[device])


def head_backward(network: Network, work: Work, device: str) -> float:
    """What reading the vocabulary needs beside: a chunk of logits; the head's gradient, twice where it is summed in pieces."""
    if network.scores:
        return network.trunk.working.at(work.tokens)
    pieces = work.scored * network.vocabulary * product_size(network) > CARRY_BYTES[device]
    gradient = 4.0 * network.head * (2 if pieces else 1) if network.head_learns else 0.0
    chunk = min(CHUNK_BYTES[device], 4 * work.scored * network.vocabulary) if pieces or product_size(network) < 4 else 0
    return max(gradient + chunk, network.trunk.working.at(work.tokens))


def without_gradients(network: Network, work: Work, device: str) -> float:
    """A pass without gradients: one layer's tensors, the states, a chunk of logits."""
    chunk = 0 if network.scores else min(CHUNK_BYTES[device], 4 * work.scored * network.vocabulary)
    states = (work.tokens + work.scored) * network.hidden * network.precision.size
    return network.trunk.without.at(work.tokens) + states + chunk


def _end_of_backward(network: Network, job: MemoryLoad, gradients: float) -> float:
    """All gradients, and the embeddings' before it is added: where they are the head's weight too, both parts and their sum."""
    if network.gate:
        return gradients
    parts = (2 if network.tied and not network.scores else 1) if network.learning and network.adapter is None else 0
    return gradients + parts * network.head * network.precision.size + network.trunk.working.at(job.largest.tokens)


def sampling(network: Network, wave: SamplingWave, device: str) -> float:
    """Weights packed for decoding, keys and values, logits, and the prefill of the prompts."""
    size = network.precision.size
    packed = min(LIMIT, network.shape.weights * size) if device == "cpu" else 0.0
    if device == "cpu" and network.precision.products != network.precision.dtype:
        packed = network.shape.weights * 2.0
    prompts = -(-wave.rows // wave.group) * wave.prompt
    cache = min((prompts + wave.rows * wave.new) * network.cached * size + 3 * 4 * wave.rows * network.vocabulary, CACHE_BYTES)
    return packed + cache + network.trunk.without.at(min(prompts, max(PREFILL_TOKENS, wave.prompt)))


def written(network: Network) -> int:
    """Bytes of a trained stage's artifact: all weights, or with an adapter what learned."""
    return network.weight_bytes if network.adapter is None else network.learning * network.precision.size


def product_size(network: Network) -> int:
    return 2 if network.precision.products in ("bfloat16", "float16") else 4
