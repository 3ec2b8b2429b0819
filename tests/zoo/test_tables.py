import numpy as np
import pytest

from perceiver.errors import InputError
from perceiver.zoo.tables import (
    CONV,
    COUNT,
    LINEAR,
    SCALAR,
    UNBATCHED,
    patches,
    read,
    row,
    torch_linear,
    torch_norm,
    write,
)

RNG = np.random.default_rng(0)
ROWS = [
    *torch_linear("layer.{}.fc", "stack.linear", range(3)),
    *torch_norm("norm", "norm"),
    row("conv", "conv", CONV),
    row("patch", "patch", patches(2, 3)),
    row("joint", "q", LINEAR, part=(0, 2)),
    row("joint", "k", LINEAR, part=(1, 2)),
    row("token", "token", UNBATCHED),
    row("scale", "scale", SCALAR),
    row("count", "count", COUNT),
]
SHAPES = {
    "stack.linear.kernel": (3, 4, 5),
    "stack.linear.bias": (3, 5),
    "norm.scale": (4,),
    "norm.bias": (4,),
    "conv": (7, 7, 3, 2),
    "patch": (12, 6),
    "q": (4, 5),
    "k": (4, 5),
    "token": (6,),
    "scale": (),
    "count": (),
}
OURS = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
OURS["count"] = np.asarray(7, np.int32)


def test_reading_undoes_writing():
    theirs = write(ROWS, OURS)
    assert theirs["layer.1.fc.weight"].shape == (5, 4)
    assert theirs["joint"].shape == (10, 4)
    assert theirs["patch"].shape == (6, 3, 2, 2)
    assert theirs["count"].dtype == np.int64
    assert all(array.flags.c_contiguous for array in theirs.values())
    again = read(ROWS, theirs, SHAPES, "here")
    assert again.keys() == OURS.keys()
    for name in OURS:
        np.testing.assert_array_equal(again[name], OURS[name])
        assert again[name].dtype == OURS[name].dtype


def test_a_patch_kernel_takes_rows_columns_channels():
    kernel = write(ROWS, OURS)["patch"]
    pixels = RNG.normal(size=(2, 2, 3)).astype(np.float32)
    expected = np.einsum("ocpq,pqc->o", kernel, pixels)
    np.testing.assert_allclose(pixels.ravel() @ OURS["patch"], expected, rtol=1e-4)


def test_everything_that_does_not_fit_is_listed_at_once():
    theirs = write(ROWS, OURS)
    del theirs["layer.2.fc.bias"]
    theirs["norm.weight"] = np.zeros(5, np.float32)
    theirs["extra"] = np.zeros((1, 2), np.float32)
    theirs["position_ids"] = np.zeros(3)
    with pytest.raises(InputError) as caught:
        read(ROWS, theirs, SHAPES, "here", ignored=["position_ids"])
    assert str(caught.value).splitlines() == [
        "here: the weights do not fit the configuration:",
        "  missing layer.2.fc.bias (5,)",
        "  norm.weight: expected shape (4,), got (5,)",
        "  unexpected extra (1, 2)",
    ]
