import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from perceiver.attention import Block
from perceiver.causal import CausalText
from perceiver.dictation import dictate_all
from perceiver.errors import ConfigError, InputError
from perceiver.inference import encode
from perceiver.pretrained import from_pretrained
from perceiver.speller import END, SpellerConfig, shifted, spell, told
from perceiver.training.transcribing import spelling_objective
from tests.models import noisy
from tests.test_transcription import MODEL, RATE, SAMPLES, sample

TEXT = CausalText(vocabulary=5, max_length=6, channels=16, depth=1, block=Block(heads=2, widening=2))
CONFIG = SpellerConfig(MODEL, TEXT, Block(heads=2, qk_channels=16))
START = 4


@pytest.fixture(scope="module")
def model():
    """Untrained, with noise for parameters."""
    return noisy(CONFIG)


@pytest.fixture(scope="module")
def latents(model):
    waves = np.random.default_rng(0).normal(size=(3, SAMPLES)).astype(np.float32)
    return encode(model.hearing, {"audio": waves})


@functools.partial(jax.jit, static_argnums=0)
def _read(graph, state, latents, ids):
    return jax.nn.log_softmax(nnx.merge(graph, state).read(latents, ids), axis=-1)


def logs_of(model, latents, ids):
    return np.asarray(_read(*nnx.split(model), latents, jnp.asarray(ids, jnp.int32)))


def test_the_likeliest_letter_comes_each_time(model, latents):
    for row, (text, ended) in enumerate(spell(model, latents)):
        ids = np.full((3, 6), END)
        ids[:, 0] = START
        for place in range(1, 6):
            best = int(logs_of(model, latents, ids)[row, place - 1, :START].argmax())
            ids[:, place] = best
            if best == END:
                break
        written = [letter for letter in ids[row, 1:] if letter != END]
        assert list(text) == written
        assert ended == (len(written) < 5)


def test_a_wide_search_finds_the_likeliest_of_all_texts_for_their_length(model, latents):
    texts = [text for count in range(6) for text in itertools.product((1, 2, 3), repeat=count)]
    rows = [[*text, END][:5] for text in texts]  # the longest have no room for their end
    ids = np.array([[START, *row, *[END] * (5 - len(row))] for row in rows])
    alone = jax.tree.map(lambda leaf: jnp.repeat(leaf[:1], len(rows), axis=0), latents)
    logs = logs_of(model, alone, ids)
    means = [np.mean(logs[i, range(len(row)), row]) for i, row in enumerate(rows)]
    found = spell(model, latents, 400)[0]
    assert found == (texts[int(np.argmax(means))], len(texts[int(np.argmax(means))]) < 5)


def test_what_is_heard_decides_what_is_spelled(model, latents):
    ids = np.full((3, 6), 1)
    logs = logs_of(model, latents, ids)
    assert np.abs(logs[0] - logs[1]).max() > 1e-3
    later = ids.copy()
    later[:, 3:] = 2
    changed = np.abs(logs_of(model, latents, later) - logs).max(axis=(0, 2)) > 1e-6
    np.testing.assert_array_equal(changed, np.arange(6) >= 3)


def test_targets_are_foretold_up_to_their_end():
    labels = jnp.array([[1, 2, 0, 0], [3, 3, 3, 3], [0, 0, 0, 0]])
    np.testing.assert_array_equal(shifted(labels, START), [[4, 1, 2, 0], [4, 3, 3, 3], [4, 0, 0, 0]])
    np.testing.assert_array_equal(told(labels), [[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])


@functools.partial(jax.jit, static_argnums=0)
def _loss(graph, state, batch):
    return spelling_objective(weight=0.25)(nnx.merge(graph, state), batch, None)


@pytest.mark.slow
def test_the_objective_weighs_both_ways_of_writing(model):
    rng = np.random.default_rng(2)
    samples = [sample(0, rng) for _ in range(2)]
    batch = {g: {n: np.stack([s[g][n] for s in samples]) for n in samples[0][g]} for g in samples[0]}
    loss, metrics = _loss(*nnx.split(model), batch)
    assert float(loss) == pytest.approx(0.25 * float(metrics["ctc"]) + 0.75 * float(metrics["spelling"]), rel=1e-5)
    labels = batch["targets"]["text"][:, :6]
    latents = encode(model.hearing, batch["inputs"], batch["masks"])
    logs = logs_of(model, latents, shifted(labels, START))
    nats = [-logs[row, place, labels[row, place]] for row, place in zip(*np.nonzero(told(labels)), strict=True)]
    assert float(metrics["spelling"]) == pytest.approx(np.mean(nats), rel=1e-4)


def test_long_sounds_are_spelled_in_windows_and_timed(model):
    wave = np.random.default_rng(1).normal(size=2 * SAMPLES + 500).astype(np.float32)
    short, long = dictate_all(model, [wave[:SAMPLES], wave], overlap=0.4)
    assert long.seconds == pytest.approx(2.25)
    for found, seconds in ((short, SAMPLES / RATE), (long, 2.25)):
        assert found.text == " ".join(word.text for word in found.words)
        assert all(0 <= word.start < word.end <= seconds for word in found.words)
        starts = [word.start for word in found.words]
        assert starts == sorted(starts)
    ended = [end for _, end in spell(model, encode(model.hearing, {"audio": wave[None, :SAMPLES] * 1.0}))]
    assert short.complete == ended[0]
    assert dictate_all(model, [np.zeros(1, np.float32)])[0].seconds == 1 / RATE  # fewer steps than letters


def test_it_is_saved_and_loaded(model, latents, tmp_path):
    again = from_pretrained(model.save(tmp_path / "model"))
    assert again.config == CONFIG
    assert spell(again, latents, 2) == spell(model, latents, 2)


def test_what_does_not_fit_is_refused(model, latents):
    with pytest.raises(ConfigError, match="expected a vocabulary of 5, the end, the letters and the start, got 9"):
        SpellerConfig(MODEL, CausalText(9, 6, 16, 1))
    with pytest.raises(ConfigError, match="expected the name of an output CTC, got 'label'"):
        SpellerConfig(MODEL, TEXT, output="label")
    with pytest.raises(InputError, match="expected at least 1 text, got 0"):
        spell(model, latents, 0)
    with pytest.raises(InputError, match="expected at most 6 tokens, got 7"):
        model.read(latents, jnp.zeros((3, 7), jnp.int32))
