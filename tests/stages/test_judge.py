"""The judge stages on artifacts made by hand: scores, missing scores, and a language model behind a real socket."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from evenhand import rewards
from evenhand.configfile.schema import to_json
from evenhand.data.jsonl import write_groups
from evenhand.errors import UserError
from evenhand.judges import RewardJudge, template
from evenhand.judges.chat import Chat
from evenhand.judges.jury import Jury
from evenhand.judges.llm import LLMJudge
from evenhand.plan.plan import build
from evenhand.results.files import plain
from evenhand.results.judge_summary import judge_summary, mean_or_none
from evenhand.spec.read import read_experiment
from evenhand.stages.judge import JudgedBy, JudgeSpec, ScoredBy
from evenhand.stages.judge_self_test import known_answers
from evenhand.stages.score_answers import ScoreAnswersSpec
from evenhand.types import Completion, Group, Prompt
from tests.stages.performed import perform, setup

SETUP = setup(32, 32)
TEXTS = {"answers": ["longer answer", "x", "", "same"], "baseline": ["short", "longer answer", "y", "same"]}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    for role, texts in TEXTS.items():
        groups = [
            Group(prompt=Prompt(content=f"q{i}", id=f"p{i}"), completions=(Completion(content=text),))
            for i, text in enumerate(texts)
        ]
        write_groups(tmp_path / "store" / role / "generations.jsonl", groups)
    demonstrations = [
        Group(prompt=Prompt(content=f"q{i}"), completions=(Completion(content=f"good answer {i}"),)) for i in range(4)
    ]
    write_groups(tmp_path / "store" / "data" / "demonstrations.jsonl", demonstrations)
    return {role: tmp_path / "store" / role for role in (*TEXTS, "data")}


def stage(kind: str, spec: Any, inputs: dict[str, Path], name: str) -> dict[str, Any]:
    out = perform(kind, spec, inputs, inputs["answers"].parent / name)
    return json.loads(next(out.glob("*.json")).read_text())


def test_a_missing_score_is_half_flagged_and_null(inputs: dict[str, Path], tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text(
        "def score(prompt, completion):\n    return None if completion.text == 'x' else float(len(completion.text))\n"
    )
    judge = {"kind": "function", "path": f"{reward}:score"}
    spec = JudgeSpec(judge=JudgedBy(settings=ScoredBy(reward=judge, tie=0.0)), setup=SETUP)
    found = stage("judge", spec, inputs, "verdicts")
    assert found["outcome"] == [1.0, 0.5, 0.0, 0.5]
    assert found["invalid"] == [False, True, False, False]
    assert found["gold"] == [13.0, None, 0.0, 4.0]
    scored = stage("score_answers", ScoreAnswersSpec(reward=judge, setup=SETUP), inputs, "scores")
    assert scored == {"scores": [[13.0], [None], [0.0], [4.0]]}
    assert found["account"]["invalid"] == 0.25
    assert found["orders"] == [[], [], [], []]
    assert mean_or_none(found["gold"]) == pytest.approx(17 / 3)


class Longer(BaseHTTPRequestHandler):
    """A server whose judge prefers the longer answer, and says nothing of use about q1."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"]
        self.asked[text] += 1
        a, b = (text.split(f"<answer {x}>\n")[1].split(f"\n</answer {x}>")[0] for x in "AB")
        said = "Hm." if "\nq1\n" in text else f"Preferred: {'A' if len(a.strip()) >= len(b.strip()) else 'B'}"
        answer = {
            "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 3},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint():
    Longer.asked = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Longer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


EXPERIMENT = """
name: judged
data: {world: quickstart}
model: {pretrain: {documents: 10, train: {epochs: 1}}}
sft: {train: {steps: 1}}
train: {steps: 1}
arms: {sft: {method: start}, dpo: {method: dpo}}
judge: {kind: llm, model: m, endpoint: "http://127.0.0.1:1/v1", price: {input: 1.0, output: 2.0}}
"""


def judge_node(text: str = EXPERIMENT, *overrides: str) -> Any:
    plan = build(read_experiment(text, overrides).value)
    return plan["verdicts/dpo/seed-0"], plan


def test_a_language_model_judges_an_experiment_and_answers_once(inputs: dict[str, Path], endpoint: str) -> None:
    node, plan = judge_node(EXPERIMENT, f"judge.endpoint={endpoint}")
    spec = replace(node.spec, setup=SETUP)
    found = stage("judge", spec, inputs, "verdicts")
    assert found["outcome"] == [1.0, 0.5, 0.0, 0.5]
    assert found["invalid"] == [False, True, False, False]
    assert found["gold"] == [None] * 4
    assert [len(o) for o in found["orders"]] == [2, 2, 2, 2]
    assert found["orders"][0][0] == {"a_first": True, "outcome": 1.0, "status": "read", "label": "A", "raw": "Preferred: A"}
    account = found["account"]
    assert (account["invalid"], account["identical"], account["empty"], account["consistency"]) == (0.25, 0.25, 0.25, 1.0)
    assert account["attempts"] == 2 + 6  # one pair read at once, one asked three times in each order
    assert account["cost_usd"] == pytest.approx(8 * (9 * 1 + 3 * 2) / 1e6)
    asked = Longer.asked.total()
    assert stage("judge", spec, inputs, "again") == found
    assert Longer.asked.total() == asked == 8  # the second time nothing
    card = judge_summary(plan.experiment.judge, node.spec.judge, {"dpo": [found], "sft": [found]}, "sft")
    assert (card.name, card.kind, card.template, card.invalid) == ("m", "llm", "helpfulness", 0.25)
    assert endpoint not in json.dumps(plain(card))


def test_the_self_test_uses_the_datas_own_answers(inputs: dict[str, Path], endpoint: str) -> None:
    _, plan = judge_node(EXPERIMENT, f"judge.endpoint={endpoint}", "judge.self_test=3")
    with pytest.raises(UserError, match="failed its self-test"):  # which ends what depends on it
        stage("judge_self_test", replace(plan["judge/self-test"].spec, setup=SETUP), inputs, "test")
    found = json.loads((inputs["data"].parent / "test" / "self_test.json").read_text())
    assert (found["source"], found["n"]) == ("demonstrations", 3)
    assert found["identical"] == 0.5  # equally long without the blank: the first one, in both orders
    assert found["planted"] == 0.5  # a judge of length does not see that words were shuffled
    assert found["passed"] is False


def test_answers_to_prompts_without_the_fields_that_a_checker_reads_are_no_test_of_it(tmp_path: Path) -> None:
    told, asked = Completion(content="It is seven."), Completion(content="The sum is nine.")
    (tmp_path / "data").mkdir(), (tmp_path / "answers").mkdir()
    inputs = {"data": tmp_path / "data", "answers": tmp_path / "answers"}
    compared = [Group(prompt=Prompt(content="4 + 5?", meta={"answer": "9"}), completions=(asked,))]
    write_groups(inputs["answers"] / "generations.jsonl", compared)
    write_groups(inputs["data"] / "demonstrations.jsonl", [Group(prompt=Prompt(content="A number?"), completions=(told,))])
    judge = RewardJudge(rewards.get({"kind": "number"}), name="sums")
    source, rows = known_answers(inputs, 5, judge)
    assert source == "the baseline's answers"
    assert [(prompt.meta["answer"], answer.text) for prompt, answer in rows] == [("9", "The sum is nine.")]
    own = [Group(prompt=Prompt(content="3 + 4?", meta={"answer": "7", "level": "easy"}), completions=(told,))]
    write_groups(inputs["data"] / "preferences.jsonl", own)
    source, rows = known_answers(inputs, 5, judge)
    assert (source, [answer.text for _, answer in rows]) == ("preferences", ["It is seven."])


def test_a_field_that_no_judge_reads_keeps_no_answer_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(), (tmp_path / "answers").mkdir()
    inputs = {"data": tmp_path / "data", "answers": tmp_path / "answers"}
    asked = Prompt(content="4 + 5?", meta={"answer": "9", "reference": "9"})
    compared = [Group(prompt=asked, completions=(Completion(content="9"),))]
    write_groups(inputs["answers"] / "generations.jsonl", compared)
    own = [Group(prompt=Prompt(content="Why?"), completions=(Completion(content="So."),))]
    write_groups(inputs["data"] / "demonstrations.jsonl", own)
    length = RewardJudge(rewards.get({"kind": "length", "unit": "chars"}), name="length")
    sums = RewardJudge(rewards.get({"kind": "number"}), name="sums")
    assert known_answers(inputs, 5, length)[0] == "demonstrations"
    assert known_answers(inputs, 5, Jury({"length": length, "sums": sums}))[0] == "the baseline's answers"
    found = {
        name: known_answers(inputs, 5, LLMJudge(cast(Chat, None), template.get(name)))[0]  # nobody is asked
        for name in ("helpfulness", "mt_bench_pair_reference")
    }
    assert found == {"helpfulness": "demonstrations", "mt_bench_pair_reference": "the baseline's answers"}


def test_how_answers_are_got_is_no_part_of_the_key_but_the_template_is() -> None:
    node, _ = judge_node()
    same = judge_node(EXPERIMENT, "judge.endpoint=http://elsewhere/v1", "judge.concurrency=2", "judge.max_cost=3.0")[0]
    other = judge_node(EXPERIMENT, "judge.template=safety")[0]
    model = judge_node(EXPERIMENT, "judge.model=m2")[0]
    assert node.key == same.key
    assert len({node.key, other.key, model.key}) == 3
    assert "key" not in json.dumps(to_json(node.spec)).replace("key_env", "").replace(
        "OPENAI_API_KEY", ""
    )  # the name of a variable, never a key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("judge.template=helpfulnes",), "did you mean 'helpfulness'"),
        (("judge.verdict=logprobs", "judge.template=arena_hard"), "does not say which tokens"),
        (("judge.modle=x",), "unknown key 'modle'"),
        (("judge.kind=lml",), "judge"),
        (("judge.max_cost=1.0", "judge.price=null"), "price of 'm' is not known"),
    ],
)
def test_a_wrong_judge_is_refused_before_anything_runs(change: tuple[str, ...], message: str) -> None:

    with pytest.raises(UserError, match=message):
        read_experiment(EXPERIMENT, change)


JURY = """
judge:
  kind: jury
  by: majority
  judges:
    words: {reward: {kind: length, unit: words}}
    model: {kind: llm, model: m, endpoint: "http://127.0.0.1:1/v1", price: {input: 1.0, output: 2.0}}
    letters: {reward: {kind: length, unit: chars}}
"""


def test_a_jury_judges_an_experiment_and_says_how_far_its_judges_agree(inputs: dict[str, Path], endpoint: str) -> None:
    text = EXPERIMENT[: EXPERIMENT.index("judge:")] + JURY
    node, plan = judge_node(text, f"judge.judges.model.endpoint={endpoint}")
    assert node.spec.judge.members.keys() == {"words", "model", "letters"}
    found = stage("judge", replace(node.spec, setup=SETUP), inputs, "verdicts")
    assert found["outcome"] == [1.0, 0.0, 0.0, 0.5]  # the model says nothing of the second pair, and abstains
    assert found["votes"][1] == {"words": 0.0, "model": None, "letters": 0.0}
    card = judge_summary(plan.experiment.judge, node.spec.judge, {"dpo": [found], "sft": [found]}, "sft")
    assert (card.kind, card.by, card.template) == ("jury", "majority", None)
    assert card.name == "jury of words, model, letters"
    assert card.jury is not None
    assert card.jury.members["model"].abstained == pytest.approx(1 / 4)
    assert {frozenset((c.a, c.b)) for c in card.jury.cohen} == {
        frozenset(two) for two in (("words", "model"), ("words", "letters"), ("model", "letters"))
    }


def test_verdicts_wait_for_the_judges_self_test_which_is_in_no_key(endpoint: str) -> None:
    node, plan = judge_node()
    assert node.after == ("judge/self-test",)
    assert node.needs == (*node.inputs.values(), "judge/self-test")
    assert [n.name for n in plan.nodes].index("judge/self-test") < [n.name for n in plan.nodes].index(node.name)
    untested, _ = judge_node(EXPERIMENT, "judge.self_test=0")
    assert (untested.key, untested.after) == (node.key, ())


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ("{kind: jury, judges: {a: {reward: gold}}}", "a jury of one"),
        ("{kind: jury, judges: {a: {reward: gold}, b: {kind: llm, model: m, template: x, endpoint: 'http://h/v1'}}}", "'x'"),
        ("{kind: jury, by: vote, judges: {a: {reward: gold}, b: {reward: gold}}}", "judge.by"),
        ("{kind: jury, judges: {a: {reward: gold}, b: {reward: god}}}", "judge.judges.b.reward"),
    ],
)
def test_a_wrong_jury_is_refused_where_it_is_wrong(judge: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        judge_node(EXPERIMENT[: EXPERIMENT.index("judge:")] + f"judge: {judge}\n")
