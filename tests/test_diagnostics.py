"""What is said of the latents is true where it can be known."""

import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver.diagnostics import diagnose, effective_rank
from tests.models import noisy, tiny_batch, tiny_inputs, tiny_model


def two_inputs(outputs=None):
    inputs = {name: tiny_inputs()[name] for name in ("image", "text")}
    encoder = p.Encoder(5, 8, depth=1, latent=p.Block(heads=2))
    return noisy(p.PerceiverConfig(inputs, encoder, {"label": p.Classes(3)} if outputs is None else outputs))


def given(batch=3):
    return {name: tiny_batch(batch)[name] for name in ("image", "text")}


def test_the_effective_rank_of_known_matrices():
    axes = jnp.concatenate([jnp.eye(4), -jnp.eye(4)])  # around its mean already, with four equal singular values
    assert effective_rank(axes) == pytest.approx(4.0, rel=1e-5)
    assert effective_rank(axes.at[:, 1:].set(0.0) + 7.0) == pytest.approx(1.0, rel=1e-3)
    assert effective_rank(jnp.full((5, 3), 2.5)) == 0.0


@pytest.mark.slow
def test_every_modality_and_output_has_its_figures():
    inputs = tiny_batch()
    found = diagnose(tiny_model(), inputs)
    assert sum(found[f"attention_share/{name}"] for name in inputs) == pytest.approx(1.0, abs=1e-5)
    for name in inputs:
        assert 0.0 <= found[f"attention_entropy/{name}"] <= 1.0 + 1e-5
        assert found[f"influence/{name}/label"] > 0.0
    assert 0.0 < found["latent_rank/within"] <= 4.0
    assert 0.0 < found["latent_rank/across"] <= 2.0 + 1e-4


@pytest.mark.slow
def test_what_is_hidden_has_no_share_and_no_influence():
    masks = {"image": np.ones(3, bool), "text": np.zeros(3, bool)}
    found = diagnose(two_inputs(), given(), masks)
    assert found["attention_share/text"] == 0.0
    assert found["influence/text"] == 0.0
    assert np.isnan(found["attention_entropy/text"])
    assert found["attention_share/image"] == pytest.approx(1.0, abs=1e-6)
    assert found["influence/image"] > 0.01


@pytest.mark.slow
def test_a_look_at_nothing_in_particular_is_even():
    model = two_inputs()
    attend = model.encoder.cross[0].attention
    attend.query.kernel[...] = jnp.zeros_like(attend.query.kernel[...])
    attend.query.bias[...] = jnp.zeros_like(attend.query.bias[...])
    masks = {"text": np.arange(6)[None] < np.array([[2], [4], [6]])}
    found = diagnose(model, given(), masks)
    pictures = tiny_inputs()["image"].tokens
    assert found["attention_entropy/image"] == pytest.approx(1.0, abs=1e-5)
    assert found["attention_entropy/text"] == pytest.approx(1.0, abs=1e-5)
    expected = np.mean([seen / (seen + pictures) for seen in (2, 4, 6)])
    assert found["attention_share/text"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_samples_that_are_alike_move_nothing():
    alike = {name: np.repeat(raw[:1], 3, axis=0) for name, raw in given().items()}
    found = diagnose(two_inputs(), alike)
    assert found["latent_rank/across"] == 0.0
    assert found["influence/image"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_one_sample_has_no_influence_to_be_measured():
    found = diagnose(two_inputs(), given(1))
    assert not any(name.startswith("influence") for name in found)
    assert found["latent_rank/within"] > 0.0
