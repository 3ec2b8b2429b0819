"""The same latents, asked at other resolutions than the declared one."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver import inference
from tests.models import close, filled, tiny_batch, tiny_model


def drawing(inclusive, chunk=None):
    """A model of pictures and of sound, with what tells them apart at the start."""
    pixels = p.Grid((4, 6), p.Fourier(bands=2), inclusive=inclusive)
    samples = p.Grid((8,), p.Fourier(bands=3), project=6, inclusive=inclusive)
    config = p.PerceiverConfig(
        inputs={"image": p.Image((4, 6, 3), patch=2, position=p.Fourier(bands=2))},
        encoder=p.Encoder(3, 8, depth=1, latent=p.Block(heads=2)),
        outputs={"pixels": p.Output(p.Dense(2), pixels, chunk=chunk), "sound": p.Output(p.Dense(1), samples)},
    )
    return filled(lambda rngs: p.Perceiver(config, rngs))


@pytest.fixture(scope="module", params=[False, True], ids=["up to one step before 1", "up to 1"])
def asked(request):
    model = drawing(request.param)
    return model, inference.encode(model, {"image": tiny_batch()["image"]})


@pytest.mark.parametrize(("name", "size"), [("pixels", (4, 6)), ("sound", (8,))])
def test_the_declared_size_gives_what_decoding_gives(asked, name, size):
    model, latents = asked
    np.testing.assert_array_equal(
        p.decode_at(model, latents, name, size), inference.decode(model, latents, [name])[name]
    )


@pytest.mark.parametrize("name", ["pixels", "sound"])
def test_a_finer_grid_holds_the_declared_one(asked, name):
    model, latents = asked
    query = model.config.outputs[name].query
    size = [2 * cells - query.inclusive for cells in query.cells]
    finer = p.decode_at(model, latents, name, size)
    own = inference.decode(model, latents, [name])[name]
    assert finer.shape == (3, *size, own.shape[-1])
    every = tuple(slice(None, None, 2) for _ in size)
    close(finer[:, *every], own, 1e-6)
    between = finer[(slice(None), *[slice(1, None, 2)] * len(size))]
    assert np.abs(between - own[(slice(None), *[slice(None, part) for part in between.shape[1:-1]])]).max() > 1e-3


def test_many_cells_in_chunks_are_the_same():
    model, chunked = drawing(False), drawing(False, chunk=7)
    nnx.update(chunked, nnx.state(model))
    latents = inference.encode(model, {"image": tiny_batch()["image"]})
    close(p.decode_at(chunked, latents, "pixels", (9, 5)), p.decode_at(model, latents, "pixels", (9, 5)), 5e-6)


def test_what_cannot_be_asked_so_is_said():
    model = tiny_model()
    latents = inference.encode(model, {"image": tiny_batch()["image"]})
    for name, size, said in (
        ("pixel", (4, 6), "no such output; did you mean 'pixels'"),
        ("pixels", (4,), r"size: expected 2 positive counts, as of \(4, 6\), got \(4,\)"),
        ("pixels", (4, 0), "size: expected 2 positive counts"),
        ("label", (2,), "expected an output that a Grid asks, to be asked at another size, got Slots"),
    ):
        with pytest.raises(p.InputError, match=rf"outputs\['{name}'\]: {said}"):
            p.decode_at(model, latents, name, size)
    pooled = dataclasses.replace(drawing(False).config, outputs={"label": p.Pooled(p.Classes(3))})
    model = filled(lambda rngs: p.Perceiver(pooled, rngs))
    with pytest.raises(p.InputError, match="got one from the mean of the latents"):
        p.decode_at(model, latents, "label", (2,))
