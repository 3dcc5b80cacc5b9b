"""Data that an experiment makes itself, through the real plan and stages: pairs by any judge, answers revised by principles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.models.load import new_policy, save
from evenhand.plan import plan as planner
from evenhand.rewards import get
from evenhand.spec.read import read_experiment
from tests.data.tiny_tokenizers import character_tokenizer
from tests.stages.performed import perform
from tests.stages.test_signals import carried_out, numbered

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAIN = {"steps": 2, "prompts_per_step": 4, "learning_rate": 1e-3}
LENGTH = {"kind": "length", "unit": "chars"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An untrained model over characters: its answers differ, which is all that is wanted of them."""
    folder = tmp_path_factory.mktemp("base")
    config = {
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 512,
    }  # fmt: skip
    tokenizer = character_tokenizer()
    save(new_policy(config, tokenizer, seed=0, device="cpu"), tokenizer, folder)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(60)))
    return folder


def experiment(base: Path, **sections) -> dict:
    return {
        "name": "made", "model": {"path": str(base)}, "initial_policy": "base", "lengths": {"prompt": 16, "completion": 6},
        "data": {"prompts": str(base / "prompts.jsonl"), "holdout": 0.3}, "train": TRAIN,
        "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}},
        "judge": {"reward": LENGTH, "self_test": 0}, "evaluation": {"prompts": 3}, "runtime": {"device": "cpu"}, **sections,
    }  # fmt: skip


def annotated(base: Path, folder: Path, **section) -> tuple[list, dict]:
    """The pairs of an `annotate` section, and what the stage says of them."""
    plan = {"prompts": 12, "heldout_prompts": 4, "completions_per_prompt": 4, **section}
    _, folders = carried_out(experiment(base, annotate=plan), numbered(folder))
    made = folders["preferences"]
    assert sorted(p.name for p in made.iterdir()) == ["heldout_preferences.jsonl", "labels.json", "preferences.jsonl"]
    return read_groups(made / "preferences.jsonl"), json.loads((made / "labels.json").read_text())


def test_best_and_worst_of_n_by_a_reward_with_a_margin(base, tmp_path):
    pairs, said = annotated(base, tmp_path, reward=LENGTH, choose="best_worst", labels="hard", margin=1.0)
    assert said["preferences"]["pairs"] == len(pairs) > 0
    for pair in pairs:
        lengths = [len(c.text) for c in pair.completions]
        assert pair.parts["value"] == tuple(map(float, lengths))
        assert abs(lengths[0] - lengths[1]) > 1
        assert pair.scores == ((1.0, 0.0) if lengths[0] > lengths[1] else (0.0, 1.0))
        assert all(c.tokens for c in pair.completions)
    left_out = said["preferences"]["left_out"]
    assert len(pairs) + sum(left_out.values()) == 12


def test_every_label_swapped(base, tmp_path):
    pairs, _ = annotated(base, tmp_path, reward=LENGTH, choose="all", labels="hard")
    assert all((p.scores[0] > p.scores[1]) == (len(p.completions[0].text) > len(p.completions[1].text)) for p in pairs)
    assert max(sum(p.prompt.id == q.prompt.id for q in pairs) for p in pairs) > 1


def test_soft_labels_reach_the_loss(base, tmp_path):
    """At the start DPO's loss is log 2 for any label; what differs is the accuracy, which counts both directions."""
    made = {"reward": LENGTH, "labels": "soft", "noise": 2.0, "prompts": 12, "heldout_prompts": 4}
    plan, folders = carried_out(experiment(base, annotate=made), numbered(tmp_path))
    pairs = read_groups(folders["preferences"] / "preferences.jsonl")
    assert all(p.parts["soft"] == p.scores and 0 < p.scores[0] < 1 for p in pairs)
    rows = [json.loads(x) for x in (folders[plan.arms["dpo"][0]] / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_a_preference_model_labels_in_both_orders(base, tmp_path):
    judge = {"kind": "preference_model", "path": str(base)}
    pairs, said = annotated(base, tmp_path, judge=judge, choose="best_worst", labels="soft", completions_per_prompt=3)
    assert said["preferences"]["judge"]["n"] >= 3 * len(pairs)
    assert all(p.scores[0] == pytest.approx(p.parts["judge"][0]) and sum(p.scores) == pytest.approx(1.0) for p in pairs)
    assert any(p.scores[0] not in (0.0, 0.5, 1.0) for p in pairs)


def test_a_language_model_labels_in_both_orders_and_is_asked_once(base, tmp_path, monkeypatch):
    """It likes the longer answer, but the one shown first still more: only differences of two characters or more survive."""
    from evenhand.judges.chat import ChatReply
    from evenhand.judges.endpoint import Endpoint

    asked = []

    def complete(self, requests):
        for i, request in enumerate(requests):
            text = request.messages[-1].content
            first, second = (text.split(f"<answer {x}>\n")[1].split(f"\n</answer {x}>")[0] for x in "AB")
            asked.append((first, second))
            yield i, ChatReply(text=f"Preferred: {'A' if len(first) + 2 > len(second) else 'B'}")

    monkeypatch.setattr(Endpoint, "complete", complete)
    judge = {"kind": "llm", "model": "m", "endpoint": "http://localhost:1/v1"}
    pairs, said = annotated(base, tmp_path, judge=judge, choose="all", heldout_prompts=16)
    assert said["preferences"]["judge"]["p_first"] > 0.5
    assert {(b, a) for a, b in asked} == set(asked)
    assert len(asked) == len(set(asked)) or len(pairs) < len(asked) / 2
    for pair in pairs:
        lengths = [len(c.text) for c in pair.completions]
        assert abs(lengths[0] - lengths[1]) >= 2
        assert pair.scores == ((1.0, 0.0) if lengths[0] > lengths[1] else (0.0, 1.0))
    assert said["preferences"]["left_out"]["tied"] > 0, "where the judge contradicted itself"
    assert (next(tmp_path.glob("*.jsonl"))).name == "judge-cache.jsonl", "beside the artifacts, shared by every stage"


def test_without_new_keys_labels_are_what_they_were(base, tmp_path):
    """The plain section draws two answers and their label as `rewards.annotate` does."""
    from evenhand.rewards.annotate import Annotator, annotate

    spec = {"reward": LENGTH, "noise": 1.0}
    pairs, _ = annotated(base, tmp_path, **spec)
    again = annotate(pairs, get(LENGTH), Annotator(temperature=1.0), seed=0)
    assert {p.prompt.id for p in again.pairs} == {p.prompt.id for p in pairs}
    assert all(p.parts["gold"] == tuple(float(len(c.text)) for c in p.completions) for p in pairs)


def stop(*_):
    raise KeyboardInterrupt


def test_a_stopped_stage_samples_nothing_twice(base, tmp_path, monkeypatch):
    from evenhand.engines.local import LocalEngine

    plan = planner.build(read_experiment(experiment(base, annotate={"reward": LENGTH, "choose": "all", "prompts": 8})).value)
    folders: dict[str, Path] = {}
    for node in plan.nodes:
        folders[node.name] = tmp_path / node.name.replace("/", "-")
        folders[node.name].mkdir()
        inputs = {role: folders[name] for role, name in node.inputs.items()}
        if node.name == "preferences":
            break
        perform(node.kind, node.spec, inputs, folders[node.name], seed=node.seed)

    def run() -> bytes:
        perform("annotate", node.spec, inputs, folders["preferences"], seed=node.seed)
        return (folders["preferences"] / "preferences.jsonl").read_bytes()

    whole = run()
    for file in folders["preferences"].iterdir():
        file.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("evenhand.synthesis.comparison._by_reward", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    asked = []
    generate = LocalEngine.generate
    monkeypatch.setattr(LocalEngine, "generate", lambda self, p, *a, **k: asked.append(len(p)) or generate(self, p, *a, **k))
    assert run() == whole
    assert len(asked) == 1, "only the held-out prompts, which had not been reached"


def test_answers_are_revised_and_learned_from(base, tmp_path):
    (tmp_path / "p.yaml").write_text("- {name: short, critique: x, revision: y}\n")
    made = {"principles": str(tmp_path / "p.yaml"), "prompts": 10, "heldout_prompts": 4, "rounds": 2}
    arms = {
        "base": {"method": "start"}, "imitate": {"method": "sft", "data": "revised"},
        "prefer": {"method": "dpo", "data": "revised_pairs", "train": {"evaluate_every": 1}},
    }  # fmt: skip
    (tmp_path / "nodes").mkdir()
    plan, folders = carried_out(experiment(base, revise=made, arms=arms), numbered(tmp_path / "nodes"))
    out = folders["revisions"]
    demonstrations, pairs = read_groups(out / "revised.jsonl"), read_groups(out / "revised_pairs.jsonl")
    history = [json.loads(x) for x in (out / "revisions.jsonl").read_text().splitlines()]
    assert [h["answers"][-1] for h in history[: len(demonstrations)]] == [g.completions[0].text for g in demonstrations]
    assert all(len(h["answers"]) == 3 and [s["principle"] for s in h["steps"]] == ["short"] * 2 for h in history)
    changed = [h for h in history[: len(demonstrations)] if h["answers"][0] != h["answers"][-1]]
    assert [[c.text for c in p.completions] for p in pairs] == [[h["answers"][-1], h["answers"][0]] for h in changed]
    assert not (out / "replies.kept").exists()
    assert plan["tokens/revised_pairs"].inputs["revisions"] == "revisions"
    for arm in ("imitate", "prefer"):
        assert "revisions" in plan[plan.arms[arm][0]].inputs
        assert len((folders[plan.arms[arm][0]] / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_example_at_a_tiny_size(tmp_path):
    small = [
        "data.sizes={demonstrations: 24, preferences: 8, prompts: 40, heldout_preferences: 8}", "model.pretrain.documents=32",
        "model.pretrain.train={steps: 2, prompts_per_step: 4}", "sft.train={steps: 2, prompts_per_step: 4}",
        "annotate.prompts=16", "annotate.heldout_prompts=8", "annotate.margin=0.0", "lengths.completion=12",
        "train={steps: 2, prompts_per_step: 2}", "evaluation.prompts=4", "seeds=[0]", "runtime.device=cpu",
    ]  # fmt: skip
    example = read_experiment(EXAMPLES / "on_policy_pairs.yaml", small).effective
    plan, folders = carried_out(example, numbered(tmp_path))
    gold = get({"kind": "gold", "world": "quickstart"})
    for pair in read_groups(folders["preferences"] / "preferences.jsonl"):
        (scores,) = gold([pair])
        assert (scores.values[0] > scores.values[1]) == (pair.scores == (1.0, 0.0))
    assert json.loads((folders[plan.verdicts["dpo"][0]] / "verdicts.json").read_text())["outcome"]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"annotate": {}}, "name either `reward` or `judge`"),
        ({"annotate": {"reward": LENGTH, "completions_per_prompt": 1}}, "a pair needs two answers"),
        ({"annotate": {"reward": LENGTH, "margin": -1.0}}, "a margin of -1"),
        ({"annotate": {"judge": {"kind": "llm", "model": "m", "template": "helpfulnes"}}}, "helpfulnes"),
        ({"revise": {"principles": "/nowhere.yaml"}}, "cannot be read"),
        ({"arms": {"a": {"method": "sft", "data": "revised"}}}, "nothing makes `revised`"),
    ],
)
def test_faults_are_found_before_anything_runs(base, sections, said):
    with pytest.raises(UserError, match=said):
        read_experiment(experiment(base, **sections))
