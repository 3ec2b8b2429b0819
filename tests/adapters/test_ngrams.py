import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import Bytes, ConfigError, Ngrams
from perceiver.adapters.ngrams import hashed, hashed_words
from perceiver.adapters.text import encode_bytes


def test_equal_runs_share_a_bucket_wherever_they_stand_and_others_rarely_do():
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(6, 262, (1, 4000)))
    ids = ids.at[0, 3000:3100].set(ids[0, 100:200])
    found = np.asarray(hashed(ids, 4, 2**15))[0]
    assert np.array_equal(found[3003:3100], found[103:200])
    assert found.min() >= 0
    assert found.max() < 2**15
    # 4,000 runs over 32,768 buckets: by chance 1 - exp(-4000 / 32768) = 11.5 % of them meet another
    assert len(np.unique(found[:3000])) > 2800


def test_sizes_have_buckets_of_their_own():
    ids = jnp.full((1, 50), 70)
    assert len({int(hashed(ids, size, 2**15)[0, -1]) for size in (2, 3, 4, 5, 6)}) == 5


def test_a_token_knows_the_run_that_ends_at_it_and_nothing_behind():
    module = Bytes(16, width=8, ngrams=Ngrams((3,), 64, scale=1.0)).build(dtype=jnp.float32, rngs=nnx.Rngs(0))
    ids = jnp.arange(6, 22)[None]
    changed = ids.at[0, 8].set(200)
    moved = np.abs(np.asarray(module(ids).values - module(changed).values)).max(axis=-1)[0] > 1e-6
    assert moved.tolist() == [8 <= place <= 10 for place in range(16)]


def test_padding_behind_a_text_changes_nothing_in_it():
    module = Bytes(16, width=8, ngrams=Ngrams((3, 4), 64)).build(dtype=jnp.float32, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(0), (1, 10), 6, 262)
    padded = jnp.pad(ids, ((0, 0), (0, 6)))
    assert np.array_equal(module(ids).values, module(padded).values[:, :10])


def test_a_word_has_one_bucket_wherever_it_stands_and_however_it_is_written():
    text = "Red-fox, hot_dog's fox; Füchse 12 foxes DOG"
    found, ends = (np.asarray(row)[0] for row in hashed_words(jnp.asarray(encode_bytes(text))[None], 2**15))
    places = [len(text[:stop].encode()) - 1 for stop in np.flatnonzero(_ends(text)) + 1]
    assert np.flatnonzero(ends).tolist() == places
    words = dict(
        zip(["red", "fox", "hot", "dog", "s", "fox2", "füchse", "12", "foxes", "dog2"], found[ends], strict=True)
    )
    assert words.pop("fox2") == words["fox"]
    assert words.pop("dog2") == words["dog"]
    assert len(set(words.values())) == len(words)


def _ends(text):
    letter = [c.isalnum() for c in text]
    return [here and not behind for here, behind in zip(letter, [*letter[1:], False], strict=True)]


def test_words_are_hashed_apart_as_runs_are():
    rng = np.random.default_rng(0)
    text = " ".join("".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(2, 9))) for _ in range(3000))
    found, ends = (np.asarray(row)[0] for row in hashed_words(jnp.asarray(encode_bytes(text))[None], 2**15))
    buckets = len(set(found[ends])) / len(set(text.split()))
    assert buckets > 0.94  # by chance one of 22 meets another


def test_whole_words_are_told_at_their_ends_only():
    config = Ngrams((2,), 64, scale=1.0, words=True)
    module = Bytes(16, width=8, ngrams=config).build(dtype=jnp.float32, rngs=nnx.Rngs(0))
    ids = jnp.asarray(encode_bytes("abcdef ghi"))[None]
    moved = np.abs(np.asarray(module(ids).values - module(ids.at[0, 0].set(99)).values)).max(axis=-1)[0] > 1e-6
    assert np.flatnonzero(moved).tolist() == [0, 1, 5]


@pytest.mark.parametrize("wrong", [{"sizes": ()}, {"sizes": (1, 3)}, {"buckets": 1}])
def test_bad_fields_are_named(wrong):
    with pytest.raises(ConfigError, match=r"Ngrams\."):
        Ngrams(**wrong)
