"""What an experiment trains: data, base, sft, preferences made here, reward models, and the arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evenhand import plugins
from evenhand.data.files import local_files
from evenhand.errors import UserError
from evenhand.models import adapter_files
from evenhand.plan import synthetic
from evenhand.plan.graph import SHARED, Graph, model_bytes
from evenhand.plan.parameters import decisive, revision
from evenhand.spec.arms import Arm, Train
from evenhand.spec.experiment import SPLITS
from evenhand.spec.pretrained import Adopted
from evenhand.store.fingerprint import file_fingerprint, folder_fingerprint

APART = "data set apart"
VALIDATION = ("keep", "validate_every", "validation_prompts")
"""Training settings that a spec names only where they decide anything, so that results stored before them stay found."""


def data(graph: Graph) -> None:
    """The data, one artifact for all; with a section `tune` they lose the prompts that tuning asks."""
    given = asdict(graph.e.data)
    corpus = graph.e.model.pretrain.documents if graph.e.model.pretrain else 0
    spec = {**given, "corpus": corpus, "evaluation_prompts": graph.e.evaluation.prompts, "fingerprints": _data_bytes(given)}
    source = f"world {graph.e.data.world}" if graph.e.data.world else ", ".join(s for s in SPLITS if given[s])
    formats = plugins.bringing("data format") if any(given[s] for s in SPLITS) else {}  # one of them may be recognised
    graph.add("data", "data", spec | ({"formats": formats} if formats else {}), {}, graph.e.data.seed, "data", SHARED, source)
    if graph.e.tune is not None:
        apart = {"prompts": graph.e.tune.prompts}
        cost = f"{graph.e.tune.prompts} prompts for tuning"
        graph.data = graph.add(APART, "validation_split", apart, {"data": "data"}, 0, APART, SHARED, cost)


def starts(graph: Graph) -> None:
    """What arms may start from, and preference pairs made from it."""
    pretrain = graph.e.pretrain_arm()
    if pretrain is not None:
        spec = _fit_spec(graph, pretrain) | {"world": graph.e.data.world}
        base = graph.add("base", "fit", spec, {"data": "data"}, 0, "base", SHARED, _fit_cost(pretrain))
    else:
        spec = {"path": graph.e.model.path, "revision": graph.e.model.revision, "fingerprint": model_bytes(graph.e.model.path)}
        spec |= _base_of_adapter(graph.e.model.path, graph.e.model.base)
        base = graph.add("base", "base", spec, {}, 0, "base", SHARED, str(graph.e.model.path))
    sft = graph.e.sft_arm()
    for seed in graph.e.seeds:
        graph.models["base", seed] = base
        if sft is not None:
            graph.models["sft", seed] = _fit(graph, sft, "sft", seed)
    for name, model in graph.e.all_adopted().items():
        _adopt(graph, name, model, base)
    synthetic.annotate(graph)
    synthetic.revise(graph)


def _base_of_adapter(path: str | None, base: str | None) -> dict[str, Any]:
    """What an adapter in `path` changes, and its bytes; nothing for a model."""
    if path is not None and adapter_files.is_adapter(path):
        base = adapter_files.base_of(path, base)
    elif base is not None and path is not None and Path(path).expanduser().is_dir():
        raise UserError(
            f"'{path}' is a model, not an adapter", where="model.base", fix="remove `base`, or point `path` to an adapter"
        )
    return {} if base is None else {"base": base, "base_fingerprint": model_bytes(base)}


def _adopt(graph: Graph, name: str, model: Adopted, base: str) -> None:
    """A reward model that exists: one for all seeds. It is opened beside the base, whose tokenizer it may not share."""
    spec = {
        "path": model.path, "revision": model.revision, "fingerprint": model_bytes(model.path), "kind": model.kind,
        "own_template": model.template, "normalise": model.normalise, "lengths": graph.lengths,
        "template": graph.e.model.template, **graph.device, **_base_of_adapter(model.path, None),
    }  # fmt: skip
    inputs = {"start": base} | ({"data": graph.data} if model.normalise else {})
    node = graph.add(f"reward_models/{name}", "pretrained_reward_model", spec, inputs, 0, name, SHARED, model.path)
    graph.models |= {(f"reward_models/{name}", seed): node for seed in graph.e.seeds}


def reward_models(graph: Graph, seed: int) -> dict[str, str]:
    """The reward models of a seed, each with its evaluation where there are held-out pairs: name -> the node of the latter."""
    found = {}
    for name, arm in graph.e.all_reward_models().items():
        fitted = _fit(graph, arm, f"reward_models/{name}", seed)
        graph.models[f"reward_models/{name}", seed] = fitted
        column = SHARED if not arm.per_seed else f"seed {seed}"
        found[name] = _evaluated(graph, name, seed, column, arm.train.tokens_per_microbatch)
    given = graph.e.data
    if given.world or given.preferences or given.heldout_preferences or graph.e.annotate:
        found |= {name: _evaluated(graph, name, seed, SHARED, Train().tokens_per_microbatch) for name in graph.e.all_adopted()}
    return found


def _evaluated(graph: Graph, name: str, seed: int, column: str, tokens_per_microbatch: int) -> str:
    """The node that scores held-out pairs with a reward model."""
    model = graph.models[f"reward_models/{name}", seed]
    reference = graph.model_inputs(name, seed).get(f"reward_references/{name}")
    inputs = {"model": model, **graph.data_inputs()} | ({"reference": reference} if reference else {})
    spec = {
        "lengths": graph.lengths,
        "template": graph.e.model.template,
        "tokens_per_microbatch": tokens_per_microbatch,
        **graph.device,
    }
    row = f"{name} accuracy"
    return graph.add(f"{model}/evaluation", "evaluate_reward_model", spec, inputs, 0, row, column, "held-out pairs")


def policy(graph: Graph, arm: Arm, seed: int) -> str:
    """The node that holds the arm's policy; arms it starts from come first."""
    if (f"arms/{arm.name}", seed) in graph.models:
        return graph.models[f"arms/{arm.name}", seed]
    if arm.start not in graph.e.stages():
        graph.models[arm.start, seed] = policy(graph, graph.arms[arm.start], seed)
    if not arm.trained:
        node = graph.models[arm.start, seed]
    else:
        node = _fit(graph, arm, f"arms/{arm.name}", seed)
    graph.models[f"arms/{arm.name}", seed] = node
    return node


def _fit(graph: Graph, arm: Arm, prefix: str, seed: int) -> str:
    start = graph.models[arm.start, seed]
    inputs = {"start": start, **graph.data_inputs(arm.data)}
    method = arm.build(steps=1, max_tokens=arm.lengths.completion)
    if method.reference == "start" and not method.online:
        inputs["reference"] = _reference(graph, arm, method.data, start)
    if arm.reward is not None:
        inputs |= graph.reward_inputs(arm.reward, seed)
    column = f"seed {seed}" if arm.per_seed else SHARED
    name = f"{prefix}/seed-{seed}" if arm.per_seed else prefix
    seed = seed if arm.per_seed else 0
    return graph.add(name, "fit", _fit_spec(graph, arm), inputs, seed, arm.name, column, _fit_cost(arm), runs=method)


def _reference(graph: Graph, arm: Arm, split: str, start: str) -> str:
    """Reference log-probs of a split under the start, computed once and shared by arms and seeds."""
    spec = {
        "split": arm.data or split, "binary": split == "binary", "lengths": asdict(arm.lengths),
        "supervise": graph.e.data.supervise, "template": graph.e.model.template,
        "tokens_per_microbatch": arm.train.tokens_per_microbatch, **graph.device,
    }  # fmt: skip
    name = f"reference/{start}/{arm.data or split}"
    temperature = arm.build(steps=1, max_tokens=arm.lengths.completion).logit_temperature(arm.sampling.temperature)
    if temperature != 1.0:
        spec, name = {**spec, "temperature": temperature}, f"{name}/temperature-{temperature:g}"
    return graph.add(
        name,
        "reference",
        spec,
        {"start": start, **graph.data_inputs(arm.data)},
        0,
        "reference",
        SHARED,
        "one forward pass",
    )


def _fit_spec(graph: Graph, arm: Arm) -> dict[str, Any]:
    train = asdict(arm.train)
    train["learning_rate"] = arm.learning_rate
    if arm.train.keep == "last":
        train = {k: v for k, v in train.items() if k not in VALIDATION}
    if not arm.train.stop_when:
        del train["stop_when"]  # likewise
    del train["adapter"]
    if arm.train.adapter is not None:
        train["adapter"] = arm.train.adapter.spec()
    return {
        "method": arm.method, "parameters": decisive(arm.method, arm.parameters), "train": train,
        "sampling": asdict(arm.sampling),
        "lengths": asdict(arm.lengths), "supervise": graph.e.data.supervise, "template": graph.e.model.template,
        "reward": graph.reward_spec(arm.reward), "data": arm.data, **graph.device,
        **revision(arm, weighted=_may_weigh_pairs(graph)),
    }  # fmt: skip


def _may_weigh_pairs(graph: Graph) -> bool:
    """Whether the preferences may hold rankings or soft labels: a built-in world's are plain pairs."""
    section = graph.e.annotate
    return section.labels == "soft" if section is not None else graph.e.data.world is None


def _fit_cost(arm: Arm) -> str:
    budget = f"{arm.train.steps} steps" if arm.train.steps is not None else f"{arm.train.epochs:g} epochs"
    return f"{arm.method}: {budget} x {arm.train.prompts_per_step} prompts"


def _data_bytes(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """The bytes of every local file or folder a split is read from."""
    watched = {split: local_files(data[split]) for split in SPLITS if data[split]}
    return {
        split: [folder_fingerprint(p) if p.is_dir() else file_fingerprint(p) for p in paths] for split, paths in watched.items()
    }
