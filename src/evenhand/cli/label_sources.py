"""Where the answers that are labelled come from: a file, or a model that answers a file's prompts first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.cli.progress import Progress
from evenhand.errors import UserError

if TYPE_CHECKING:
    from evenhand.data.load import Dataset
    from evenhand.types import Group, Prompt


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
        from evenhand.cli.describe import renderer_of
        from evenhand.cli.models import open_policy
        from evenhand.engines.registry import DEFAULT, open_engine
        from evenhand.judges.cache import Cache
        from evenhand.synthesis.resume_cache import kept_answers
        from evenhand.types import Sampling

        policy, _ = open_policy(self.model)
        renderer = renderer_of(self.model, self.template)
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
    from evenhand.cli.models import model_path
    from evenhand.store.fingerprint import model_fingerprint

    folder = None if name.startswith("{") else model_path(name)
    return {"name": name, "bytes": model_fingerprint(folder) if isinstance(folder, Path) else None}
