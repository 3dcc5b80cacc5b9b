"""The side of `evenhand label` on which a program, a reward model or a language model labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evenhand.cli.files import refuse_same
from evenhand.cli.judge import open_judge
from evenhand.cli.models import model_path, open_policy
from evenhand.cli.tables import shares_line
from evenhand.cli.terminal import Progress
from evenhand.data.jsonl import write_groups
from evenhand.display import spelled_out
from evenhand.errors import UserError
from evenhand.store.fingerprint import model_fingerprint
from evenhand.types import Group, Prompt, Sampling

if TYPE_CHECKING:
    from evenhand.data.load import Dataset
    from evenhand.judges import Judge
    from evenhand.judges.cache import Cache
    from evenhand.synthesis import AnnotatedPairs


class Pairs(StrEnum):
    """Which of a prompt's answers are compared."""

    random = "random"
    best_worst = "best-worst"
    all = "all"

    @property
    def chosen(self) -> Literal["random", "best_worst", "all"]:
        """The same as the functions below have it."""
        return "best_worst" if self is Pairs.best_worst else "all" if self is Pairs.all else "random"


class LabelForm(StrEnum):
    """How a chance becomes a label."""

    hard = "hard"
    soft = "soft"
    drawn = "drawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """Which pairs are made, and how a verdict becomes a label: see the command's options."""

    pairs: Pairs
    labels: LabelForm
    margin: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """Who labels: a judge by name (`by`) or the settings of a language model, and how its verdicts are read."""

    by: str
    settings: dict[str, Any]
    temperature: float
    flip: float


def by_judge(file: Path, out: Path | None, answers: Answers, judging: JudgeOptions, made: PairOptions) -> None:
    """Labels the answers and writes the pairs to `out`; what the judge said is kept, so that the same command goes on."""
    from evenhand.judges.cache import Cache
    from evenhand.judges.selftest import refuse_broken
    from evenhand.synthesis import flip_labels, label
    from evenhand.worlds.labels import Annotator

    if out is None:
        raise UserError("there is nowhere to write the pairs", fix="add --out PAIRS.jsonl")
    refuse_same(file, out)
    kept = answers.cache or out.with_name(f"{out.name}.kept")
    judge = open_judge(judging.by, judging.settings, kept)
    groups = answers.read(kept)
    found = label(
        groups, with_memory(judge, judging.by, Cache(kept)), choose=made.pairs.chosen, labels=made.labels.value,
        margin=made.margin, annotator=Annotator(temperature=judging.temperature), seed=made.seed, progress=Progress("judged"),
    )  # fmt: skip
    refuse_broken(found.verdicts, judge.name)
    for line in summary(groups, found, judge):
        print(spelled_out(line))
    if not found.pairs:
        raise UserError("no pair is left", where=str(file), fix="lower --margin, or give more, and more different, answers")
    write_groups(out, flip_labels(found.pairs, judging.flip, seed=made.seed) if judging.flip else found.pairs)
    print(f"written: {out} (what the judge said: {kept})")


def with_memory(judge: Judge, name: str, cache: Cache) -> Judge:
    """A reward that keeps its scores as a language model keeps its replies; other judges have a cache of their own."""
    from evenhand.judges import RewardJudge
    from evenhand.synthesis.resume_cache import KeptReward

    if not isinstance(judge, RewardJudge):
        return judge
    reward = KeptReward(judge.reward, cache, identity(name), Progress("scored"))
    return RewardJudge(reward, name=judge.name, tie=judge.tie)


def summary(groups: list[Group], found: AnnotatedPairs, judge: Judge) -> list[str]:
    """What came out, what was left out, and how the judge behaved."""
    lines = [f"{len(found.pairs)} pairs from {len(groups)} prompts"]
    lines += [", ".join(f"{count} {reason}" for reason, count in found.left_out.items())] if found.left_out else []
    longer = [_longer(p) for p in found.pairs if p.scores[0] != p.scores[1]]
    if longer:
        lines.append(f"the preferred answer is the longer one in {sum(longer) / len(longer):.1%} (ties half)")
    if found.verdicts:
        from evenhand.judges import account

        lines.append(shares_line(account(found.verdicts)))
    chat = getattr(judge, "chat", None)
    return [*lines, f"{chat.calls} asked, {chat.hits} known already"] if chat is not None else lines


def _longer(pair: Group) -> float:
    better, worse = sorted(range(2), key=lambda i: -pair.scores[i])
    a, b = len(pair.completions[better].text), len(pair.completions[worse].text)
    return 0.5 if a == b else float(a > b)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSampler:
    """A model that answers `n` times, as `evenhand generate` would; `template` is for one without a chat template."""

    model: str
    n: int
    max_tokens: int
    temperature: float
    template: str | None
    max_prompt: int | None
    seed: int

    def __call__(self, prompts: Sequence[Prompt], kept: Path) -> list[Group]:
        """Fresh answers to each prompt; those in the file `kept` are not sampled again."""
        from evenhand.engines.registry import DEFAULT, open_engine
        from evenhand.judges.cache import Cache
        from evenhand.synthesis.resume_cache import kept_answers

        policy, renderer = open_policy(self.model, template=self.template)
        engine = open_engine(DEFAULT, policy, renderer)
        sampling = Sampling(temperature=self.temperature, max_tokens=self.max_tokens, seed=self.seed)
        about = {**identity(self.model), "template": renderer.fingerprint, "max_prompt": self.max_prompt}
        generate = partial(engine.generate, max_prompt=self.max_prompt)
        return kept_answers(generate, prompts, self.n, sampling, cache=Cache(kept), identity=about, progress=Progress("answered"))


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to at most `limit` prompts of a file: its own, or those of `sampler`, kept in `cache`."""

    file: Path
    limit: int | None
    sampler: AnswerSampler | None
    cache: Path | None

    def read(self, kept: Path) -> list[Group]:
        """Groups, some of which have answers to compare; fresh answers are kept in `kept` where there is no `cache`.

        Raises: UserError where no prompt has two answers.
        """
        data = loaded(self.file)
        if self.sampler is not None:
            return self.sampler(data.prompts[: self.limit], self.cache or kept)
        groups = data.groups[: self.limit]
        if all(len(g.completions) < 2 for g in groups):
            raise UserError("no prompt has two answers", where=str(self.file), fix="add --answers-by MODEL to sample them")
        return groups


def loaded(file: Path) -> Dataset:
    """The data of a file, its format said."""
    from evenhand.data.load import load

    data = load(str(file), where=str(file))
    print(data.description)
    return data


def identity(name: str) -> Mapping[str, Any]:
    """A model or reward by name, with the bytes of a local model's folder."""
    folder = None if name.startswith("{") else model_path(name)
    return {"name": name, "bytes": model_fingerprint(folder) if isinstance(folder, Path) else None}
