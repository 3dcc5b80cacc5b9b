"""What an experiment trains: data, base, sft, preferences made here, reward models, and the arms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evenhand import plugins
from evenhand.data.config import DataConfig, Split
from evenhand.data.files import local_files
from evenhand.data.row_count import row_count
from evenhand.errors import UserError
from evenhand.methods import BINARY, COMPARISONS, DEMONSTRATIONS, PREFERENCES, RATED, Method
from evenhand.models import adapter_files
from evenhand.plan import synthetic
from evenhand.plan.graph import HELDOUT, SHARED, Graph, model_bytes
from evenhand.spec.arms import GATED, Arm
from evenhand.spec.lengths import config_file
from evenhand.spec.pretrained import Adopted
from evenhand.stages.base import BaseSpec, ModelSource
from evenhand.stages.data import COMPARISON, DEFAULT_SIZES, DataSpec
from evenhand.stages.evaluate_reward_model import EvaluateRewardModelSpec
from evenhand.stages.fit import FitSpec
from evenhand.stages.further_split import FurtherSplitSpec
from evenhand.stages.pretrained_reward_model import PretrainedRewardModelSpec
from evenhand.stages.reference import ReferenceSpec
from evenhand.stages.splits import FURTHER
from evenhand.stages.tokens import TokensSpec
from evenhand.stages.validation_split import ValidationSplitSpec
from evenhand.store.fingerprint import file_fingerprint, folder_fingerprint
from evenhand.train.config import Train
from evenhand.train.policies import INITIAL_POLICY

APART = "data set apart"
ASKED = "held-out prompts"
LARGE, MANY = 1000, 16
"""A pass over a file of so many rows in advance needs a reason, such as an arm that draws more than one row of so many."""


def data(graph: Graph) -> None:
    """The data, one artifact for all; with a section `tune` they lose the prompts that tuning asks.

    A built-in world makes as many held-out prompts as it is asked for: those that the data do not hold are a node of their own,
    so that a larger evaluation trains nothing again.
    """
    config = graph.e.data
    spec = DataSpec(
        source=replace(config, seed=0, supervise=DataConfig().supervise),  # the node has the seed; how to supervise is training's
        corpus=graph.e.model.pretrain.documents if graph.e.model.pretrain else 0,
        fingerprints=data_bytes(config),
        world_version=world_version(config),
        heldout_for=COMPARISON if graph.e.arms else "",
    )
    source = f"world {config.world}" if config.world else ", ".join(config.sources)
    formats = plugins.bringing("data format") if config.sources else {}  # one of them may be recognised
    graph.add("data", spec, {}, seed=config.seed, row="data", cost=source, code=formats)
    count, held = graph.e.evaluation.prompts, {**DEFAULT_SIZES, **config.sizes}[HELDOUT]
    if config.world and count > held and HELDOUT not in config.sizes:
        more = replace(spec, only=(HELDOUT,), corpus=0, source=replace(spec.source, sizes={HELDOUT: count}))
        graph.asked = graph.add(ASKED, more, {}, seed=config.seed, row=ASKED, cost=f"{count} prompts")
    if graph.e.tune is not None:
        apart = ValidationSplitSpec(prompts=graph.e.tune.prompts)
        cost = f"{graph.e.tune.prompts} prompts for tuning"
        graph.data = graph.add(APART, apart, {"data": "data"}, row=APART, cost=cost)
    if graph.asked == "data" or graph.questions.split != HELDOUT:
        graph.asked = graph.data
    for name, split in graph.e.splits.items():
        _further(graph, name, split)


def _further(graph: Graph, name: str, split: Split) -> None:
    """A further split is a node of its own: another one trains nothing again that does not name it."""
    e, source = graph.e.data, split.source
    told = DataConfig(world=e.world, options=e.options, annotator=e.annotator, holdout=e.holdout) if split.rows else None
    spec = FurtherSplitSpec(
        name=name, split=split, data=told or DataConfig(holdout=e.holdout),
        fingerprints=tuple(content(path) for path in local_files(source)) if source else (),
        world_version=world_version(e) if split.rows else None,
    )  # fmt: skip
    formats = plugins.bringing("data format") if source else {}
    cost = f"{split.count} {split.rows}" if split.rows else str(source)
    graph.add(f"{FURTHER}{name}", spec, {}, seed=e.seed, row=name, cost=cost, code=formats)


def starts(graph: Graph) -> None:
    """What arms may start from, and preference pairs made from it."""
    pretrain = graph.e.pretrain_arm()
    if pretrain is not None and graph.e.model.pretrain is not None:
        spec = replace(
            _fit_spec(graph, pretrain),
            world=graph.e.data.world,
            shape=graph.e.model.pretrain.shape,
            world_options=graph.e.data.options,
        )
        inputs = {"data": "data", "tokens": _tokens(graph, pretrain, world=graph.e.data.world)}
        base = graph.add("base", spec, inputs, row="base", cost=_fit_cost(pretrain), runs=spec.build())
    else:
        path = str(graph.e.model.path)
        source = _source(path, graph.e.model.revision, graph.e.model.base)
        base = graph.add("base", BaseSpec(model=source), {}, row="base", cost=path)
    sft = graph.e.sft_arm()
    for seed in graph.e.seeds:
        graph.models["base", seed] = base
        if sft is not None:
            graph.models["sft", seed] = _fit(graph, sft, "sft", seed)
    for name, model in graph.e.all_adopted().items():
        _adopt(graph, name, model, base)
    synthetic.annotate(graph)
    synthetic.revise(graph)


def _source(path: str, revision: str | None, base: str | None = None) -> ModelSource:
    """A model that exists; of an adapter also what it changes. Each with its bytes where they are here."""
    if adapter_files.is_adapter(path):
        base = adapter_files.base_of(path, base)
    elif base is not None and Path(path).expanduser().is_dir():
        raise UserError(
            f"'{path}' is a model, not an adapter", where="model.base", fix="remove `base`, or point `path` to an adapter"
        )
    return ModelSource(path=path, revision=revision, fingerprint=model_bytes(path), base=base, base_fingerprint=model_bytes(base))


def _adopt(graph: Graph, name: str, model: Adopted, base: str) -> None:
    """A reward model that exists: one for all seeds. It is opened beside the base, whose tokenizer it may not share."""
    spec = PretrainedRewardModelSpec(
        model=_source(model.path, model.revision), kind=model.kind, weights=model.weights, tau=model.tau,
        own_template=model.template, normalise=model.normalise, setup=graph.setup,
    )  # fmt: skip
    inputs = {"start": base} | ({"data": graph.data} if model.normalise else {})
    node = graph.add(f"reward_models/{name}", spec, inputs, row=name, cost=model.path)
    graph.models |= {(f"reward_models/{name}", seed): node for seed in graph.e.seeds}


def reward_models(graph: Graph, seed: int) -> dict[str, str]:
    """The reward models of a seed, each with its evaluation where there are held-out pairs: name -> the node of the latter."""
    found = {}
    for name, arm in graph.e.all_reward_models().items():
        _reward_model(graph, name, seed)
        column = SHARED if not arm.per_seed else f"seed {seed}"
        found[name] = _evaluated(graph, name, seed, column, arm.train.tokens_per_microbatch)
    given = graph.e.data
    if given.world or given.preferences or given.heldout_preferences or graph.e.annotate:
        found |= {name: _evaluated(graph, name, seed, SHARED, Train().tokens_per_microbatch) for name in graph.e.all_adopted()}
    return found


def _reward_model(graph: Graph, name: str, seed: int) -> str:
    """The node that holds a reward model; one that it starts from comes first."""
    if (known := graph.models.get((f"reward_models/{name}", seed))) is not None:
        return known
    arm = graph.e.reward_model(name)
    start = _reward_model(graph, arm.initial_policy, seed) if arm.method == GATED else graph.models[arm.initial_policy, seed]
    graph.models[f"reward_models/{name}", seed] = node = _fit(graph, arm, f"reward_models/{name}", seed, start)
    return node


def _evaluated(graph: Graph, name: str, seed: int, column: str, tokens_per_microbatch: int) -> str:
    """The node that scores held-out pairs with a reward model."""
    model = graph.models[f"reward_models/{name}", seed]
    reference = graph.model_inputs(name, seed).get(f"reward_references/{name}")
    inputs = {"model": model, **graph.data_inputs()} | ({"reference": reference} if reference else {})
    spec = EvaluateRewardModelSpec(setup=graph.setup_for(tokens_per_microbatch=tokens_per_microbatch))
    return graph.add(f"{model}/evaluation", spec, inputs, row=f"{name} accuracy", column=column, cost="held-out pairs")


def policy(graph: Graph, arm: Arm, seed: int) -> str:
    """The node that holds the arm's policy; arms it starts from come first."""
    if (f"arms/{arm.name}", seed) in graph.models:
        return graph.models[f"arms/{arm.name}", seed]
    if arm.initial_policy not in graph.e.stages():
        graph.models[arm.initial_policy, seed] = policy(graph, graph.arms[arm.initial_policy], seed)
    if not arm.trained:
        node = graph.models[arm.initial_policy, seed]
    else:
        node = _fit(graph, arm, f"arms/{arm.name}", seed)
    graph.models[f"arms/{arm.name}", seed] = node
    return node


def _fit(graph: Graph, arm: Arm, prefix: str, seed: int, start: str | None = None) -> str:
    """The node that trains an arm, from the model of its `initial_policy` or another `start`."""
    start = start or graph.models[arm.initial_policy, seed]
    inputs = {"start": start, **graph.data_inputs(arm.data)}
    method = arm.build()
    inputs |= _tokenised(graph, arm, method, start)
    if arm.teacher is not None:
        source = _source(arm.teacher.path, arm.teacher.revision)
        inputs["teacher"] = graph.add(f"teachers/{arm.name}", BaseSpec(model=source), {}, row="teacher", cost=arm.teacher.path)
    if arm.reward is not None:
        inputs |= graph.reward_inputs(arm.reward, seed)
    column = f"seed {seed}" if arm.per_seed else SHARED
    name = f"{prefix}/seed-{seed}" if arm.per_seed else prefix
    own, cost = seed if arm.per_seed else 0, _fit_cost(arm)
    return graph.add(name, _fit_spec(graph, arm), inputs, seed=own, row=arm.name, column=column, cost=cost, runs=method)


def _tokenised(graph: Graph, arm: Arm, method: Method, start: str) -> dict[str, str]:
    """The rows that a method learns from as tokens, held-out ones if they are looked at, and their reference log-probs if read.

    Questions to a preference model are written anew for each seed, and tokenised there.
    """
    hybrid = method.rollouts is not None and method.rollouts.schedule.hybrid
    if method.data == COMPARISONS or (method.online and not hybrid):
        return {}
    inputs = {"tokens": _tokens(graph, arm)}
    if arm.train.evaluate_every and not method.online and method.data != DEMONSTRATIONS:
        inputs["heldout_tokens"] = _tokens(graph, arm, "heldout_")
    in_advance = not method.online and method.reference_update is None and not _draws_few(graph, arm, method)
    if method.reference == INITIAL_POLICY and in_advance:
        inputs["reference"] = _reference(graph, arm, method, start, inputs["tokens"])
    return inputs


def _draws_few(graph: Graph, arm: Arm, method: Method) -> bool:
    """Whether steps draw few of a large file's rows, so that a pass over all would take longer than training.

    Nothing is asked of other arms and seeds, which share such a pass: whoever adds one trains nothing anew. At worst, where many
    of them draw few rows each, a step's own pass without gradients adds a third to it.
    """
    split = arm.data or method.split
    source = graph.e.splits[split].source if split in graph.e.splits else graph.e.data.sources.get(split)
    if arm.train.steps is None or source is None or (split == PREFERENCES and "preferences" in graph.nodes):
        return False
    rows = row_count(source) or 0
    return rows >= LARGE and rows >= MANY * arm.train.steps * arm.train.prompts_per_step


def _tokens(graph: Graph, arm: Arm, prefix: str = "", *, world: str | None = None) -> str:
    """A split as token ids, in the form that the arm's method learns from; `world` has the tokenizer of a model yet to be."""
    method = arm.build()
    form, split = (PREFERENCES, PREFERENCES) if method.online else (method.data, arm.data or method.split)
    spec = TokensSpec(
        split=prefix + split, form=form, lengths=arm.lengths, supervise=graph.e.data.supervise, world=world,
        world_options=graph.e.data.options if world else {},
        template=None if world else graph.e.model.template,
    )  # fmt: skip
    inputs = {"data": "data"} if world else {**graph.split_inputs(spec.split), "base": graph.models["base", graph.e.seeds[0]]}
    name = f"tokens/{spec.split}" + (f"/{form}" if form in (BINARY, RATED) else "")
    return graph.add(name, spec, inputs, row="tokens", cost="each row once")


def _reference(graph: Graph, arm: Arm, method: Method, start: str, tokens: str) -> str:
    """Reference log-probs of a split under the start, computed once and shared by arms and seeds."""
    temperature = method.logit_temperature(arm.sampling.temperature)
    setup = graph.setup_for(lengths=arm.lengths, tokens_per_microbatch=arm.train.tokens_per_microbatch)
    name = f"reference/{start}/{arm.data or method.data}"
    name += f"/temperature-{temperature:g}" if temperature != 1.0 else ""
    quantize = arm.train.adapter.quantize if arm.train.adapter is not None else None
    name += f"/{quantize}" if quantize else ""
    spec = ReferenceSpec(temperature=temperature, setup=setup, quantize=quantize)
    return graph.add(name, spec, {"start": start, "tokens": tokens}, row="reference", cost="one forward pass")


def _fit_spec(graph: Graph, arm: Arm) -> FitSpec:
    reward = graph.reward_spec(arm.reward) if arm.reward is not None else None
    train = replace(arm.train, learning_rate=arm.learning_rate, router_loss=_router_loss(graph, arm))
    return FitSpec(
        method=arm.method, parameters=arm.parameters, train=train, sampling=arm.sampling,
        setup=graph.setup_for_training(arm.lengths), supervise=graph.e.data.supervise, reward=reward, data=arm.data,
        reference_update=arm.reference_update, staleness=arm.staleness,
        environment=graph.e.environment_of(arm) if arm.build().online else None,
    )  # fmt: skip


def _router_loss(graph: Graph, arm: Arm) -> float | None:
    """The weight of the routers' loss as asked, or as the config of the model says, where it is here and adds one."""
    from evenhand.models.guarded import guarded

    asked, path = arm.train.router_loss, graph.e.model.path
    if asked is not None or path is None or arm.build().network == "reward":
        return asked
    base = adapter_files.base_of(path, graph.e.model.base) if adapter_files.is_adapter(path) else path
    found = config_file(base, graph.e.model.revision)
    if found is None or "output_router_logits" not in found.read_text(encoding="utf-8"):
        return None
    from transformers import AutoConfig

    from evenhand.models.routers import configured_weight

    return configured_weight(guarded(AutoConfig.from_pretrained, found.parent))


def _fit_cost(arm: Arm) -> str:
    budget = f"{arm.train.steps} steps" if arm.train.steps is not None else f"{arm.train.epochs:g} epochs"
    return f"{arm.method}: {budget} x {arm.train.prompts_per_step} prompts"


def data_bytes(config: DataConfig) -> dict[str, tuple[str, ...]]:
    """The bytes of every local file or folder a split is read from."""
    return {split: tuple(content(path) for path in local_files(source)) for split, source in config.sources.items()}


def content(path: Path) -> str:
    """The bytes of a file or folder, in short."""
    return folder_fingerprint(path) if path.is_dir() else file_fingerprint(path)


def world_version(config: DataConfig) -> int | None:
    """The version of a built-in world's data; None for rows from elsewhere."""
    from evenhand import worlds

    return worlds.get(config.world, **config.options).version if config.world else None
