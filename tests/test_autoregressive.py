import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver import Bytes, ConfigError, InputError
from perceiver.attention import Block
from perceiver.autoregressive import AutoregressiveConfig
from perceiver.autoregressive_parts import FromSlot, Ids
from perceiver.autoregressive_positions import Order, Rotary, Rows, Table
from perceiver.generation import Sampling, write
from perceiver.recollection import blank, step
from tests.models import noisy

LENGTH, LATENTS, WORDS = 24, 8, 20
BLOCK = Block(heads=2, widening=2)


def config(**changes):
    given = {"text": Ids(WORDS, LENGTH, 16), "latents": LATENTS, "channels": 16, "depth": 2, "cross": BLOCK}
    return AutoregressiveConfig(**(given | {"latent": BLOCK} | changes))


KINDS = {
    "rotary": {},
    "looks twice, from one place ahead": {"looks": (0, 1), "positions": Rotary(1.0, ahead=True)},
    "never looks, counts from the end": {"looks": (), "order": Order.BACKWARD},
    "two latents a place, learned starts": {"each": 2, "latents": 2 * LATENTS, "query": FromSlot()},
    "sines": {"positions": Table((LENGTH,), Rows.SINUSOIDAL)},
}


def some_ids(rows=3, count=LENGTH, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(1, WORDS, (rows, count)), jnp.int32)


@functools.cache
def made(name):
    return noisy(config(**KINDS[name]))


@functools.cache
def compiled(name):
    """What follows a place: from all that was kept (a step), and by reading all again (a call)."""
    graph, state = nnx.split(made(name))
    stepped = jax.jit(lambda kept, ids, place: step(nnx.merge(graph, state), kept, ids, place))

    def read(ids, place):
        model = nnx.merge(graph, state)
        first = model.config.window(place)
        return model(ids, first=jnp.full(len(ids), first)).logits[:, place - first]

    return stepped, jax.jit(read)


@pytest.mark.parametrize(
    "name",
    [
        "rotary",
        "looks twice, from one place ahead",
        *(pytest.param(name, marks=pytest.mark.slow) for name in list(KINDS)[2:]),
    ],
)
def test_what_is_kept_says_the_same_as_reading_all_again_and_nothing_recompiles(name):
    stepped, read = compiled(name)
    kept, ids = blank(made(name), 3), some_ids()
    for place in range(LENGTH):
        kept, logits = stepped(kept, ids, jnp.int32(place))
        np.testing.assert_allclose(logits, read(ids, jnp.int32(place)), atol=1e-5 * max(1, np.abs(logits).max()))
    assert stepped._cache_size() == 1


@pytest.mark.parametrize("start", [5, 17])
def test_what_is_kept_may_begin_anywhere(start):
    stepped, read = compiled("rotary")
    kept, ids = blank(made("rotary"), 3), some_ids(seed=start)
    for place in range(start, LENGTH):
        kept, logits = stepped(kept, ids, jnp.int32(place))
        np.testing.assert_allclose(logits, read(ids, jnp.int32(place)), atol=1e-5 * max(1, np.abs(logits).max()))


def test_ragged_prompts_go_on_together_as_they_do_alone_in_one_program():
    model = made("rotary")
    graph, state = nnx.split(model)

    @jax.jit
    def written(ids, lengths):
        own = nnx.merge(graph, state)
        keeping = functools.partial(step, own)
        return write(keeping, blank(own, len(ids)), ids, lengths, Sampling(0.0), jax.random.key(0), end=0, padding=0)

    ids, lengths = some_ids(), jnp.array([2, 13, 7])
    together = written(ids, lengths)
    for row in range(3):
        # As many rows of the same text: one shape, so that one program serves all lengths.
        alone = written(jnp.stack([ids[row]] * 3), jnp.full(3, lengths[row]))
        np.testing.assert_array_equal(alone, np.stack([together[row]] * 3))
    assert written._cache_size() == 1
    assert len({tuple(np.asarray(row)) for row in together}) == 3


@pytest.mark.parametrize("name", ["rotary", "never looks, counts from the end"])
def test_a_place_knows_only_what_comes_before_it(name):
    graph, state = nnx.split(made(name))
    told = jax.jit(lambda ids: nnx.merge(graph, state)(ids).logits)
    ids = some_ids()
    changed = ids.at[:, -3:].set(1 + ids[:, -3:] % (WORDS - 1))
    before, after = told(ids), told(changed)
    np.testing.assert_allclose(before[:, :-3], after[:, :-3], atol=1e-5)
    assert np.abs(before[:, -3:] - after[:, -3:]).max() > 1e-3
    early = told(ids.at[:, 0].set(1 + ids[:, 0] % (WORDS - 1)))
    assert (np.abs(before - early).max() > 1e-3) == (name == "rotary")


def test_padding_and_what_is_behind_a_text_do_not_matter():
    graph, state = nnx.split(made("rotary"))
    told = jax.jit(lambda ids, lengths: nnx.merge(graph, state)(ids, lengths))
    ids, lengths = some_ids(), jnp.array([LENGTH, 11, 3])
    found = told(ids, lengths)
    other = told(jnp.where(jnp.arange(LENGTH) < lengths[:, None], ids, 7), lengths)
    real = np.asarray(found.places) >= 0
    assert real.sum(axis=1).tolist() == [LATENTS, LATENTS, 3]
    assert np.asarray(found.places)[1].tolist() == list(range(11 - LATENTS, 11))
    np.testing.assert_allclose(found.logits[real], other.logits[real], atol=1e-5)


def test_training_hides_by_the_key_and_by_nothing_else():
    graph, state = nnx.split(noisy(config(hidden_ids=0.5, hidden_latents=0.5)))
    told = jax.jit(lambda ids, key: nnx.merge(graph, state)(ids, key=key).logits)
    key, ids = jax.random.key(1), some_ids()
    np.testing.assert_array_equal(told(ids, key), told(ids, key))
    assert np.abs(told(ids, key) - told(ids, None)).max() > 1e-3
    assert np.abs(told(ids, key) - told(ids, jax.random.key(2))).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latents": 0}, "latents: expected at least 1"),
        ({"each": 3}, "each: 3 do not divide the 8 latents"),
        ({"latents": LENGTH + 1}, f"latents: expected at most one for each of {LENGTH} places"),
        ({"looks": (1, 0)}, "looks: expected rising numbers from 0 to 2"),
        ({"looks": (3,)}, "looks: expected rising numbers from 0 to 2"),
        ({"hidden_ids": 1.0}, r"hidden_ids: expected in \[0, 1\)"),
        ({"latent": Block(heads=3)}, "latent: 3 heads do not divide 16 channels"),
        ({"positions": Rotary(0.1)}, "positions: rotates nothing of 8 in cross"),
    ],
)
def test_what_cannot_be_built_is_said(changes, said):
    with pytest.raises(ConfigError, match=rf"AutoregressiveConfig\.{said}"):
        config(**changes)


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match=f"ids: expected at most {LENGTH} tokens, got {LENGTH + 1}"):
        made("rotary")(some_ids(count=LENGTH + 1))
    with pytest.raises(InputError, match="lengths"):
        made("rotary")(some_ids(), jnp.array([1, 2]))
    with pytest.raises(ConfigError, match="nothing can be kept where a table counts places from the end"):
        blank(noisy(config(positions=Table((LENGTH,)), order=Order.BACKWARD)), 1)
    assert config(text=Bytes(LENGTH, width=16)).abstract().logits.kernel.shape == (16, 262)
