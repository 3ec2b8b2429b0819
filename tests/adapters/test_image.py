import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image as Pillow

import perceiver as p
from perceiver.errors import ConfigError, InputError
from tests.models import built, check_masked_elements_do_not_matter, close, encoding

POSITION = p.Fourier(bands=2)
SMALL = p.Image((4, 6, 3), patch=2, position=POSITION, mean=(0.5,) * 3, std=(0.25,) * 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)


def test_tokens_are_patches_row_by_row_then_their_positions():
    tokens = built(SMALL)(PIXELS)
    assert tokens.values.shape == (2, SMALL.tokens, SMALL.channels) == (2, 6, 12 + 10)
    assert tokens.mask is None
    scaled = (PIXELS / 255 - 0.5) / 0.25
    np.testing.assert_allclose(tokens.values[1, 4, :12], scaled[1, 2:4, 2:4].ravel(), atol=1e-5)
    np.testing.assert_allclose(tokens.values[0, 5, 12:14], [1, 1], atol=1e-6)
    np.testing.assert_allclose(tokens.values[0, 1, 12:14], [-1, 0], atol=1e-6)


def test_bytes_and_the_same_numbers_as_floats_give_the_same_tokens():
    module = built(SMALL)
    close(module(PIXELS).values, module((PIXELS / 255).astype(np.float32)).values, 1e-6)


def test_a_projection_replaces_the_values_and_keeps_the_positions():
    config = p.Image((4, 6, 3), patch=2, project=5, position=POSITION)
    module, plain = built(config), built(p.Image((4, 6, 3), patch=2, position=POSITION))(PIXELS).values
    values = module(PIXELS).values
    assert values.shape[-1] == config.channels == 5 + 10
    np.testing.assert_array_equal(values[..., 5:], plain[..., 12:])
    close(values[..., :5], plain[..., :12] @ module.embed.project.kernel[...] + module.embed.project.bias[...])


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (2, 6), (4, 6)])
def test_any_size_up_to_the_budget_is_taken_and_spans_the_whole_picture(size):
    values = built(SMALL)(PIXELS[:, : size[0], : size[1]]).values
    assert values.shape[1] == size[0] * size[1] // 4
    np.testing.assert_allclose(values[0, 0, 12:14], [-1, -1])
    np.testing.assert_allclose(values[0, -1, 12:14], [1 if n > 2 else -1 for n in size], atol=1e-6)


def test_a_small_image_padded_under_a_mask_is_the_small_image():
    encode, _ = encoding(SMALL)
    for height, width in ((2, 4), (4, 2)):
        mask = np.zeros((2, 4, 6), bool)
        mask[:, :height, :width] = True
        padded = np.where(mask[..., None], PIXELS, 0)
        close(encode(padded, mask), encode(PIXELS[:, :height, :width]))


def test_images_of_several_sizes_share_a_batch():
    encode, _ = encoding(SMALL)
    mask = np.ones((2, 4, 6), bool)
    mask[1, 2:] = False
    both = encode(PIXELS, mask)
    close(both[0], encode(PIXELS)[0])
    close(both[1], encode(PIXELS[:, :2])[1])


def test_what_a_mask_hides_does_not_matter():
    floats = (PIXELS / 255).astype(np.float32)
    part = np.ones((2, 4, 6), bool)
    part[0, :, 3:] = False  # through the middle of a patch
    check_masked_elements_do_not_matter(SMALL, floats, part, np.nan)
    check_masked_elements_do_not_matter(SMALL, floats, np.array([True, False]), np.nan)


@pytest.mark.parametrize(
    ("raw", "mask", "message"),
    [
        (np.zeros((2, 4, 6, 1), np.uint8), None, r"shape \(b, h, w, 3\), got \(2, 4, 6, 1\)"),
        (np.zeros((4, 6, 3), np.uint8), None, r"got \(4, 6, 3\)"),
        (np.zeros((2, 4, 6, 3), np.int32), None, "floating point or unsigned integer values, got dtype int32"),
        (np.zeros((2, 4, 6, 3), np.uint16), None, "uint8 or floating point values in .0, 1., got dtype uint16"),
        (np.zeros((2, 3, 6, 3), np.uint8), None, r"multiples of 2 up to \(4, 6\), got \(3, 6\)"),
        (np.zeros((2, 6, 6, 3), np.uint8), None, r"up to \(4, 6\), got \(6, 6\)"),
        (PIXELS, np.ones(2), "bool values, got dtype float64"),
        (PIXELS, np.ones((2, 4, 5), bool), r"shape \(2, 4, 6\), got \(2, 4, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(raw, mask, message):
    module = built(SMALL)
    with pytest.raises(InputError, match=message):
        module(raw, mask)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": (5, 6, 3), "patch": 2}, "whole 2 x 2 patches"),
        ({"shape": (4, 6, 3), "mean": (0.5,), "std": (0.5,)}, "expected 3 means and deviations, got 1 and 1"),
        ({"shape": (4, 6, 1), "mean": (0.5,), "std": (0.0,)}, "above 0"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        p.Image(**fields)


def test_a_file_is_read_and_brought_to_size(tmp_path):
    Pillow.fromarray(np.full((9, 5, 3), 77, np.uint8)).save(tmp_path / "grey.png")
    pixels, mask = SMALL.load(tmp_path / "grey.png")
    assert mask is None
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.full((4, 6, 3), 77))
    assert pixels.shape == SMALL.example(1).shape[1:]


def test_an_array_in_place_of_a_file():
    np.testing.assert_array_equal(SMALL.load(PIXELS[0])[0], PIXELS[0])
    assert p.Image((4, 6, 1)).load(PIXELS[0, :, :, 0])[0].shape == (4, 6, 1)
    assert SMALL.load(np.zeros((8, 8, 3), np.uint8))[0].shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "missing.png"),
        (np.zeros((4, 6, 3), np.float32), "unsigned integer values, got dtype float32"),
        (np.zeros((4, 6, 3), np.uint16), "uint8, got dtype uint16"),
        (np.zeros((4, 6, 4), np.uint8), r"shape \(h, w, 3\), got \(4, 6, 4\)"),
        ([[1, 2], [3]], "expected an array, got list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        SMALL.load(source)


def test_learned_positions_have_a_row_for_each_patch():
    config = p.Image((4, 6, 3), patch=2, position=p.Learned(width=5))
    module = built(config)
    np.testing.assert_array_equal(module(PIXELS).values[0, :, 12:], module.embed.position.table[...])
    assert config.channels == 17


THIN = p.Image((5, 6, 3), subsample=2, position=POSITION)
LARGE = np.random.default_rng(1).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)


def test_a_thinned_picture_is_every_other_row_and_column():
    assert (THIN.grid, THIN.tokens) == ((3, 3), 9)
    plain = built(p.Image((3, 3, 3), position=POSITION))
    mask = np.ones((2, 5, 6), bool)
    mask[1, 3:] = False
    for own in (None, np.array([True, False]), mask):
        thinned = own if own is None or own.ndim == 1 else own[:, ::2, ::2]
        found, expected = built(THIN)(LARGE, own), plain(LARGE[:, ::2, ::2], thinned)
        np.testing.assert_array_equal(found.values, expected.values)
        if own is not None:
            np.testing.assert_array_equal(found.mask, expected.mask)
    with pytest.raises(InputError, match=r"up to \(5, 6\), got \(6, 6\)"):
        built(THIN)(np.zeros((1, 6, 6, 3), np.uint8))


@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 5)])
def test_a_mask_of_another_size_than_the_picture_is_refused_before_it_is_thinned(shape):
    with pytest.raises(InputError, match="expected shape"):
        built(THIN)(LARGE, np.ones(shape, bool))


CONVOLVED = p.Image((8, 8, 1), stem=p.ConvStem(2), position=POSITION)


def test_an_absent_picture_has_no_tokens_behind_convolutions_either():
    pixels = np.random.default_rng(2).random((2, 8, 8, 1)).astype(np.float32)
    tokens = built(CONVOLVED)(pixels, np.array([True, False]))
    np.testing.assert_array_equal(tokens.mask, [[True] * 4, [False] * 4])
    np.testing.assert_array_equal(tokens.values[1, :, :2], 0)
    check_masked_elements_do_not_matter(CONVOLVED, pixels, np.array([True, False]), np.nan)


@pytest.mark.parametrize("train", [False, True])
def test_nothing_in_an_absent_picture_reaches_a_gradient_through_convolutions(train):
    module, key = built(CONVOLVED), jax.random.key(0) if train else None
    pixels = np.random.default_rng(2).random((2, 8, 8, 1)).astype(np.float32)
    graph, parameters, rest = nnx.split(module, nnx.Param, ...)

    def loss(parameters, pixels):
        model = nnx.merge(graph, parameters, jax.tree.map(lambda leaf: leaf, rest))
        return (model(pixels, np.array([True, False]), key=key).values[0] ** 2).sum()

    spoilt = pixels.copy()
    spoilt[1] = np.nan
    value, gradient = jax.jit(jax.value_and_grad(loss))(parameters, spoilt)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"subsample": 0}, "patch and subsample must be positive"),
        ({"subsample": 2, "patch": 2}, "whole 2 x 2 patches"),
        ({"stem": p.ConvStem(2), "patch": 2}, "the stem makes the tokens, so patch must be 1 and border 0, got 2"),
        (
            {"stem": p.ConvStem(2), "border": 1},
            "the stem makes the tokens, so patch must be 1 and border 0, got 1 and 1",
        ),
        ({"border": -1}, "Image.border: expected 0 or more pixels, got -1"),
        ({"hidden": 4}, "Image.hidden: expected a width, and a projection behind it, got 4"),
        ({"hidden": 0, "project": 4}, "Image.hidden: expected a width, and a projection behind it, got 0"),
    ],
)
def test_ways_to_make_tokens_that_exclude_each_other_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        p.Image((5, 6, 3), **fields)


def test_a_border_adds_the_pixels_around_each_patch():
    module = built(p.Image((4, 6, 3), patch=2, border=1, position=POSITION))
    values = module((PIXELS / 255).astype(np.float32)).values[..., : 4 * 4 * 3]
    around = np.pad(PIXELS / 255, [(0, 0), (1, 1), (1, 1), (0, 0)])
    np.testing.assert_allclose(values[1, 4], around[1, 2:6, 2:6].ravel(), atol=1e-6)
    np.testing.assert_allclose(values[0, 0], around[0, 0:4, 0:4].ravel(), atol=1e-6)


def test_a_small_image_with_borders_padded_under_a_mask_is_the_small_image():
    encode, _ = encoding(dataclasses.replace(SMALL, border=1, hidden=7, project=5))
    mask = np.zeros((2, 4, 6), bool)
    mask[:, :2, :4] = True
    padded = np.where(mask[..., None], PIXELS, 9)
    close(encode(padded, mask), encode(PIXELS[:, :2, :4]))


def test_a_hidden_layer_makes_the_projection_no_longer_linear():
    config = p.Image((4, 6, 3), patch=2, hidden=7, project=5, position=POSITION)
    module, plain = built(config), built(p.Image((4, 6, 3), patch=2, position=POSITION))(PIXELS).values
    hidden = jax.nn.gelu(module.embed.hidden(plain[..., :12]))
    close(module(PIXELS).values[..., :5], module.embed.project(hidden))
