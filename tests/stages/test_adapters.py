"""Adapters in every kind of stage: what is saved, that samples follow them, and that a kill changes nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from evenhand.engines.local import LocalEngine
from evenhand.errors import UserError
from evenhand.models.adapter_layers import Start
from evenhand.models.load import load_policy, load_reward_model, load_tokenizer, whole_folder
from evenhand.plan import plan
from evenhand.spec.read import read_experiment
from evenhand.stages import fit, offline
from evenhand.stages.common import tokenised
from evenhand.stages.splits import read_split
from evenhand.stages.training_run import TrainingRun
from evenhand.store.fingerprint import decisive
from evenhand.store.pointer import model_path
from evenhand.train import checkpoint
from evenhand.train.examples import Example
from evenhand.types import Head, Sampling
from tests.stages.performed import Graph, perform

EXPERIMENT = """
name: adapted
baseline: sft
data:
  world: quickstart
  sizes: {demonstrations: 16, preferences: 24, prompts: 16, heldout_preferences: 8}
model: {pretrain: {documents: 32, train: {steps: 6, prompts_per_step: 8, learning_rate: 3.0e-3}}}
lengths: {prompt: 32, completion: 8}
sft: {train: {steps: 3, prompts_per_step: 8, learning_rate: 1.0e-2, adapter: {rank: 4, alpha: 8}}}
reward_models: {rm: {train: {steps: 3, prompts_per_step: 8, learning_rate: 1.0e-2, adapter: {rank: 4}}}}
train:
  {steps: 4, prompts_per_step: 3, learning_rate: 1.0e-2, schedule: constant, checkpoint_every: 1, adapter: {rank: 4, alpha: 8}}
arms:
  sft: {method: start}
  dpo: {method: dpo}
  kto: {method: kto, train: {adapter: {modules_to_save: [embed_tokens]}}}
  ppo: {method: ppo, reward: rm, completions_per_prompt: 2, updates: 2, train: {gradient_checkpointing: true}}
  critic: {method: ppo, reward: rm, completions_per_prompt: 2, updates: 2, critic: separate}
  rloo: {method: rloo, reward: gold, completions_per_prompt: 2, train: {keep_checkpoint: best, validate_every: 2,
    validation_prompts: 4}}
  rounds: {method: iterative_dpo, reward: gold, rounds: 2, completions_per_prompt: 4, partner: previous, hybrid: true}
  anew: {method: iterative_dpo, reward: gold, rounds: 2, completions_per_prompt: 4, initialise: start, accumulate: true}
  whole: {method: dpo, train: {adapter: null}}
evaluation: {prompts: 4, frontier: false}
judge: {reward: gold, self_test: 0}
"""
SLOW = ("dpo", "kto", "critic", "rloo", "anew")
"""Arms that only `make test-slow` kills; `ppo` and `rounds` have all that they have."""
TRAINED = ("ppo", "rounds", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Graph:
    return Graph(tmp_path_factory.mktemp("adapted"), EXPERIMENT)


def weights(artifact: Path) -> dict[str, torch.Tensor]:
    """Of the whole model, whose adapter is merged where there is one."""
    reward = "adapter/adapter_config.json" if (artifact / "adapter").is_dir() else "model/config.json"
    classifier = "SEQ_CLS" in (artifact / reward).read_text()
    loaded = (load_reward_model if classifier else load_policy)(model_path(artifact))
    return {k: v.detach() for k, v in loaded.hf.named_parameters()}  # embeddings and head that are one, once


def items_of(training_run: TrainingRun) -> list:
    return offline.training_items(training_run)[:6]


def logps(training_run: TrainingRun, model) -> list[torch.Tensor]:
    found = offline.reading(training_run, model, frozenset({Head.LOGP}), items_of(training_run))[Head.LOGP]
    return [row for group in found for row in group]


@pytest.mark.parametrize("name", TRAINED)
def test_a_kill_changes_no_byte_and_checkpoints_hold_what_learns_alone(graph, tmp_path, name):
    whole = graph.arm(name)
    training_run = graph.opened(name)
    learning = {f"model.{n}" for n, p in training_run.model.named_parameters() if p.requires_grad}
    assert 0 < len(learning) < len(list(training_run.model.named_parameters()))
    for step in (2, 3):
        graph.kill(name, tmp_path, step)
        last = checkpoint.latest(tmp_path)
        assert set(load_file(last / "model.safetensors")) == learning
        moments = {f"{m}.{n.removeprefix('model.')}" for n in learning for m in ("exp_avg", "exp_avg_sq", "step")}
        assert set(load_file(last / "optimizer.safetensors")) <= moments
        assert all(len(checkpoint.tensors(last, more)) <= len(learning) for more in ("best", "previous"))
    files = ["metrics.jsonl", *(f"adapter/{f.name}" for f in (whole / "adapter").iterdir() if f.is_file())]
    assert not (whole / "model").exists()
    assert graph.differing(name, tmp_path, *files) == []


@pytest.mark.parametrize("name", ["dpo", "kto", "ppo", "rounds"])
def test_only_targets_moved_and_they_did(graph, name):
    """The merged model is the start with other weights in adapted layers (and in those trained whole), nowhere else."""
    before, after = weights(graph.run(graph.plan[graph.plan.arms[name][0]].inputs["start"])), weights(graph.arm(name))
    assert before.keys() == after.keys()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    layers = {key for key in before if "proj" in key}
    whole = {key for key in before if "embed_tokens" in key} if name == "kto" else set()
    assert moved == layers | whole
    for key in layers:
        change = after[key].double() - before[key].double()
        assert torch.linalg.svdvals(change)[4:].max() < 1e-5 * torch.linalg.svdvals(change)[0] + 1e-6, "of rank 4"


@pytest.mark.parametrize("name", ["sft", "dpo", "kto", "rloo"])
def test_model_and_adapter_on_the_start_have_the_same_log_probs_under_other_libraries(graph, name):
    """Merged into a folder by transformers, `adapter/` by peft on the start it was trained from: 1e-4 nats, not the start's."""
    import peft
    from transformers import AutoModelForCausalLM

    from tests.models.tiny_networks import plain_logp

    out = graph.run("sft") if name == "sft" else graph.arm(name)
    start = graph.run("base") if name == "sft" else graph.run("sft")
    training_run = graph.opened("dpo")
    groups = [i.tokens for i in items_of(training_run)]
    expected = logps(training_run, load_policy(model_path(out)))
    with whole_folder(model_path(start)) as folder:
        base = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad(), whole_folder(model_path(out)) as folder:
        unchanged = plain_logp(base, groups)
        merged = plain_logp(AutoModelForCausalLM.from_pretrained(folder), groups)
        beside = plain_logp(peft.PeftModel.from_pretrained(base, out / "adapter").eval(), groups)
    for found in (merged, beside):
        assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-4
    assert max(float((a - b).abs().max()) for a, b in zip(unchanged, expected, strict=True)) > 1e-2


def test_the_saved_model_is_the_trained_one(graph, monkeypatch):
    """What the network says at the end of training, unmerged, against the folder: within 1e-5 nats in float32."""
    seen = {}
    finish = fit.finish

    def look(training_run, out):
        seen["trained"] = logps(training_run, training_run.model)
        finish(training_run, out)
        seen["saved"] = logps(training_run, load_policy(model_path(out)))
        seen["still"] = logps(training_run, training_run.model)

    graph.inputs(graph.plan.arms["dpo"][0])  # what it starts from is trained as ever
    monkeypatch.setattr(fit, "finish", look)
    graph.run(graph.plan.arms["dpo"][0], graph.folder / "again")
    assert max(float((a - b).abs().max()) for a, b in zip(seen["trained"], seen["saved"], strict=True)) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(seen["trained"], seen["still"], strict=True))


def test_the_reference_is_the_start_and_not_the_base(graph):
    """DPO begins at log 2 although its start was itself trained with an adapter."""
    first = json.loads((graph.arm("dpo") / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)
    training_run = graph.opened("dpo")
    from evenhand.stages.reference import read_rows

    stored = [row for group in read_rows(training_run.inputs["reference"])[:6] for row in group]
    base = logps(training_run, load_policy(model_path(graph.run("base"))))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(stored, logps(training_run, training_run.model), strict=True))
    assert max(float((a - b).abs().max()) for a, b in zip(stored, base, strict=True)) > 1e-2


@pytest.mark.parametrize("name", ["rloo", "kto"])
def test_a_reference_read_while_it_trains_is_the_start_s(graph, name):
    """Without a second network where nothing learns whole; `kto` here trains its embeddings, and so reads a frozen copy."""
    training_run = graph.opened(name)
    with torch.no_grad():
        for p in training_run.model.parameters():
            p.add_(0.05 if p.requires_grad else 0.0)
    items = items_of(graph.opened("dpo"))
    expected = logps(graph.opened("dpo"), load_policy(model_path(training_run.inputs["start"])))
    found = [row for group in offline.reference_reader(training_run)(items) for row in group]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert isinstance(offline.reference_network(training_run), Start) == (name == "rloo")
    assert not torch.equal(logps(graph.opened("dpo"), training_run.model)[0], expected[0])


def test_a_round_that_starts_anew_begins_at_the_start(graph):
    rows = [json.loads(line) for line in (graph.arm("anew") / "metrics.jsonl").read_text().splitlines()]
    assert [abs(r["loss"] - 0.693147) < 1e-5 for r in rows] == [True, False, True, False]


def test_the_last_round_s_policy_is_one_round_behind(graph):
    training_run = graph.opened("rounds")
    training = fit.assemble(training_run)
    source, trainer = training.source, training.loop
    read = lambda model: torch.cat([p.flatten().clone() for p in checkpoint.trained(model).values()])  # noqa: E731
    policy, partner = [], []
    sample = source.sampler.engine.generate
    source.sampler.engine = SimpleNamespace(generate=lambda *a, **k: (
        policy.append(read(training_run.model)), partner.append(read(source.carried["previous"])), sample(*a, **k)
    )[-1])  # fmt: skip
    for index in range(4):
        trainer.one_step(index)
    assert len(policy) == 2
    assert torch.equal(partner[1], policy[0])
    assert not torch.equal(policy[1], policy[0])


@pytest.mark.parametrize("matmul", [None, torch.bfloat16])
def test_samples_come_from_the_current_adapter(graph, matmul):
    """Log-probs of the sampler are the trainer's, as closely as without an adapter, and not those of the start."""
    training_run = graph.opened("rloo")
    start = load_policy(model_path(training_run.inputs["start"]))
    usual, _ = gaps(training_run, start, matmul, start)
    noise = torch.Generator().manual_seed(0)
    for p in training_run.model.parameters():
        if p.requires_grad:
            p.data += 0.05 * torch.randn(p.shape, generator=noise)
    gap, to_start = gaps(training_run, training_run.model, matmul, start)
    assert gap < (1e-5 if matmul is None else 2 * usual)
    assert to_start > 10 * gap


def gaps(training_run: TrainingRun, model, matmul: torch.dtype | None, start) -> tuple[float, float]:
    """Mean absolute difference, nats per token, of a sampler's log-probs to those of its own policy and of another."""
    for policy in (model, start):
        policy.set_matmul_dtype(matmul)
    prompts = [g.prompt for g in read_split(training_run.inputs, "prompts")]
    groups = LocalEngine(model, training_run.renderer).generate(prompts, 8, Sampling(max_tokens=8))
    rows = tokenised(groups, training_run.renderer, training_run.spec.setup.lengths)
    items = [Example(tokens=row) for row in rows]
    sampled = torch.cat([torch.tensor(c.behaviour_logp) for g in groups for c in g.completions])
    found = [offline.reading(training_run, m, frozenset({Head.LOGP}), items)[Head.LOGP] for m in (model, start)]
    own, other = (torch.cat([row for group in rows for row in group]) for rows in found)
    return float((sampled - own).abs().mean()), float((sampled - other).abs().mean())


def test_a_reward_model_keeps_its_head(graph):
    """The head is trained and saved whole: transformers and peft give the scores of the trained model."""
    import peft
    from transformers import AutoModelForSequenceClassification

    out = graph.run("reward_models/rm/seed-0")
    start = graph.run("sft")
    model = load_reward_model(model_path(out))
    head = weights(out)["score.weight"]
    tokenizer = load_tokenizer(model_path(out))
    rows = tokenizer(["the moon is far", "a cat"], return_tensors="pt", padding=True)
    with whole_folder(model_path(start)) as folder:
        base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    base.config.pad_token_id = model.hf.config.pad_token_id
    wrapped = peft.PeftModel.from_pretrained(base, out / "adapter").eval()
    assert torch.equal(wrapped.get_base_model().score.modules_to_save["default"].weight, head)
    with torch.no_grad(), whole_folder(model_path(out)) as folder:
        expected = AutoModelForSequenceClassification.from_pretrained(folder)(**rows).logits
        torch.testing.assert_close(wrapped(**rows).logits, expected, rtol=1e-5, atol=1e-5)
    assert json.loads((out / "adapter/adapter_config.json").read_text())["modules_to_save"] == ["score"]


def test_a_value_head_learns_and_is_saved(graph):
    assert load_file(graph.arm("ppo") / "adapter/value_head/model.safetensors")["weight"].abs().max() > 0


def test_an_arm_without_adapter_is_what_it_was(graph):
    """`adapter: null` trains all weights: no adapter is written, and the key is that of a file which never heard of adapters."""
    assert not (graph.arm("whole") / "adapter").exists()
    before = EXPERIMENT.replace(", adapter: {rank: 4, alpha: 8}}\narms", "}\narms").replace(", train: {adapter: null}", "")
    assert "null" not in before
    old = plan.build(read_experiment(before).value)
    name = graph.plan.arms["whole"][0]
    assert graph.plan[name].key == old[old.arms["whole"][0]].key
    assert graph.plan[name].spec.train.adapter is None
    found = decisive(graph.plan[graph.plan.arms["kto"][0]].spec.train)["adapter"]
    assert found == {"rank": 4, "alpha": 8, "modules_to_save": ["embed_tokens"]}


def test_a_learning_rate_that_is_not_named_is_ten_times_the_method_s():
    text = EXPERIMENT.replace(" learning_rate: 1.0e-2, schedule", " schedule")
    found = plan.build(read_experiment(text).value)
    rate = {name: found[found.arms[name][0]].spec.train.learning_rate for name in ("dpo", "whole")}
    assert rate == {"dpo": pytest.approx(5e-6), "whole": 5e-7}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("adapter: {rank: 4, alpha: 8}}\narms", "adapter: {ranks: 4}}\narms", "did you mean 'rank'"),
        ("adapter: {rank: 4, alpha: 8}}\narms", "adapter: {rank: 0}}\narms", "rank of 0"),
        ("adapter: {rank: 4, alpha: 8}}\narms", "adapter: {alpha: 0}}\narms", "alpha is 0"),
        ("adapter: {rank: 4, alpha: 8}}\narms", "adapter: {dropout: 0.1}}\narms", "dropout is always off"),
        ("adapter: {rank: 4, alpha: 8}}\narms", "adapter: {targets: al_linear}}\narms", "targets"),
        ("adapter: {rank: 4, alpha: 8}}\narms", "adapter: {targets: []}}\narms", "no layer is named"),
        ("prompts_per_step: 8, learning_rate: 3.0e-3}}", "adapter: {rank: 2}, prompts_per_step: 8}}", "nothing that an adapter"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_runs(old, new, message):
    assert old in EXPERIMENT
    with pytest.raises(UserError, match=message):
        read_experiment(EXPERIMENT.replace(old, new))


def test_a_change_that_merging_loses_is_said(graph, tmp_path, caplog):
    """In bfloat16 an update of 1e-6 is below the last bit of most weights; in float32 nothing is said."""
    node = graph.plan[graph.plan.arms["dpo"][0]]
    inputs = {role: graph.run(other) for role, other in node.inputs.items()}
    for dtype in ("float32", "bfloat16"):
        setup = replace(node.spec.setup, compute=replace(node.spec.setup.compute, dtype=dtype))
        spec = replace(node.spec, setup=setup, train=replace(node.spec.train, steps=1, learning_rate=1e-6))
        caplog.clear()
        perform("fit", spec, inputs, tmp_path / dtype)
        said = [r.getMessage() for r in caplog.records if "adapter's change is lost" in r.getMessage()]
        assert len(said) == (dtype == "bfloat16")
    kept = load_file(tmp_path / "bfloat16/adapter/adapter_model.safetensors")
    assert any(t.abs().max() > 0 for k, t in kept.items() if "lora_B" in k), "the adapter has it"
