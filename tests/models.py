"""A tiny model that has every modality and every kind of answer, and data for it."""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import perceiver as p

CARRIED = pathlib.Path(__file__).parent / "goldens"
"""Reference outputs that the project carries, see the README there."""

GOLDENS = pathlib.Path(os.environ.get("PERCEIVER_GOLDENS", CARRIED))
"""Reference outputs to test against."""

MELS = p.Spectrogram(frame_length=32, hop=16, sample_rate=8000, mels=4)
NARROW = p.Fourier(bands=2, max_resolution=(8.0, 8.0, 8.0))


def golden(name):
    """The json and the arrays of one reference case, or None where the folder lacks it."""
    path = GOLDENS / f"{name}.json"
    if not path.is_file():
        return None
    with np.load(path.with_suffix(".npz")) as arrays:
        return json.loads(path.read_text(encoding="utf-8")), dict(arrays)


def tiny_inputs():
    """Adapters of every modality, each of a few tokens."""
    return {
        "image": p.Image((4, 6, 3), patch=2, position=p.Fourier(bands=2), mean=(0.5,) * 3, std=(0.25,) * 3),
        "video": p.Video((4, 4, 4, 1), patch=(2, 2, 2), position=p.Fourier(bands=1)),
        "waveform": p.Waveform(32, sample_rate=8000, patch=8, position=p.Fourier(bands=2)),
        "sound": p.LogMel(96, MELS, sample_rate=8000, patch=(2, 2), position=p.Fourier(bands=2)),
        "points": p.Points(6, (-1.0, -1.0, 0.0), (1.0, 1.0, 2.0), features=("intensity",), position=NARROW),
        "state": p.State(3, history=2, project=4, position=p.Learned(width=2), mean=(1.0, 2.0, 3.0), std=(2.0,) * 3),
        "text": p.Bytes(6, width=8),
    }


def tiny_outputs():
    """Every head with every query."""
    return {
        "label": p.Classes(3),
        "pixels": p.Output(p.Dense(2), p.Grid((4, 6), p.Fourier(bands=2)), chunk=7),
        "field": p.Output(
            p.Dense(1), p.AtPoints((-1.0,) * 3, (1.0,) * 3, position=NARROW, project=6), p.Block(residual=False)
        ),
        "sample": p.Output(p.Dense(1), p.AtTimes(2.0, position=p.Fourier(2, max_resolution=(8.0,)))),
        "segments": p.Output(p.Classes(3), p.FromTokens("points", project=6)),
        "embedding": p.Embedding(4),
        "pose": p.Regression(2, mean=(10.0, -10.0), std=(2.0, 3.0)),
        "actions": p.Chunk(3, 2),
        "words": p.Output(p.TokenLogits(262, tied_to="text"), p.Slots(6, width=8), p.Block(residual=False)),
    }


def tiny_config(**changes):
    """The model's config; two towers that share weights, so that every path of the encoder runs."""
    given = {
        "inputs": tiny_inputs(),
        "encoder": p.Encoder(5, 8, depth=2, latent=p.Block(heads=2), towers=(0, 0)),
        "outputs": tiny_outputs(),
    }
    return p.PerceiverConfig(**{**given, **changes})


def tiny_batch(batch=3, seed=0):
    """Raw inputs of every modality, full length."""
    rng = np.random.default_rng(seed)
    floats = {name: rng.normal(size=shape).astype(np.float32) for name, shape in _float_shapes(batch).items()}
    return {
        "image": rng.integers(0, 256, (batch, 4, 6, 3), dtype=np.uint8),
        "video": rng.integers(0, 256, (batch, 4, 4, 4, 1), dtype=np.uint8),
        "text": rng.integers(6, 262, (batch, 6), dtype=np.int32),
        **floats,
    }


def _float_shapes(batch):
    return {"waveform": (batch, 32), "sound": (batch, 96), "points": (batch, 6, 4), "state": (batch, 2, 3)}


def filled(build, seed=0):
    """What `build(rngs)` gives, with noise for parameters: quicker than initialising, and hides no mistake behind 0.

    Scales and variances are noise around 1.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    leaves, tree = jax.tree_util.tree_flatten_with_path(state)
    rng = np.random.default_rng(seed)
    noise = [
        jnp.asarray(
            0.3 * rng.normal(size=leaf.shape) + ("scale" in str(path[-2:]) or "variance" in str(path)), leaf.dtype
        )
        for path, leaf in leaves
    ]
    return nnx.merge(graph, jax.tree.unflatten(tree, noise))


def noisy(config):
    """The model of a config with noise for parameters, see `filled`."""
    return filled(lambda rngs: config.initial(rngs.params()))


@functools.cache
def tiny_model():
    """The tiny model; shared, so leave it as it is."""
    return filled(lambda rngs: p.Perceiver(tiny_config(), rngs))


def built(config):
    """An adapter's module."""
    return filled(lambda rngs: config.build(dtype=jnp.dtype("float32"), rngs=rngs))


def close(actual, expected, atol=1e-5, rtol=0.0):
    """Same shape, and equal to `atol` times the largest expected magnitude (at least 1)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=atol * max(1.0, float(np.abs(expected).max())), rtol=rtol)


@functools.cache
def encoding(adapter):
    """A compiled function (raw, mask or None) -> what latents [b, n, c] see of a model's only input, and its gradient.

    The gradient is that of the square with respect to all parameters, as a list of arrays. The latents look once and
    do not think: what follows the first cross-attend knows of no mask.
    """
    encoder = p.Encoder(3, 8, depth=1, latent=p.Block(heads=2))
    graph, state = nnx.split(filled(lambda rngs: p.Perceiver(p.PerceiverConfig({"x": adapter}, encoder, {}), rngs)))

    def latents(state, raw, mask):
        model = nnx.merge(graph, state)
        joined = model.join(model.tokenise({"x": raw}, None if mask is None else {"x": mask}))
        return model.encoder.cross[0](model.encoder.start(joined), joined)

    compiled = jax.jit(latents)
    gradient = jax.jit(jax.grad(lambda *given: (latents(*given) ** 2).sum()))
    return (
        lambda raw, mask=None: np.asarray(compiled(state, raw, mask)),
        lambda raw, mask=None: [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(state, raw, mask))],
    )


def check_masked_elements_do_not_matter(adapter, raw, mask, garbage):
    """Replace what `mask` hides by `garbage`: the same latents bit for bit, and finite gradients.

    mask: broadcasts to `raw` once axes are put behind it.
    """
    encode, gradient = encoding(adapter)
    hidden = ~np.broadcast_to(mask.reshape(mask.shape + (1,) * (raw.ndim - mask.ndim)), raw.shape)
    spoilt = np.where(hidden, np.asarray(garbage, raw.dtype), raw)
    np.testing.assert_array_equal(encode(spoilt, mask), encode(raw, mask))
    assert not np.allclose(encode(raw, np.ones_like(mask)), encode(raw, mask))
    if mask.ndim > 1:
        assert all(np.isfinite(leaf).all() for leaf in gradient(spoilt, mask))
