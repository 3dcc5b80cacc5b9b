"""Results of evaluations and of judges as lines for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.display import spelled_out

if TYPE_CHECKING:
    from evenhand.judges import Judge

FEW_SEEDS = "with so few seeds or prompts none can be counted on to be seen"
"""In place of the least difference that such a study would find four times in five, where there is none."""


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """Win rates and contrasts of `evaluation.outcomes.compare`."""
    lines = arm_lines(found["arms"])
    for c in found["contrasts"]:
        unit, form, points = _unit(found["arms"][c["a"]])
        d, low, high, least = (unit * v for v in (c["difference"], *c["ci95"], c["minimum_detectable_difference"]))
        joint = ""
        if c["contrasts"] > 1:
            below, above = (unit * v for v in c["ci95_simultaneous"])
            joint = f"; of all {c['contrasts']} together {below:+{form}} to {above:+{form}}"
        seen = f"differences under {least:{form}}{points} cannot be seen" if math.isfinite(least) else FEW_SEEDS
        lines.append(
            f"{c['a']} - {c['b']}: {d:+{form}}{points} ({low:+{form}} to {high:+{form}}{joint}), Holm p {c['p_holm']:.3g}: "
            f"{c['verdict']}; {seen}"
        )
        if "equivalent" in c:
            shown = "" if c["equivalent"] else "not shown to be "
            lines[-1] += f"; {shown}equivalent within {unit * c['margin']:{form}}{points} (p {c['p_equivalence']:.3g})"
    return lines


def _unit(arm: Mapping[str, Any]) -> tuple[float, str, str]:
    """(factor, format, word): win rates are shown in points of a hundred, other values as they are."""
    return (100.0, ".1f", " points") if "win_rate" in arm else (1.0, ".4g", "")


def arm_lines(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each arm's win rate or mean with the main interval, and what it is at equal length."""
    width = max((len(a) for a in arms), default=0)
    return [line for arm, row in arms.items() for line in _arm_lines(arm, row, width)]


def _arm_lines(arm: str, row: Mapping[str, Any], width: int) -> list[str]:
    unit, form, _ = _unit(row)
    sign = "%" if "win_rate" in row else ""
    shown, low, high = (f"{unit * v:{form}}{sign}" for v in (row.get("win_rate", row.get("mean")), *row["ci95"]))
    even = equal_length_lines(row["length_controlled"]) if "length_controlled" in row else []
    head = f"{arm:<{width}}  {shown}  (95% interval {low} to {high}; n = {row['n']}, seeds = {row['k']})"
    return [head, *(f"{'':<{width}}  {line}" for line in even)]


def _meaning(form: str) -> str:
    from evenhand.stats.length import form_meaning

    return form_meaning(form)


def equal_length_lines(lc: Mapping[str, Any]) -> list[str]:
    """A length-controlled win rate with its interval, what the interval is over, how it was fitted, and every note."""
    if lc["win_rate"] is None or math.isnan(lc["win_rate"]):
        return [f"at equal length: {lc['note']} [{lc['form']}]"]
    low, high = lc["ci95"]
    shown = f"at equal length {lc['win_rate']:.1%} ({low:.1%} to {high:.1%} over {lc['scope']}) [{lc['form']}: "
    return [f"{shown}{_meaning(lc['form'])}]", *([f"  {lc['note']}"] if lc["note"] else [])]


_INTERVALS = {
    "ci95_prompts_only": "these checkpoints, new prompts", "ci95_bootstrap": "bootstrap over prompts",
    "ci95_bca": "bootstrap over prompts, BCa", "ci95_crossed_bootstrap": "bootstrap over seeds and prompts",
}  # fmt: skip


def rate_lines(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every interval of every arm."""
    lines, width = [], max((len(a) for a in arms), default=0)
    for arm, row in arms.items():
        lines += [*_arm_lines(arm, row, width), *_intervals(row, _unit(row)[0])]
        if len(row["per_seed"]) > 1:
            lines.append("  per seed: " + " ".join(f"{_unit(row)[0] * v:.4g}" for v in row["per_seed"]))
        if other := (row.get("length_controlled") or {}).get("alpaca_eval_form"):
            shown = "" if math.isnan(other["win_rate"]) else f"{other['win_rate']:.1%} "
            lines.append(f"  AlpacaEval's form {shown}[{other['form']}: {_meaning(other['form'])}]")
            lines += [f"    {other['note']}"] if other["note"] else []
        if fit := row.get("mixed_model"):
            low, high = fit["ci95"]
            why = "the interval above reaches as far" if fit["shown"] else "so few seeds: mostly its prior, and not shown above"
            lines.append(
                f"  binomial mixed model: {fit['win_rate']:.1%} ({low:.1%} to {high:.1%}), seeds differ by {fit['seed_sd']:.2g} "
                f"logits ({why})"
            )
        lines += [f"  {row['note']}"] if row["note"] else []
    return lines


def contrast_details(found: Mapping[str, Any]) -> list[str]:
    """The tests beside each contrast."""
    lines = []
    for c in found["contrasts"]:
        signs = c["signs"]
        lines.append(
            f"{c['a']} - {c['b']}: p {c['p']:.3g}, permutation p {c['p_permutation']:.3g}, sign test p {c['p_sign']:.3g} "
            f"({signs['positive']} for, {signs['negative']} against, {signs['zero']} equal)"
        )
        if m := c.get("mcnemar"):
            lines.append(f"  McNemar: {m['b']} and {m['c']} discordant, exact p {m['exact']:.3g}, mid-p {m['mid_p']:.3g}")
        lines += [*_intervals(c, _unit(found["arms"][c["a"]])[0]), *([f"  {c['note']}"] if c["note"] else [])]
    return lines


def _intervals(row: Mapping[str, Any], unit: float) -> list[str]:
    lines = [f"  {name}: {unit * row[k][0]:.4g} to {unit * row[k][1]:.4g}" for k, name in _INTERVALS.items() if k in row]
    if g := row.get("clustered"):
        low, high = (unit * v for v in g["ci95"])
        lines.append(f"  {g['clusters']} clusters: s.e. {unit * g['standard_error']:.4g}, {low:.4g} to {high:.4g}")
    return lines


def rating_lines(found: Mapping[str, Any]) -> list[str]:
    """Players by rating, with intervals over prompts and the ranks these allow."""
    width = max(len(str(p["name"])) for p in found["ratings"])
    zero = f"{found['anchor']} = 1000" if found["anchor"] else "mean 1000"
    lines = [f"{'player':<{width}}    Elo ({zero}), 95% interval      ranks  battles"]
    for p in found["ratings"]:
        low, high = p["elo_ci95"]
        lines.append(
            f"{p['name']:<{width}}  {p['elo']:7.0f}  ({low:.0f} to {high:.0f})  {p['rank'][0]} to {p['rank'][1]}  {p['battles']}"
        )
    if found.get("prompts") is None:
        lines.append("no prompts were named: every battle counts as a prompt of its own, and intervals may be too narrow")
    lines += [f"{k.replace('_', ' ')}: {found[k]:+.3g} logits" for k in ("position_effect", "length_effect") if k in found]
    if "davidson" in found:
        thetas = " ".join(f"{name} {v:+.3g}" for name, v in found["davidson"]["theta"].items())
        lines.append(f"with ties as an outcome (logits): {thetas}; log nu {found['davidson']['log_nu']:.3g}")
    return lines


def show(lines: Iterable[str], found: Mapping[str, Any], out: Path | None) -> None:
    """What was found, for a person; and whole, as JSON, in the file `out`."""
    for line in lines:
        print(spelled_out(line))
    if out is not None:
        print(f"written: {written(out, found)}")


def written(path: Path, value: Mapping[str, Any]) -> Path:
    """Writes a result as JSON, its folder made if need be."""
    from evenhand.results.files import write_record

    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, json.loads(json.dumps(value)))
    return path


def plain_lines(found: Mapping[str, Any], indent: str = "") -> list[str]:
    """Any nested result, one value a line."""
    lines = []
    for key, value in found.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *plain_lines(value, indent + "  ")]
        elif isinstance(value, float):
            lines.append(f"{indent}{key}: {value:.4g}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], float):
            lines.append(f"{indent}{key}: " + " ".join(f"{v:.4g}" for v in value))
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines


def leaderboard_table(lines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """AlpacaEval lines: raw and length-controlled win rates in per cent; with what a leaderboard states, where it is known."""
    width = max(len(m) for m in lines)
    out = [f"{'model':<{width}}  win rate    s.e.  at equal length (95% interval)      n  length"]
    for model, row in lines.items():
        low, high = row["lc_ci95"]
        out.append(
            f"{model:<{width}}  {row['win_rate']:8.2f}  {row['standard_error']:6.2f}  {row['length_controlled_winrate']:15.2f} "
            f"({low:.1f} to {high:.1f}){row['n_total']:9d}  {row['avg_length']:6d}"
        )
        if (style := row.get("style_controlled_winrate")) is not None:
            low, high = row["style_ci95"]
            out.append(f"{'':<{width}}  at equal style: {style:.2f} ({low:.1f} to {high:.1f})")
        elif row.get("style_note"):
            out.append(f"{'':<{width}}  at equal style: {row['style_note']}")
        if stated := row.get("stated"):
            known = ", ".join(f"{k} {v:.2f}" for k, v in stated.items())
            out.append(f"{'':<{width}}  stated by the leaderboard: {known}")
        if row.get("lc_note"):
            out.append(f"{'':<{width}}  {row['lc_note']}")
    form = next(iter(lines.values()))["lc_form"]
    gamed = "" if "gamed" in form else ", without the public leaderboard's gamed baselines"
    out.append(f"length control: {form} ({_meaning(form)}{gamed}); intervals over prompts")
    return out


def model_lines(board: Sequence[Mapping[str, Any]]) -> list[str]:
    """Many models against one baseline, in per cent, each rate with its own interval, and verdicts with that of all models."""
    scope = next((row["length_controlled"]["scope"] for row in board if row["length_controlled"]), "prompts")
    head = ("model", "win rate (95% interval)", "for all models", f"at equal length (over {scope})", "at equal style", "n")
    cells = [head, *(_model_cells(row) for row in board)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    verdicts = [f"against {board[0]['baseline']}", *(f"{row['verdict']} (p {row['p_holm']:.2g}, Holm)" for row in board)]
    out = []
    for n, (row, verdict) in enumerate(zip(cells, verdicts, strict=True)):
        name, *figures = (
            text.rjust(width) if i else text.ljust(width) for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        out.append("  ".join((name, *figures, verdict)))
        notes = {kind: (board[n - 1][f"{kind}_controlled"] or {}).get("note") for kind in ("length", "style") if n}
        out += [f"{'':<{widths[0]}}  at equal {kind}: {note}" for kind, note in notes.items() if note]
    return out


def _model_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    together = row["ci95_simultaneous"]
    even = (_rate(row[key]) for key in ("length_controlled", "style_controlled"))
    return row["model"], _rate(row), _ends(together) if together else "-", *even, str(row["n"])


def _rate(found: Mapping[str, Any] | None) -> str:
    rate = None if found is None else found["win_rate"]
    if found is None or rate is None or rate != rate:
        return "-"
    return f"{100 * rate:.1f} ({_ends(found['ci95'])})" if found.get("ci95") else f"{100 * rate:.1f}"


def _ends(pair: Sequence[float]) -> str:
    return f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f}"


def reward_board_lines(board: Sequence[Mapping[str, Any]]) -> list[str]:
    """Many reward models on one benchmark, in per cent."""
    width = max(len(row["model"]) for row in board)
    out = [f"{'reward model':<{width}}  {board[0]['benchmark']} (95% interval)"]
    for row in board:
        shown = "-" if row["score"] is None else f"{100 * row['score']:.1f}"
        ends = "" if row["ci95"] is None else f" ({_ends(row['ci95'])})"
        sections = "  ".join(f"{name} {100 * share:.1f}" for name, share in row.get("sections", {}).items())
        out.append(f"{row['model']:<{width}}  {shown}{ends}  {sections}".rstrip())
    return out


def best_of_n_lines(curves: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    """Expected gold score of each proxy's favourite of n."""
    lines = []
    for name, points in curves.items():
        lines.append(f"best of n by {name} ({points[0]['prompts']} prompts, {points[0]['left_out']} left out):")
        for p in points:
            low, high = p["ci95"]
            lines.append(
                f"  n = {p['n']:<3} gold {p['gold']:.4f} ({low:.4f} to {high:.4f})   KL at most {p['kl_bound']:.2f} nats"
            )
    return lines


def side_lines(found: Mapping[str, Any]) -> list[str]:
    """Two sides compared: who wins by how much, and how the judge behaved."""
    low, high = found["ci95"]
    lines = [
        f"{found['a']} wins {found['win_rate']:.1%} against {found['b']} (95% interval {low:.1%} to {high:.1%}, n = {found['n']})"
    ]
    if controlled := found.get("length_controlled"):
        lines += equal_length_lines(controlled)
    return [*lines, *behaviour_lines(found)]


def label_lines(found: Mapping[str, Any]) -> list[str]:
    """How far the judge agrees with labels, in all and by category, and how it behaved."""
    low, high = found["ci95"]
    lines = [f"agrees with {found['agreement']:.1%} of {found['n']} labels (95% interval {low:.1%} to {high:.1%})"]
    lines += [f"  {name}: {row['agreement']:.1%} of {row['n']}" for name, row in found.get("categories", {}).items()]
    for name, share in found.get("sections", {}).items():
        low, high = found["sections_ci95"][name]
        lines.append(f"  RewardBench {name}: {share:.1%} ({low:.1%} to {high:.1%})")
    return [*lines, *people_lines(found), *behaviour_lines(found)]


UNUSABLE = 0.2
"""The share of unusable verdicts, a person's missing labels among them, from which on they make the figures."""


def behaviour_lines(found: Mapping[str, Any]) -> list[str]:
    """Ties, contradictions, places, the self-test, and what it cost."""
    one_order = "judge: each pair was asked in one order: position bias cannot be measured on these verdicts"
    lines = [*([one_order] if found.get("one_order") else []), shares_line(found), *_votes(found)]
    if (found.get("invalid") or 0) > UNUSABLE:
        lines.append(
            "judge: a verdict that is not there counts one half: these figures lean to 50%, and their intervals are too narrow"
        )
    if test := found.get("self_test"):
        if test["passed"] and "members" in test:
            lines.append("self-test passed by every judge")
        elif test["passed"]:
            lines.append(
                f"self-test passed: identical answers {test['identical']:.2f}, a ruined answer loses {test['planted']:.1%}"
            )
        lines += [f"self-test: {test['note']}"] if test.get("note") else []
    if found.get("cost_usd"):  # a model on this machine costs no dollars, and its seconds stand below
        lines.append(f"cost of these judgements: ${found['cost_usd']:.4f}")
    return lines


def shares_line(found: Mapping[str, Any]) -> str:
    """How a judge of pairs behaved."""
    shares = {"ties": "ties", "invalid": "unusable", "consistency": "same verdict in both orders", "p_first": "prefers the first"}
    return "judge: " + ", ".join(f"{text} {found[key]:.1%}" for key, text in shares.items() if found.get(key) is not None)


def people_lines(found: Mapping[str, Any]) -> list[str]:
    """How far the judge agrees with those who labelled, beside how far they agree among themselves."""
    if "annotators" not in found:
        return []
    told = found["annotators"]
    lines = [
        f"  {row['a']} and {row['b']}: Cohen's kappa {coefficient(row)}"
        for row in told["with_judge"]["cohen"]
        if "judge" in (row["a"], row["b"])
    ]
    if told["people"] is not None:
        with_judge, people = told["with_judge"]["alpha"], told["people"]["alpha"]
        lines += [f"  Krippendorff's alpha of the annotators {coefficient(people)}, with the judge {coefficient(with_judge)}"]
    if "label_ties" in found:
        lines.append(f"  {found['label_ties']} pairs whose labels tie count in these coefficients alone")
    return lines


def agreement_lines(found: Mapping[str, Any]) -> list[str]:
    """Coefficients of agreement between raters, and what their labels were taken for."""
    how = {"nominal": "categories without an order", "ordinal": "in this order", "interval": "numbers with distances"}
    lines = [f"{found['items']} items, {len(found['raters'])} raters; labels {', '.join(found['labels'])}: {how[found['level']]}"]
    lines += [f"  {name}: {row['n']} rated" for name, row in found["raters"].items() if row["n"] < found["items"]]
    lines.append(f"Krippendorff's alpha {coefficient(found['alpha'])}, n = {found['alpha']['n']}")
    if len(found["raters"]) > 2:
        lines.append(f"Fleiss' kappa {coefficient(found['fleiss'])}, n = {found['fleiss']['n']} that all rated")
    lines += [f"{row['a']} and {row['b']}: Cohen's kappa {coefficient(row)}, n = {row['n']}" for row in found["cohen"]]
    return lines


def coefficient(found: Mapping[str, Any]) -> str:
    """A coefficient of agreement with its interval."""
    if found["value"] is None:
        return "not defined"
    ends = "" if found["ci95"] is None else f" ({found['ci95'][0]:.2f} to {found['ci95'][1]:.2f})"
    return f"{found['value']:.2f}{ends}"


def _votes(found: Mapping[str, Any]) -> list[str]:
    """What several judges, or one that was asked repeatedly, agree on."""
    if "repeats" in found:
        shares = f"sd {found['repeat_sd']:.2f} on one pair, {found['repeat_share']:.0%} of the variance over prompts"
        return [f"judge: asked {found['repeats']} times; it differs from itself by {shares}"]
    if "jury" not in found:
        return []
    jury = found["jury"]
    alpha, fleiss = coefficient(jury["alpha"]), coefficient(jury["fleiss"])
    lines = [f"jury: Krippendorff's alpha {alpha}, Fleiss' kappa {fleiss}, n = {jury['alpha']['n']}"]
    lines += [f"  {name}: {row['win_rate']:.1%}" for name, row in jury["members"].items() if row["win_rate"] is not None]
    return [*lines, *(f"  {row['a']} and {row['b']}: Cohen's kappa {coefficient(row)}" for row in jury["cohen"])]


def spent(judge: Judge) -> dict[str, Any]:
    """What the language models among the judges took, by their names in a jury; nothing for programs."""
    from evenhand.judges.jury import jurors

    found = {name: one.chat.spent() for name, one in jurors(judge).items() if hasattr(one, "chat")}
    return {"spent": found.get("", found)} if found else {}


def call_lines(judge: Judge) -> list[str]:
    """The same in words."""
    if not (told := spent(judge).get("spent")):
        return []
    rows = {"": told} if "asked" in told else told
    return [(f"{name}: " if name else "") + _call(row) for name, row in rows.items()]


def _call(row: Mapping[str, Any]) -> str:
    line = f"{row['asked']} asked, {row['known']} known already"
    if row["prompt_tokens"] is not None:
        line += f"; {row['prompt_tokens']} tokens read, {row['completion_tokens']} written"
    if row.get("seconds") is not None:
        line += f"; {row['seconds']:.1f} seconds on {row['device']}"
    return line
