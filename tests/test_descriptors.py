"""What is counted in the patches of a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver.descriptors import COLOURS, EDGES
from tests.models import built

PLAIN = p.Descriptors(directions=4, levels=2)


def parts(pixels, patch=4, descriptors=PLAIN):
    """Edges, edges around, colours and colours around."""
    channels = pixels.shape[-1]
    found = np.asarray(descriptors(jnp.asarray(pixels, jnp.float32), patch))
    assert found.shape[-1] == descriptors.features(channels)
    edges, colours = descriptors.directions, descriptors.levels**channels
    return np.split(found, [edges, 2 * edges, 2 * edges + colours], axis=-1)


@pytest.mark.parametrize(("turned", "direction"), [(False, 0), (True, 2)])
def test_an_edge_counts_in_its_direction_and_nowhere_else(turned, direction):
    pixels = np.zeros((1, 12, 12, 1))
    pixels[:, :, 6:] = 1.0
    edges = parts(pixels.swapaxes(1, 2) if turned else pixels)[0]
    middle = edges[0, 1, 1]
    assert middle[direction] > 0.5 * EDGES
    assert np.delete(middle, direction) == pytest.approx(0.0)


def test_contrast_does_not_change_the_edges():
    pixels = np.random.default_rng(0).random((1, 8, 8, 1))
    np.testing.assert_allclose(parts(pixels)[0], parts(0.5 * pixels + 0.2)[0], rtol=0.02, atol=0.02)


def test_colours_are_counted_in_each_patch():
    pixels = np.zeros((1, 4, 8, 3))
    pixels[0, :, :4] = 1.0, 0.0, 0.0
    pixels[0, :1, 4:] = 0.0, 0.0, 1.0
    _, _, colours, around = parts(pixels)
    np.testing.assert_allclose(colours[0, 0, 0], COLOURS * np.eye(8)[4], atol=1e-6)
    np.testing.assert_allclose(colours[0, 0, 1, [0, 1]], COLOURS * np.sqrt([0.75, 0.25]), atol=1e-6)
    assert around[0, 0, 0, 1] == pytest.approx(COLOURS * np.sqrt(0.25 / 9))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_picture_of_one_colour_is_finite_and_has_no_edges(value):
    pixels = jnp.full((1, 8, 8, 3), value)
    edges = parts(pixels)[0]
    np.testing.assert_array_equal(edges, 0.0)
    gradient = jax.grad(lambda x: PLAIN(x, 4).sum())(pixels)
    np.testing.assert_array_equal(gradient, 0.0)  # constants


def test_tokens_have_them_behind_the_pixels_of_the_patch():
    image = p.Image(
        (8, 8, 3), patch=4, border=1, descriptors=PLAIN, position=p.Fourier(1), mean=(0.5,) * 3, std=(0.25,) * 3
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    tokens = built(image)(pixels)
    assert image.features == 6 * 6 * 3 + 2 * (4 + 8)
    found = PLAIN(jnp.asarray(pixels / 255.0, jnp.float32), 4).reshape(2, 4, -1)
    np.testing.assert_allclose(tokens.values[..., 108 : 108 + 24], found, atol=1e-5)
    with pytest.raises(p.InputError, match=r"expected a mask \[b\]"):
        built(image)(pixels, np.ones((2, 8, 8), bool))


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(p.ConfigError, match="expected 2 or more, got 1 directions"):
        p.Descriptors(directions=1)
    with pytest.raises(p.ConfigError, match="at most 1024 colours, got 4 levels of 12 channels"):
        p.Image((8, 8, 12), patch=4, descriptors=p.Descriptors())
    with pytest.raises(p.ConfigError, match="expected None beside a stem"):
        p.Image((8, 8, 3), stem=p.ConvStem(2), descriptors=PLAIN)
