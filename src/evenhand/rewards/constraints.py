"""Instructions that a program can check, under the names and meanings of IFEval (arXiv:2311.07911, strict evaluation)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evenhand.errors import UserError, one_of
from evenhand.rewards.pointwise import Pointwise, meta_field, pointwise
from evenhand.types import Completion, Prompt

COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "at least": lambda found, wanted: found >= wanted,
    "less than": lambda found, wanted: found < wanted,
}
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def compare(relation: str, found: int, wanted: int) -> bool:
    return COMPARISONS[one_of("relation", relation, COMPARISONS, where="reward ifeval")](found, wanted)


def paragraphs(text: str, separator: str) -> list[str] | None:
    """The stripped paragraphs; an empty one counts only as a fault (None), except at the two ends, where it is dropped."""
    found = [part.strip() for part in re.split(separator, text)]
    inner = found[1 if not found[0] else 0 : len(found) - (len(found) > 1 and not found[-1])]
    return inner if all(inner) else None


def keywords(text: str, keywords: Sequence[str]) -> bool:
    return all(re.search(word, text, re.IGNORECASE) for word in keywords)


def forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def keyword_frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return compare(relation, len(re.findall(keyword, text, re.IGNORECASE)), frequency)


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return compare(let_relation, Counter(text.lower())[letter.lower()], let_frequency)


def language(text: str, language: str) -> bool:
    try:
        import langdetect
    except ImportError as error:
        raise UserError(
            "the package langdetect is not installed", where="reward ifeval", fix="pip install 'evenhand[verify]'"
        ) from error
    langdetect.DetectorFactory.seed = 0  # its guess is otherwise drawn
    try:
        return langdetect.detect(text) == language
    except langdetect.LangDetectException:  # a text without letters has no language: IFEval counts it as followed
        return True


def word_count(text: str, num_words: int, relation: str) -> bool:
    return compare(relation, len(re.findall(r"\w+", text)), num_words)


def sentence_count(text: str, num_sentences: int, relation: str) -> bool:
    """Sentences end at . ! or ? before a blank or the end; IFEval uses nltk's punkt, which also knows abbreviations."""
    sentences = [s for s in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if s]
    return compare(relation, len(sentences), num_sentences)


def paragraph_count(text: str, num_paragraphs: int) -> bool:
    found = paragraphs(text, r"\s?\*\*\*\s?")
    return found is not None and len(found) == num_paragraphs


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = re.split(r"\n\n", text)
    if nth_paragraph > len(parts) or len([p for p in parts if p.strip()]) != num_paragraphs:
        return False
    words = parts[nth_paragraph - 1].strip().split()
    return bool(words) and re.split(r"[.,?!'\"]", words[0].lstrip("'\""))[0].lower() == first_word.lower()


def placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    letters = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    pattern = letters.get(postscript_marker, rf"\s*{re.escape(postscript_marker.lower())}.*$")
    return bool(re.search(pattern, text.lower(), re.MULTILINE))


def bullets(text: str, num_bullets: int) -> bool:
    found = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE) + re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(found) == num_bullets


def choice(text: str) -> bool:
    return any(option in text for option in CHOICES)


def highlights(text: str, num_highlights: int) -> bool:
    single = [h for h in re.findall(r"\*[^\n\*]*\*", text) if h.strip("*").strip()]
    double = [h for h in re.findall(r"\*\*[^\n\*]*\*\*", text) if h.removeprefix("**").removesuffix("**").strip()]
    return len(single) + len(double) >= num_highlights


def sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", text)) - 1 >= num_sections


def json_format(text: str) -> bool:
    body = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        body = body.removeprefix(fence)
    try:
        json.loads(body.removesuffix("```").strip())
    except (ValueError, RecursionError):  # the very question asked
        return False
    return True


def title(text: str) -> bool:
    return any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text))


def two_responses(text: str) -> bool:
    found = paragraphs(text, r"\*{6}")
    return found is not None and len(found) == 2 and found[0] != found[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_phrase(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    body = text.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


def no_comma(text: str) -> bool:
    return "," not in text


def capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    found = re.findall(r"\w+(?:[-'’]\w+)*", text)
    return compare(capital_relation, sum(word.isupper() for word in found), capital_frequency)


def capital(text: str) -> bool:
    return text.isupper() and language(text, "en")


def lowercase(text: str) -> bool:
    return text.islower() and language(text, "en")


CHECKS: Mapping[str, Callable[..., bool]] = {
    "keywords:existence": keywords,
    "keywords:forbidden_words": forbidden,
    "keywords:frequency": keyword_frequency,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": language,
    "length_constraints:number_words": word_count,
    "length_constraints:number_sentences": sentence_count,
    "length_constraints:number_paragraphs": paragraph_count,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": bullets,
    "detectable_format:constrained_response": choice,
    "detectable_format:number_highlighted_sections": highlights,
    "detectable_format:multiple_sections": sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_phrase,
    "startend:quotation": quotation,
    "punctuation:no_comma": no_comma,
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": capital,
    "change_case:english_lowercase": lowercase,
}


def followed(text: str, names: Sequence[str], options: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each instruction is followed; an empty answer follows none.

    >>> followed("no commas, please", ["punctuation:no_comma", "keywords:existence"], [{}, {"keywords": ["please"]}])
    [False, True]
    """
    return [_follows(text, name, given) for name, given in zip(names, options, strict=True)]


def _follows(text: str, name: str, given: Mapping[str, Any]) -> bool:
    check = CHECKS[one_of("instruction", name, CHECKS, where="reward ifeval")]
    options = {key: value for key, value in given.items() if value is not None}  # tables fill absent options with null
    return bool(text.strip()) and check(text, **options)


def ifeval() -> Pointwise:
    """The share of `meta["instruction_id_list"]` (options in `meta["kwargs"]`) that is followed; part `all`: whether all are."""

    def score(prompt: Prompt, completion: Completion) -> dict[str, float]:
        names, options = (meta_field(prompt, field, "ifeval") for field in ("instruction_id_list", "kwargs"))
        where = f"reward ifeval, prompt {prompt.id}"
        if not (isinstance(names, list | tuple) and isinstance(options, list | tuple) and 0 < len(names) == len(options)):
            what = "expected lists of names and of their options, as many of each"
            raise UserError(f"{what}, found {names!r:.60} and {options!r:.60}", where=where, fix="correct the data")
        try:
            found = followed(completion.text, names, options)
        except (TypeError, ValueError, AttributeError, re.error) as error:
            why = "options are missing, unknown, or of another type"
            raise UserError(
                f"its instructions cannot be checked: {error}", where=where, why=why, fix="correct the data"
            ) from error
        return {"reward": sum(found) / len(found), "all": float(all(found))}

    return pointwise(score, name="ifeval")
