"""Prompts in the plane: two kinds of text come apart, whatever their order, and topics are named by their own words."""

import numpy as np
import pytest

from evenhand.data.explore import explore, kmeans, leading, tfidf
from evenhand.errors import UserError

COOKING = [
    f"boil the {w} with salt and pepper in a pot" for w in ("rice", "pasta", "beans", "carrots", "peas", "rice", "beans", "peas")
]
SHIPS = [
    f"sail the {w} across the stormy sea to harbour" for w in ("sloop", "ketch", "yawl", "brig", "sloop", "yawl", "ketch", "brig")
]


def test_tfidf_by_hand():
    matrix, vocabulary = tfidf(["red red fish", "red bird", "blue bird sky", "blue fish"])
    assert vocabulary == ["bird", "blue", "fish", "red"], "sky is in one text only"
    idf = np.log(2) + 1
    first = np.array([0, 0, idf, (1 + np.log(2)) * idf])
    assert np.allclose(matrix[0].toarray().ravel(), first / np.linalg.norm(first))
    assert np.allclose(matrix[2].toarray().ravel(), [np.sqrt(0.5), np.sqrt(0.5), 0, 0])


def test_two_kinds_of_text_come_apart():
    found = explore(COOKING + SHIPS, topics=2, seed=0)
    assert len(set(found.topic[:8])) == 1
    assert len(set(found.topic[8:])) == 1
    assert found.topic[0] != found.topic[8]
    words = {found.topic[0]: set(found.names[found.topic[0]]), found.topic[8]: set(found.names[found.topic[8]])}
    assert words[found.topic[0]] <= set(" ".join(COOKING).split())
    assert words[found.topic[8]] <= set(" ".join(SHIPS).split())
    assert found.points.shape == (16, 2)


def test_the_same_seed_gives_the_same_map():
    one, two = (explore(COOKING + SHIPS, topics=3, seed=1) for _ in range(2))
    assert np.array_equal(one.topic, two.topic)
    assert np.allclose(one.points, two.points)


def test_directions_are_those_of_the_full_decomposition():
    import scipy.sparse

    dense = np.random.default_rng(0).random((40, 30)) * np.linspace(1, 9, 30)
    u, s, _ = np.linalg.svd(dense, full_matrices=False)
    found = leading(scipy.sparse.csr_matrix(dense), 3, seed=0)
    assert np.allclose(np.abs(found), np.abs(u[:, :3] * s[:3]), atol=1e-2)


def test_clusters_are_numbered_by_size():
    points = np.array([[0.0, 0], [0, 0.1], [0.1, 0], [9, 9], [9, 9.1]])
    assert kmeans(points, 2, seed=0).tolist() == [0, 0, 0, 1, 1]


def test_texts_without_a_word_in_common_are_refused():
    with pytest.raises(UserError, match="share too few words"):
        explore(["a", "b", "c", "d"])


def test_the_page_is_one_file_that_hides_nothing_and_escapes_everything():
    from evenhand.report.prompt_map import page

    texts = [*COOKING, *SHIPS[:-1], "sail <script>alert(1)</script> sea"]
    made = page(texts, ["cooking"] * 8 + ["ships"] * 8, explore(texts, topics=2))
    assert made.count("<circle") == 16
    assert "<script>" not in made
    assert "http" not in made, "nothing is loaded from elsewhere"
    assert "cooking" in made
