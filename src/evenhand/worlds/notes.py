"""The notes task: write a short letter that names two things, keeps one mood, and ends in time.

Writing a good note takes a grammar and a plan; checking one takes a few counts. That gap is what preference tuning lives on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from evenhand.seeding import keyed, pick
from evenhand.types import Group, Message, Prompt, Scores
from evenhand.worlds import notes_grammar as grammar
from evenhand.worlds.labels import repeated_share, words

HELD_OUT = 8
"""One (tone, pair of topics) in this many is held out: never in a corpus, a demonstration, a pair or a training prompt."""


def fill(pattern: str, generator: np.random.Generator, tone: str = "", **given: str) -> str:
    """A pattern with its slots drawn; words of feeling come from `tone`, and `given` wins over a draw.

    `topic` is used for the first topic slot and `second` for the next. No word of feeling comes twice.
    """
    drawn: list[str] = []

    def draw(match: re.Match[str]) -> str:
        slot = match.group(1)
        if slot == "topic" and "topic" in given:
            return given.pop("topic")
        if slot == "topic" and "second" in given:
            return given.pop("second")
        if slot in grammar.ANY_TONE:
            drawn.append(pick(generator, [w for w in grammar.TONES[tone][slot] if w not in drawn]))
            return drawn[-1]
        if slot == "tone":
            return tone
        return given[slot] if slot in given else pick(generator, grammar.SLOTS[slot])

    return re.sub(r"\{(\w+)\}", draw, pattern)


def split_of(tone: str, topics: Sequence[str]) -> str:
    """ "heldout" for one in eight combinations of a tone and an unordered pair of topics, else "train"."""
    return "heldout" if keyed("notes", tone, *sorted(topics)) % HELD_OUT == 0 else "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much each part of the gold reward counts. Merits sum to 1; fines are negative."""

    topics: float = 0.1
    tone: float = 0.1
    vivid: float = 0.45
    name: float = 0.05
    ending: float = 0.3
    idle: float = -0.15
    repetition: float = -0.5
    salad: float = -0.5
    rambling: float = -0.01


@dataclass(frozen=True, slots=True)
class NotesGold:
    """The gold reward of a note: `sum of weight * part`. At most 1; higher is better.

    Merits, each in [0, 1]:
    `topics` the share of requested topics that are named, less a quarter for each other topic named (not below 0);
    `tone` the share of the different words of feeling that are of the requested tone (0 without any);
    `vivid` the number of different words of feeling of any tone, up to four, over four;
    `name` 1 for opening with "Dear NAME,";
    `ending` 1 for ending with a closing and a signature.
    Fines:
    `idle` the number of sentences in the body without a word of feeling;
    `repetition` the share of three-word runs that occurred before, in [0, 1];
    `salad` the share of neighbouring words in the body that the language does not allow, in [0, 1]; 1 for an empty body;
    `rambling` the number of words over `limit`: length is never rewarded, only fined.

    Topics, tone and the name need the request; the rest is craft, which even a small reward model soon learns to see.
    """

    graded: ClassVar[bool] = True
    """Also between wrong and right."""

    weights: Weights = field(default_factory=Weights)
    limit: int = 24

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        return [self._group(group) for group in groups]

    def _group(self, group: Group) -> Scores:
        weights = asdict(self.weights)
        rows = [note_parts(c.text, group.prompt.meta, self.limit) for c in group.completions]
        values = tuple(sum(weight * row[name] for name, weight in weights.items()) for row in rows)
        return Scores(values, {name: tuple(row[name] for row in rows) for name in weights})


def note_parts(text: str, asked: Mapping[str, Any], limit: int) -> dict[str, float]:
    """The unweighted parts of the gold reward of one note; `asked` holds `name`, `tone` and `topics`."""
    found = words(text)
    felt = {w for w in found if w in grammar.TONE_OF}
    body = [words(sentence) for sentence in OPENING.sub("", CLOSING.sub("", text.strip())).split(".")]
    return {
        "topics": _topics(found, asked["topics"]),
        "tone": sum(grammar.TONE_OF[w] == asked["tone"] for w in felt) / max(1, len(felt)),
        "vivid": min(len(felt), 4) / 4.0,
        "name": float(text.strip().startswith(f"Dear {asked['name']},")),
        "ending": float(bool(CLOSING.search(text.strip()))),
        "idle": float(sum(bool(sentence) and felt.isdisjoint(sentence) for sentence in body)),
        "repetition": repeated_share(found, 3),
        "salad": _salad(body),
        "rambling": float(max(0, len(found) - limit)),
    }


def _topics(found: Sequence[str], asked: Sequence[str]) -> float:
    named = set(found) & set(grammar.TOPICS)
    hits = len(named & set(asked))
    return max(0.0, hits / len(asked) - 0.25 * (len(named) - hits))


CLOSING = re.compile(rf"(?:{'|'.join(grammar.CLOSINGS)}), (?:{'|'.join(grammar.SIGNERS)})\.$")
OPENING = re.compile(r"^Dear \w+,")


def _salad(body: Sequence[Sequence[str]]) -> float:
    pairs = [pair for sentence in body for pair in pairwise(sentence)]
    return sum(pair not in ALLOWED for pair in pairs) / len(pairs) if pairs else 1.0


ALLOWED = grammar.word_pairs()


@dataclass(frozen=True, slots=True)
class Notes:
    """Requests, and a writer of middling skill: it forgets topics, slips into another mood, rambles and repeats itself."""

    skill: tuple[float, float] = (0.3, 0.8)
    """A note is written with a skill drawn uniformly from this range: the chance of doing each thing as asked."""
    corpus_skill: tuple[float, float] = (0.6, 1.0)
    """The same for the notes of the plain-text corpus, where the signal to copy a word must be clear."""

    def request(self, generator: np.random.Generator, split: str) -> Prompt:
        """A request of the split, uniform over names, tones and ordered pairs of topics."""
        while True:
            tone = pick(generator, tuple(grammar.TONES))
            first, second = (grammar.TOPICS[int(i)] for i in generator.choice(len(grammar.TOPICS), 2, replace=False))
            if split_of(tone, (first, second)) == split:
                break
        name = pick(generator, grammar.PEOPLE)
        text = fill(pick(generator, grammar.REQUESTS), generator, name=name, tone=tone, topic=first, second=second)
        return Prompt(content=(Message("user", text),), meta={"name": name, "tone": tone, "topics": [first, second]})

    def answer(self, prompt: Prompt, generator: np.random.Generator) -> str:
        """A note by a writer whose skill is drawn anew."""
        return self._note(prompt, float(generator.uniform(*self.skill)), generator)

    def _note(self, prompt: Prompt, skill: float, generator: np.random.Generator) -> str:
        name, closing = self._address(prompt.meta["name"], skill, generator)
        return " ".join([name, *self._body(prompt, skill, generator), *closing])

    def _address(self, name: str, skill: float, generator: np.random.Generator) -> tuple[str, list[str]]:
        name = pick(generator, grammar.PEOPLE) if generator.random() < 0.5 * (1.0 - skill) else name
        closing = [fill(grammar.CLOSING, generator)] if generator.random() < skill else []
        return grammar.GREETING.format(name=name), closing

    def _body(self, prompt: Prompt, skill: float, generator: np.random.Generator) -> list[str]:
        def sentence(topic: str) -> str:
            topic = topic if generator.random() < skill else pick(generator, grammar.TOPICS)
            tone = prompt.meta["tone"] if generator.random() < skill else pick(generator, tuple(grammar.TONES))
            return fill(pick(generator, grammar.TOPIC_SENTENCES), generator, tone=tone, topic=topic)

        body = [sentence(topic) for topic in prompt.meta["topics"]]
        while generator.random() < 0.45 and len(body) < 4:
            more = generator.random()
            if more < 0.5:
                body.append(fill(pick(generator, grammar.FILLERS), generator))
            elif more < 0.75:
                body.append(sentence(pick(generator, prompt.meta["topics"])))
            else:
                body.append(pick(generator, body))
        return body

    def document(self, generator: np.random.Generator) -> str:
        """Plain text to learn the language from: requests alone, tales, notes under a heading; never the chat form."""
        style = generator.random()
        prompt = self.request(generator, "train")
        if style < 0.1:
            return prompt.text
        if style < 0.5:
            return self._tale(prompt, generator)
        meta = prompt.meta
        asked = {"name": meta["name"], "tone": meta["tone"], "topic": meta["topics"][0], "second": meta["topics"][1]}
        heading = fill(pick(generator, grammar.HEADINGS), generator, **asked)
        return f"{heading} {self._note(prompt, float(generator.uniform(*self.corpus_skill)), generator)}"

    def _tale(self, prompt: Prompt, generator: np.random.Generator) -> str:
        """A few sentences on one topic in one mood: what teaches a small model soonest to take up what it has read."""
        tone, topic = prompt.meta["tone"], pick(generator, prompt.meta["topics"])
        patterns = generator.choice(len(grammar.TOPIC_SENTENCES), int(generator.integers(3, 6)), replace=False)
        heading = grammar.TALE_HEADING.format(topic=topic, tone=tone)
        body = [fill(grammar.TOPIC_SENTENCES[int(i)], generator, tone=tone, topic=topic) for i in patterns]
        return " ".join([heading, *body])

    def language(self) -> Iterator[str]:
        """Texts that together hold every piece of the vocabulary."""
        return grammar.language()
