"""The card: what the Hub can read, what a person reads, nothing more than the run holds, and nobody's text as markup."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from evenhand.export import card, facts
from evenhand.export.about import About
from evenhand.export.check import Checked
from evenhand.export.subject import Subject, find_arm, find_reward_model
from evenhand.report.run_data import RunData
from evenhand.report.summary import summarise
from evenhand.results.files import read
from tests.report.fake_run import write_run as write_fake

RECORD: dict[str, Any] = {
    "dtype": "float32", "template": "0123456789abcdef", "hashes": {"effective": "e" * 32}, "key": "a" * 32, "data_key": None,
    "files": {"model.safetensors": "f" * 64},
}  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)> [me](javascript:x) `a` | **b**\n# owned"


def written(subject: Subject, **more: Any) -> str:
    given = {"record": RECORD, "checked": Checked(lines=("compared",), numbers={}), "stops": ("<|end|>", "<eos>"), **more}
    return card.text(About(subject=subject, **given))


def changed(run: Path, file: str, **values: Any) -> None:
    path = run / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


# what the Hub reads -----------------------------------------------------------------------------------------------------


def test_the_block_for_the_hub_holds_what_was_measured_and_nothing_else(tiny):
    data = ModelCard(written(find_arm(tiny, "dpo", 1))).data
    assert data.base_model == "org/base"
    assert data.datasets == ["org/pairs"]
    assert data.license is None
    assert (data.library_name, data.pipeline_tag, data.tags) == ("transformers", "text-generation", ["evenhand", "dpo"])
    found = [(r.metric_type, r.metric_value) for r in data.eval_results]
    assert found == [("win_rate", 0.32), ("win_rate_mean", 0.31), ("judge_score", 0.41)]
    assert "95% interval 22.0 to 41.0%; worse" in data.eval_results[1].metric_name
    assert {(r.dataset_name, r.verified) for r in data.eval_results} == {("6 held-out prompts of the run tiny", None)}


def test_a_licence_is_a_persons_to_give(tiny):
    subject = find_arm(tiny, "dpo", 1)
    assert "license" not in yaml.safe_load(written(subject).split("---")[1])
    assert "No licence is stated here" in written(subject)
    given = written(subject, license="apache-2.0")
    assert ModelCard(given).data.license == "apache-2.0"
    assert "Licence: apache-2.0, as given by whoever exported it" in given


def test_the_baseline_has_no_win_rate_to_show(tiny):
    text = written(find_arm(tiny, "sft"))
    assert ModelCard(text).data.eval_results is None
    assert "**The baseline.**" in text


def test_a_reward_model_shows_its_accuracy(tiny):
    text = written(find_reward_model(tiny, "rm"))
    data = ModelCard(text).data
    assert data.pipeline_tag == "text-classification"
    assert [(r.metric_type, r.metric_value) for r in data.eval_results] == [("accuracy", 0.75)]
    assert "leans on length" in section(text, "Known against it")
    assert "AutoModelForSequenceClassification" in section(text, "Use")
    assert "train.steps" not in text.split("<details>")[0], "what arms do not share is no fault of a reward model"


def test_a_local_base_and_local_data_are_not_named_as_if_they_were_public(own_run):
    meta = own_run / "store" / ("b0" * 16)
    changed(meta, "meta.json", spec={"model": {"path": "models/mine", "fingerprint": "0123"}})
    data = own_run / "store" / ("d0" * 16)
    changed(data, "meta.json", spec={"source": {"preferences": "my/pairs"}, "fingerprints": {"preferences": ["77"]}})
    changed(own_run, "experiment.json", effective={"model": {"path": "/home/me/models/mine"}, "lengths": {}})
    changed(own_run, "results.json", judge={"name": "/home/me/models/judge-7b", "kind": "local"})
    text = written(find_arm(own_run, "dpo", 1))
    assert "base_model" not in text
    assert "datasets" not in text
    assert "/home/me" not in text
    assert "a local folder called mine" in text
    assert "judged by judge-7b" in text


def test_recipes_and_mixtures_name_their_sets(own_run):
    data = own_run / "store" / ("d0" * 16)
    local = ({"path": "/home/me/x.jsonl"}, {"recipe": "shp", "path": "y.jsonl"})
    mixed = {"mix": [{"recipe": "hh_rlhf"}, *local, {"name": "org/more"}]}
    changed(data, "meta.json", spec={"source": {"preferences": mixed, "prompts": "org/prompts"}, "fingerprints": {}})
    found = ModelCard(written(find_arm(own_run, "dpo", 1))).data
    assert found.datasets == ["Anthropic/hh-rlhf", "org/more", "org/prompts"]


def test_without_the_store_nothing_is_guessed(own_run):
    shutil.rmtree(own_run / "store")
    text = written(find_arm(own_run, "dpo", 1))
    assert "base_model" not in text
    assert "Not recorded with the run." in section(text, "Data")


# what a person reads ----------------------------------------------------------------------------------------------------


def test_an_arm_that_was_judged_worse_says_so_first(tiny):
    text = written(find_arm(tiny, "dpo", 1))
    first = text.split("# tiny: dpo, seed 1\n\n")[1].splitlines()[0]
    assert first.startswith("**Judged worse than sft**: win rate 31.0% against sft (95% interval 22.0 to 41.0%;")
    assert "This model is seed 1, whose own win rate is 32.0%" in first
    assert "better" not in first
    assert "| **dpo** | 31.0% | 22.0 to 41.0% | 30.0%, 32.0% | – | 9.5 | 1.5 | worse |" in text
    assert "| sft | −19.0 | −28.0 to −9.0 | worse |" in text
    assert "Over-optimisation: it has more training reward than sft (2.000 against −1.000)" in section(text, "Known against it")


def test_inconclusive_is_said_with_what_could_have_been_seen(tiny):
    first = written(find_arm(tiny, "kept", 0)).split("# tiny: kept, seed 0\n\n")[1].splitlines()[0]
    assert first.startswith("**Inconclusive**: it cannot be told apart from sft.")
    assert "smaller than about 11.0 points" in first


def test_seeds_that_disagree_make_no_claim(own_run):
    results = json.loads((own_run / "results.json").read_text())
    results["arms"]["dpo"]["per_seed"], results["seeds"] = [0.1, 0.6, 0.7], [0, 1, 2]
    (own_run / "results.json").write_text(json.dumps(results))
    first = written(find_arm(own_run, "dpo", 1)).split("# tiny: dpo, seed 1\n\n")[1].splitlines()[0]
    assert first.startswith("**No claim**")


def test_method_budget_and_use(tiny):
    text = written(find_arm(tiny, "dpo", 1))
    method = section(text, "Method")
    assert "Rafailov et al. 2023" in method
    assert "- **objective**: `nls(beta D)`" in method
    assert "beta: 0.25" in method
    assert "| Tokens trained on | 1.23 k |" in section(text, "Budget")
    use = section(text, "Use")
    assert "max_new_tokens=12, do_sample=True, temperature=0.8, top_p=0.9, top_k=0" in use
    assert "`<|end|>`, `<eos>`" in use
    assert "evenhand export run --arm dpo --seed 1 --out model" in section(text, "Make it again")
    assert f"`{'f' * 64}`" in text


def test_a_template_that_asks_for_the_date_was_told_one(own_run):
    use = section(written(find_arm(own_run, "dpo", 1)), "Use")
    assert "date" not in use
    path = own_run / "arms" / "dpo" / "seed-1" / "model" / "chat_template.jinja"
    path.write_text("{{ strftime_now('%d %b %Y') }}" + path.read_text())
    use = section(written(find_arm(own_run, "dpo", 1)), "Use")
    assert "In the run it was always told 26 July 2024" in use


def test_a_run_with_everything_in_it(tmp_path):
    """Failed cells, selection, frontiers, probes: the fake run of the report, whose files say nothing of how arms were made."""
    run = write_fake(tmp_path / "run")
    (run / "arms" / "orpo" / "seed-0" / "model").mkdir()
    text = written(find_arm(run, "orpo", 0))
    against = section(text, "Known against it")
    assert "arms/orpo/seed-2 failed: UserError: loss is not finite at step 37\n" in against
    assert "needs arms/orpo/seed-2" not in against, "what waited for it did not fail by itself"
    assert "orpo has no verdict under seed 2" in against
    assert "two seeds: the interval is wide" in against
    assert "The run does not say how it was trained." in text
    assert ModelCard(text).data.model_name == "stories, made happier: orpo, seed 0"


def test_what_was_said_while_it_trained_is_said_again_without_this_machine(own_run):
    results = json.loads((own_run / "results.json").read_text())
    said = {
        "rule": "kl",
        "limit": 50.0,
        "measures": "KL",
        "means": "it has left the start",
        "normal": "",
        "fix": "",
        "sentence": "",
    }
    results["arms"]["dpo"]["warnings"] = [{**said, "seeds": {"1": {"step": 3, "value": 61.5}}}]
    results["arms"]["dpo"]["stopped"] = {"1": {"step": 3, "of": 9, "sentence": "KL is 61.5 (limit 60)"}}
    results["failed"] = [{"node": "frontier/dpo/seed-0", "error": "nan; why: x; fix: see /home/me/run/a.log"}]
    (own_run / "results.json").write_text(json.dumps(results))
    against = section(written(find_arm(own_run, "dpo", 1)), "Known against it")
    assert "While it trained, seed 1 from step 3 (61.5): KL passed 50; it has left the start" in against
    assert "seed 1: stopped at step 3 of 9 because KL is 61.5 (limit 60)" in against
    assert "- frontier/dpo/seed-0 failed: nan\n" in against
    assert "While it trained" not in written(find_arm(own_run, "kept", 1))


def test_a_score_that_fell_while_reward_rose_is_told():
    points = [{"step": s, "gold": g, "reward": r, "seed": 0} for s, g, r in ((0, 0.3, 0.1), (10, 0.6, 0.5), (20, 0.4, 0.9))]
    (warning,) = _overoptimised(points)
    assert "highest at step 10 (0.600) and 0.400 at the end" in warning
    assert _overoptimised([*points[:2], {"step": 20, "gold": 0.7, "reward": 0.9}]) == []


def _overoptimised(points: list[dict[str, Any]]) -> list[str]:
    results = read({"arms": {"grpo": {"win_rate": 0.5}}, "baseline": "sft", "frontier": {"grpo": points}})
    subject = Subject(run=RunData(folder=Path("."), results=results), name="grpo", seed=0, folder=Path("."), meta={})
    return list(facts.overoptimised(subject, summarise(results)))


# nobody's text is markup ------------------------------------------------------------------------------------------------


def test_hostile_names_and_texts_stay_text(own_run):
    results = json.loads((own_run / "results.json").read_text())
    results |= {"name": HOSTILE, "description": HOSTILE, "deviations": [HOSTILE], "failed": [{"node": "x", "error": HOSTILE}]}
    results["judge"]["name"] = HOSTILE
    results["arms"][HOSTILE] = {"win_rate": 0.4, "per_seed": [0.4, 0.4]}
    (own_run / "results.json").write_text(json.dumps(results))
    changed(own_run, "experiment.json", effective={"name": "```\n</details><script>"})
    text = written(find_arm(own_run, "dpo", 1))
    head, body = text.split("\n---\n", 1)
    assert yaml.safe_load(head.removeprefix("---"))["model-index"][0]["name"].startswith(HOSTILE)
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(body)
    assert "<img" not in shown
    assert "<script" not in shown
    assert "<a " not in shown
    assert shown.count("<h1>") == 1
    assert shown.count("</details>") == 1
    as_text = "&lt;img src=x onerror=alert(1)&gt; [me](javascript:x) `a` | **b** # owned"
    assert shown.count(as_text) == 5, "title, description, verdict table, judge, deviation"
    widths = {line.count("<td") for table in shown.split("<table>")[1:] for line in table.split("</tr>")}
    assert widths <= {0, 2, 4, 8}, "no bar of theirs makes a cell"


def test_a_hostile_stop_token_cannot_leave_its_code(tiny):
    use = section(written(find_arm(tiny, "dpo", 1), stops=("`</s>` <b>",)), "Use")
    assert "`` `</s>` <b> ``" in use
