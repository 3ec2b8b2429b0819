import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.adapters.text import BOS, EOS, PAD, encode_bytes
from perceiver.attention import Block
from perceiver.autoregressive import AutoregressiveConfig
from perceiver.autoregressive_parts import Ids
from perceiver.continuation import Ended, Wish, continued
from perceiver.errors import ConfigError, InputError
from perceiver.foretelling import telling
from perceiver.generation import Sampling
from perceiver.narrator import NarratorConfig, narrated, row_of
from perceiver.pipeline import iterate, training_stream
from perceiver.pretrained import from_pretrained
from perceiver.recollection import blank, step
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw
from perceiver.training.trainer import Trainer
from tests.models import noisy

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
LENGTH = 12
SENSES = p.PerceiverConfig(
    {"image": p.Image((4, 4, 3), patch=2, position=p.Fourier(bands=1))}, p.Encoder(3, 16, depth=1, latent=Block(2)), {}
)
TEXT = AutoregressiveConfig(
    p.Bytes(LENGTH, width=16), LENGTH, 16, 1, cross=Block(heads=2), latent=Block(heads=2), about=16
)
CONFIG = NarratorConfig(SENSES, TEXT)
LIKELIEST = Wish(sampling=Sampling(0.0))


def picture(colour, rng):
    return np.clip(np.array(COLOURS[colour]) + rng.integers(-25, 26, (4, 4, 3)), 0, 255).astype(np.uint8)


def sample(colour, rng):
    return {"inputs": {"image": picture(colour, rng)}, "targets": {"text": row_of(colour, LENGTH)}}


@functools.cache
def taught():
    """A model that has seen pictures of three colours, and their names."""
    stream = training_stream(list(COLOURS) * 8, sample, seed=0, batch=12)
    given = {"validate": lambda _: {}, "best": "", "test": lambda _: {}}
    made = Experiment("x", CONFIG, stream, telling, adamw(1e-2, weight_decay=0.0), 120, 12, **given)
    trainer, batches = Trainer(made), iterate(stream)
    state = trainer.start()
    for _ in range(120):
        state, _ = trainer.step(state, next(batches))
    batches.close()
    assert len(trainer.programs) == 1
    return trainer.model(state)


@pytest.mark.slow  # 10 CPU seconds
def test_it_tells_what_it_sees_of_pictures_that_it_has_not_seen():
    rng = np.random.default_rng(9)
    names = ["blue", "red", "green", "red", "blue"]
    images = np.stack([picture(name, rng) for name in names])
    told = narrated(taught(), {"image": images}, wish=LIKELIEST)
    assert told == [(name, Ended.END) for name in names]
    begun = narrated(taught(), {"image": images[1:3]}, prompts=["re", "gr"], wish=LIKELIEST)
    assert [text.text for text in begun] == ["d", "een"]


def test_what_is_kept_says_the_same_as_reading_all_again():
    graph, state = nnx.split(noisy(CONFIG))
    rng = np.random.default_rng(1)
    images = {"image": np.stack([picture(name, rng) for name in ("red", "blue")])}
    ids = jnp.asarray(rng.integers(6, 262, (2, LENGTH)), jnp.int32)

    @jax.jit
    def stepped(kept, place):
        model = nnx.merge(graph, state)
        return step(model.text, kept, ids, place, about=model.sense(images))

    whole = jax.jit(lambda images: nnx.merge(graph, state)(images, ids).logits)(images)
    kept = blank(nnx.merge(graph, state).text, 2)
    for place in range(LENGTH):
        kept, logits = stepped(kept, jnp.int32(place))
        # Latents are given up when there are no more; until then they are those of a whole call.
        if int(kept.first) == 0:
            np.testing.assert_allclose(logits, whole[:, place], atol=1e-5 * max(1, np.abs(logits).max()))
    assert int(kept.first) == 0
    swapped = jax.jit(lambda images: nnx.merge(graph, state)(images, ids).logits)({"image": images["image"][::-1]})
    assert np.abs(swapped - whole).max() > 1e-3


def test_it_is_saved_and_loaded(tmp_path):
    model = noisy(CONFIG)
    again = from_pretrained(model.save(tmp_path / "model"))
    assert again.config == CONFIG
    images = {"image": np.stack([picture("red", np.random.default_rng(0))])}
    wish = Wish(4, Sampling(1.0), seed=3)
    assert narrated(again, images, wish=wish) == narrated(model, images, wish=wish)


def test_rows_and_what_does_not_fit():
    assert row_of("aé", 5).tolist() == [BOS, *encode_bytes("aé"), EOS]
    assert row_of("", 4).tolist() == [BOS, EOS, PAD, PAD]
    with pytest.raises(InputError, match="expected at most 3 bytes, got 4 of 'abcd'"):
        row_of("abcd", 5)
    with pytest.raises(ConfigError, match=r"NarratorConfig\.text: expected `about` to be the 16 channels"):
        NarratorConfig(SENSES, AutoregressiveConfig(p.Bytes(8), 8, 16, 1))
    numbers = AutoregressiveConfig(Ids(9, 8, 16), 8, 16, 1, cross=Block(heads=2), latent=Block(heads=2), about=16)
    with pytest.raises(ConfigError, match=r"NarratorConfig\.text: expected Bytes, got Ids"):
        NarratorConfig(SENSES, numbers)
    with pytest.raises(ConfigError, match=r"AutoregressiveConfig\.about: 2 heads do not divide 15 channels"):
        AutoregressiveConfig(p.Bytes(8, width=16), 8, 16, 1, cross=Block(heads=2), latent=Block(heads=2), about=15)
    text = noisy(TEXT)
    with pytest.raises(InputError, match="about: expected tokens of 16 channels, got nothing"):
        text(jnp.ones((1, 3), jnp.int32))
    with pytest.raises(InputError, match="about: expected what each of 2 texts is about, got nothing"):
        continued(text, ["a", "b"])
    images, model = {"image": np.stack([picture("red", np.random.default_rng(0))])}, noisy(CONFIG)
    with pytest.raises(InputError, match=r"about: expected what each of 2 texts is about, got \(1, 3, 16\)"):
        narrated(model, images, prompts=["a", "b"])
