"""Gradients of a loss with respect to every parameter: ours beside those that torch gives through transformers."""

import functools
import json
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from perceiver.hub import HubFiles
from perceiver.model import Perceiver
from perceiver.objectives import cross_entropy
from perceiver.saving import flatten
from perceiver.tokens import Tokens
from perceiver.zoo import tables
from perceiver.zoo.architectures import family_of
from perceiver.zoo.families import HubConfig
from perceiver.zoo.resizing import resized
from tests.models import GOLDENS
from tests.parity.comparison import Comparison
from tests.parity.huggingface import arguments
from tests.zoo.models import from_hub, raw_numbers

WHOLE = 1e-5
"""Of max(1, a parameter's largest gradient)."""

OWN = 2e-5
"""Of a parameter's own largest gradient, however small. Rounding alone (torch in float32 and in float64) moves it by up
to 4.2e-6, the other GELU by 6e-4 or more."""

ZERO = 10.0
"""Where the gradient is zero in exact arithmetic (biases of keys, which softmax does not see), all that comes out is
rounding: the most of ours, in units of the most of torch's."""

FEATURES = 10.0
"""Through the whole model: further tolerance, in units of what happens to torch's gradients when the Fourier features
are computed in float64. Other orders of rounding in float32 move single features by some times as much."""

CASES = [path.stem for path in sorted(GOLDENS.glob("gradients_*.json"))]
IMAGES = [name for name in CASES if "mlm" not in name]


class Case(NamedTuple):
    """What torch gave, and the model with the same weights.

    theirs: gradients by the checkpoint's key. noise: how far torch's float32 is off its float64. features: how far
    float64 Fourier features move them. exact: the largest in float64. All by key.
    """

    model: Perceiver
    rows: list[tables.Row]
    given: dict[str, np.ndarray]
    inputs: np.ndarray
    labels: np.ndarray
    loss: float
    theirs: dict[str, np.ndarray]
    noise: dict[str, float]
    features: dict[str, float]
    exact: dict[str, float]


@functools.cache
def load(name):
    info = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(GOLDENS / f"{name}.npz") as file:
        arrays = dict(file)
    folder, numerics = GOLDENS / info["case"], info["numerics"]
    with np.load(folder / "io.npz") as file:
        inputs = file[f"{info['call']}/inter/encoder_inputs"]
    files = HubFiles(str(folder), folder)
    model = raw_numbers(from_hub(files))
    given = below("inputs/", arrays)
    if "image" in model.config.inputs:
        model = resized(model, *given["inputs"].shape[2:])
    rows = family_of(HubConfig(files.config()), name).rows(model.config)
    theirs = below("grad/", arrays)
    measured = (numerics[n] for n in ("float32_vs_float64_maxabs", "features_maxabs", "max_abs_float64"))
    return Case(model, rows, given, inputs, arrays["labels"], float(arrays["loss"]), theirs, *measured)


def below(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def gradients(case, answer):
    """Our loss, and its gradients under the checkpoint's keys. answer: from a model to logits."""
    graph, parameters, rest = nnx.split(case.model, nnx.Param, ...)

    def loss(parameters):
        logits = answer(nnx.merge(graph, parameters, rest))
        return cross_entropy(logits, case.labels, case.labels != -100)

    with jax.default_matmul_precision("highest"):
        value, found = jax.jit(jax.value_and_grad(loss))(parameters)
    found = flatten(found)
    trained = [entry for entry in case.rows if entry.ours in found]
    statistics = {entry.ours for entry in case.rows if entry.ours not in found}
    assert statistics == flatten(nnx.state(case.model, nnx.BatchStat)).keys()
    return float(value), tables.write(trained, {name: np.asarray(leaf) for name, leaf in found.items()})


def check(case, ours, keys, slack=0.0):
    """Every gradient of these keys: close in both measures. slack: in units of what Fourier features do."""
    scales = {key: float(np.abs(case.theirs[key]).max()) for key in keys}
    counted = [key for key in keys if case.exact[key] > 1e-12]
    whole = WHOLE + slack * max(case.features[key] / max(1.0, scales[key]) for key in counted)
    own = OWN + slack * max(case.features[key] / scales[key] for key in counted)
    wrong = []
    for key in keys:
        error = Comparison(key, ours[key], case.theirs[key]).error
        largest = float(np.abs(ours[key]).max())
        if key not in counted:
            assert key.endswith("key.bias")
            limit = ZERO * case.noise[key]
            wrong += [] if largest <= limit else [f"{key}: {largest:.1e}, where it should be 0 up to {limit:.1e}"]
            continue
        relative = error * max(1.0, scales[key]) / scales[key]
        if not (largest > 0.0 and error <= whole and relative <= own):
            wrong.append(f"{key}: {error:.1e} of {whole:.1e}, {relative:.1e} of its own scale, of {own:.1e}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_every_parameter_through_the_model(name):
    case = load(name)
    raw, masks, _ = arguments(case.model, case.given)
    loss, ours = gradients(case, lambda model: next(iter(model(raw, masks).values())))
    np.testing.assert_allclose(loss, case.loss, rtol=1e-5)
    assert ours.keys() == case.theirs.keys()
    check(case, ours, case.theirs, slack=FEATURES)


@pytest.mark.parametrize("name", IMAGES)
def test_gradients_from_the_references_encoder_inputs_on(name):
    case = load(name)
    loss, ours = gradients(case, lambda model: model.decoders["label"](model.encoder(Tokens(case.inputs)), {}, {}))
    np.testing.assert_allclose(loss, case.loss, rtol=1e-6)
    check(case, ours, [key for key in case.theirs if "input_preprocessor" not in key])
