"""A reward model from elsewhere: it reads text, in its own template and by its own tokenizer, as transformers would run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from evenhand.data.foreign import special_marks, without_marks
from evenhand.data.window import overflow
from evenhand.errors import UserError
from evenhand.rewards.model import READER, ModelReward, Normalisation
from evenhand.types import Completion, Group, Head, Prompt, TokenGroup, Tokens

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.heads import RewardModel

AGREE = 1e-3
"""How far a score may be from transformers' own, relative to 1 + |score|, in float32; a hundred times that in shorter types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReward(ModelReward):
    """`ModelReward` for a model that was trained by another tool: sampled ids of a policy mean nothing to its vocabulary.

    An answer is decoded (by the engine that sampled it), rendered behind its prompt in the reward model's own chat template, with
    all that the template writes behind an answer, and tokenised by its own tokenizer. The score is read where transformers
    reads it: at the last token that is not the model's pad token, so that it is `AutoModelForSequenceClassification`'s logit.
    Texts longer than the model's context lose their prompts' beginning, which is said once; an answer that is longer is refused.
    """

    @override
    def tokens(self, group: Group) -> TokenGroup:
        whole = [self._ids(group.prompt, c) for c in group.completions]
        longest = max(map(len, whole))
        if self.context is not None and longest > self.context:
            answer = longest - len(self.renderer.prompt_ids(group.prompt))
            overflow(longest, answer, self.context, group.prompt, reader=READER)
        return common_prefix(whole, group, context=self.context)

    def _ids(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]:
        ids = self.renderer.whole_ids(prompt, without_marks(completion, self.marks))
        pad = getattr(self.reward_model.hf.config, "pad_token_id", None)
        end = len(ids)
        while end > 1 and ids[end - 1] == pad:
            end -= 1
        return ids[:end]

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts of the special tokens of this model's tokenizer."""
        return special_marks(self.renderer.tokenizer)

    def text(self, group: Group) -> list[str]:
        """What the model reads, as text: to show."""
        return [self.renderer.tokenizer.decode(list(self._ids(group.prompt, c))) for c in group.completions]


def external(model: RewardModel, renderer: Renderer, *, tokens_per_microbatch: int, normalisation: Normalisation) -> TextReward:
    """A reward model as a reward that reads texts of any policy. Its limit is its own context, not the policy's lengths."""
    return TextReward(
        reward_model=model, renderer=renderer, max_prompt=None, max_completion=None,
        tokens_per_microbatch=tokens_per_microbatch, normalisation=normalisation,
    )  # fmt: skip


def check_against_transformers(reward: TextReward, group: Group) -> None:
    """Raises UserError when transformers' own forward pass gives the answers of a group other scores than this one.

    An encoder that pools its first token, or a head that is more than one linear layer, would be read wrongly.
    """
    import torch

    hf = reward.reward_model.hf
    (ours,) = reward.unscaled().read(_head(reward), [reward.tokens(group)])
    bound = AGREE if next(hf.parameters()).dtype.itemsize >= 4 else 100 * AGREE
    hf.eval()
    for i, completion in enumerate(group.completions):
        ids = torch.tensor([reward._ids(group.prompt, completion)], device=reward.reward_model.device)
        with torch.no_grad():
            all_of_it = hf(input_ids=ids).logits[0].double().tolist()
        mine = ours[i] if isinstance(ours[i], tuple) else (ours[i],)
        for here, theirs in zip(mine, all_of_it, strict=True):
            if abs(theirs - here) <= bound * (1 + abs(theirs)):
                continue
            raise UserError(
                f"its score of a text is {here:.5g} here and {theirs:.5g} by transformers",
                why="the score would be read at another place than where the model was trained",
                fix="use a decoder with one linear head, read at the last token (llama, qwen, gemma, mistral, gpt-2, ...)",
            )


def _head(reward: TextReward) -> Head:
    """What its outputs as they are are called: one score, or several."""
    return Head.SCORES if Head.SCORES in reward.reward_model.gives else Head.SCORE


def common_prefix(whole: Sequence[tuple[int, ...]], group: Group, *, context: int | None) -> TokenGroup:
    """Token rows as a prompt, which is what all of them begin with, and its continuations of one token or more.

    >>> from evenhand.types import Completion, Group, Prompt
    >>> group = Group(prompt=Prompt(content="a"), completions=(Completion(content="b"), Completion(content="c")))
    >>> found = common_prefix([(1, 2, 3), (1, 2, 4, 5)], group, context=None)
    >>> found.prompt, [c.ids for c in found.completions]
    ((1, 2), [(3,), (4, 5)])
    """
    shortest = min(map(len, whole))
    if shortest < 2:
        raise UserError("prompt and answer have fewer than two tokens", where=f"prompt {group.prompt.id}")
    shared = next((i for i in range(shortest - 1) if len({row[i] for row in whole}) > 1), shortest - 1)
    shared = max(shared, 1)
    if any(row[:shared] != whole[0][:shared] for row in whole):
        raise UserError("the template begins answers to one prompt in different ways", where=f"prompt {group.prompt.id}")
    over = max(map(len, whole)) - context if context else 0
    start = min(max(over, 0), shared - 1)
    rows = [row[shared:][: context - (shared - start) if context else None] for row in whole]
    completions = tuple(Tokens(ids=row, mask=(True,) * len(row)) for row in rows)
    return TokenGroup(prompt=whole[0][start:shared], completions=completions, group=group)
