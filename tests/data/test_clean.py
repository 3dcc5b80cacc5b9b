import itertools
import json
import random

import pytest

from evenhand.data.clean import decontaminate, drop_crooked, drop_exact, drop_identical, drop_near, merge_turns
from evenhand.data.load import load
from evenhand.data.minhash import jaccard, rows_per_band, shingles, words
from evenhand.errors import UserError
from evenhand.types import Completion, Group, Message, Prompt


def group(prompt, *answers, scores=()) -> Group:
    return Group(prompt=Prompt(content=prompt), completions=tuple(Completion(content=a) for a in answers), scores=scores)


def test_exact_duplicates():
    groups = [group("a", "x"), group("a", "y"), group("a", "x"), group("b", "x"), group("a", "x", scores=(1.0,))]
    assert drop_exact(groups).removed == ((2, "duplicate of 0"),)
    assert [i for i, _ in drop_exact(groups, by="prompt").removed] == [1, 2, 4]


def test_identical_pairs():
    groups = [group("a", "x", "x "), group("a", "x", "y"), group("a", "x"), group("a")]
    assert [i for i, _ in drop_identical(groups).removed] == [0]


def sets_of(text, size=3):
    tokens = words(text)
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


def test_similarity_of_hashed_sets_is_that_of_the_sets():
    one, two = "the quick brown fox jumps over the lazy dog", "the quick brown fox walks over the lazy dog"
    a, b = sets_of(one), sets_of(two)
    assert jaccard(shingles(words(one), 3), shingles(words(two), 3)) == pytest.approx(len(a & b) / len(a | b))
    assert jaccard(shingles([], 3), shingles([], 3)) == 1.0


def test_near_duplicates_are_those_that_comparing_everything_finds():
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(200)]
    texts = [[rng.choice(vocabulary) for _ in range(60)] for _ in range(60)]
    for source in list(texts[:40]):  # copies with 0 to 8 words changed
        copy = list(source)
        for place in rng.sample(range(60), rng.randrange(9)):
            copy[place] = rng.choice(vocabulary)
        texts.append(copy)
    groups = [group(" ".join(t)) for t in texts]
    kept: list[int] = []
    expected = []
    for i, g in enumerate(groups):
        mine = sets_of(g.prompt.text)
        near = [j for j in kept if len(mine & (other := sets_of(groups[j].prompt.text))) / len(mine | other) >= 0.7]
        (expected if near else kept).append(i)
    removed = [i for i, _ in drop_near(groups, threshold=0.7).removed]
    assert 5 < len(expected) < 40, "the copies lie on both sides of the threshold"
    assert set(removed) <= set(expected), "nothing else ever goes"
    assert len(removed) >= len(expected) - 1, "a pair at the threshold is found with probability 0.99"


def test_banding_finds_a_pair_at_the_threshold_with_99_percent():
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95):
        rows = rows_per_band(threshold)
        assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
    assert rows_per_band(0.8) == 4, "8 rows in 16 bands would find only 95 percent"


def test_a_pair_exactly_at_the_threshold_goes():
    groups = [group("a b c"), group("b c d")]  # 2 of 4 words shared
    assert len(drop_near(groups, threshold=0.5, size=1).removed) == 1
    assert len(drop_near(groups, threshold=0.51, size=1).removed) == 0


def test_near_duplicates_ignore_case_and_punctuation_but_not_answers():
    groups = [
        group("What is the capital of France?", "Paris it is."),
        group("what is the capital of france", "paris it is"),
        group("What is the capital of France?", "It must be Lyon, I believe."),
    ]
    assert [i for i, _ in drop_near(groups).removed] == [1]
    assert [i for i, _ in drop_near(groups, by="prompt").removed] == [1, 2]
    with pytest.raises(UserError, match="not a similarity"):
        drop_near(groups, threshold=1.5)


def test_decontamination_by_overlap():
    long = " ".join(f"w{i}" for i in range(20))
    against = [long, "Who wrote Hamlet?"]
    groups = [
        group("before " + " ".join(f"W{i}," for i in range(3, 16)) + " after", "x"),  # 13 words in a row
        group(" ".join(f"w{i}" for i in range(3, 15)), "x"),  # 12 words only
        group("clean", "first, who wrote hamlet and why"),  # a short question, whole, in an answer
        group("who wrote Macbeth?", "x"),
    ]
    result = decontaminate(groups, against)
    assert [i for i, _ in result.removed] == [0, 2]
    assert result.removed[1][1] == "shares 'who wrote hamlet' with the evaluation prompts"
    assert [i for i, _ in decontaminate(groups, against, ngram=5).removed] == [0, 1, 2]


def test_cleaning_in_a_source(tmp_path):
    rows = [("q1", "a", "b"), ("q1", "a", "b"), ("q2", "same", "same"), ("who wrote hamlet", "a", "b"), ("q3", "a", "b")]
    path, held = tmp_path / "r.jsonl", tmp_path / "held.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "chosen": c, "rejected": r}) + "\n" for p, c, r in rows))
    held.write_text(json.dumps({"prompt": "Who wrote Hamlet?"}) + "\n")
    data = load({"path": str(path), "clean": {"duplicates": "exact", "identical": "drop", "against": str(held)}})
    assert [g.prompt.content for g in data.groups] == ["q1", "q3"]
    assert "2 after cleaning (1 identical pairs, 1 duplicates, 1 seen in evaluation)" in data.description
    for options, finding in [({"duplicate": "exact"}, "unknown key"), ({"duplicates": "all"}, "unknown value 'all'")]:
        with pytest.raises(UserError, match=finding):
            load({"path": str(path), "clean": options})


def test_order_is_kept():
    groups = [group(f"p{i}", "x") for i in range(20)]
    assert list(drop_near(groups).groups) == groups
    assert all(a.prompt.content != b.prompt.content for a, b in itertools.pairwise(drop_exact(groups).groups))


def chat(*roles, answer=("assistant",)):
    turns = [Message(r, f"{r} {i}") for i, r in enumerate(roles)]
    said = tuple(Message(r, f"answer {i}") for i, r in enumerate(answer))
    return Group(prompt=Prompt(content=tuple(turns)), completions=(Completion(content=said),))


def test_conversations_that_do_not_alternate():
    fine = [chat("user"), chat("system", "user"), chat("user", "assistant", "user"), chat("user", "assistant", "tool")]
    fine.append(Group(prompt=Prompt(content="verbatim"), completions=(Completion(content="text"),)))
    crooked = [chat("user", "user"), chat("assistant"), chat("user", "system"), chat("user", answer=("assistant", "assistant"))]
    left = drop_crooked([*fine, *crooked])
    assert list(left.groups) == fine
    assert left.removed[0] == (5, "turns do not alternate: user, user, assistant")
    merged = merge_turns(crooked)
    assert [[m.content for m in g.prompt.content] for g in merged.groups] == [["user 0\n\nuser 1"], ["user 0"]]
    assert [m.content for m in merged.groups[1].completions[0].content] == ["answer 0\n\nanswer 1"]
    assert merged.groups[0].prompt.id != crooked[0].prompt.id, "another text is another prompt"
