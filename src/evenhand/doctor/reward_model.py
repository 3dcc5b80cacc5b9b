"""Checks of reward models: that one from elsewhere is one, what it is given to read, and whether it knows better from worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from evenhand.doctor.context import CheckContext, spaced
from evenhand.doctor.examine import from_error
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.pretrained import Existing, named
from evenhand.doctor.registry import Finding, check, fail, info, share, shortened, warn
from evenhand.doctor.reward import tried
from evenhand.errors import UserError
from evenhand.models.heads import score_head
from evenhand.models.load import refuse_pickles
from evenhand.stages.evaluate_reward_model import columns
from evenhand.stats.reward_model import PairMetrics, agreement_by_length, pair_metrics

ENOUGH = 50
"""Held-out pairs from which on an interval that holds 50% is the model's fault rather than the pairs'."""
SCORED = 200
"""Held-out pairs that are scored here."""


@check(
    "R4",
    "a reward model knows the better answer",
    why="a policy that follows a reward model at the level of chance follows noise, and its reward rises all the same",
    fix="train it longer or on more pairs, use one that was trained for this kind of prompt, or check the labels of the pairs",
    quick=False,
)
def accuracy(patient: CheckContext) -> Iterator[Finding]:
    found = held_out_scores(patient)
    if not found:
        raise Unavailable("no reward model exists yet, or there are no held-out pairs")
    for name, s in found.items():
        told = pair_metrics(s["chosen"], s["rejected"], s["chosen_chars"], s["rejected_chars"])
        by_length = agreement_by_length(s["chosen"], s["rejected"], s["chosen_chars"], s["rejected_chars"])
        lengths = ", ".join(f"{b.observed:.0%} of {b.n} where the chosen one is {k}" for k, b in by_length.items())
        low, high = told.ci95
        seen = (
            f"{name}: right in {told.accuracy:.0%} of {told.n} held-out pairs (95% interval {low:.0%} to {high:.0%}), "
            f"mean margin {told.mean_margin:.2g}, calibration error {told.ece:.0%}; {lengths}"
        )
        yield _judged(name, told, seen)


def _judged(name: str, told: PairMetrics, seen: str) -> Finding:
    low, high = told.ci95
    if high < 0.5:
        return fail(seen, why="it prefers the worse answer: its sign or the labels are swapped")
    if low <= 0.5 and told.n >= ENOUGH:
        return fail(f"{seen}: no better than chance")
    return warn(f"{seen}: too few pairs to tell it from chance") if low <= 0.5 else info(seen)


def held_out_scores(patient: CheckContext) -> dict[str, Mapping[str, Sequence[float]]]:
    """Scores of held-out pairs by every reward model that exists: measured here, or by an earlier run in the same store."""
    pairs = [g for g in patient.splits.get("heldout_preferences", []) if len(g.scores) > 1 and max(g.scores) > min(g.scores)]
    found: dict[str, Mapping[str, Sequence[float]]] = {}
    for name, model in patient.adopted.items():
        if pairs:
            looked = spaced(pairs, SCORED)
            found[name] = columns(looked, model.reward(looked))
    run = patient.run
    for name, nodes in run.plan.reward_models.items():
        keys = [run.plan[node].key for node in nodes.values()]
        done = next((k for k in keys if run.store.has(k) and not run.store.damage(k)), None)
        if name not in found and done is not None:
            found[name] = run.store.read_json(done, "scores.json")
    return found


@check(
    "R5",
    "a reward model reads what it was trained to read",
    why="ids of another vocabulary, turns without its template's marks or a text that is cut give scores of another text",
    fix="name its chat template under `reward_models.NAME.template`, or give turns as messages",
)
def reads(patient: CheckContext) -> Iterator[Finding]:
    if not patient.experiment.reward_models:
        raise Unavailable("there are no reward models")
    for name in patient.experiment.all_reward_models():
        yield info(f"{name} is trained here: it reads the very ids that the policy samples")
    for name, model in patient.adopted.items():
        if (unread := Existing.renderer.error(model)) is not None:
            yield from_error(named(unread, name))
            continue
        try:
            yield from _read(patient, name, model)
        except UserError as error:
            yield from_error(named(error, name))


def _read(patient: CheckContext, name: str, model: Existing) -> Iterator[Finding]:
    rows = tried(patient)
    same = model.renderer.tokenizer.get_vocab() == patient.renderer.tokenizer.get_vocab()
    whose = "the policy's vocabulary" if same else "another vocabulary than the policy's"
    if model.reads == "tokens" and same:
        yield info(f"{name} was trained here on {whose}: it reads the very ids that were sampled")
        return
    texts = [(g, model.renderer.whole_ids(g.prompt, c)) for g in rows for c in g.completions]
    written = [model.renderer.tokenizer.decode(list(ids)) for _, ids in texts[:1]]
    yield info(f"{name} has {whose}: answers are decoded and written anew for it", *(shortened(t, 300) for t in written))
    verbatim = [g for g in rows if isinstance(g.prompt.content, str)]
    if verbatim and model.renderer.tokenizer.chat_template:
        texts_given = share(len(verbatim), len(rows))
        seen = f"{name} was trained on conversations, and {texts_given} prompts are text, which it reads verbatim"
        yield warn(seen, shortened(verbatim[0].prompt.text))
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    long = [g for g, ids in texts if window and len(ids) > window]
    if long:
        yield warn(
            f"{name}: {share(len(long), len(texts))} texts exceed its context of {window} tokens", shortened(long[0].prompt.text)
        )
    unk = model.renderer.tokenizer.unk_token_id
    unknown, total = sum(ids.count(unk) for _, ids in texts), sum(len(ids) for _, ids in texts)
    if unk is not None and unk not in model.renderer.stop_ids and unknown > 0.05 * total:
        yield fail(f"{name}: {share(unknown, total)} tokens of the data are unknown to it", *(shortened(t) for t in written))


@check(
    "R8",
    "a reward model from elsewhere is one",
    why="two labels are no score, and a model without its head gets one that is drawn at random, with curves that look healthy",
    fix="use an AutoModelForSequenceClassification saved with num_labels=1, with its head, as safetensors",
)
def is_one(patient: CheckContext) -> Iterator[Finding]:
    if not patient.adopted:
        raise Unavailable("every reward model is trained here")
    for name, model in patient.adopted.items():
        faults = [named(e, name) for e in _faults(model)]
        if not faults and not patient.quick and (unopened := Existing.reward.error(model)) is not None:
            faults = [named(unopened, name)]
        for fault in faults[:1]:
            yield from_error(fault)
        if not faults:
            yield info(f"{name}: {model.settings.path} is a {model.settings.method.replace('_', ' ')}")


def _faults(model: Existing) -> Iterator[UserError]:
    """What can be said without reading the weights."""
    if (unread := Existing.config.error(model)) is not None:
        yield unread
        return
    if isinstance(model.folder, Path):
        try:
            refuse_pickles(model.folder)
        except UserError as error:
            yield error
            return
    classifier, architectures = model.settings.kind != "preference", list(getattr(model.config, "architectures", None) or ())
    if model.settings.kind == "general_preference" and model.config.num_labels % 2:
        yield UserError(f"an embedding of {model.config.num_labels} numbers: they come in pairs", fix="name another `method`")
    if model.settings.kind == "score" and model.config.num_labels != 1:
        fix = "num_labels=1, or `method: attribute_reward_model` for a label per attribute"
        yield UserError(f"the model has {model.config.num_labels} labels, a reward model has one", fix=fix)
    if classifier and architectures and not any("SequenceClassification" in a for a in architectures):
        yield UserError(
            f"it is a {', '.join(architectures)}, not a sequence classifier",
            why="transformers would draw its score head at random",
            fix="use a trained reward model; to train one from it, name no `path`",
        )
    if classifier and isinstance(model.folder, Path) and (missing := missing_head(model.folder, model.config)):
        yield UserError(f"the weights of its head, {missing}, are missing", why="transformers would draw them at random")
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", None)
    if Existing.renderer.error(model) is None and vocabulary is not None and len(model.renderer.tokenizer) > vocabulary:
        yield UserError(f"its tokenizer has {len(model.renderer.tokenizer)} tokens, the model embeds {vocabulary}")


def missing_head(folder: Path, config: Any) -> str:
    """The name of the score head where no safetensors file of the folder holds it; empty when it is there."""
    from transformers import AutoModelForSequenceClassification

    try:
        with torch.device("meta"):
            empty = AutoModelForSequenceClassification.from_config(config)
        head = score_head(empty)
    except (ValueError, RuntimeError, NotImplementedError):  # a kind that is opened in the full form, or refused there
        return ""
    name = next(n for n, m in empty.named_modules() if m is head) + ".weight"
    held = [key for file in folder.glob("*.safetensors") for key in safe_open(str(file), "pt").keys()]  # noqa: SIM118
    return "" if name in held else name
