"""Training that keeps its best weights: which prompts decide, what is written, and that a kill changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from evenhand.errors import UserError
from evenhand.plan import plan
from evenhand.spec.read import read_experiment
from evenhand.stages import fit, offline, validate
from evenhand.stages.splits import read_split
from evenhand.store.fingerprint import decisive
from tests.stages.performed import SMALL, Graph

EXPERIMENT = (
    f"{SMALL}name: kept"
    + """
train: {steps: 6, prompts_per_step: 3, learning_rate: 3.0e-3, schedule: constant, checkpoint_every: 1}
arms:
  start: {method: start}
  rounds:
    {method: iterative_dpo, reward: gold, completions_per_prompt: 4, partner: previous, hybrid: true, train: {
    keep_checkpoint: best, validation_prompts: 6}}
  anew: {method: iterative_dpo, reward: gold, completions_per_prompt: 4, initialise: start, accumulate: true}
  online: {method: rloo, reward: gold, completions_per_prompt: 2, train: {keep_checkpoint: best, validate_every: 2,
    validation_prompts: 6}}
  loss: {method: dpo, temperature: 0.5, train: {keep_checkpoint: best, validate_every: 2, validation_prompts: 6}}
  accuracy: {method: dpo, train: {keep_checkpoint: best, choose_by: accuracy, validate_every: 2, validation_prompts: 6}}
  packed: {method: dpo, train: {optimizer: adamw_8bit}}
  rewarded: {method: kto, reward: gold, train: {keep_checkpoint: best, validate_every: 4, validation_prompts: 6}}
reward_models:
  ordered:
    train: {steps: 6, prompts_per_step: 3, keep_checkpoint: best, choose_by: margin, validate_every: 2, validation_prompts: 6}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)
ARMS = ("rounds", "anew", "online", "loss", "rewarded", "packed")


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Graph:
    return Graph(tmp_path_factory.mktemp("kept"), EXPERIMENT)


def written(out: Path) -> dict:
    return json.loads((out / validate.FILE).read_text())


@pytest.mark.parametrize("name", ARMS)
def test_a_kill_changes_no_byte(graph, tmp_path, name):
    """Killed after steps 2 and 5, in the middle of a round and between measurements, and started again."""
    graph.kill(name, tmp_path, 2, 5)
    kept = ["model/model.safetensors", "metrics.jsonl", *([validate.FILE] if name not in ("anew", "packed") else [])]
    assert graph.differing(name, tmp_path, *kept) == []
    assert not list(tmp_path.glob("checkpoint*"))


def test_a_kill_changes_no_byte_of_weights_that_are_rounded_by_chance(tmp_path):
    """The arm with moments in eight bits, of a model in bfloat16: what is drawn after a kill is what would have been."""
    narrow = Graph(tmp_path / "whole", EXPERIMENT.replace("model: {", "model: {dtype: bfloat16, ", 1))
    killed = tmp_path / "killed"
    narrow.kill("packed", killed, 2, 5)
    assert narrow.differing("packed", killed, "model/model.safetensors", "metrics.jsonl") == []
    weights = load_file(killed / "model/model.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "rule", "steps"),
    [
        ("rounds", "reward", [2, 4, 6]),
        ("online", "reward", [2, 4, 6]),
        ("loss", "loss", [2, 4, 6]),
        ("accuracy", "accuracy", [2, 4, 6]),
        ("rewarded", "reward", [4, 6]),
    ],
)
def test_every_point_is_written_and_the_best_is_chosen(graph, name, rule, steps):
    out = graph.arm(name)
    found = written(out)
    assert found["rule"] == rule
    assert found["prompts"] == 6
    assert [p["step"] for p in found["points"]] == steps
    values = [p["validation"] for p in found["points"]]
    assert found["chosen"] == steps[values.index(min(values) if rule == "loss" else max(values))]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {r["step"]: r["validation"] for r in rows if "validation" in r} == dict(zip(steps, values, strict=True))


def test_dpo_starts_at_log_two_at_its_temperature(graph):
    """Policy and reference divide their logits alike, the cached reference too."""
    out = graph.arm("loss")
    assert written(out)["start"] == pytest.approx(0.693147, abs=1e-5)
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_a_policy_that_is_its_reference_orders_half_of_the_pairs(graph):
    """Its implicit rewards are all zero: every pair is a tie, and a tie counts a half."""
    assert written(graph.arm("accuracy"))["start"] == 0.5


def test_a_reward_model_may_be_chosen_by_its_margin(graph):
    found = written(graph.run("reward_models/ordered/seed-0"))
    values = {p["step"]: p["validation"] for p in found["points"]}
    assert found["rule"] == "margin"
    assert list(values) == [2, 4, 6]
    assert found["chosen"] == max(values, key=values.get)


@pytest.mark.parametrize("name", ["rounds", "online", "loss", "accuracy", "rewarded"])
def test_the_saved_weights_are_those_that_were_measured_best(graph, name):
    """Measured once more, with the saved model in the policy's place."""
    out, training_run = graph.arm(name), graph.opened(name)
    weights = load_file(out / "model/model.safetensors")
    with torch.no_grad():
        for key, p in training_run.model.hf.named_parameters():
            p.copy_(weights[key])
    found = written(out)
    best = min if found["rule"] == "loss" else max
    assert validate.keeper(training_run).measure() == pytest.approx(best(p["validation"] for p in found["points"]), abs=1e-6)


@pytest.mark.parametrize("name", ["rounds", "online", "loss", "rewarded"])
def test_validation_prompts_are_neither_trained_on_nor_evaluated_on(graph, name):
    graph.arm(name)
    training_run = graph.opened(name)
    assert len(training_run.held) == 6
    inputs = training_run.inputs
    for split in ("heldout_prompts", "heldout_preferences"):
        assert not training_run.held & {g.prompt.id for g in read_split(inputs, split)}
    if training_run.method.online:
        source = fit.assemble(training_run).source
        trained = {p.id for p in source.prompts} | {i.tokens.group.prompt.id for i in source.fixed}
    else:
        trained = {i.tokens.group.prompt.id for i in offline.source(training_run).items}
    assert trained
    assert not training_run.held & trained


def test_who_validates_does_not_depend_on_the_seed(graph):
    graph.arm("online")
    assert graph.opened("online", 0).held == graph.opened("online", 1).held


def test_validation_takes_at_most_half(graph):
    graph.arm("online")
    training_run = graph.opened("online")
    spec = replace(training_run.spec, train=replace(training_run.spec.train, validation_prompts=13))
    with pytest.raises(UserError, match="asks for 13 of 24"):
        validate.held_out(spec, training_run.inputs, training_run.method)


def test_a_reward_that_compares_cannot_choose(graph):
    graph.arm("online")
    training_run = graph.opened("online")
    from evenhand.types import Scores

    alone = lambda groups: [Scores((float("nan"),) * len(g.completions)) for g in groups]  # noqa: E731
    with pytest.raises(UserError, match="scores no single answer"):
        validate.keeper(replace(training_run, reward=alone)).measure()


def test_a_round_that_starts_anew_begins_at_the_start(graph):
    """At the first update of each of the three rounds the policy is the start, whose DPO loss is log 2; elsewhere it is not."""
    rows = [json.loads(line) for line in (graph.arm("anew") / "metrics.jsonl").read_text().splitlines()]
    at_start = [abs(r["loss"] - 0.693147) < 1e-5 for r in rows]
    assert at_start == [True, False, True, False, True, False]


def test_the_last_round_s_policy_is_one_round_behind(graph):
    """What the partner writes with in round t is what the policy was when it sampled in round t - 1."""
    graph.arm("rounds")
    training_run = graph.opened("rounds")
    training = fit.assemble(training_run)
    source, trainer = training.source, training.loop
    read = lambda model: torch.cat([p.detach().flatten().clone() for p in model.parameters()])  # noqa: E731
    policy, partner = [], []
    sample = source.sampler.engine.generate
    source.sampler.engine = SimpleNamespace(generate=lambda *a, **k: (
        policy.append(read(training_run.model)),
        partner.append(read(source.carried["previous"])),
        sample(*a, **k),
    )[-1])  # fmt: skip
    for index in range(6):
        trainer.one_step(index)
    assert len(policy) == 3
    assert torch.equal(partner[0], policy[0])
    assert torch.equal(partner[1], policy[0])
    assert torch.equal(partner[2], policy[1])
    assert not torch.equal(policy[2], policy[1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a: {method: rloo, reward: gold, train: {keep_checkpoint: best}}", "how often to measure"),
        ("a: {method: dpo, reward: gold}", "a reward has no effect"),
        ("a: {method: dpo, train: {choose_by: margin}}", "the last weights are kept"),
        ("a: {method: kto, train: {keep_checkpoint: best, choose_by: margin, validate_every: 2}}", "kto has no margin of pairs"),
        (
            "a: {method: dpo, reward: gold, train: {keep_checkpoint: best, choose_by: margin, validate_every: 2}}",
            "the arm's reward chooses",
        ),
        ("a: {method: dpo, train: {keep_checkpoint: bset, validate_every: 2}}", "train.keep_checkpoint"),
        ("a: {method: dpo, train: {keep_checkpoint: best, validate_every: 2, validation_prompts: 0}}", "needs prompts"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_runs(line, message):
    text = EXPERIMENT.split("arms:")[0] + f"arms:\n  start: {{method: start}}\n  {line}\nevaluation: {{prompts: 4}}\n"
    with pytest.raises(UserError, match=message):
        read_experiment(text)


def test_settings_that_decide_nothing_are_not_in_the_key():
    """So that results stored before these settings existed are found."""
    nodes = plan.build(read_experiment(EXPERIMENT).value)
    anew, online = (decisive(nodes[nodes.arms[name][0]].spec.train) for name in ("anew", "online"))
    assert not {"keep_checkpoint", "validate_every", "validation_prompts"} & anew.keys()
    assert online["keep_checkpoint"] == "best"


def test_validation_prompts_are_cut_as_in_training(graph, monkeypatch):
    run, asked = graph.opened("online"), {}

    class Engine:
        def generate(self, prompts, n, sampling, **named):
            asked.update(named)
            raise EOFError

    monkeypatch.setattr(validate.online, "counted_engine", lambda *given: Engine())
    with pytest.raises(EOFError):
        validate.mean_reward(run, None, ())()
    assert asked["max_prompt"] == 32  # `lengths.prompt` of the file
