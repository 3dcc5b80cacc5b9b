"""`evenhand stats`: the command's numbers against counts by hand, textbook values and the formulas written out."""

from __future__ import annotations

import json
import math
import sys

import pytest

import evenhand.cli


@pytest.fixture
def stats(capsys, monkeypatch, tmp_path):
    """Calls `evenhand stats ...`; gives (exit code, lines, what was written with --out)."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(command, *arguments):
        out = tmp_path / "out.json"
        options = ("--out", out) if command != "holm" else ()
        monkeypatch.setattr(sys, "argv", ["evenhand", "stats", command, *map(str, arguments), *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            evenhand.cli.main()
        said = capsys.readouterr()
        found = json.loads(out.read_text()) if out.is_file() else {}
        return ended.value.code or 0, said.out + said.err, found

    return call


def table(path, header, rows):
    path.write_text("\n".join([header, *(",".join(map(str, r)) for r in rows)]) + "\n")
    return path


def test_rate_gives_wilson_and_clustered_errors(stats, tmp_path):
    rows = [("x", i, int(i < 8), f"topic{i // 5}") for i in range(10)]  # 5 of 5 in one topic, 3 of 5 in the other
    code, said, found = stats("rate", table(tmp_path / "o.csv", "arm,prompt,outcome,topic", rows), "--cluster", "topic")
    assert code == 0, said
    arm = found["arms"]["x"]
    assert arm["win_rate"] == 0.8
    assert arm["ci95"] == pytest.approx([0.4902, 0.9433], abs=1e-4)  # Wilson's, 8 of 10
    # sums of deviations from 0.8 by topic: 5 - 4 = 1 and 3 - 4 = -1; SE^2 = 2/1 * (1 + 1) / 100
    assert arm["clustered"]["standard_error"] == pytest.approx(0.2)
    assert arm["clustered"]["clusters"] == 2
    low, high = arm["clustered"]["ci95"]
    assert (high - low) / 2 == pytest.approx(0.2 * 12.7062, rel=1e-4)  # t with one degree of freedom
    assert set(arm) >= {"ci95_bootstrap", "ci95_bca"}
    assert "2 clusters: s.e. 20" in said
    code, said, _ = stats("rate", tmp_path / "o.csv", "--cluster", "subject")
    assert (code, "no column 'subject'" in said) == (2, True)


def test_two_way_interval_widens_with_the_seeds(stats, tmp_path):
    rows = [("x", s, p, int(p < (12, 10, 2)[s])) for s in range(3) for p in range(20)]
    code, said, found = stats("rate", table(tmp_path / "o.csv", "arm,seed,prompt,outcome", rows))
    assert code == 0, said
    arm = found["arms"]["x"]
    assert arm["per_seed"] == [0.6, 0.5, 0.1]
    width = lambda ci: ci[1] - ci[0]  # noqa: E731
    assert width(arm["ci95"]) > 1.5 * width(arm["ci95_prompts_only"])
    assert "ci95_crossed_bootstrap" in arm


def test_compare_gives_every_test(stats, tmp_path):
    """x beats y on 9 prompts, loses on 1, agrees on 10: binomial tails by hand."""
    right = {"x": [1] * 9 + [0] + [1] * 10, "y": [0] * 9 + [1] + [1] * 10, "z": [0] * 20}
    rows = [(arm, p, y, p // 2) for arm, ys in right.items() for p, y in enumerate(ys)]
    path = table(tmp_path / "o.csv", "model,prompt_id,correct,cluster", rows)
    code, said, found = stats("compare", path, "--contrast", "x:y", "--margin", 0.9)
    assert code == 0, said
    (c,) = found["contrasts"]
    exact = 2 * (1 + 10) / 2**10
    assert (c["a"], c["b"], c["difference"]) == ("x", "y", 0.4)
    assert c["p_sign"] == c["mcnemar"]["exact"] == pytest.approx(exact)
    assert c["mcnemar"]["mid_p"] == pytest.approx(exact - 10 / 2**10)
    assert c["mcnemar"]["large"] == pytest.approx(math.erfc(math.sqrt(6.4 / 2)))  # (9 - 1)^2 / 10, chi^2 with one df
    assert c["p_permutation"] == pytest.approx(exact, abs=0.006)  # all other differences are 0: the same flips
    assert c["signs"] == {"positive": 9, "negative": 1, "zero": 10}
    assert c["p_holm"] == c["p"]
    assert c["equivalent"] is True
    assert c["p_equivalence"] < 0.05
    assert c["clustered"]["clusters"] == 10
    assert "sign test p 0.0215 (9 for, 1 against, 10 equal)" in said


def test_a_verdict_of_two_seeds_is_not_taken_back_by_its_own_line(stats, tmp_path):
    """Both seeds win 60 of 80 prompts: better; that another such study would see it cannot be promised with two seeds."""
    wins = (lambda p: int(p < 60), lambda p: int(p >= 20))
    rows = [(arm, s, p, wins[s](p) if arm == "x" else 0.5) for arm in ("x", "y") for s in range(2) for p in range(80)]
    _, said, found = stats("compare", table(tmp_path / "o.csv", "arm,seed,prompt,outcome", rows), "--against", "y")
    (contrast,) = found["contrasts"]
    assert math.isinf(contrast["minimum_detectable_difference"] or math.inf)
    assert f": {contrast['verdict']}; with so few seeds or prompts none can be counted on to be seen" in said
    assert contrast["verdict"] == "better"


def test_holm_covers_exactly_the_declared_contrasts(stats, tmp_path):
    rows = [(arm, p, int(p % 10 < k)) for arm, k in (("a", 6), ("b", 5), ("c", 2)) for p in range(30)]
    path = table(tmp_path / "o.csv", "arm,prompt,outcome", rows)
    every = stats("compare", path)[2]["contrasts"]
    assert [(c["a"], c["b"]) for c in every] == [("a", "b"), ("a", "c"), ("b", "c")]
    raw = sorted(c["p"] for c in every)
    assert min(c["p_holm"] for c in every) == pytest.approx(min(1.0, 3 * raw[0]))
    two = stats("compare", path, "--against", "c")[2]["contrasts"]
    assert [(c["a"], c["b"]) for c in two] == [("a", "c"), ("b", "c")]
    assert min(c["p_holm"] for c in two) == pytest.approx(min(1.0, 2 * min(c["p"] for c in two)))
    for arguments, words in ((("--contrast", "a-b"), "is not A:B"), (("--contrast", "a:d"), "no arm 'd'")):
        code, said, _ = stats("compare", path, *arguments)
        assert (code, words in said) == (2, True), said


def test_seeds_that_share_nothing(stats, tmp_path):
    rows = [("x", s, p, int((p + s) % 3 > 0)) for s in (0, 1) for p in range(30)]
    rows += [("y", s, p, int((p + s) % 3 == 0)) for s in (7, 8, 9) for p in range(30)]
    path = table(tmp_path / "o.csv", "arm,seed,prompt,outcome", rows)
    code, said, _ = stats("compare", path)
    assert (code, "different seeds" in said, "--unmatched" in said) == (2, True, True)
    code, said, found = stats("compare", path, "--unmatched")
    assert code == 0, said
    assert found["contrasts"][0]["difference"] == pytest.approx(1 / 3)


def test_rewards_are_compared_as_they_are(stats, tmp_path):
    rows = [(arm, p, 0.5, p + add) for arm, add in (("x", 3.0), ("y", 1.5)) for p in range(12)]
    path = table(tmp_path / "o.csv", "arm,prompt,outcome,reward", rows)
    _, said, found = stats("compare", path, "--value", "reward")
    assert found["contrasts"][0]["difference"] == 1.5
    assert found["arms"]["x"]["mean"] == 8.5
    assert "x - y: +1.5 (" in said
    assert " points (" not in said


def test_samples_of_one_prompt_are_averaged_first(stats, tmp_path):
    rows = [("x", p, s, int(s < p)) for p in range(4) for s in range(3)]  # prompt means 0, 1/3, 2/3, 1
    found = stats("rate", table(tmp_path / "o.csv", "arm,prompt,sample,outcome", rows))[2]
    assert (found["arms"]["x"]["win_rate"], found["arms"]["x"]["n"]) == (0.5, 4)


def test_length_control_comes_in_both_forms(stats, tmp_path):
    """Outcomes that follow length alone: at equal length nobody wins more."""
    rows = []
    for p in range(120):
        gap = (p % 12) * 20 - 80  # longer on average
        wins = int((p * 7919) % 100 < 100 / (1 + math.exp(-gap / 60)))
        rows.append(("x", p, wins, 300 + gap, 300, p % 5 - 2))
    head = "arm,prompt,outcome,length,baseline_length"
    row = stats("rate", table(tmp_path / "o.csv", head, [r[:-1] for r in rows]))[2]["arms"]["x"]
    controlled = row["length_controlled"]
    assert row["win_rate"] > 0.57
    assert abs(controlled["win_rate"] - 0.5) < 0.06
    assert abs(controlled["alpaca_eval_form"]["win_rate"] - 0.5) < 0.08
    assert (controlled["form"], controlled["alpaca_eval_form"]["form"]) == ("lc_shrunk", "lc_minimal_l1")
    hard = stats("rate", table(tmp_path / "h.csv", f"{head},difficulty", rows))[2]["arms"]["x"]["length_controlled"]
    assert (hard["form"], hard["alpaca_eval_form"]["form"]) == ("lc_noreg", "lc_noreg_l1")


def test_ratings_anchor_ties_and_position(stats, tmp_path):
    """Two players, 3 wins of 4, first shown in each place as often: Elo is 400 log10(3) apart."""
    rows = [("x", "y", y, p, position) for p in range(25) for y, position in ((1, 1), (1, -1), (1, 1), (0, -1))]
    path = table(tmp_path / "b.csv", "first,second,outcome,prompt,position", rows)
    code, said, found = stats("ratings", path, "--anchor", "y")
    assert code == 0, said
    elo = {p["name"]: p["elo"] for p in found["ratings"]}
    assert elo["y"] == 1000
    assert found["position_effect"] > 0
    plain = table(tmp_path / "p.csv", "first,second,outcome,prompt", [r[:4] for r in rows])
    elo = {p["name"]: p["elo"] for p in stats("ratings", plain, "--anchor", "y")[2]["ratings"]}
    assert elo["x"] == pytest.approx(1000 + 400 * math.log10(3), abs=0.1)
    drawn = table(tmp_path / "d.csv", "first,second,outcome,prompt", [("x", "y", (1, 0.5, 0.5, 0)[i % 4], i) for i in range(40)])
    davidson = stats("ratings", drawn, "--ties")[2]["davidson"]
    assert math.exp(davidson["log_nu"]) / 2 == pytest.approx(1.0, abs=1e-3)  # as many ties as decisions among equals
    code, said, _ = stats("ratings", table(tmp_path / "o.csv", "arm,prompt,outcome", [("x", 1, 1)]))
    assert (code, "does not hold battles" in said) == (2, True)


def test_ratings_at_equal_length_and_without_prompts(stats, tmp_path):
    rows = [("x", "y", int(a > b), a, b) for a, b in ((10, 5), (12, 6), (5, 9), (7, 20), (30, 8), (6, 7)) for _ in range(5)]
    code, said, found = stats("ratings", table(tmp_path / "b.csv", "first,second,outcome,first_length,second_length", rows))
    assert code == 0, said
    assert found["length_effect"] > 1
    assert "no prompts were named" in said
    half = table(tmp_path / "h.csv", "first,second,outcome,prompt", [("x", "y", 1, 1), ("x", "y", 1, "")])
    assert "h.csv:3: 'prompt' is missing" in stats("ratings", half)[1]


def test_plan_without_a_file(stats):
    code, said, found = stats("plan", "--difference", 0.05, "--sd", 0.6, "--seeds", 4, "--sd-seed", 0.02, "--prompts", 800)
    assert code == 0, said
    z = 1.959963985 + 0.841621234  # the normal approximation, which four seeds do not reach
    assert found["resolves"] > z * math.sqrt(0.0004 / 4 + 0.36 / (4 * 800))
    assert 0.0 < found["power_for_difference"] < 1.0
    assert (found["power_for_difference"] < 0.8) == (found["resolves"] > 0.05) == (found["prompts_needed"] > 800)
    corrected = stats("plan", "--difference", 0.05, "--sd", 0.6, "--seeds", 4, "--sd-seed", 0.02, "--contrasts", 5)[2]
    assert corrected["power_for_difference"] < found["power_for_difference"]
    code, said, found = stats("plan", "--difference", 0.01, "--sd-seed", 0.02)
    assert found["prompts_needed"] is None
    assert "no number of prompts resolves 0.01 with 3 seeds" in said
    assert "it is a part of --sd" in stats("plan", "--sd", 0.3, "--sd-prompt", 0.5)[1]


def test_plan_from_a_smaller_study(stats, tmp_path):
    """Seed effects of -0.1 and +0.1 on the difference, no noise: both spreads are known exactly."""
    rows = [("x", s, p, 0.5 + 0.1 * (2 * s - 1) + 0.2 * (p % 2)) for s in (0, 1) for p in range(10)]
    rows += [("y", s, p, 0.3) for s in (0, 1) for p in range(10)]
    path = table(tmp_path / "o.csv", "arm,seed,prompt,outcome", rows)
    code, said, found = stats("plan", "--pilot", path)
    assert code == 0, said
    assert found["sd_seed"] == pytest.approx(math.sqrt(0.02))
    assert found["sd_prompt"] == pytest.approx(0.1 * math.sqrt(10 / 9))
    assert found["sd_noise"] == pytest.approx(0.0, abs=1e-9)
    table(path, "arm,prompt,outcome", [(a, p, 1) for a in "xyz" for p in range(3)])
    assert "--contrast A:B" in stats("plan", "--pilot", path)[1]


def test_holm_by_itself(stats):
    assert stats("holm", 0.01, 0.04, 0.03)[1].split() == ["0.01", "->", "0.03", "0.04", "->", "0.06", "0.03", "->", "0.06"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arm,prompt,outcome\nx,1,1\nx,2,won\n", "o.csv:3: 'outcome' is 'won', not a number"),
        ("arm,prompt,outcome\nx,1,1.5\n", "o.csv:2: 'outcome' is 1.5, not in [0, 1]"),
        ("arm,prompt,outcome\nx,1,nan\n", "o.csv:2: 'outcome' is 'nan'"),
        ("arm,prompt,outcome\nx,1,1\n\nx,1,0\n", "o.csv:4: prompt 1 of arm 'x' occurs twice (first at o.csv:2)"),
        ("arm,prompt,outcome\nx,1\n", "o.csv:2: has not as many fields as the header"),
        ("arm,prompt,outcome\nx,1,1,0\n", "o.csv:2: has not as many fields as the header"),
        ("arm,outcome\nx,1\n", "o.csv:2: 'prompt' is missing"),
        ("arm,prompt,outcome,cluster\nx,1,1,a\nx,2,1,\n", "1 prompts have no 'cluster' (first: 2)"),
        ("arm,prompt,outcome,length\nx,1,1,long\n", "o.csv:2: 'length' is 'long', not a number"),
        ("model,policy,prompt,outcome\nx,y,1,1\n", "two columns could be the 'arm' ('policy' is one)"),
        ("arm,prompt,outcome\n", "holds no rows"),
        ("arm,prompt,outcome\nx,1,1\ny,2,1\n", "'y' and 'x' have different prompts (e.g. prompt 1)"),
        ('arm,prompt,outcome\nx,"1,1\n', "cannot be read as a table"),
    ],
)
def test_malformed_files_are_named_by_line_and_field(stats, tmp_path, text, message):
    (tmp_path / "o.csv").write_text(text)
    code, said, _ = stats("compare", tmp_path / "o.csv")
    assert code == 2
    assert message in said


def test_lines_of_jsonl_are_counted_with_the_empty_ones(stats, tmp_path):
    (tmp_path / "o.jsonl").write_text('{"arm": "x", "prompt": 1, "outcome": 1}\n\n{"arm": "x", "prompt": 2, "outcome": "a"}\n')
    assert "o.jsonl:3: 'outcome' is 'a', not a number" in stats("rate", tmp_path / "o.jsonl")[1]
    (tmp_path / "o.json").write_text('[{"arm": "x", "prompt": 1}]')
    assert "o.json[0]: 'outcome' is missing" in stats("rate", tmp_path / "o.json")[1]


def test_style_of_annotations_and_of_arena_hard(stats, tmp_path):
    """Wins come with bold text only: dressed alike, the model wins half."""
    rows = []
    for i in range(40):
        bold = i % 2 == 0
        text, base = ("**yes** it is so", "yes it is so...") if bold else ("yes it is so...", "**yes** it is so")
        rows.append(
            {"instruction": f"q{i}", "output_1": base, "output_2": text, "generator_1": "b", "generator_2": "m",
             "annotator": "j", "preference": 2.0 if bold and i % 8 else 1.0}
        )  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows))
    code, said, found = stats("style", tmp_path / "a.json")
    assert code == 0, said
    model = found["models"]["m"]
    assert model["win_rate"] == pytest.approx(15 / 40)
    assert model["at_equal_style"]["effects"]["bold"] > 1
    assert model["style"]["bold"] == 0.5
    assert set(model["at_equal_length"]["effects"]) <= {"length"}
    games = [{"score": "B>A"}, {"score": "A>>B"}]
    (tmp_path / "j.jsonl").write_text(
        "".join(json.dumps({"uid": f"u{i}", "model": "m", "games": games}) + "\n" for i in range(3))
    )
    code, said, _ = stats("style", tmp_path / "j.jsonl")
    assert (code, "--answers FILE --baseline FILE" in said) == (2, True)


def test_agreement_of_annotators(stats, tmp_path):
    rows = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15  # Cohen (1960): kappa .4
    code, said, found = stats("agreement", table(tmp_path / "labels.csv", "ann,bob", rows))
    assert code == 0, said
    assert "50 items, 2 raters; labels no, yes: categories without an order" in said
    assert "ann and bob: Cohen's kappa 0.40 (" in said
    assert found["cohen"][0]["value"] == pytest.approx(0.4)
    code, said, _ = stats("agreement", table(tmp_path / "one.csv", "item,ann", [(1, 1)]))
    assert (code, "fewer than two raters" in said) == (2, True)
