"""Arms that are sampled by a server with weights of its own: trained, refused when it goes stale, gone on with when it dies."""

from __future__ import annotations

import json

import pytest

from evenhand.data.jsonl import read_groups
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models.load import load_policy, load_tokenizer
from evenhand.plan import plan
from evenhand.spec.read import read_experiment
from tests.engines.completions_server import CompletionsServer, serving_completions
from tests.stages.performed import SMALL, perform

TEXT = (
    f"{SMALL}name: served"
    + """
train: {steps: 2, prompts_per_step: 2, learning_rate: 1.0e-2, schedule: constant, sample_every: 0}
arms:
  start: {method: start}
  rloo: {method: rloo, reward: gold, completions_per_prompt: 3}
  plain: {method: grpo, reward: gold, completions_per_prompt: 3, kl: 0.0}
  corrected: {method: grpo, reward: gold, completions_per_prompt: 3, kl: 0.0, importance: 1.05}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENHAND_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The artifacts that every arm begins with, made by the local sampler."""
    folder, done = tmp_path_factory.mktemp("base"), {}
    made = plan.build(read_experiment(TEXT).value)
    for node in made.nodes:
        if node.name in needed(made, made["arms/rloo/seed-0"]):
            inputs = {role: done[name] for role, name in node.inputs.items()}
            done[node.name] = perform(node.kind, node.spec, inputs, folder / node.name, seed=node.seed)
    return done


def needed(made, node):
    """Names of everything that a node is made from."""
    return {name for other in node.inputs.values() for name in (other, *needed(made, made[other]))}


def served(base, **named):
    """A server with the base's own weights."""
    folder = next(path for name, path in base.items() if (path / "model").is_dir()) / "model"
    return serving_completions(
        CompletionsServer(lambda: load_policy(folder, device="cpu"), reads=Renderer(load_tokenizer(folder)), **named)
    )


def trained(server, base, arm, out, **settings):
    """An arm, sampled by the server; its metrics."""
    told = {"kind": "server", "model": "world", "url": server.url, "attempts": 3, **settings}
    made = plan.build(read_experiment(TEXT, [f"engine={json.dumps(told)}"]).value)
    node = made[f"arms/{arm}/seed-0"]
    perform(node.kind, node.spec, {role: base[name] for role, name in node.inputs.items()}, out, seed=node.seed)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out):
    return (out / "model" / "model.safetensors").read_bytes()


def test_an_arm_is_trained_and_the_gap_is_kept(base, tmp_path):
    with served(base) as server:
        rows = trained(server, base, "rloo", tmp_path / "arm")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(0 < row["sampler/gap"] <= row["sampler/gap_max"] < 1e-4 for row in rows)
    assert all((row["sampler/beyond"], round(row["sampler/effective"], 4)) == (0.0, 1.0) for row in rows)
    assert server.loads == 2, "the start's weights, and those after the first step"


def test_an_arm_that_is_an_adapter_beside_the_base(base, tmp_path):
    """Trained and then answering, read from its folder, by the very adapter."""
    with served(base) as server:
        told = {"kind": "server", "model": "world", "url": server.url, "attempts": 3, "load_by": "adapter"}
        overrides = [f"engine={json.dumps(told)}", "train.adapter.rank=2"]
        made = plan.build(read_experiment(TEXT, overrides).value)
        node = made["arms/rloo/seed-0"]
        beside = base["base"].with_name("f" * 32)  # as in a store: an adapter is of use only with its start
        arm = perform(node.kind, node.spec, {r: base[n] for r, n in node.inputs.items()}, beside, seed=node.seed)
        rows = [json.loads(line) for line in (arm / "metrics.jsonl").read_text().splitlines()]
        assert all(0 < row["sampler/gap"] <= row["sampler/gap_max"] < 1e-4 for row in rows)
        assert server.loads == 2
        node = made[made.generations["rloo"][0]]
        inputs = {r: arm if n == "arms/rloo/seed-0" else base[n] for r, n in node.inputs.items()}
        perform(node.kind, node.spec, inputs, tmp_path / "answers", seed=node.seed)
        assert server.loads == 3
        assert len({b["model"] for b in server.bodies}) == 3
    assert (arm / "adapter" / "adapter_model.safetensors").is_file()


def test_a_server_that_dies_in_the_middle_changes_no_byte(base, tmp_path):
    for out, dies_at in (("whole", 0), ("killed", 13)):
        with served(base, dies_at=dies_at) as server:
            trained(server, base, "rloo", tmp_path / out)
    assert server.loads == 3
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")


def test_a_head_that_stays_behind_ends_the_arm_at_the_second_step(base, tmp_path):
    with served(base, fault="stale_head") as server, pytest.raises(UserError, match="does not sample from the policy"):
        trained(server, base, "rloo", tmp_path / "arm")
    assert server.loads == 2, "at first its head is the policy's"


def test_text_alone_never_feeds_training_and_may_be_evaluated(base, tmp_path):
    with served(base, fault="text_only") as server:
        with pytest.raises(UserError, match="never feeds training"):
            trained(server, base, "rloo", tmp_path / "arm")
        told = {"kind": "server", "model": "world", "url": server.url}
        made = plan.build(read_experiment(TEXT, [f"engine={json.dumps(told)}"]).value)
        node = made[made.generations["start"][0]]
        inputs = {role: base[name] for role, name in node.inputs.items()}
        out = perform(node.kind, node.spec, inputs, tmp_path / "answers", seed=node.seed)
    groups = read_groups(out / "generations.jsonl")
    measured = json.loads((out / "measured.json").read_text())
    assert len(groups) == 4
    assert all(c.tokens is None for g in groups for c in g.completions)
    assert all(0 < length <= 9 for length in measured["length"]), "eight tokens, and the stop of an answer that has one"
    assert measured["kl"] == [0.0] * 4


def test_a_gap_is_corrected_where_that_is_asked(base, tmp_path):
    found = {}
    for arm in ("plain", "corrected"):
        with served(base, fault="noisy") as server:
            found[arm] = trained(server, base, arm, tmp_path / arm, tolerance=5.0)
    assert all(row["sampler/gap"] > 1e-3 for rows in found.values() for row in rows)
    first = {arm: rows[0] for arm, rows in found.items()}
    assert first["plain"]["sampler/gap"] == first["corrected"]["sampler/gap"], "one start, one sampler"
    assert first["corrected"]["sampler/beyond"] > first["plain"]["sampler/beyond"], "its cap is 1.05, not 2"
    assert weights(tmp_path / "plain") != weights(tmp_path / "corrected")


def test_an_address_is_in_no_key():
    def keys(**settings):
        told = json.dumps({"kind": "server", "model": "world", **settings})
        return {n.name: n.key for n in plan.build(read_experiment(TEXT, [f"engine={told}"]).value).nodes}

    one = keys(url="http://127.0.0.1:1111/v1", timeout=3.0, tolerance=0.5)
    assert one == keys()
    assert one != keys(load_by="nothing")
    local = {n.name: n.key for n in plan.build(read_experiment(TEXT).value).nodes}
    assert one["arms/rloo/seed-0"] != local["arms/rloo/seed-0"]
    assert {n.name: n.key for n in plan.build(read_experiment(TEXT, ["engine={kind: local}"]).value).nodes} == local


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (['engine={kind: server, model: m, url: "ftp://host"}'], "not http://HOST"),
        (["engine={kind: server, model: m}", "runtime.ranks=2"], "with 2 ranks"),
        (["engine={kind: server}"], "model"),
    ],
)
def test_settings_that_cannot_be_are_said_before_anything_runs(overrides, message):
    with pytest.raises(UserError, match=message):
        plan.build(read_experiment(TEXT, overrides).value)
