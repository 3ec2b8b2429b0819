"""Search finds what a sort finds; recall is what it says; an index comes back as it was."""

import sys

import numpy as np
import pytest

from perceiver import InputError, retrieval
from perceiver.errors import MissingExtraError
from perceiver.retrieval import Index, both_ways, nearest, ranks, retrieved, shuffled
from perceiver.training.evaluation import figures_of, scores


def unit(seed, shape):
    x = np.random.default_rng(seed).normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def index(count=40, seed=0):
    kinds = tuple(("image", "text")[i % 2] for i in range(count))
    return Index(unit(seed, (count, 8)), tuple(f"thing {i}" for i in range(count)), kinds, "runs/x", "abc")


@pytest.mark.parametrize("block", [7, 16, 1000])
def test_search_is_a_sort(block, monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", block)
    vectors, queries = unit(0, (100, 8)), unit(1, (5, 8))
    found = nearest(vectors, queries, 10)
    cosines = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(found.numbers, order)
    np.testing.assert_allclose(found.cosines, np.take_along_axis(cosines, order, 1), atol=1e-6)


def test_equal_entries_come_in_their_order():
    vectors = np.repeat(unit(0, (1, 8)), 6, axis=0)
    assert nearest(vectors, vectors[:1], 4).numbers.tolist() == [[0, 1, 2, 3]]


def test_an_index_comes_back_and_is_checked(tmp_path):
    made = index()
    made.save(tmp_path / "index")
    back = Index.load(tmp_path / "index")
    np.testing.assert_array_equal(back.vectors, made.vectors)
    assert (back.names, back.modalities, back.model, back.digest) == (
        made.names,
        made.modalities,
        "runs/x",
        "abc",
    )
    path = tmp_path / "index" / retrieval.VECTORS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"embeddings\.safetensors: expected sha256"):
        Index.load(tmp_path / "index")
    with pytest.raises(InputError, match="nothing"):
        Index.load(tmp_path / "nothing")


def test_parts_of_an_index_and_queries_that_do_not_fit():
    texts = index().only(["text"])
    assert set(texts.modalities) == {"text"}
    assert texts.names[:2] == ("thing 1", "thing 3")
    assert texts.search(texts.vectors[:3], 1).numbers.ravel().tolist() == [0, 1, 2]
    assert texts.search(texts.vectors[:1], 1000).numbers.shape == (1, 20)
    for call, message in (
        (lambda: texts.only(["audio"]), "expected entries of audio, the index has text"),
        (lambda: texts.search(np.ones((2, 9), np.float32), 1), r"queries: expected \[q, 8\], got \(2, 9\)"),
        (lambda: texts.search(texts.vectors, 0), "count: expected at least 1, got 0"),
        (lambda: Index(np.full((1, 2), np.nan, np.float32), ("a",), ("b",)), "finite"),
        (lambda: Index(np.ones((2, 2), np.float32), ("a",), ("b",)), "a vector, a name and a modality"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_the_rank_is_of_the_nearest_right_one_and_ties_count_against():
    similarities = np.array([[0.9, 0.8, 0.1], [0.9, 0.8, 0.1], [0.5, 0.5, 0.5], [0.3, 0.2, 0.1], [np.nan, 0.2, 0.1]])
    positive = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
    assert ranks(similarities, positive).tolist() == [0, 1, 2, -1, 1]


def test_recall_counts_queries_that_have_an_answer():
    similarities = np.array([[0.9, 0.8], [0.9, 0.8], [0.9, 0.8]])
    positive = np.array([[1, 0], [0, 1], [0, 0]], bool)
    judged = retrieved(["a", "b", "c"], similarities, positive, ["x", "y"], among=(1, 2))
    assert figures_of(judged) == {"recall_at_1": 0.5, "recall_at_2": 1.0, "mean_reciprocal_rank": 0.75}
    assert [line["rank"] for line in judged.lines] == [0, 1, -1]
    assert judged.lines[0] == {"item": "a", "rank": 0, "nearest": "x", "hit": True}
    assert 0.0 <= scores(judged)["interval_95"]["recall_at_1"]["low"] <= 0.5


def test_both_ways_and_the_shuffled_control():
    vectors, names = unit(0, (60, 16)), [f"{i}" for i in range(60)]
    positive = np.eye(60, dtype=bool)
    across, back = both_ways((names, vectors), (names, vectors), positive)
    assert figures_of(across)["recall_at_1"] == figures_of(back)["recall_at_1"] == 1.0
    control, _ = both_ways((names, vectors), (names, vectors), shuffled(positive))
    assert figures_of(control)["recall_at_10"] < 0.5
    same, _ = both_ways((names, np.ones((60, 4))), (names, np.ones((60, 4))), positive)
    assert figures_of(same)["recall_at_10"] == 0.0  # saying the same of everything is worth nothing


def test_a_graph_finds_nearly_the_same():
    pytest.importorskip("faiss", reason="needs faiss: pip install 'perceiver[faiss]'")
    vectors, queries = unit(0, (2000, 16)), unit(1, (50, 16))
    whole = Index(vectors, tuple(map(str, range(2000))), ("image",) * 2000)
    exact, found = whole.search(queries, 10), whole.approximate().search(queries, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.numbers, found.numbers, strict=True)]
    assert np.mean(shared) / 10 > 0.95


def test_faiss_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"perceiver\[faiss\]"):
        index().approximate()
