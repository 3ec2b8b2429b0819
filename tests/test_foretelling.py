import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import Bytes, ConfigError, InputError
from perceiver.adapters.text import BOS, BYTE_VOCABULARY, PAD, SPECIALS, encode_bytes
from perceiver.attention import Block
from perceiver.autoregressive import AutoregressiveConfig
from perceiver.causal import CausalText, LanguageConfig
from perceiver.foretelling import Foretelling, Places, Window, _nats, logits_at, nats, nats_by_prefix, nats_of_text
from perceiver.pipeline import in_batches, iterate, training_stream
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw
from perceiver.training.trainer import Trainer
from tests.models import noisy

WINDOW = Window(12, 4)
TEXT = bytes(np.random.default_rng(0).integers(97, 123, 45).astype(np.uint8))
CONFIG = AutoregressiveConfig(Bytes(12, width=8), 4, 8, 1, cross=Block(heads=2), latent=Block(heads=2))
BLIND = dataclasses.replace(CONFIG, latents=12, looks=())
PLAIN = LanguageConfig(CausalText(BYTE_VOCABULARY, 12, 8, 1, Block(heads=2)))


@functools.cache
def model():
    return noisy(CONFIG)


@functools.cache
def compiled(config, count):
    """Logits at so many places, from two rows of ids."""
    graph, state = nnx.split(noisy(config))
    return jax.jit(lambda ids, first: logits_at(nnx.merge(graph, state), ids, first, count))


def test_a_row_reads_the_prefix_and_is_asked_for_what_follows():
    row = Window(8, 3).row(b"abcdefgh", 4, 2)
    assert row["inputs"]["text"].tolist() == [BOS, *encode_bytes("cdefgh"), PAD]
    assert row["inputs"]["first"] == 2  # the place of d, behind which e is foretold
    assert row["targets"]["text"].tolist() == encode_bytes("efg").tolist()
    behind = Window(8, 3).row(b"abcdefgh", 7, 5)
    assert behind["targets"]["text"].tolist() == [SPECIALS + ord("h"), PAD, PAD]
    start = Window(4, 4).row(b"abcdefgh", 0, 0)
    assert start["inputs"]["text"].tolist() == [BOS, *encode_bytes("abc")]
    assert start["targets"]["text"].tolist() == encode_bytes("abcd").tolist()


def test_every_place_of_a_window_is_asked_for_equally_often():
    assert WINDOW.prefixes == (0, 4, 8)
    assert Window(10, 4).prefixes == (0, 4, 6)
    assert Window(6, 6).prefixes == (0,)
    places = Places(TEXT, WINDOW.length)
    assert len(places) == len(TEXT) - 12 + 1
    rng, asked = np.random.default_rng(0), np.zeros(12)
    for _ in range(600):
        row = WINDOW.drawn(places[int(rng.integers(len(places)))], rng)
        first = int(row["inputs"]["first"])
        asked[first : first + 4] += 1
        text = (row["inputs"]["text"][1:] - SPECIALS).astype(np.uint8).tobytes()
        assert text in TEXT
        ahead = [SPECIALS + TEXT[TEXT.index(text) + first + i] for i in range(4)]
        assert row["targets"]["text"].tolist() == ahead
    assert asked.min() > 0.8 * asked.mean()
    with pytest.raises(IndexError):
        places[len(places)]


def test_each_byte_of_a_text_counts_once_and_as_it_does_alone():
    found = nats_of_text(model(), TEXT, WINDOW)
    assert found.shape == (45,)
    for place in (0, 3, 4, 11, 20, 44):
        first = place // 4 * 4
        prefix = min(first, WINDOW.longest)
        read = np.full((2, 12), PAD, np.int32)  # nothing behind the place
        read[:, : place - first + prefix + 1] = [BOS, *encode_bytes(TEXT[first - prefix : place].decode())]
        logits = compiled(CONFIG, 4)(read, np.full(2, prefix))[0, place - first]
        shares = np.exp(logits - logits.max())
        assert found[place] == pytest.approx(-np.log(shares[SPECIALS + TEXT[place]] / shares.sum()), abs=1e-4)


def test_all_kinds_of_model_are_asked_alike():
    first = jnp.array([0, 5])
    ids = jnp.asarray(np.random.default_rng(1).integers(6, 262, (2, 12)), jnp.int32)
    assert compiled(CONFIG, 4)(ids, first).shape == (2, 4, BYTE_VOCABULARY)
    for config in (PLAIN, BLIND):
        whole = compiled(config, 12)(ids, jnp.zeros(2, jnp.int32))
        np.testing.assert_allclose(compiled(config, 4)(ids, first)[1], whole[1, 5:9], atol=1e-5)


def test_a_text_of_any_length_is_judged_by_one_program():
    nats_of_text(model(), TEXT, WINDOW)
    before = _nats._cache_size()
    for text in (TEXT[:1], TEXT[:4], TEXT[:13], TEXT * 7):
        assert len(nats_of_text(model(), text, WINDOW)) == len(text)
    assert _nats._cache_size() == before


def test_the_same_bytes_are_compared_under_longer_prefixes():
    found = nats_by_prefix(model(), TEXT, WINDOW, (0, 3, 8), most=4)
    assert found.shape == (3, 4)
    rows = [WINDOW.row(TEXT, place, 3) for place in (8, 16, 28, 40)]
    np.testing.assert_allclose(found[1], nats(model(), rows).mean(axis=1))
    assert np.abs(found[0] - found[2]).max() > 1e-3  # what is in front is looked at


@pytest.mark.parametrize(
    ("config", "window"), [(CONFIG, WINDOW), pytest.param(PLAIN, Window(12, 12), marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_model_learns_a_text_and_no_prefix_recompiles(config, window):
    text = b"abcdefghijklmnop" * 8
    stream = training_stream(Places(text, window.length), window.drawn, seed=0, batch=8)
    objective = Foretelling(window.count)
    done = Experiment("x", config, stream, objective, adamw(0.02), 40, 8, lambda _: {}, "x", lambda _: {})
    trainer = Trainer(done)
    state, batches, losses = trainer.start(), iterate(stream), []
    for _ in range(40):
        state, metrics = trainer.step(state, next(batches))
        losses.append(float(metrics["loss"]))
    batches.close()
    assert losses[0] == pytest.approx(np.log(BYTE_VOCABULARY), abs=0.3)
    assert losses[-1] < 0.5 * losses[0]
    assert len(trainer.programs) == 1


def test_padding_is_no_loss():
    (batch, _), *_ = in_batches([WINDOW.row(b"abcde", 4, 4)], 2)
    (whole, _), *_ = in_batches([WINDOW.row(b"abcdefgh", 4, 4)], 2)
    graph, state = nnx.split(model())
    loss = jax.jit(lambda batch: Foretelling(4)(nnx.merge(graph, state), batch, None)[0])
    each = nats(model(), [WINDOW.row(b"abcdefgh", 4, 4)])[0]
    assert float(loss(batch)) == pytest.approx(each[0], abs=1e-5)
    assert float(loss(whole)) == pytest.approx(each.mean(), abs=1e-5)


def test_what_does_not_fit_is_said():
    with pytest.raises(ConfigError, match=r"Window\.count: expected 1 to the length 4, got 5"):
        Window(4, 5)
    for place, prefix, most in ((20, 9, 8), (2, 3, 2)):
        with pytest.raises(InputError, match=f"prefix: expected 0 to {most} bytes, got {prefix}"):
            WINDOW.row(TEXT, place, prefix)
    with pytest.raises(InputError, match="text: expected at least one byte"):
        nats_of_text(model(), b"", WINDOW)
    with pytest.raises(InputError, match="text: expected at least 12 bytes, got 5"):
        nats_by_prefix(model(), b"abcde", WINDOW, (0,))
