"""Reward models that read several numbers off an answer: ratings of attributes, their mixture, and embeddings."""

from __future__ import annotations

from collections.abc import Mapping

from evenhand.data.formats import HELPSTEER
from evenhand.errors import UserError, did_you_mean
from evenhand.models.gate import GateSettings
from evenhand.objectives import AttributeRegression, BradleyTerry, GeneralPreference
from evenhand.train.method import PREFERENCES, RATED, Method, method

RATED_IN_HELPSTEER = dict.fromkeys(HELPSTEER, (0.0, 4.0))
"""The attributes of HelpSteer and HelpSteer2, each rated from 0 to 4."""


@method(of="reward_model", differs="the ratings themselves, by several attributes at once")
def attribute_reward_model(
    *, attributes: Mapping[str, tuple[float, float]] | None = None, weights: Mapping[str, float] | None = None
) -> Method:
    """Multi-head reward model: one score per attribute, by least squares of the ratings that answers have, of which any may be
    missing (ArmoRM's first stage: Wang et al. 2024, arXiv:2406.12845). `attributes`: each with its lowest and its
    highest rating, which are learned as 0 and 1; left out, HelpSteer's five from 0 to 4. The reward is the sum of `weights` times
    scores, equal weights where none are given. The paper fits the heads alone, on a frozen reward model; here the trunk learns
    too.
    Reduces to least squares of one score for one attribute."""
    scales = dict(attributes or RATED_IN_HELPSTEER)
    if wrong := [name for name, (low, high) in scales.items() if not low < high]:
        what = f"the ratings of '{wrong[0]}' go from {scales[wrong[0]][0]:g} to {scales[wrong[0]][1]:g}"
        raise UserError(what, where="attributes", fix="give the lowest and the highest, such as [0, 4]")
    if unknown := [name for name in weights or {} if name not in scales]:
        raise UserError(f"no attribute is called '{unknown[0]}'", where="weights", fix=did_you_mean(unknown[0], scales))
    mixed = {name: (1 / len(scales) if weights is None else float(weights.get(name, 0.0))) for name in scales}
    if not any(mixed.values()):
        raise UserError("every weight is 0", where="weights", fix="give at least one attribute a weight")
    return Method(
        objective=AttributeRegression(attributes=scales), data=RATED, network="reward", learning_rate=2e-6,
        outputs=tuple(scales), serves={"kind": "attributes", "weights": mixed},
    )  # fmt: skip


@method(of="attribute_reward_model", differs="preferences decide how much each attribute counts for a prompt")
def gated_reward_model(
    *, hidden: int = 1024, layers: int = 3, temperature: float = 10.0, debias: str = "verbosity", correlation: float = 0.03
) -> Method:
    """ArmoRM's second stage: a network that sees the prompt alone mixes the frozen scores of an `attribute_reward_model`, which
    `initial_policy` names, by Bradley-Terry on pairs (Wang et al. 2024, arXiv:2406.12845). What `debias` names is
    taken off every other score, as little of it as brings their Spearman correlation over the training answers to `correlation`;
    "" takes nothing off. The defaults of the gate are those of the authors' code, whose training leaves such scores unused.
    Reduces to `attribute_reward_model` with weights, where the gate says the same for all prompts."""
    if hidden < 1 or layers < 0 or temperature <= 0:
        fix = "use at least one hidden unit, 0 layers or more, and a temperature above 0"
        raise UserError(f"a gate of {layers} layers of {hidden} units at temperature {temperature:g}", where="hidden", fix=fix)
    gate = GateSettings(
        hidden=hidden if layers else 0, layers=layers, temperature=temperature, debias=debias,
        correlation=correlation if debias else 0.0,
    )  # fmt: skip
    return Method(
        objective=BradleyTerry(), data=PREFERENCES, network="reward", learning_rate=1e-3, serves={"kind": "gated"}, gate=gate
    )


@method(of="reward_model", differs="an embedding in place of a score: preferences may run in a circle")
def general_preference_model(*, dimensions: int = 6, tau: float = 0.1) -> Method:
    """General preference model: answers are embedded, and one is preferred by a skew-symmetric product with the other, which may
    run in a circle (Zhang et al. 2024, arXiv:2410.02197). `dimensions` are those of the embedding, an even number; `tau` is what
    the product is divided by. It judges pairs, and rewards an answer by its mean chance against the others of its group. The
    paper's gate, which scales the product's planes by the prompt, is not here.
    Reduces to `reward_model` without centring at dimensions = 2, tau = 1 and a second coordinate of 1."""
    if dimensions < 2 or dimensions % 2:
        raise UserError(f"{dimensions} dimensions", where="dimensions", why="they come in pairs", fix="use 2, 4, 6 or more")
    if tau <= 0:
        raise UserError(f"tau is {tau:g}", where="tau", fix="use a number above 0, such as 0.1")
    return Method(
        objective=GeneralPreference(tau=tau), data=PREFERENCES, network="reward", learning_rate=2e-6, head_power=1.0,
        outputs=tuple(f"v{n + 1}" for n in range(dimensions)), serves={"kind": "general_preference", "tau": tau},
    )  # fmt: skip
