"""A mark in text: it is found where it is, not where it is not, and changes no probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import ConfigError, InputError, cli
from perceiver.adapters.text import BYTE_VOCABULARY, decode_bytes
from perceiver.generation import Sampling, reading_all, write
from perceiver.watermark import Watermark
from tests.started import ended

VOCABULARY, LENGTH = 40, 200
MARK = Watermark("rosebud")


def model(ids):
    """Logits of a made-up model in which each id has its own favourites behind it."""
    table = 2.0 * jax.random.normal(jax.random.key(1), (VOCABULARY, VOCABULARY))
    return table[jnp.asarray(ids)]


def written(sampling, rows=4, seed=0):
    """Texts of LENGTH ids behind a prompt of one."""
    ids = jnp.ones((rows, LENGTH + 1), jnp.int32)
    text = write(reading_all(model), (), ids, jnp.ones(rows, int), sampling, jax.random.key(seed), -1, 0)
    return np.asarray(text)[:, 1:]


@pytest.fixture(scope="module")
def marked():
    return written(Sampling(watermark=MARK))


def test_the_mark_is_found_by_its_secret_alone(marked):
    for row in marked:
        assert MARK.evidence(row).p_value < 1e-9
        assert Watermark("other").evidence(row).p_value > 1e-4
    for row in written(Sampling()):
        assert MARK.evidence(row).p_value > 1e-4


def test_a_part_of_a_text_is_enough_and_a_changed_one_weakens_it(marked):
    row = marked[0].copy()
    whole = MARK.evidence(row)
    assert MARK.evidence(row[50:150]).p_value < 1e-4
    row[::5] = 0  # no context of four ids is left as it was
    assert MARK.evidence(row).p_value > 1e-4
    assert whole.agreement > 0.55


def test_over_contexts_every_id_keeps_its_probability():
    chances = jnp.broadcast_to(jnp.array([0.6, 0.25, 0.1, 0.05]), (20_000, 4))
    ids = jax.random.randint(jax.random.key(0), (20_000, 8), 0, 1000)
    coins, _ = MARK.coins(ids, jnp.int32(6), 4)
    found = Watermark("rosebud", layers=3).drawn_by(chances, coins)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(found.mean(axis=0), chances[0], atol=0.01)
    assert found.std(axis=0).max() > 0.1


def test_p_values_of_unmarked_text_are_no_smaller_than_by_chance():
    """Text with repetitions, as real text has; behind a context that was there before, nothing is counted."""
    text = np.frombuffer((b"to be or not to be, that is the question: whether tis nobler in the mind " * 3), np.uint8)
    values = np.array([Watermark(f"secret {number}").evidence(text).p_value for number in range(2000)])
    for level in (0.01, 0.05, 0.2):
        assert (values <= level).mean() < level + 3 * np.sqrt(level / 2000)


def test_behind_a_context_that_was_there_nothing_is_marked():
    ids = jnp.array([[1, 2, 3, 1, 2, 0], [1, 2, 3, 4, 5, 0]])
    mark = Watermark("rosebud", context=2)
    assert mark.coins(ids, jnp.int32(5), 4)[1].tolist() == [False, True]
    assert mark.coins(ids, jnp.int32(1), 4)[1].tolist() == [False, False]
    assert Watermark("rosebud", context=9).coins(ids, jnp.int32(5), 4)[1].tolist() == [False, False]


def test_what_can_carry_no_mark_is_refused():
    with pytest.raises(ConfigError, match="temperature above 0"):
        Sampling(0.0, watermark=MARK)
    with pytest.raises(ConfigError, match="secret: expected at least one letter"):
        Watermark("")
    with pytest.raises(ConfigError, match="layers: expected 1 to 32, got 33"):
        Watermark("a", layers=33)
    with pytest.raises(ConfigError, match="context: expected at least 1"):
        Watermark("a", context=0)
    with pytest.raises(InputError, match="one row of more than 4"):
        MARK.evidence(np.arange(4))


def test_the_command_finds_the_mark_in_a_file(tmp_path, capsys):
    letters = jnp.full((BYTE_VOCABULARY,), -jnp.inf).at[jnp.arange(ord("a"), ord("z")) + 6].set(0.0)
    start = jnp.full((1, 120), ord("a") + 6, jnp.int32)
    flat = reading_all(lambda ids: jnp.broadcast_to(letters, (*ids.shape, BYTE_VOCABULARY)))
    rows = write(flat, (), start, jnp.ones(1, int), Sampling(watermark=MARK), jax.random.key(0), -1, 0)
    (tmp_path / "story.txt").write_text(decode_bytes(np.asarray(rows[0])))
    found = []
    for secret in ("rosebud", "other"):
        cli.main(["verify", str(tmp_path / "story.txt"), "--secret", secret])
        found.append(float(capsys.readouterr().out.split("p = ")[1]))
    assert found[0] < 1e-6 < 1e-3 < found[1]
    (tmp_path / "broken.txt").write_bytes(b"abcdef\xff")
    assert (
        "UTF-8, got another byte at 6"
        in ended(["verify", str(tmp_path / "broken.txt"), "--secret", "a"], 2, capsys).err
    )
