"""What the checks look at: an experiment, its data, its tokenizer and its starting model, each opened once and when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from evenhand import rewards, worlds
from evenhand.data.foreign import readable
from evenhand.data.template import Renderer, Tokenised
from evenhand.doctor import forward_probe
from evenhand.doctor.opened import OpenedPart, Unavailable
from evenhand.doctor.pretrained import Existing
from evenhand.errors import UserError
from evenhand.methods import Method
from evenhand.models import adapter_files
from evenhand.models.guarded import guarded
from evenhand.models.load import load_policy, new_policy
from evenhand.models.policy import Policy
from evenhand.protocols import Reward
from evenhand.run_experiment import Run
from evenhand.spec.arms import Arm
from evenhand.spec.experiment import Experiment
from evenhand.spec.reward_resolution import models_in, resolved_reward
from evenhand.stages.common import renderer_of
from evenhand.stages.data import DEFAULT_SIZES, DataSpec, from_sources, from_world
from evenhand.stages.further_split import FurtherSplitSpec, rows
from evenhand.train.config import Lengths
from evenhand.types import Group, Scores, TokenGroup

T = TypeVar("T")
SHORT = Lengths(prompt=48, completion=24)
"""Tokens of a row where its length does not matter to what is checked."""
QUICK_ROWS, FULL_ROWS = 256, 2000
"""Rows of a split that are tokenised; counts of whole splits are exact."""


class CheckContext:
    """One experiment under examination. Parts that cannot be opened raise `Unavailable`: see `OpenedPart`."""

    def __init__(self, run: Run, *, quick: bool) -> None:
        self.run, self.quick = run, quick
        self.experiment: Experiment = run.loaded.value

    # ---- what is asked for -------------------------------------------------------------------------------------------

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """Everything that is trained, by its place in the experiment file: stages, reward models and arms."""
        e = self.experiment
        found = {"sft": e.sft_arm()} if e.sft is not None else {}
        found |= {f"reward_models.{n}": a for n, a in e.all_reward_models().items()}
        found |= {f"arms.{n}": a for n, a in e.all_arms().items()}
        return {n: a for n, a in found.items() if a is not None and a.trained}

    def split_of(self, arm: Arm) -> str:
        """The split an arm learns from."""
        return arm.data or arm.build().split

    @cached_property
    def methods(self) -> dict[str, Method]:
        return {name: arm.build() for name, arm in self.arms.items()}

    @property
    def online(self) -> dict[str, Arm]:
        """Those that sample and are rewarded."""
        return {n: a for n, a in self.arms.items() if self.methods[n].rewarded}

    # ---- data --------------------------------------------------------------------------------------------------------

    @OpenedPart
    def data(self) -> tuple[dict[str, list[Group]], list[str]]:
        """The splits, and how each source was read, one line each."""
        spec, asked = self.run.plan["data"].spec, self.experiment.evaluation.prompts
        assert isinstance(spec, DataSpec)
        limit = QUICK_ROWS if self.quick else FULL_ROWS
        further, told = self._further(limit)
        splits, said = self._own_data(spec, asked, limit)
        return splits | further, [*said, *told]

    def _further(self, limit: int) -> tuple[dict[str, list[Group]], list[str]]:
        """The further splits, at most `limit` rows of what a world makes."""
        found, said = {}, []
        for spec in (n.spec for n in self.run.plan.nodes if isinstance(n.spec, FurtherSplitSpec)):
            fewer = replace(spec, split=replace(spec.split, count=min(spec.split.count, limit)))
            found[spec.name], found[f"heldout_{spec.name}"], told = rows(fewer, self.experiment.data.seed)
            said.append(f"{spec.name}: {told}")
        return found, said

    def _own_data(self, spec: DataSpec, asked: int, limit: int) -> tuple[dict[str, list[Group]], list[str]]:
        if not spec.source.world:
            return from_sources(spec.source, self.experiment.data.seed)
        sizes = {**DEFAULT_SIZES, "heldout_prompts": asked, **spec.source.sizes}
        source = replace(spec.source, sizes={k: min(n, limit) for k, n in sizes.items()})
        return from_world(replace(spec, source=source, corpus=min(spec.corpus, limit)), self.experiment.data.seed)

    @property
    def splits(self) -> dict[str, list[Group]]:
        return self.data[0]

    @property
    def training(self) -> dict[str, list[Group]]:
        """Splits with answers that something is trained on."""
        used = {self.split_of(a) for a in self.arms.values()} | ({"corpus"} if "corpus" in self.splits else set())
        return {n: g for n, g in self.splits.items() if n in used and any(x.completions for x in g)}

    @property
    def answered(self) -> dict[str, list[Group]]:
        """Training and held-out splits with answers, but for pretraining documents."""
        held = {n: g for n, g in self.splits.items() if n.startswith("heldout_") and any(x.completions for x in g)}
        return {n: g for n, g in (self.training | held).items() if n != "corpus"}

    def origin(self, split: str) -> str:
        """The place of a split in the experiment file."""
        if (own := split.removeprefix("heldout_")) in self.experiment.splits:
            return f"splits.{own}"
        return f"data.world, {split}" if self.experiment.data.world else f"data.{split}"

    # ---- tokenizer and template --------------------------------------------------------------------------------------

    @cached_property
    def folder(self) -> Path | str:
        """The starting model's folder, or its Hub name; Unavailable for a model that a world pretrains."""
        path = self.experiment.model.path
        if path is None:
            raise Unavailable("the model is made here")
        folder = Path(path).expanduser()
        return folder if folder.is_dir() else path

    @cached_property
    def home(self) -> Path | str:
        """Where the starting model's config and weights are: its folder or name, and for an adapter those of its base."""
        if not adapter_files.is_adapter(self.folder):
            return self.folder
        base = adapter_files.root_of(self.folder, self.experiment.model.base)
        return Path(base) if Path(base).is_dir() else base

    @OpenedPart
    def renderer(self) -> Renderer:
        if self.experiment.model.path is None:
            return Renderer(worlds.get(str(self.experiment.data.world), **self.experiment.data.options).tokenizer())
        own = isinstance(self.folder, Path) and (self.folder / "tokenizer_config.json").is_file()
        return renderer_of(self.folder if own else self.home, self.experiment.model.template)

    @OpenedPart
    def config(self) -> Any:
        """The starting model's transformers config."""
        from transformers import AutoConfig

        if self.experiment.model.path is None:
            shape = self.experiment.network()
            kind = shape.pop("model_type")
            return AutoConfig.for_model(kind, **{"vocab_size": len(self.renderer.tokenizer), **shape})
        try:
            return guarded(AutoConfig.from_pretrained, self.home)
        except UserError as error:
            raise UserError(error.what, where="model.path", fix="point to a folder written by save_pretrained") from error

    def sample(self, split: str) -> list[Group]:
        """Rows of a split, evenly spaced; all of them when they are few."""
        return spaced(self.splits[split], QUICK_ROWS if self.quick else FULL_ROWS)

    @cached_property
    def attempts(self) -> dict[str, Tokenised | UserError]:
        """Samples of training and held-out splits, tokenised, or what kept one from being so."""
        lengths, supervise = self.experiment.lengths, self.experiment.data.supervise
        found: dict[str, Tokenised | UserError] = {}
        for split in dict.fromkeys((*self.training, *self.answered)):
            try:
                rows = [readable(g, self.renderer) for g in self.sample(split)]
                found[split] = self.renderer.tokenise_all(
                    rows, max_prompt=lengths.prompt, max_completion=lengths.completion, supervise=supervise
                )
            except UserError as error:
                found[split] = error
        return found

    @cached_property
    def tokenised(self) -> dict[str, Tokenised]:
        """Tokenised samples of the splits that could be tokenised."""
        return {split: done for split, done in self.attempts.items() if isinstance(done, Tokenised)}

    def rows(self, *, pairs: bool | None = None, limit: int = 8) -> list[TokenGroup]:
        """A few tokenised training rows; `pairs` asks for rows of two answers and more, or of any."""
        found = [t for n, done in self.tokenised.items() if n != "corpus" for t in done.groups]
        found = [t for t in found if not pairs or len(t.completions) > 1]
        return found[:limit]

    def short_rows(self, *, pairs: bool | None = None, limit: int = 4) -> list[TokenGroup]:
        """As `rows`, the end of their prompts with the beginning of their answers: enough for what length does not matter to."""
        found = [shorter(row) for row in self.rows(pairs=pairs)[:limit]]
        if found := [row for row in found if all(any(c.mask) for c in row.completions)]:
            return found
        raise Unavailable("there are no answers to look at yet")

    @cached_property
    def short_logps(self) -> list[Any]:
        """Log-probs of the short rows under the starting model."""
        return forward_probe.logps(self.policy, self.short_rows())

    def prompts(self, limit: int) -> list[Any]:
        """Prompts that something is trained on, or that are held out."""
        for split in ("prompts", "preferences", "demonstrations", "heldout_prompts"):
            if self.splits.get(split):
                return [g.prompt for g in spaced(self.splits[split], limit)]
        raise Unavailable("there are no prompts")

    # ---- the model ---------------------------------------------------------------------------------------------------

    @OpenedPart
    def policy(self) -> Policy:
        """The starting model: loaded, or as a world would begin it."""
        e = self.experiment
        if e.model.path is None:
            return new_policy(e.network(), self.renderer.tokenizer, seed=0, device=e.runtime.device)
        return load_policy(self.folder, dtype=e.model.dtype, device=e.runtime.device, base=e.model.base)

    # ---- rewards -----------------------------------------------------------------------------------------------------

    @cached_property
    def adopted(self) -> dict[str, Existing]:
        """Reward models that exist already, by name."""
        return {n: Existing(m, self) for n, m in self.experiment.all_adopted().items()}

    def reward(self, reward: Any) -> Guarded:
        """A reward of this experiment; Unavailable when it needs a reward model that is not trained yet, or is not opened."""
        spec = resolved_reward(reward, self.experiment)
        models = sorted(models_in(spec))
        if new := [n for n in models if n not in self.adopted]:
            raise Unavailable(f"the reward model {', '.join(new)} is trained by the run itself")
        if models and self.quick:
            raise Unavailable(f"the reward model {', '.join(models)} is opened in the full form only")
        return Guarded(rewards.get(spec, {n: self.adopted[n].reward for n in models}))


@dataclass(frozen=True, slots=True)
class Guarded:
    """A reward whose errors, whatever they are, make it Unavailable: it may be the user's own function. R1 tells them."""

    reward: Reward

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        try:
            return self.reward(groups)
        except Exception as error:
            raise Unavailable(f"the reward raised {type(error).__name__}: {error}") from error


def shorter(row: TokenGroup) -> TokenGroup:
    """The last tokens of a prompt with the first of its answers."""
    cut = (
        replace(c, ids=c.ids[: SHORT.completion], mask=c.mask[: SHORT.completion], behaviour_logp=None) for c in row.completions
    )
    return replace(row, prompt=row.prompt[-SHORT.prompt :], completions=tuple(cut))


def spaced(rows: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the rows, evenly spaced.

    >>> spaced(range(10), 4)
    [0, 2, 5, 7]
    """
    return list(rows) if len(rows) <= limit else [rows[i * len(rows) // limit] for i in range(limit)]


def last_turn(group: Group) -> str:
    """What a prompt asks at its end: verbatim text, or the last turn of a conversation."""
    content = group.prompt.content
    return (content if isinstance(content, str) else content[-1].content if content else "").strip()
