"""Predictions beside what a small run holds; what does not fit, and what would."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from transformers import LlamaConfig

from evenhand.models.adapter_config import Adapter
from evenhand.plan.costs import memory, seconds
from evenhand.plan.costs.forecast import PlanCosts, StageCost, StageForecast
from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.memory import MemoryLoad, SamplingWave, held
from evenhand.plan.costs.network import Precision, network
from evenhand.plan.costs.predict import costs, predicted
from evenhand.plan.costs.remedies import fitting
from evenhand.plan.costs.rows import RowLengths, _groups, looked_at
from evenhand.plan.costs.seconds import Speed
from evenhand.plan.costs.stage import Predictor
from evenhand.plan.parameter_count import config_of
from evenhand.plan.plan import build
from evenhand.run_experiment import prepare
from evenhand.spec.read import read_experiment
from evenhand.train.config import Lengths
from evenhand.train.flops import Work

MACHINE = Machine(name="paper", memory_bytes=10**9, products={"float32": 1e9}, bandwidth=1e9, library_bytes=10**8)
WIDE = {
    "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "tie_word_embeddings": True,
}  # fmt: skip


def net(**changes):
    return network(LlamaConfig(**{**WIDE, **changes}), Precision(dtype="float32"))


def test_an_update_holds_sixteen_bytes_a_weight():
    small = net()
    found = held(small, MemoryLoad(largest=Work(tokens=8, scored=4, pairs=20), steps=3, writes=True), MACHINE)
    assert found.update == MACHINE.library_bytes + 16 * small.parameters
    narrow = network(LlamaConfig(**WIDE), Precision(dtype="bfloat16"))
    found = held(narrow, MemoryLoad(largest=Work(tokens=8, scored=4, pairs=20), steps=3), MACHINE)
    # weight 2, gradient 2, master 4, moments 8, and the gradient once more in float32 while the optimizer moves
    assert found.update == MACHINE.library_bytes + 20 * narrow.parameters
    packed = MemoryLoad(largest=Work(tokens=8, scored=4, pairs=20), steps=3, optimizer="adamw_8bit")
    # weight 2, gradient 2, moments 2 with a scale of 4 bytes for every 256
    assert held(narrow, packed, MACHINE).update == MACHINE.library_bytes + (6 + 2 * 4 / 256) * narrow.parameters


def test_checkpointing_and_smaller_micro_batches_hold_less_and_shards_share():
    big, small = (Work(tokens=n, scored=n // 2, pairs=n * n // 2) for n in (4000, 1000))
    job = MemoryLoad(largest=big, steps=3)
    step = [held(net(), j, MACHINE).step for j in (job, replace(job, largest=small), replace(job, checkpointing=True))]
    assert step[1] < step[0]
    assert step[2] < step[0]
    alone, shared = (held(net(), replace(job, shards=n), MACHINE).update for n in (1, 4))
    assert shared - MACHINE.library_bytes == pytest.approx((alone - MACHINE.library_bytes) / 4)


def test_a_gate_pays_for_a_pass_without_gradients_and_for_itself() -> None:
    """Not for a trunk that learns: 16 bytes and 6 operations for each of the gate's own weights, no activation is kept."""
    plain = network(LlamaConfig(**WIDE), Precision(dtype="float32"), scores=True)
    gated, work = plain.gated(1000), Work(tokens=400, scored=4, pairs=20)
    assert gated.parameters == plain.parameters + 1000
    job = MemoryLoad(largest=work, steps=3)
    still = held(plain.frozen(), replace(job, steps=0), MACHINE)
    mine = held(gated, job, MACHINE)
    assert mine.update == MACHINE.library_bytes + 4 * plain.parameters + 16 * 1000
    assert mine.step - still.step <= 16 * 1000
    assert mine.peak < held(plain, job, MACHINE).peak
    speed = Speed(machine=MACHINE)
    assert seconds.learn(gated, work, speed) == seconds.forward(plain.frozen(), work, speed)
    assert seconds.gate(gated, 5, speed) == pytest.approx(6 * 1000 * 5 / 1e9)


def test_the_vocabulary_is_carried_up_to_its_budget():
    wide = net(vocab_size=100_000)
    assert memory.head_kept(wide, Work(tokens=200, scored=100, pairs=0), "cpu") == 100 * 100_000 * 4
    assert memory.head_kept(wide, Work(tokens=20_000, scored=10_000, pairs=0), "cpu") == 512 << 20


def test_a_pass_takes_its_operations_over_the_rate_and_its_bytes_over_the_bandwidth():
    small, work = net(), Work(tokens=100, scored=0, pairs=0)
    alone = seconds.forward(small, work, Speed(machine=replace(MACHINE, bandwidth=1e30)))
    assert alone == pytest.approx(2 * small.shape.weights * 100 / 1e9)
    twice = seconds.forward(small, work, Speed(machine=replace(MACHINE, bandwidth=1e30), train=2.0))
    assert twice == pytest.approx(2 * alone)
    again = seconds.learn(small, work, Speed(machine=MACHINE), checkpointing=True)
    once = seconds.learn(small, work, Speed(machine=MACHINE))
    assert again - once == pytest.approx(seconds.forward(small, work, Speed(machine=MACHINE)))


def test_a_group_costs_its_prompt_once_and_each_answer():
    """Growth with the group: prefill does not grow, each further row costs the same."""
    speed = Speed(machine=replace(MACHINE, bandwidth=1e30))
    took = [seconds.sample(net(), SamplingWave(rows=n, prompt=50, new=10, group=n), speed) for n in (4, 8, 12)]
    assert took[2] - took[1] == pytest.approx(took[1] - took[0])


def test_the_largest_micro_batch_has_the_longest_rows():
    rows = RowLengths(sample=((10, (5, 5)), (30, (20, 10)), (20, (10, 10))), count=3)
    assert rows.largest(2, 200).tokens == 100
    assert rows.largest(2, 70).tokens == 60
    assert sum(w.tokens for w in rows.step(4, 100)) == 20 + 60 + 40 + 20  # the first row comes again
    assert all(w.tokens <= 100 for w in rows.step(4, 100))


EXPERIMENT = {
    "name": "costs",
    "data": {"world": "quickstart", "sizes": {"demonstrations": 40, "preferences": 40}},
    "model": {"pretrain": {"documents": 20, "train": {"steps": 2}}},
    "train": {"steps": 2, "prompts_per_step": 4},
    "arms": {
        "dpo": {"method": "dpo", "initial_policy": "base"},
        "grpo": {"method": "grpo", "initial_policy": "base", "completions_per_prompt": 2, "reward": "words"},
    },
    "rewards": {"words": {"kind": "length", "unit": "words"}},
    "lengths": {"prompt": 32, "completion": 16},
    "judge": {"reward": "words", "self_test": 0},
    "evaluation": {"prompts": 4},
}  # fmt: skip


def counted(data, split, **more):
    plan = build(read_experiment({**EXPERIMENT, "data": data, **more}).value)
    return looked_at(plan, split, Lengths(prompt=32, completion=16), 2).count


def test_how_many_rows_a_split_of_a_world_will_have():
    world = {"world": "quickstart", "sizes": {"preferences": 40}}
    assert counted(world, "preferences") == 40
    assert counted(world, "heldout_preferences") == 500, "its own usual size, whatever the split that is learned from has"
    assert counted(world, "corpus") == 20
    further = {"others": {"rows": "preferences", "count": 7}}
    assert counted(world, "others", splits=further) == 7
    assert counted(world, "revised") == 1000, "what a stage makes is not known"


def test_how_many_rows_a_split_of_a_file_will_have(tmp_path):
    """Nothing is held out of a split whose held-out one has a file of its own, nor of that."""
    rows = [{"prompt": f"{i}?", "chosen": "grey", "rejected": "a rose"} for i in range(20)]
    for name, count in (("pairs", 20), ("other", 5)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
    pairs, other, model = str(tmp_path / "pairs.jsonl"), str(tmp_path / "other.jsonl"), {"path": "nowhere"}
    alone = {"preferences": pairs, "holdout": 0.25}
    plan = SimpleNamespace(experiment=read_experiment({**EXPERIMENT, "data": alone, "model": model}).value)
    assert [_groups(plan, split)[1] for split in ("preferences", "heldout_preferences", "prompts")] == [15, 5, 15]
    both = {**alone, "heldout_preferences": other, "heldout_prompts": other}
    plan = SimpleNamespace(experiment=read_experiment({**EXPERIMENT, "data": both, "model": model}).value)
    assert [_groups(plan, split)[1] for split in ("preferences", "heldout_preferences", "heldout_prompts")] == [20, 5, 5]


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))
    return prepare(EXPERIMENT, (), tmp_path / "out")


def test_every_stage_that_opens_a_network_is_predicted_and_nothing_is_kept_for_another_machine(prepared, tmp_path):
    found = costs(prepared.plan, prepared.store, machine=MACHINE)
    named = {n.name: n.kind for n in prepared.plan.nodes}
    for stage in found.stages:
        opens = named[stage.node] in ("fit", "reference", "generate", "evaluate_reward_model")
        assert (stage.predicted is not None) == opens, stage.node
    assert found.machine == MACHINE
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def test_predictions_are_kept_and_then_nothing_is_measured(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("evenhand.plan.costs.predict.probe", lambda threads, folder: MACHINE)
    monkeypatch.setattr("evenhand.plan.costs.keep.memory", lambda: MACHINE.memory_bytes)
    monkeypatch.setattr("evenhand.plan.costs.predict.calibrated", lambda config, precision, machine: Speed(machine=machine))
    first = costs(prepared.plan, prepared.store)
    monkeypatch.setattr("evenhand.plan.costs.predict.probe", lambda threads, folder: pytest.fail("probed again"))
    monkeypatch.setattr("evenhand.plan.costs.predict.opened", lambda *given: pytest.fail("worked out again"))
    assert costs(prepared.plan, prepared.store) == first
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_said_with_the_change_that_would(prepared):
    plan, config = prepared.plan, config_of(prepared.plan.experiment)
    node = plan["arms/dpo/seed-0"]

    def under(size):
        small = replace(MACHINE, memory_bytes=size, library_bytes=0)
        return Predictor(plan, prepared.store, config, Speed(machine=small))

    assert predicted(under(10**12), node).fits
    peak = under(10**12).of(node).peak_bytes
    found = predicted(under(peak), node)  # a stage may take 95 % of the memory
    assert not found.fits
    assert found.fix is not None
    assert found.fix.startswith(("train.", "model.", "lengths."))
    assert predicted(under(10**5), node).fix is None


def test_the_first_way_out_is_the_one_that_changes_least():
    from evenhand.stages.fit import FitSpec
    from evenhand.stages.setup import Compute, Setup
    from evenhand.train.config import Lengths, Train

    setup = Setup(compute=Compute(device="cpu", dtype="float32"), lengths=Lengths())
    spec = FitSpec(method="dpo", train=Train(steps=1, tokens_per_microbatch=2048), setup=setup)

    def peak(s):
        held = s.train.tokens_per_microbatch + 2000 * (s.train.adapter is None) + 500 * (not s.train.gradient_checkpointing)
        held -= 300 * (s.train.optimizer == "adamw_8bit" and s.train.adapter is None)
        return held * (1 if s.setup.compute.dtype == "float32" else 0.5)

    assert fitting(spec, peak, 3600) == "train.tokens_per_microbatch=1024"
    assert fitting(spec, peak, 2300) == "train.tokens_per_microbatch=256 train.gradient_checkpointing=true"
    twice = replace(spec, train=replace(spec.train, gradient_checkpointing=True))
    assert fitting(twice, peak, 2000) == "train.tokens_per_microbatch=256 train.optimizer=adamw_8bit"
    assert fitting(spec, peak, 800) == "train.tokens_per_microbatch=256 train.adapter.rank=16"
    assert fitting(spec, peak, 300) == ("train.tokens_per_microbatch=256 train.gradient_checkpointing=true train.adapter.rank=16")
    assert fitting(spec, peak, 1) is None
    adapted = replace(spec, train=replace(spec.train, adapter=Adapter(), tokens_per_microbatch=256))
    in_four_bits = fitting(adapted, lambda s: 10 if s.train.adapter.quantize else 20, 15)
    assert in_four_bits == "train.adapter.quantize=nf4"


def test_a_plan_in_all():
    cost = StageCost(seconds=60, peak_bytes=100, tokens=10, disk_bytes=5)
    shared = StageCost(seconds=30, peak_bytes=70, tokens=4, disk_bytes=1, processes=2)
    found = PlanCosts(
        stages=(
            StageForecast(node="a", predicted=cost), StageForecast(node="b", predicted=shared, fits=False),
            StageForecast(node="c", predicted=cost), StageForecast(node="d"),
        ),
        made=frozenset({"c"}), workers=2,
    )  # fmt: skip
    assert (found.device_seconds, found.tokens, found.disk_bytes, found.together) == (120, 14, 6, 240)
    assert found.seconds == 60
    assert [s.node for s in found.too_large] == ["b"]


@pytest.mark.slow
def test_a_small_run_holds_about_what_was_said(prepared, tmp_path):
    """Within 15 % of the peak of a real process, and the runner has noted it."""
    from evenhand.runner.local import run
    from evenhand.store import spent

    said = costs(prepared.plan, prepared.store)
    assert run(prepared.plan, prepared.store, tmp_path / "out", workers=1).ok
    for name in ("arms/dpo/seed-0", "arms/grpo/seed-0"):
        was = spent.read(prepared.store.root, prepared.plan[name].key)
        assert was is not None
        assert said[name].predicted.peak_bytes == pytest.approx(was.peak_bytes, rel=0.15)


def test_where_nothing_can_be_kept_a_plan_is_made_all_the_same(prepared, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setattr("evenhand.plan.costs.predict.probe", lambda threads, folder: MACHINE)
    monkeypatch.setattr("evenhand.plan.costs.predict.calibrated", lambda config, precision, machine: Speed(machine=machine))
    assert costs(prepared.plan, prepared.store).machine == MACHINE
