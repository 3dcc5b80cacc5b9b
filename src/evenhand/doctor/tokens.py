"""Checks of token ids: cuts, stop tokens, bos, unknown tokens, the vocabulary and the context of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from evenhand.display import quantile, quantiles
from evenhand.doctor.context import CheckContext, spaced
from evenhand.doctor.registry import Finding, check, fail, info, share, shortened, too_many, warn
from evenhand.errors import UserError
from evenhand.judges.preference_model_prompts import check_letters, examples, letter_only
from evenhand.methods import COMPARISONS
from evenhand.stages.common import tokenised
from evenhand.types import Group, TokenGroup

ASKED = 20
"""Pairs that are put to a preference model."""
STRANGE = "中\U0001f600ø"
"""Characters that a tokenizer with an unknown token is likely not to know; one that works on bytes knows all."""
MEASURED = 256
"""Rows whose whole length is measured where many are cut."""
CUT = 0.1
"""The share of cut texts from which on they are more than a long tail."""


@check(
    "D4",
    "every row has something to learn, and little is cut",
    why="a row without a counted token is left out; a cut answer has no stop token, so the model is not taught to stop",
    fix="raise `lengths.completion` or `lengths.prompt` to the 99% figure, or drop the longest rows",
)
def cuts(patient: CheckContext) -> Iterator[Finding]:
    lengths = patient.experiment.lengths
    for split, done in patient.tokenised.items():
        total = len(done.groups) + len(done.dropped)
        rows, reasons = patient.sample(split), Counter(reason for _, reason in done.dropped).most_common(3)
        examples = [f"{count} x {reason}, such as {shortened(_of(rows, done.dropped, reason))}" for reason, count in reasons]
        words = f"rows of {split} cannot be learned from and are left out"
        yield from too_many(len(done.dropped), total, words, *examples, warn_above=0.0, fail_above=0.02)
        answers = [c for t in done.groups for c in t.completions]
        cut_answers, cut = sum(c.truncated for c in answers), done.counts.get("prompts_cut", 0)
        too_long = cut_answers > CUT * len(answers) and split != "corpus", cut > CUT * total
        most = _most_need(patient, rows) if any(too_long) else (0, 0)
        if too_long[0]:
            words = f"answers of {split} are cut at {lengths.completion} tokens; 99% have at most {most[1]}"
            yield warn(f"{share(cut_answers, len(answers))} {words}", _end_of_a_cut(done.groups, patient))
        if too_long[1]:
            kept = f"they keep {lengths.prompt} tokens; 99% have at most {most[0]}"
            yield warn(f"{share(cut, total)} prompts of {split} lose their beginning: {kept}")
        prompts, sizes = quantiles([len(t.prompt) for t in done.groups] or [0]), quantiles([len(c.ids) for c in answers] or [0])
        yield info(f"{split}: prompts {prompts} tokens; answers {sizes} tokens, {cut_answers} cut")


@check(
    "T1",
    "padding cannot hide a stop token",
    why="where masks are made from the pad token, pad = eos leaves the stop token out of the loss, and the model never stops",
    fix="nothing is to be done here: masks come from lengths; other tools that use this model may need a pad token of its own",
)
def pad_is_eos(patient: CheckContext) -> Iterator[Finding]:
    tokenizer = patient.renderer.tokenizer
    if tokenizer.pad_token_id is None:
        yield info(f"the tokenizer has no pad token; id {patient.renderer.pad_id} is used, and masks come from lengths")
    elif tokenizer.pad_token_id in patient.renderer.stop_ids:
        yield info(f"the pad token {tokenizer.pad_token!r} is a stop token; masks come from lengths, so it does no harm here")


@check(
    "T2",
    "one bos token",
    why="a second bos, or none where the model always saw one, is text that the model has never seen",
    fix="take the bos token out of the text or of the template",
)
def bos(patient: CheckContext) -> Iterator[Finding]:
    token, encoder = patient.renderer.tokenizer.bos_token_id, patient.renderer._encoder
    if token is None:
        return
    for split, done in patient.tokenised.items():
        doubled = [t for t in done.groups if t.prompt[:2] == (token, token)]
        inside = [t for t in done.groups if any(token in c.ids for c in t.completions) and token not in patient.renderer.stop_ids]
        whole = [t for t in done.groups if len(t.prompt) < patient.experiment.lengths.prompt]  # others lost their beginning
        missing = [t for t in whole if encoder.bos and t.prompt[:1] != (token,)]
        for rows, what in ((doubled, "begin with two bos tokens"), (inside, "have a bos token inside an answer")):
            if rows:
                yield fail(f"{share(len(rows), len(done.groups))} rows of {split} {what}", *rows[:1])
        if missing:
            seen = (
                f"{share(len(missing), len(done.groups))} prompts of {split} lack the bos token that begins the tokenizer's texts"
            )
            yield warn(seen, *missing[:1], fix="write {{ bos_token }} at the start of the chat template")


@check(
    "T3",
    "answers end with a stop token that sampling knows",
    why="a model that was never taught to stop, or whose stop token sampling ignores, runs to the limit",
    fix="set the tokenizer's eos_token and the generation config's eos_token_id to what ends a turn",
)
def stops(patient: CheckContext) -> Iterator[Finding]:
    renderer = patient.renderer
    names = {i: renderer.tokenizer.convert_ids_to_tokens(i) for i in sorted(renderer.stop_ids)}
    if not renderer.stop_ids:
        yield fail("the tokenizer has no eos token, and nothing else ends an answer")
        return
    unknown = [i for i, name in names.items() if name is None]
    if unknown:
        yield fail(f"the stop ids {unknown} are not in the vocabulary", fix="correct eos_token_id in generation_config.json")
    unk = renderer.tokenizer.unk_token_id
    if unk in renderer.stop_ids and unk in renderer._encoder.encode([STRANGE])[STRANGE]:
        yield fail(f"the stop token {names[unk]!r} is the unknown token: every unknown word would end an answer")
    yield info("stop tokens: " + ", ".join(f"{name!r} ({i})" for i, name in names.items()))
    for split, done in patient.tokenised.items():
        ends = [(t, c) for t in done.groups for c in t.completions if not c.truncated]
        never = [t for t, c in ends if c.ids[-1] not in renderer.stop_ids or not c.mask[-1]]
        if never:
            yield fail(f"{share(len(never), len(ends))} answers of {split} do not end with a counted stop token", *never[:1])
    chat = renderer.tokenizer.chat_template and renderer._render.terminator is None
    if chat:
        yield warn(
            "the chat template ends a turn with no token of its own; the eos token is added", fix="end turns with a special token"
        )


@check(
    "T6",
    "the prompt's tokens are a prefix of the whole",
    why="where the last word of a prompt and the first of the answer share a token, training and sampling see different prompts",
    fix="end verbatim prompts before a blank or at a line's end; here such rows are tokenised apart, as in sampling",
)
def merged(patient: CheckContext) -> Iterator[Finding]:
    for split, done in patient.tokenised.items():
        count = done.counts.get("boundary_merged", 0)
        total = sum(len(t.completions) for t in done.groups)
        if count > 0.25 * total:
            yield warn(f"{share(count, total)} answers of {split} share a token with their prompt")


@check(
    "T8",
    "every token has an embedding",
    why="an id above the table is an error on a good day and another token's vector on a bad one",
    fix="use the tokenizer that was saved with the model, or resize the embeddings and train them",
)
def vocabulary(patient: CheckContext) -> Iterator[Finding]:
    size = getattr(patient.config.get_text_config(), "vocab_size", None)
    if size is None:
        return
    ids = [
        i
        for done in patient.tokenised.values()
        for t in done.groups
        for i in (*t.prompt, *(x for c in t.completions for x in c.ids))
    ]
    highest = max([*ids, *patient.renderer.stop_ids], default=0)
    have = len(patient.renderer.tokenizer)
    if highest >= size:
        yield fail(f"the data have token {highest}, the model's table ends at {size - 1}")
    elif have > size:
        yield fail(f"the tokenizer has {have} tokens, the model embeds {size}")


@check(
    "T9",
    "the tokenizer knows the data's words",
    why="unknown tokens are all alike: the model can neither read nor write what they stood for",
    fix="use another model, or data of the kind that its tokenizer was made for",
)
def unknown(patient: CheckContext) -> Iterator[Finding]:
    unk = patient.renderer.tokenizer.unk_token_id
    if unk is None or unk in patient.renderer.stop_ids:
        return
    for split, done in patient.tokenised.items():
        total = sum(t.size for t in done.groups)
        rows = [t for t in done.groups if unk in t.prompt or any(unk in c.ids for c in t.completions)]
        count = sum(t.prompt.count(unk) + sum(c.ids.count(unk) for c in t.completions) for t in rows)
        yield from too_many(count, total, f"tokens of {split} are unknown", *rows[:1], warn_above=0.005, fail_above=0.2)


@check(
    "T10",
    "text survives the tokenizer",
    why="what decoding does not give back, such as case or line breaks, can be neither learned nor rewarded",
    fix="use the model's own tokenizer; a normaliser that lower-cases or strips accents belongs to another kind of model",
)
def round_trip(patient: CheckContext) -> Iterator[Finding]:
    unk, renderer = patient.renderer.tokenizer.unk_token_id, patient.renderer
    for split, done in patient.tokenised.items():
        given = [pair for t in spaced(done.groups, 100) for pair in zip(t.completions, t.group.completions, strict=True)]
        whole = [(c, g.text) for c, g in given if not c.truncated and unk not in c.ids and isinstance(g.content, str)]
        whole = [] if split == "corpus" or patient.experiment.data.supervise == "full" else whole
        lost = [(text, renderer.decode(c.ids)) for c, text in whole if renderer.decode(c.ids).strip() != text.strip()]
        examples = (f"{shortened(a, 50)} comes back as {shortened(b, 50)}" for a, b in lost[:3])
        words = f"answers of {split} do not survive"
        yield from too_many(len(lost), len(whole), words, *examples, warn_above=0.05, fail_above=0.5)


@check(
    "T11",
    "prompt and answer fit the model's context",
    why="positions beyond the context are an error, or positions that the model has never seen",
    fix="lower `lengths.prompt` or `lengths.completion`",
)
def context(patient: CheckContext) -> Iterator[Finding]:
    window = getattr(patient.config.get_text_config(), "max_position_embeddings", None)
    if not window:
        return
    lengths = patient.experiment.lengths
    asked = [g.prompt for g in spaced(patient.splits.get("heldout_prompts", []), 100)]
    prompts = [len(t.prompt) for n, done in patient.tokenised.items() if n != "corpus" for t in done.groups]
    prompts += [len(patient.renderer.prompt_ids(p, lengths.prompt)) for p in asked]
    longest = min(max(prompts, default=0), lengths.prompt)
    if longest + lengths.completion > window:
        yield fail(f"a prompt of {longest} tokens and an answer of {lengths.completion} exceed the model's context of {window}")


@check(
    "T13",
    "a preference model can say A and B",
    why="it names the better of two answers by one letter, which must be one token and another one than the other",
    fix="train a `reward_model` instead, or use a model whose tokenizer knows both letters",
)
def letters(patient: CheckContext) -> Iterator[Finding]:
    asked = {name: patient.split_of(arm) for name, arm in patient.arms.items() if patient.methods[name].data == COMPARISONS}
    for name, split in asked.items():
        if split not in patient.splits:
            continue
        rows = tokenised(examples(patient.sample(split)[:ASKED], patient.renderer, seed=0), patient.renderer, None)
        try:
            check_letters(rows)
            for row in rows:
                letter_only(row)
        except UserError as error:
            yield fail(f"{name}: {error.what}", *rows[:1])


def _of(rows: Sequence[Group], dropped: Sequence[tuple[int, str]], reason: str) -> str:
    return rows[next(i for i, r in dropped if r == reason)].prompt.text


def _most_need(patient: CheckContext, rows: Sequence[Group]) -> tuple[int, int]:
    """Tokens that 99 of 100 prompts and answers would have if nothing were cut."""
    whole = patient.renderer.tokenise_all(spaced(rows, MEASURED), max_prompt=None, max_completion=None).groups
    return quantile([len(t.prompt) for t in whole], 99), quantile([len(c.ids) for t in whole for c in t.completions], 99)


def _end_of_a_cut(rows: Sequence[TokenGroup], patient: CheckContext) -> str:
    """Where the first cut answer ends."""
    row, answer = next((t, c) for t in rows for c in t.completions if c.truncated)
    end = patient.renderer.tokenizer.decode(answer.ids[-24:])
    return f"prompt {row.group.prompt.id}: an answer ends with {shortened(end[-60:])}"
