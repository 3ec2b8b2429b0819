import numpy as np
import pytest

from perceiver.errors import InputError
from perceiver.zoo.tables import (
    CHANNELS,
    CONV,
    COUNT,
    LINEAR,
    SCALAR,
    UNBATCHED,
    haiku_linear,
    haiku_norm,
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
    row("patch", "patch", patches((2, 2), 3)),
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


def test_stacked_layers_may_be_parts_of_one_key_each():
    names = ("query", "key", "value")
    rows = [row("layer.{}.qkv", f"stack.{n}", LINEAR, range(2), part=(i, 3)) for i, n in enumerate(names)]
    ours = {f"stack.{n}": RNG.normal(size=(2, 4, 5)).astype(np.float32) for n in names}
    shapes = {name: array.shape for name, array in ours.items()}
    theirs = write(rows, ours)
    assert {key: array.shape for key, array in theirs.items()} == {"layer.0.qkv": (15, 4), "layer.1.qkv": (15, 4)}
    np.testing.assert_array_equal(theirs["layer.1.qkv"][5:10], ours["stack.key"][1].T)
    again = read(rows, theirs, shapes, "here")
    for name, array in ours.items():
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(InputError) as caught:
        read(rows, {"layer.0.qkv": np.zeros((14, 4), np.float32)}, shapes, "here")
    assert str(caught.value).splitlines()[1:] == [
        "  layer.0.qkv: expected shape (15, 4), got (14, 4)",
        "  missing layer.1.qkv (15, 4)",
    ]


def test_haikus_arrays_by_their_names():
    rows = [
        *haiku_linear("mlp/linear", "fc"),
        *haiku_norm("layer_norm_{}", "norm", [1]),
        row("bn/scale", "s", CHANNELS),
    ]
    ours = {"fc.kernel": np.ones((2, 3)), "fc.bias": np.ones(3), "norm.scale": np.ones((1, 3)), "s": np.arange(4.0)}
    theirs = write(rows, ours | {"norm.bias": np.zeros((1, 3))})
    shapes = {key: array.shape for key, array in theirs.items()}
    assert shapes == {
        "mlp/linear/w": (2, 3),
        "mlp/linear/b": (3,),
        "layer_norm_1/scale": (3,),
        "layer_norm_1/offset": (3,),
        "bn/scale": (1, 1, 1, 4),
    }


def test_a_table_of_another_model_is_a_mistake_of_ours():
    with pytest.raises(AssertionError, match=r"disagree on \['weight'\]"):
        read(ROWS, write(ROWS, OURS), SHAPES | {"weight": (2,)}, "here")
