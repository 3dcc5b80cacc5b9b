"""MT-Bench's, RM-Bench's and JudgeBench's own files: hand-written rows, numbers counted by hand."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.evaluation import mt_bench
from evenhand.evaluation.agreement import agreement, labelled
from evenhand.evaluation.answers import read_answers
from evenhand.evaluation.dispatch import evaluate_file
from evenhand.evaluation.readers import read_located
from evenhand.evaluation.reward_benchmarks import judge_bench_groups, kind_of, report
from evenhand.judges import Comparison, Order, RewardJudge, Status, Verdict
from evenhand.rewards.pointwise import pointwise
from evenhand.types import Completion, Prompt

LENGTH = pointwise(lambda prompt, completion: float(len(completion.text)), name="length")


def by_length(prompt, answers):
    return [float(len(a)) for a in answers]


def lines(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def single(model, question, turn, score):
    """A line of FastChat's gpt-4_single.jsonl."""
    return {"question_id": question, "model": model, "judge": ["gpt-4", "single-v1"], "user_prompt": "...",
            "judgment": f"Rating: [[{score}]]", "score": score, "turn": turn, "tstamp": 1.5}  # fmt: skip


def game(question, g1, g2, turn=1, pair=("m", "base")):
    """A line of FastChat's gpt-4_pair.jsonl."""
    return {"question_id": question, "model_1": pair[0], "model_2": pair[1], "g1_winner": g1, "g2_winner": g2,
            "judge": ["gpt-4", "pair-v2"], "g1_user_prompt": "", "g1_judgment": "[[A]]", "g2_user_prompt": "",
            "g2_judgment": "[[B]]", "turn": turn, "tstamp": 1.5}  # fmt: skip


def test_mt_bench_grades(tmp_path):
    """Unread grades (-1) are left out and counted; the score is the mean over questions and turns, as show_result's."""
    rows = [single("m", 81, 1, 8), single("m", 81, 2, 6), single("m", 82, 1, 9.5), single("m", 82, 2, -1), single("n", 81, 1, 3)]
    found = evaluate_file(lines(tmp_path / "gpt-4_single.jsonl", rows))
    assert found["kind"] == "MT-Bench judgments"
    assert list(found["models"]) == ["m", "n"]
    m = found["models"]["m"]
    assert (m["score"], m["turn_1"], m["turn_2"], m["unread"], m["n"], m["questions"]) == (23.5 / 3, 8.75, 6.0, 1, 3, 2)
    assert m["ci95"][0] <= m["score"] <= m["ci95"][1]
    with pytest.raises(UserError, match=r"s.jsonl:2.*'score' is 'high'"):
        evaluate_file(lines(tmp_path / "s.jsonl", [rows[0], {**rows[1], "score": "high"}]))
    with pytest.raises(UserError, match="no judgment of 'm' could be read"):
        evaluate_file(lines(tmp_path / "s.jsonl", [rows[3]]))


def test_mt_bench_pairs(tmp_path):
    """A win needs both games; errors are dropped and counted; both games shown first by whom is not forgotten."""
    rows = [
        game(81, "model_1", "model_1"),
        game(81, "model_1", "model_1", turn=2),
        game(82, "model_1", "model_2"),  # the first place won twice
        game(83, "tie", "tie"),
        game(84, "model_2", "model_2"),
        game(85, "error", "model_1"),
    ]
    found = evaluate_file(lines(tmp_path / "gpt-4_pair.jsonl", rows))
    assert found["kind"] == "MT-Bench pair judgments"
    assert found["models"]["m"] == {"win": 2, "loss": 1, "tie": 2, "win_rate_adjusted": 0.6}
    assert found["models"]["base"]["win_rate_adjusted"] == 0.4
    assert (found["n"], found["dropped"], found["consistency"]) == (5, 1, 0.8)
    assert found["p_first"] == pytest.approx((0.5 + 0.5 + 1.0 + 0.5 + 0.5) / 5)
    assert found["ratings"][0]["name"] == "m"
    assert found["prompts"] == 4  # both turns of a question are resampled together
    with pytest.raises(UserError, match=r"p.jsonl:1.*unknown winner 'A'"):
        evaluate_file(lines(tmp_path / "p.jsonl", [game(81, "A", "tie")]))


QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write a poem.", "Make it shorter."]},
    {"question_id": 111, "category": "math", "turns": ["2 + 2?", "And + 1?"], "reference": ["4", "5"]},
]
SAID = {"81": ["a long poem", "a poem"], "111": ["4", "6"]}


def test_mt_bench_answers_round_trip(tmp_path):
    mt_bench.write_answers(tmp_path / "m.jsonl", SAID, "m")
    first = read_located(tmp_path / "m.jsonl")[0][1]
    assert (first["question_id"], first["model_id"]) == (81, "m")
    assert first["choices"] == [{"index": 0, "turns": ["a long poem", "a poem"]}]
    name, groups = read_answers(tmp_path / "m.jsonl", lines(tmp_path / "question.jsonl", QUESTIONS))
    assert (name, [g.prompt.id for g in groups]) == ("m", ["81:1", "81:2", "111:1", "111:2"])
    assert groups[0].prompt.text == "Write a poem."
    assert "Write a poem." in groups[1].prompt.text
    assert "Make it shorter." in groups[1].prompt.text
    assert (groups[0].completions[0].text, groups[1].completions[0].text) == (
        "a long poem",
        "[turn 1]\na long poem\n\n[turn 2]\na poem",
    )
    assert groups[3].prompt.meta["reference"] == "[turn 1]\n4\n\n[turn 2]\n5"
    assert groups[0].prompt.meta["category"] == "writing"
    with pytest.raises(UserError, match=r"m.jsonl:2.*no question '111'"):
        read_answers(tmp_path / "m.jsonl", lines(tmp_path / "q.jsonl", QUESTIONS[:1]))
    with pytest.raises(UserError, match=r"b.jsonl:1.*'choices' holds no choice"):
        read_answers(lines(tmp_path / "b.jsonl", [{"question_id": 81, "model_id": "m", "choices": []}]))


@pytest.mark.parametrize(
    ("reference", "read"), [("four", ["four"]), (["4", "5"], ["4", "5"]), ([4], ["4"]), (None, []), ([], [])]
)
def test_a_single_reference_is_that_of_the_first_turn(tmp_path, reference, read):
    asked = {"question_id": 1, "turns": ["2 + 2?", "And + 1?"], "reference": reference}
    questions = lines(tmp_path / "q.jsonl", [asked])
    assert mt_bench.read_questions(questions)["1"]["reference"] == read
    mt_bench.write_answers(tmp_path / "m.jsonl", {"1": ["a", "b"]}, "m")
    first = read_answers(tmp_path / "m.jsonl", questions)[1][0].prompt.meta
    assert first.get("reference") == (read[0] if read else None)


@pytest.mark.parametrize("reference", [{"1": "four"}, ["4", None], [["4"]], True])
def test_a_reference_that_is_no_text_is_refused(tmp_path, reference):
    asked = {"question_id": 1, "turns": ["2 + 2?"], "reference": reference}
    with pytest.raises(UserError, match=r"q.jsonl:1.*'reference' is not a list of texts"):
        mt_bench.read_questions(lines(tmp_path / "q.jsonl", [asked]))


def asked(outcomes, **scores):
    orders = tuple(
        Order(a_first=f, outcome=y, status=Status.READ, raw="r") for f, y in zip((True, False), outcomes, strict=False)
    )
    return Verdict(outcome=sum(outcomes) / len(outcomes), orders=orders, **scores)


def test_mt_bench_judgments_are_written_as_they_are_read():
    pairs = [
        Comparison(prompt=Prompt(content="q", id=f"81:{t}"), a=Completion(content="x"), b=Completion(content="y")) for t in (1, 2)
    ]
    verdicts = [asked((1.0, 1.0), score_a=8.0, score_b=7.0), asked((1.0, 0.0), score_a=5.0)]
    names = {"model": "m", "baseline": "base", "judge": "j", "template": "t"}
    made = mt_bench.pair_judgments(pairs, verdicts, **names)
    assert [(r["question_id"], r["turn"], r["g1_winner"], r["g2_winner"]) for r in made] == [
        (81, 1, "model_1", "model_1"),
        (81, 2, "model_1", "model_2"),
    ]
    found = mt_bench.pair_results([(f"x:{i}", r) for i, r in enumerate(made)])
    assert (found["models"]["m"]["win"], found["models"]["m"]["tie"], found["p_first"]) == (1, 1, 0.75)
    graded = mt_bench.single_judgments(pairs, verdicts, **names)
    assert [(r["model"], r["turn"], r["score"]) for r in graded] == [
        ("m", 1, 8.0),
        ("m", 2, 5.0),
        ("base", 1, 7.0),
        ("base", 2, -1),
    ]
    invalid = Verdict(outcome=0.5, orders=(Order(a_first=True, outcome=0.5, status=Status.INVALID),))
    assert mt_bench.pair_judgments(pairs[:1], [invalid], **names)[0]["g1_winner"] == "error"


def rm_row(chosen, rejected, domain):
    """A row of RM-Bench's total_dataset.json: three styles a side; here an answer's score is its length."""
    return {
        "id": "1",
        "prompt": "q",
        "chosen": ["c" * n for n in chosen],
        "rejected": ["r" * n for n in rejected],
        "domain": domain,
    }


def test_rm_bench_in_its_own_format():
    """Length as reward: chosen lengths 2, 4, 6 against 1, 3, 5 win on and below the diagonal and nowhere above it."""
    rows = [rm_row((2, 4, 6), (1, 3, 5), d) for d in ("chat", "code", "math", "safety-refuse")]
    rows.append(rm_row((9, 9, 9), (1, 1, 1), "safety-response"))
    located = [(f"r[{i}]", r) for i, r in enumerate(rows)]
    assert kind_of(rows[0]) == "RM-Bench"
    found = report("RM-Bench", located, by_length)
    chat = found["domains"]["chat"]
    assert (chat["easy"], chat["normal"], chat["hard"]) == (1.0, 1.0, 0.0)
    assert chat["average"] == pytest.approx(2 / 3)
    assert found["domains"]["safety-response"]["hard"] == 1.0
    assert found["overall"]["hard"] == pytest.approx((0 + 0 + 0 + 0.5) / 4)  # the two safety domains count as one
    assert found["overall"]["average"] == pytest.approx((3 * 2 / 3 + 5 / 6) / 4)
    assert "overall" not in report("RM-Bench", located[:3], by_length)
    with pytest.raises(UserError, match=r"r\[0\].*three answers on each side"):
        report("RM-Bench", [("r[0]", {**rows[0], "chosen": ["a", "b"]})], by_length)


def jb_row(a, b, label, source="mmlu-pro-law", **more):
    return {"pair_id": f"{a}-{b}", "original_id": "1", "source": source, "question": "q", "response_model": "gpt-4o",
            "response_A": a, "response_B": b, "label": label, **more}  # fmt: skip


def test_judge_bench_with_a_reward():
    rows = [jb_row("aaa", "b", "A>B"), jb_row("aaa", "b", "B>A"), jb_row("aa", "bb", "A>B", "livebench-math")]
    assert kind_of(rows[0]) == "JudgeBench"
    found = report("JudgeBench", [(f"j:{i}", r) for i, r in enumerate(rows)], by_length)
    assert found["categories"]["Knowledge"]["accuracy"] == 0.5
    assert found["categories"]["Math"]["accuracy"] == 0.0  # equal scores are no decision
    assert found["overall"]["accuracy"] == pytest.approx(1 / 3)
    with pytest.raises(UserError, match=r"j:1.*'label' is 'A'"):
        report("JudgeBench", [("j:1", jb_row("a", "b", "A"))], by_length)


def test_judge_bench_output_files(tmp_path):
    """+1 for a decision like the label, -1 for its opposite, second order swapped; right when the sum is above 0."""
    said = lambda *decisions: {"judgments": [{"decision": d} if d else None for d in decisions]}  # noqa: E731
    rows = [
        jb_row("a", "b", "A>B", **said("A>B", "B>A")),  # both orders for A: right
        jb_row("a", "b", "A>B", **said("A>B", "A>B")),  # always the first place: wrong
        jb_row("a", "b", "B>A", **said("B>A", "A=B")),  # one for B, one tie: right
        jb_row("a", "b", "B>A", "livecodebench", **said("A>B", None)),  # wrong, and one unread
    ]
    found = evaluate_file(lines(tmp_path / "out.jsonl", rows))
    assert found["kind"] == "JudgeBench judgments"
    assert found["overall"]["accuracy"] == 0.5
    assert found["categories"]["Knowledge"]["accuracy"] == pytest.approx(2 / 3)
    assert (found["unread"], found["consistency"]) == (0.25, 0.25)
    with pytest.raises(UserError, match=r"bad.jsonl:1.*unknown decision 'A'"):
        evaluate_file(lines(tmp_path / "bad.jsonl", [jb_row("a", "b", "A>B", **said("A", "B"))]))


def test_a_judge_against_labels(tmp_path):
    """A judge of length on JudgeBench's pairs: right where the right answer is longer, half where they tie."""
    rows = [jb_row("aaa", "b", "A>B"), jb_row("aa", "b", "B>A"), jb_row("aa", "bb", "A>B", "livebench-math")]
    groups = labelled(lines(tmp_path / "jb.jsonl", rows))
    assert [p.group.scores for p in groups] == [(1.0, 0.0), (0.0, 1.0), (1.0, 0.0)]
    found, verdicts = agreement(groups, RewardJudge(LENGTH, name="length"))
    assert [v.outcome for v in verdicts] == [1.0, 0.0, 0.5]
    assert (found["agreement"], found["strict"]) == (0.5, 1 / 3)
    assert found["categories"]["Math"] == {"agreement": 0.5, "ci95": [0.0, 1.0], "strict": 0.0, "n": 1}
    assert found["win_rate_longer"] == 1.0
    assert judge_bench_groups([("x", rows[0])])[0].prompt.meta["category"] == "Knowledge"
    with pytest.raises(UserError, match="nothing to compare with"):
        labelled(lines(tmp_path / "p.jsonl", [{"prompt": "q", "completion": "a"}]))
