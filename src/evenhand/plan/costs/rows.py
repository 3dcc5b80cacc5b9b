"""How long the rows of a split are, in tokens: from its artifact, else from a look at the data, else what lengths allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand import worlds
from evenhand.data.batch import split_by_tokens
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.stages.common import renderer_of
from evenhand.stages.data import DEFAULT_SIZES, bare
from evenhand.stages.splits import HELD_OUT
from evenhand.stages.tokens import TokensSpec
from evenhand.train.config import Lengths
from evenhand.train.flops import Work, work

if TYPE_CHECKING:
    from evenhand.plan.plan import Plan
    from evenhand.store.store import Store

LOOKED_AT = 64
"""Rows of a source that are tokenised for a prediction."""
LARGE = 64 << 20
"""Bytes of a file from which on it is not read for a prediction."""
PAIRED = 2
USUAL = 1000
"""Rows of a split that nothing is known of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLengths:
    """`sample` are rows as (prompt, lengths of completions); `count` how many there are in all. `known` says whether the lengths
    were seen, or are the most that is allowed."""

    sample: tuple[tuple[int, tuple[int, ...]], ...]
    count: int
    known: bool = True

    @property
    def sizes(self) -> list[int]:
        """Tokens of each row in a packed batch."""
        return [p + sum(c) for p, c in self.sample]

    def work(self, rows: Sequence[int] | None = None) -> Work:
        """One pass over these rows of the sample, all by default."""
        chosen = [self.sample[i] for i in (range(len(self.sample)) if rows is None else rows)]
        completions = [c for _, lengths in chosen for c in lengths]
        owner = [i for i, (_, lengths) in enumerate(chosen) for _ in lengths]
        return work([p for p, _ in chosen], completions, owner)

    def step(self, rows: int, tokens_per_microbatch: int) -> list[Work]:
        """The micro-batches of a typical step of so many rows."""
        order = [i % len(self.sample) for i in range(rows)]
        cut = split_by_tokens([self.sizes[i] for i in order], tokens_per_microbatch)
        return [self.work([order[i] for i in part]) for part in cut]

    def largest(self, rows: int, tokens_per_microbatch: int) -> Work:
        """The largest micro-batch that a step may have: its longest rows together."""
        longest = sorted(range(len(self.sample)), key=lambda i: -self.sizes[i])
        chosen, tokens = [longest[0]], self.sizes[longest[0]]
        for i in longest[1:] + longest:
            if len(chosen) == rows or tokens + self.sizes[i] > tokens_per_microbatch:
                break
            chosen.append(i)
            tokens += self.sizes[i]
        return self.work(chosen)


def rows_of(plan: Plan, store: Store, node: str) -> RowLengths:
    """Of the rows that the node of kind `tokens` holds or will hold."""
    found = plan[node]
    if store.has(found.key):
        return _finished(store.path(found.key))
    spec = found.spec
    assert isinstance(spec, TokensSpec)
    return looked_at(plan, spec.split, spec.lengths, 1 if spec.form in ("demonstrations", "binary") else PAIRED)


def looked_at(plan: Plan, split: str, lengths: Lengths, answers: int) -> RowLengths:
    """Of a split that nobody has tokenised: the first rows of its source, as the model's tokenizer writes them."""
    sizes = {**DEFAULT_SIZES, **plan.experiment.data.sizes}
    asked = RowLengths(
        sample=((lengths.prompt, (lengths.completion,) * answers),), count=sizes.get(split, USUAL), known=False
    )  # fmt: skip
    try:
        groups, count = _groups(plan, split)
        renderer = _renderer(plan)
        if answers == 0:
            return RowLengths(sample=tuple((len(renderer.prompt_ids(g.prompt, lengths.prompt)), ()) for g in groups), count=count)
        done = renderer.tokenise_all(groups, max_prompt=lengths.prompt, max_completion=lengths.completion)
    except (UserError, OSError, ValueError, KeyError):  # what is wrong with the data is said by the checks, not here
        return asked
    sample = tuple((len(g.prompt), tuple(len(c.ids) for c in g.completions)) for g in done.groups if g.completions)
    return RowLengths(sample=sample, count=count) if sample else asked


def _finished(artifact: Path) -> RowLengths:
    from safetensors.torch import load_file

    held = load_file(artifact / "tokens.safetensors")
    lengths, sample, at = held["lengths"].tolist(), [], 0
    for prompt, completions in zip(held["prompt_lengths"].tolist(), held["completions"].tolist(), strict=True):
        sample.append((prompt, tuple(lengths[at : at + completions])))
        at += completions
    return RowLengths(sample=tuple(sample[: 16 * LOOKED_AT]), count=len(sample))


def _groups(plan: Plan, split: str) -> tuple[list[Any], int]:
    """Some rows of a split, and how many it will have. Raises: KeyError where that depends on what a stage makes."""
    config, name = plan.experiment.data, split.removeprefix(HELD_OUT)
    further = plan.experiment.splits.get(name)
    if further is not None and further.rows is not None:
        return _of_world(plan, further.rows, further.options), further.count
    if further is None and config.world is not None:
        pretrain = plan.experiment.model.pretrain
        sizes = {**DEFAULT_SIZES, **config.sizes, "corpus": pretrain.documents if pretrain is not None else 0}
        return _of_world(plan, split, {}), sizes[split]
    named = config.sources
    source = further.source if further is not None else named.get(split) or named.get(name) or next(iter(named.values()))
    groups = _loaded(str(source))
    whole = further is None and split in named and f"{HELD_OUT}{name}" in named  # nothing is held out of either
    share = 1.0 if whole else config.holdout if split.startswith(HELD_OUT) else 1 - config.holdout
    return groups[:LOOKED_AT], round(share * len(groups))


def _of_world(plan: Plan, rows: str, options: Mapping[str, Any]) -> list[Any]:
    """The first rows of a kind that the experiment's built-in world makes."""
    config = plan.experiment.data
    world = worlds.get(str(config.world), **{**config.options, **options})
    if rows.endswith("prompts"):
        return bare(world.prompts(config.seed, LOOKED_AT))
    made = {"corpus": world.corpus, "demonstrations": world.demonstrations}.get(rows, world.preferences)
    return made(config.seed, LOOKED_AT)


@lru_cache(maxsize=8)
def _loaded(source: str) -> list[Any]:
    from evenhand.data.load import load

    path = Path(source).expanduser()
    if not path.is_file() or path.stat().st_size > LARGE:
        raise UserError("too large for a look, or not here", where=source)
    return load(source).groups


def _renderer(plan: Plan) -> Renderer:
    model, data = plan.experiment.model, plan.experiment.data
    if model.path is None:
        return Renderer(worlds.get(str(data.world), **data.options).tokenizer())
    return renderer_of(model.path, model.template)
