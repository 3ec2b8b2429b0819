import io

import numpy as np
import pytest

import perceiver as p
from perceiver.errors import ConfigError, InputError
from tests.models import built, check_masked_elements_do_not_matter, close, encoding

SMALL = p.Vectors(4, 3)
RAW = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)


def test_fewer_vectors_are_the_same_as_a_mask():
    assert built(SMALL)(RAW[:, :2]).values.shape == (2, 2, SMALL.channels)
    np.testing.assert_array_equal(built(SMALL)(RAW).values, RAW)
    encode, _ = encoding(SMALL)
    close(encode(RAW[:, :2]), encode(RAW, np.broadcast_to(np.arange(4) < 2, (2, 4))))


def test_what_a_mask_hides_does_not_matter():
    check_masked_elements_do_not_matter(SMALL, RAW, np.arange(4) < np.array([[3], [1]]), np.nan)
    check_masked_elements_do_not_matter(SMALL, RAW, np.array([True, False]), np.inf)


@pytest.mark.parametrize(
    ("raw", "mask", "message"),
    [
        (np.zeros((2, 5, 3), np.float32), None, "at most 4 vectors, got 5"),
        (np.zeros((2, 4, 2), np.float32), None, r"shape \(b, n, 3\), got \(2, 4, 2\)"),
        (np.zeros((4, 3), np.float32), None, r"shape \(b, n, 3\), got \(4, 3\)"),
        (np.zeros((2, 0, 3), np.float32), None, "at least one element"),
        (np.zeros((2, 4, 3), np.int32), None, "floating point values, got dtype int32"),
        (RAW, np.ones((2, 3), bool), r"\(2,\) or \(2, 4\), got \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(raw, mask, message):
    with pytest.raises(InputError, match=message):
        built(SMALL)(raw, mask)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_arrays_and_files_are_padded_to_the_count(count, dtype, tmp_path):
    np.save(tmp_path / "features.npy", RAW[0, :count].astype(dtype))
    for source in (RAW[0, :count].astype(dtype), tmp_path / "features.npy", str(tmp_path / "features.npy")):
        vectors, mask = SMALL.load(source)
        assert (vectors.dtype, vectors.shape) == (np.float32, SMALL.example(1).shape[1:])
        np.testing.assert_allclose(vectors[:count], RAW[0, :count], atol=2e-3)
        np.testing.assert_array_equal(vectors[count:], 0)
        np.testing.assert_array_equal(mask, np.arange(4) < count)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.npy", "no such file"),
        (np.zeros((5, 3)), "at most 4 vectors, got 5"),
        (np.zeros((2, 2)), r"shape \(n, 3\), got \(2, 2\)"),
        (np.zeros((2, 3), int), "floating point values, got dtype int64"),
        ([[1.0], [2.0, 3.0]], "expected an array, got list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        SMALL.load(source)


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00v", pickled()])
def test_a_file_that_holds_no_array_is_refused(content, tmp_path):
    (tmp_path / "features.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"expected (content|an \.npy file without pickled objects)"):
        SMALL.load(tmp_path / "features.npy")


@pytest.mark.parametrize("sizes", [(0, 3), (4, 0)])
def test_configs_that_cannot_be_are_refused(sizes):
    with pytest.raises(ConfigError, match=f"at least 1, got {sizes[0]} and {sizes[1]}"):
        p.Vectors(*sizes)


def test_numbers_that_are_none_are_refused():
    with pytest.raises(InputError, match="expected finite numbers, got nan"):
        p.Vectors(2, 2).load(np.array([[0.0, np.nan]]))
