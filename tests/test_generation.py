import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import ConfigError, InputError
from perceiver.generation import Sampling, reading_all, write

END, PADDING = 7, 0


def after(ids):
    """Logits of a made-up model that counts upwards: after id i comes i + 1."""
    return 50.0 * jax.nn.one_hot(jnp.asarray(ids) + 1, 10)


def test_rows_go_on_from_their_own_lengths_up_to_the_end():
    ids = jnp.array([[3, 9, 9, 9, 9, 9, 9, 9], [1, 2, 3, 9, 9, 9, 9, 9]])
    rows = write(reading_all(after), (), ids, jnp.array([1, 3]), Sampling(0.0), jax.random.key(0), END, PADDING)
    np.testing.assert_array_equal(rows, [[3, 4, 5, 6, 7, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 0]])


def test_an_answer_that_finds_no_end_stops_with_the_budget():
    rows = write(
        reading_all(after), (), jnp.array([[1, 9, 9]]), jnp.array([1]), Sampling(0.0), jax.random.key(0), END, PADDING
    )
    np.testing.assert_array_equal(rows, [[1, 2, 3]])


def test_what_is_drawn_does_not_depend_on_what_else_is_written():
    def flat(ids):
        return jnp.zeros((*ids.shape, 10)).at[..., END].set(-20.0)

    ids = jnp.ones((3, 12), jnp.int32)
    alone = write(reading_all(flat), (), ids[:1], jnp.array([2]), Sampling(), jax.random.key(4), END, PADDING)
    among = write(reading_all(flat), (), ids, jnp.array([2, 4, 1]), Sampling(), jax.random.key(4), END, PADDING)
    np.testing.assert_array_equal(alone[0], among[0])
    other = write(reading_all(flat), (), ids[:1], jnp.array([2]), Sampling(), jax.random.key(5), END, PADDING)
    assert (np.asarray(other) != np.asarray(alone)).any()


def test_drawing_follows_the_probabilities():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.2]))
    many = jnp.broadcast_to(logits, (20_000, 3))
    shares = np.bincount(Sampling()(many, jax.random.key(0)), minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.015)
    shares = np.bincount(Sampling(temperature=0.5)(many, jax.random.key(0)), minlength=3) / 20_000
    np.testing.assert_allclose(shares, np.array([25, 9, 4]) / 38, atol=0.015)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=2), [1, 2]),
        (Sampling(top_p=0.5), [1]),
        (Sampling(top_p=0.51), [1, 2]),
        (Sampling(top_k=3, top_p=1.0), [0, 1, 2]),
        (Sampling(top_k=9), [0, 1, 2, 3]),
    ],
)
def test_the_likeliest_ids_are_kept(sampling, kept):
    logits = jnp.log(jnp.array([[0.15, 0.5, 0.3, 0.05]]))
    assert np.flatnonzero(np.isfinite(sampling.kept(logits)[0])).tolist() == kept


def test_what_cannot_be_is_said():
    for wrong in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ConfigError, match=rf"Sampling\.{next(iter(wrong))}: expected"):
            Sampling(**wrong)
    with pytest.raises(InputError, match="lengths"):
        write(
            reading_all(after),
            (),
            jnp.ones((2, 3), jnp.int32),
            jnp.array([1]),
            Sampling(),
            jax.random.key(0),
            END,
            PADDING,
        )


def test_what_was_said_is_repeated_less():
    logits = jnp.log(jnp.array([[0.5, 0.4, 0.1]])) + 2.0
    seen = jnp.array([[True, False, False]])
    assert Sampling(0.0)(logits, jax.random.key(0), seen) == 0
    assert Sampling(0.0, repetition=1.5)(logits, jax.random.key(0), seen) == 1
    assert Sampling(0.0, repetition=1.5)(logits - 9.0, jax.random.key(0), seen) == 1  # below 0 likewise
    rows = write(
        reading_all(lambda ids: jnp.zeros((*ids.shape, 10)) + jnp.arange(10.0) / 100 + 1),
        (),
        jnp.array([[9, 0, 0, 0]]),
        jnp.array([1]),
        Sampling(0.0, repetition=2.0),
        jax.random.key(0),
        END,
        PADDING,
    )
    np.testing.assert_array_equal(rows, [[9, 8, 7, 0]])  # 7 is the end
    with pytest.raises(ConfigError, match=r"Sampling\.repetition: expected above 0"):
        Sampling(repetition=0.0)
