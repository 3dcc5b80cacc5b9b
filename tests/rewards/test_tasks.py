"""Every verifiable task is a data set, a reward and a judge at once: from an experiment file, and from the command line."""

from __future__ import annotations

import json

import pytest

from evenhand.cli.judge import open_judge
from evenhand.configfile.schema import load as load_experiment
from evenhand.data.load import load
from evenhand.judges import Comparison
from evenhand.rewards import get
from evenhand.spec.experiment import Experiment
from evenhand.stages.data import from_sources
from evenhand.types import Completion, Group, Prompt
from evenhand.worlds import get as world

FORM = "<reasoning>{}</reasoning><answer>{}</answer>"
TASKS = {
    # name: (reward, rows of the data set, how they are read, a right answer, a wrong one)
    "countdown": (
        "countdown", [{"nums": [3, 7, 25], "target": 100}], {"recipe": "countdown"},
        "<answer>(7 - 3) * 25</answer>", "<answer>7 * 25</answer>",
    ),
    "countdown, thinking": (
        {"kind": "countdown", "reasoning": True}, [{"nums": [3, 7, 25], "target": 100}], {"recipe": "countdown"},
        FORM.format("7 - 3 = 4", "(7 - 3) * 25"), "<answer>(7 - 3) * 25</answer>",
    ),
    "gsm8k": ("number", [{"question": "q", "answer": "so\n#### 72"}], {"recipe": "gsm8k"}, "It is 72.", "It is 27."),
    "gsm8k, math-verify": ("math", [{"question": "q", "answer": "so\n#### 72"}], {"recipe": "gsm8k"}, "$\\frac{144}{2}$", "$73$"),
    "gsm8k, thinking": (
        {"kind": "weighted", "parts": [{"reward": "thinking", "weight": 0.1},
                                       {"reward": {"kind": "tagged", "reward": "number"}, "weight": 0.9}]},
        [{"question": "q", "answer": "so\n#### 72"}], {"recipe": "gsm8k_thinking"},
        FORM.format("so", "72"), FORM.format("72", "so 71"),
    ),
    "code": (
        {"kind": "code", "run_untrusted_code": True}, [{"text": "Add.", "code": "", "test_list": ["assert add(1, 2) == 3"]}],
        {"recipe": "mbpp"}, "def add(a, b): return a + b", "def add(a, b): return a - b",
    ),
    "constraints": (
        "ifeval", [{"prompt": "q", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"n": None}]}],
        {"recipe": "ifeval"}, "no comma", "a, comma",
    ),
    "rouge": (
        "rouge_l", [{"prompt": "POST: p\n\nTL;DR:", "completion": " lost my keys"}], {"recipe": "tldr_reference"},
        "lost my keys", "found a dog",
    ),
    "two words": (
        "two_words", [{"prompt": "POST: p\n\nTL;DR:", "completion": " lost my keys"}], {"recipe": "tldr_two_words"},
        "lost keys", "lost my keys",
    ),
}  # fmt: skip


@pytest.fixture(params=TASKS)
def task(request, tmp_path):
    """(reward, source, right, wrong), the source on a file in the data set's own schema."""
    reward, rows, source, right, wrong = TASKS[request.param]
    if "math-verify" in request.param:
        pytest.importorskip("math_verify")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return reward, {**source, "path": str(path)}, right, wrong


def answered(source, *texts) -> Group:
    (prompt,) = load(source).prompts
    return Group(prompt=prompt, completions=tuple(Completion(content=t) for t in texts))


def test_the_reward_scores_the_data_set(task):
    reward, source, right, wrong = task
    good, bad = get(reward)([answered(source, right, wrong)])[0].values
    assert good == pytest.approx(1.0)
    assert bad < 0.2


def test_an_experiment_trains_and_judges_by_it(task):
    reward, source, right, _ = task
    given = {
        "name": "t", "model": {"path": "m"}, "initial_policy": "base", "judge": {"reward": reward},
        "data": {"prompts": {**source, "use": "prompts"}, "holdout": 0.0},
        "arms": {"base": {"method": "start"}, "grpo": {"method": "grpo", "reward": reward, "train": {"steps": 1}}},
    }  # fmt: skip
    experiment = load_experiment(Experiment, given).value  # which builds every reward once
    splits, _ = from_sources(experiment.data, 0)
    (prompt,) = (g.prompt for g in splits["prompts"])
    group = Group(prompt=prompt, completions=(Completion(content=right),))
    assert get(experiment.judge.reward)([group])[0].values[0] == pytest.approx(1.0)


def test_it_judges_from_the_command_line(task, tmp_path):
    reward, source, right, wrong = task
    (prompt,) = load(source).prompts
    judge = open_judge(reward if isinstance(reward, str) else json.dumps(reward), {}, tmp_path / "cache")
    pairs = [
        Comparison(prompt=prompt, a=Completion(content=a), b=Completion(content=b)) for a, b in ((right, wrong), (wrong, right))
    ]
    assert [v.outcome for v in judge(pairs)] == [1.0, 0.0]


def test_it_scores_from_the_command_line(cli, task, tmp_path):
    from evenhand.data.jsonl import write_groups

    reward, source, right, wrong = task
    write_groups(tmp_path / "a.jsonl", [answered(source, right, wrong)])
    code, out, err = cli("score", reward if isinstance(reward, str) else json.dumps(reward), tmp_path / "a.jsonl")
    assert code == 0, err
    assert "2 answers: mean 0." in out
    assert "to 1" in out


@pytest.mark.parametrize(
    ("name", "options"),
    [("arithmetic", {}), ("arithmetic", {"reasoning": True}), ("countdown", {}), ("countdown", {"reasoning": True})],
)
def test_a_worlds_writer_at_full_skill_is_always_right(name, options):
    made = world(name, skill=1.0, **options)
    groups = made.demonstrations(0, 40)
    assert all(s.values == (pytest.approx(1.0),) for s in made.gold(groups))
    tokenizer = made.tokenizer()
    for group in groups:
        text = group.completions[0].text
        assert text.startswith("<reasoning>") == bool(options)
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text, "every word is in the vocabulary"


def test_arithmetic_in_thinking_format_wants_the_format():
    made = world("arithmetic", reasoning=True)
    (prompt,) = made.prompts(0, 1)
    result = prompt.meta["result"]
    group = Group(prompt=prompt, completions=tuple(Completion(content=t) for t in (FORM.format("x", result), f"it is {result}")))
    assert made.gold([group])[0].values == (1.0, 0.0)


def test_only_the_one_tagged_answer_counts():
    tagged = get({"kind": "tagged", "reward": {"kind": "length", "unit": "words"}, "missing": -1.0})
    texts = ("<answer> a b </answer>", "a b", "<answer>a</answer> or <answer>b</answer>", "<answer>a\nb c</answer>!")
    group = answered_by(*texts)
    assert tagged([group])[0].values == (2.0, -1.0, -1.0, 3.0)


def answered_by(*texts) -> Group:
    return Group(prompt=Prompt(content="p"), completions=tuple(Completion(content=t) for t in texts))
