"""What several stages do: open models and tokenizers of finished artifacts, tokenise, and turn names into rewards."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from evenhand.data.foreign import readable
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models.adapter_files import quantized
from evenhand.models.artifacts import NORMALISATION_FILE
from evenhand.models.backbone import Trunk
from evenhand.models.gate import load_gate
from evenhand.models.heads import RewardModel
from evenhand.models.load import load_policy, load_reward_model, load_tokenizer, resolve_device, set_matmul
from evenhand.models.policy import Policy
from evenhand.protocols import Reward, TrainedReward
from evenhand.stages.adapter import in_four_bits
from evenhand.stages.context import unreported
from evenhand.stages.setup import Compute, Setup
from evenhand.store.pointer import model_path
from evenhand.train.config import Lengths
from evenhand.train.cost_accounting import Ledger
from evenhand.types import Group, TokenGroup

REWARD = "reward.json"
"""How the model beside it serves as a reward: see `Method.implied_reward`."""
_OF_THE_FOLDER = ("reads", "template", "foreign")
"""What `REWARD` says of a model that was trained elsewhere, beside how it scores."""
_UNLIMITED = {"max_prompt": None, "max_completion": None}
_log = logging.getLogger(__name__)
_Model = TypeVar("_Model", bound=Trunk)


def begin(compute: Compute) -> str:
    """Fix the number of threads, which is part of the result's bytes; returns the device."""
    torch.set_num_threads(compute.threads)
    return resolve_device(compute.device)


def open_policy(artifact: Path, compute: Compute, device: str, ledger: Ledger | None = None) -> Policy:
    return in_precision(load_policy(model_path(artifact), dtype=compute.dtype, device=device), compute, ledger)


def in_precision(model: _Model, compute: Compute, ledger: Ledger | None = None) -> _Model:
    """The model with matrix products in the experiment's `model.matmul`; every model a stage opens goes through here.

    With a `ledger`, every pass of it is counted there.
    """
    set_matmul(model, compute.matmul)
    return ledger.counts(model) if ledger is not None else model


def open_renderer(artifact: Path, template: str | None) -> Renderer:
    return renderer_of(model_path(artifact), template)


def renderer_of(model: Path | str, template: str | None) -> Renderer:
    """A model's own tokenizer and chat template; `template` where it brings none."""
    tokenizer = load_tokenizer(model)
    return Renderer(tokenizer, template=None if tokenizer.chat_template else template)


def tokenised(
    groups: Sequence[Group],
    renderer: Renderer,
    lengths: Lengths | None,
    supervise: str = "completion",
    report: Callable[..., None] = unreported,
) -> list[TokenGroup]:
    """Rows of a split as tokens, cut to `lengths` if any; rows without a supervised token are left out, with a warning.

    Ids that another tokenizer sampled, as a file of answers may bring them, are given up for their text.
    """
    limits = {"max_prompt": lengths.prompt, "max_completion": lengths.completion} if lengths else _UNLIMITED
    kept: list[TokenGroup] = []
    reasons: list[str] = []
    size = max(1, len(groups) // 20)
    for first in range(0, len(groups), size):
        part = [readable(g, renderer) for g in groups[first : first + size]]
        done = renderer.tokenise_all(part, **limits, supervise=supervise)
        kept += done.groups
        reasons += [why for _, why in done.dropped]
        report(min(first + size, len(groups)), len(groups))
    if reasons:
        _log.warning("%d of %d rows left out; first: %s", len(reasons), len(groups), reasons[0])
    if not kept:
        raise UserError("no row is left after tokenising", where="data", why=reasons[0] if reasons else "no rows")
    return kept


def build_reward(
    reward: Mapping[str, Any], inputs: Mapping[str, Path], setup: Setup, device: str, ledger: Ledger | None = None
) -> Reward:
    """A resolved reward; the reward models it names are opened from the inputs `reward_models/NAME`."""
    from evenhand import rewards

    names = [role.removeprefix("reward_models/") for role in inputs if role.startswith("reward_models/")]
    resources = {
        name: open_model_reward(inputs[f"reward_models/{name}"], setup, device, inputs.get(f"reward_references/{name}"), ledger)
        for name in names
    }
    return rewards.get(reward, resources=resources, open_model=lambda path: open_judging_model(path, setup.compute, device))


def open_judging_model(path: str, compute: Compute, device: str) -> tuple[Policy, Renderer]:
    """A language model that judges, by its own template."""
    policy = in_precision(load_policy(path, dtype=compute.dtype, device=device), compute)
    policy.eval()
    return policy, renderer_of(path, None)


def open_model_reward(
    artifact: Path, setup: Setup, device: str, reference: Path | None = None, ledger: Ledger | None = None
) -> TrainedReward:
    """A trained model as a reward, the way its method says: its own tokenizer and template, its own shift or reference."""
    kept = artifact / REWARD
    how = json.loads(kept.read_text()) if kept.exists() else {"kind": "score"}
    renderer = open_renderer(artifact, how.get("template", setup.template))
    own = how.get("foreign", False)  # the experiment's lengths are in the policy's tokens: another vocabulary has its own context
    limits: dict[str, Any] = {
        "max_prompt": None if own else setup.lengths.prompt,
        "max_completion": None if own else setup.lengths.completion,
        "tokens_per_microbatch": setup.tokens_per_microbatch,
    }
    if how["kind"] == "policy":
        from evenhand.rewards.implicit import PolicyReward

        if how["reference"] and reference is None:
            raise ValueError(f"the reward of {artifact} is relative to a reference, which is not among the inputs")
        frozen = open_policy(reference, setup.compute, device, ledger) if how["reference"] and reference else None
        if frozen is not None and quantized(model_path(artifact)):
            in_four_bits(frozen)
        policy = open_policy(artifact, setup.compute, device, ledger)
        temperature = float(how.get("temperature", 1.0))
        return PolicyReward(
            policy=policy, renderer=renderer, beta=float(how["beta"]), reference=frozen, temperature=temperature, **limits
        )
    if how["kind"] == "preference":
        return open_preference_model(artifact, renderer, setup.compute, device, ledger)
    from evenhand.rewards.model import ModelReward, Normalisation
    from evenhand.rewards.served import served

    folder = model_path(artifact)
    model = in_precision(load_served(folder, how["kind"], dtype=setup.compute.dtype, device=device), setup.compute, ledger)
    normalisation = Normalisation.load(artifact if (artifact / NORMALISATION_FILE).exists() else folder)
    scoring = {name: value for name, value in how.items() if name not in _OF_THE_FOLDER}
    if how.get("reads") == "text":
        from evenhand.rewards.external import external

        batched = limits["tokens_per_microbatch"]
        return served(scoring, external(model, renderer, tokens_per_microbatch=batched, normalisation=normalisation))
    return served(scoring, ModelReward(model, renderer, normalisation=normalisation, **limits))


def load_served(folder: Path, kind: str, *, dtype: str = "auto", device: str = "auto") -> RewardModel:
    """The network of a reward model that serves as `kind` (`rewards.served`): of one output or several, with its gate."""
    from evenhand.rewards.served import SEVERAL

    plain = load_reward_model(folder, dtype=dtype, device=device, labels=None if kind in SEVERAL else 1)
    return load_gate(plain, folder) if kind == "gated" else plain


def open_preference_model(
    artifact: Path, renderer: Renderer, compute: Compute, device: str, ledger: Ledger | None = None
) -> TrainedReward:
    """A preference model: Borda scores of a group's answers against each other."""
    from evenhand.judges import LLMJudge
    from evenhand.judges import template as templates
    from evenhand.judges.local import LocalChat
    from evenhand.judges.preference_model_prompts import TEMPLATE
    from evenhand.rewards.tournament import Tournament

    chat = LocalChat(open_policy(artifact, compute, device, ledger), renderer, name=artifact.name)
    return Tournament(LLMJudge(chat, templates.get(TEMPLATE), form="logprobs", attempts=1))
