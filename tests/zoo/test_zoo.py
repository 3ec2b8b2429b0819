"""The named configs, and what every family does with its tables."""

import numpy as np
import pytest
from flax import nnx

import perceiver as p
from perceiver.config import from_json, to_json
from perceiver.model import ModelConfig, parameter_count
from perceiver.pretrained import write_hub
from perceiver.saving import known_types, weights
from perceiver.zoo import flow, imagenet, kinetics, language, perceiver1
from perceiver.zoo.architectures import FAMILIES, written_as
from perceiver.zoo.conventions import as_deepmind
from tests.models import CARRIED


def attention(q, kv, out, qk, v):
    return q * qk + kv * qk + kv * v + v * out + 2 * qk + v + out


def mlp(width):
    return 2 * (width * width + width) + 2 * width


def cross(q, kv, qk=None, v=None):
    """Norms of both sides, attention, MLP with its norm."""
    qk = kv if qk is None else qk
    return 2 * q + 2 * kv + attention(q, kv, q, qk, qk if v is None else v) + mlp(q)


def layer(width, qk=None, v=None):
    qk = width if qk is None else qk
    return 2 * width + attention(width, width, width, qk, qk if v is None else v) + mlp(width)


def linear(source, target):
    return source * target + target


FLOW = 2048 * 512 + cross(512, 322) + 24 * layer(512) + linear(54, 64) + cross(322, 512) + linear(322, 2)
TOKENS, QUERIES = 704, 1026
KINETICS = (
    784 * 512
    + cross(512, TOKENS)
    + 8 * layer(512)
    + 3 * TOKENS  # mask tokens
    + (TOKENS - 401) + (TOKENS - 243) + (TOKENS - 700)  # padding of sound, picture and label
    + (QUERIES - 385) + (QUERIES - 195) + (QUERIES - 1024)
    + 1024  # the label's query
    + cross(QUERIES, 512) + linear(QUERIES, 512)
    + linear(512, 16) + linear(512, 3) + linear(512, 700)
)  # fmt: skip


def perceiver_1(tokens, classes, depth=6, channels=1024):
    return 512 * channels + 2 * cross(channels, tokens) + depth * layer(channels) + linear(channels, classes)


NAMED = {
    imagenet.imagenet_fourier: 48_440_627,
    imagenet.imagenet_learned: 62_255_848,
    imagenet.imagenet_conv: 48_646_522,
    language.language: 201_108_230,
    flow.flow: FLOW,
    kinetics.kinetics: KINETICS,
    perceiver1.imagenet: perceiver_1(261, 1000),
    perceiver1.modelnet40: perceiver_1(387, 40),
    perceiver1.audioset_waveform: perceiver_1(128 + 129, 527, 8, 512),
    perceiver1.audioset_mel: perceiver_1(16 + 258, 527, 8, 512),
    perceiver1.audioset_video: perceiver_1(384 + 387, 527, 8, 512),
    perceiver1.audioset: perceiver_1(771 + 4, 527, 8, 512) + (775 - 257) + (775 - 771),
}


@pytest.mark.parametrize("build", NAMED, ids=lambda build: build.__name__)
def test_a_named_config_has_the_papers_parameters_and_survives_json(build):
    config = build()
    assert parameter_count(config.abstract()) == NAMED[build]
    assert from_json(to_json(config), ModelConfig, known_types()) == config


def test_an_autoencoder_asks_for_every_pixel_and_sample():
    outputs = kinetics.kinetics().outputs
    assert outputs["image"].shape == (16, 224, 224)
    assert outputs["audio"].shape == (1920,)


CASES = [
    "hf_perceiver_mlm",
    "hf_perceiver_fourier_variant",
    "hf_perceiver_conv_small",
    "hf_clip",
    "hf_siglip",
    "hf_vit",
]


@pytest.mark.parametrize("case", CASES)
def test_the_hubs_layout_comes_back_bit_for_bit(case, tmp_path):
    model = p.from_pretrained(CARRIED / case)
    again = p.from_pretrained(write_hub(model, tmp_path / "hub"))
    assert again.config == model.config
    ours, theirs = weights(model), weights(again)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_config_asks_for_other_classes_and_sizes():
    assert imagenet.imagenet_fourier(7).outputs["label"].head.count == 7
    assert flow.flow(8, 12).outputs["flow"].shape == (8, 12)
    assert kinetics.kinetics(("a", "b"), 2).inputs["label"].names == ("a", "b")
    text = language.language(64)
    assert (text.inputs["text"].tokens, text.outputs["text"].shape) == (64, (64,))
    encoder = perceiver1.repeated(4, 3, 5, 8)
    assert (encoder.cross_attends, encoder.towers) == ((0, 1, 1, 1), (0,) * 4)
    with pytest.raises(p.ConfigError, match="at least 2"):
        imagenet.imagenet_conv(1)


def test_every_family_is_found_by_its_own_models():
    found = {written_as(p.from_pretrained(CARRIED / case).config)[0].architecture for case in CASES}
    assert len(found) == len(CASES)
    assert found < FAMILIES.keys()


@pytest.mark.parametrize(
    ("build", "field"), [(imagenet.imagenet_learned, "residual"), (imagenet.imagenet_conv, "stem.padding")]
)
def test_a_model_that_transformers_computes_otherwise_is_not_written(build, field):
    with pytest.raises(p.ConfigError, match=rf"no equal .*{field}"):
        written_as(build())


def test_deepminds_conventions_are_one_call_away():
    theirs = p.from_pretrained(CARRIED / "hf_perceiver_conv_small")
    ours = as_deepmind(theirs)
    image = np.random.default_rng(0).random((1, 21, 30, 3)).astype(np.float32)
    assert ours.config.encoder.latent.activation is p.Activation.GELU_TANH
    assert not ours.config.encoder.cross.mean_when_blind
    cells = [model.tokenise({"image": image})["image"].values.shape[1] for model in (theirs, ours)]
    assert cells == [5 * 7, 6 * 8]
    assert len(nnx.state(ours)) == len(nnx.state(theirs))
