import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perceiver as p
from perceiver.config import (
    freeze,
    from_json,
    merge,
    network_json,
    preprocessing_field,
    preprocessing_json,
    suggestion,
    to_json,
)
from perceiver.errors import ConfigError
from perceiver.model import Compute, PerceiverConfig
from perceiver.saving import known_types
from tests.models import tiny_config

NAMES = st.text("abcxyz_ é", min_size=1, max_size=6)
FINITE = st.floats(-1e6, 1e6)
FOURIER = st.builds(p.Fourier, st.integers(1, 9), st.none() | st.tuples(FINITE, FINITE), st.booleans(), st.booleans())
POSITION = st.recursive(
    FOURIER | st.builds(p.Learned, st.integers(1, 9), FINITE),
    lambda inner: st.builds(p.Projected, inner, st.integers(1, 9)) | st.builds(p.Refined, inner, st.integers(1, 3)),
    max_leaves=2,
)
BLOCK = st.builds(
    p.Block,
    qk_channels=st.none() | st.integers(1, 64),
    widening=st.integers(1, 4),
    residual=st.booleans(),
    dropout=st.floats(0, 0.9),
    activation=st.sampled_from(p.Activation),
    mlp_channels=st.none() | st.integers(1, 64),
    mean_when_blind=st.booleans(),
    epsilon=st.floats(1e-12, 1.0),
)
STEM = st.builds(p.ConvStem, st.integers(1, 9), st.integers(1, 3), st.booleans())
IMAGE = st.builds(
    p.Image,
    st.tuples(st.integers(1, 99), st.integers(1, 99), st.just(2)),
    subsample=st.integers(1, 3),
    stem=st.none() | STEM,
    project=st.none() | st.integers(1, 9),
    position=POSITION,
    add_position=st.booleans(),
    mean=st.tuples(FINITE, FINITE),
    std=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)),
)
STATE = st.builds(p.State, st.integers(1, 9), st.integers(1, 9))
OUTPUT = st.builds(p.Output, st.builds(p.Classes, st.just(2), st.just(()) | st.tuples(NAMES, NAMES)), cross=BLOCK)
CONFIG = st.builds(
    PerceiverConfig,
    inputs=st.dictionaries(NAMES, IMAGE | STATE, min_size=1, max_size=3),
    encoder=st.builds(p.Encoder, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), cross=BLOCK, latent=BLOCK),
    outputs=st.dictionaries(NAMES, OUTPUT, max_size=3),
    modality_dropout=st.floats(0, 0.9),
    compute=st.sampled_from(Compute),
)


def read(tree, kind=PerceiverConfig):
    return from_json(tree, kind, known_types())


@settings(deadline=None, max_examples=60)
@given(CONFIG)
def test_a_config_survives_json_as_two_files(config):
    network, host = (json.loads(json.dumps(part)) for part in (network_json(config), preprocessing_json(config)))
    again = read(merge(network, host))
    assert again == config
    assert hash(again) == hash(config)
    assert to_json(again) == to_json(config)


def test_a_config_of_every_part_survives_json():
    config = tiny_config()
    again = read(json.loads(json.dumps(to_json(config))))
    assert again == config
    assert hash(again) == hash(config)
    assert list(again.inputs) == list(config.inputs)


def test_handling_of_raw_data_is_kept_apart_from_the_network():
    config = tiny_config()
    network, host = network_json(config), preprocessing_json(config)
    framing = {"fit": "STRETCH", "crop": 1.0, "resample": "BICUBIC"}
    assert host["inputs"]["image"] == {"mean": [0.5] * 3, "std": [0.25] * 3, "dark_background": False} | framing
    assert host["inputs"]["waveform"] == {"sample_rate": 8000, "loudness": None, "trim": None}
    assert host["outputs"]["pose"]["head"]["mean"] == [10.0, -10.0]
    assert "mean" not in network["inputs"]["image"]
    assert "shape" not in host["inputs"]["image"]


def damaged(change):
    tree = to_json(tiny_config())
    change(tree)
    return tree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(inputz=1), r"config: PerceiverConfig has no field 'inputz'; did you mean 'inputs'\?"),
        (lambda t: t.pop("encoder"), "config: PerceiverConfig lacks the field 'encoder'"),
        (lambda t: t["inputs"]["image"].update(type="Imagee"), r"inputs\['image'\]: unknown type .*mean 'Image'\?"),
        (lambda t: t["inputs"]["image"].update(type=["Image"]), r"inputs\['image'\]: unknown type \['Image'\]"),
        (lambda t: t["inputs"]["image"].pop("type"), r"inputs\['image'\]: unknown type None"),
        (lambda t: t["inputs"].update(image=t["encoder"]), r"inputs\['image'\]: expected Adapter, got type 'Encoder'"),
        (lambda t: t["inputs"]["image"].update(patch="2"), r"inputs\['image'\].patch: expected int, got '2'"),
        (lambda t: t["inputs"]["image"].update(patch=True), "patch: expected int, got True"),
        (lambda t: t["inputs"]["image"].update(patch=2.0), "patch: expected int, got 2.0"),
        (lambda t: t["inputs"]["image"].update(shape=[4, 6]), "shape: expected 3 entries, got 2"),
        (lambda t: t["inputs"]["image"].update(shape=4), "shape: expected a list, got 4"),
        (lambda t: t["inputs"]["image"].update(shape=[5, 6, 3]), r"inputs\['image'\]: Image: .*2 x 2 patches"),
        (lambda t: t["inputs"]["image"].update(mean=[0.5, 0.5, float("nan")]), r"mean\[2\]: expected a finite number"),
        (lambda t: t["inputs"]["image"].update(mean=[0.5, 0.5, 10**400]), r"mean\[2\]: expected float"),
        (lambda t: t.update(modality_dropout=float("inf")), "modality_dropout: expected a finite number"),
        (lambda t: t.update(compute="FLOAT31"), r"compute: unknown Compute 'FLOAT31'; did you mean 'FLOAT32'\?"),
        (lambda t: t.update(compute={}), "compute: unknown Compute"),
        (lambda t: t.update(inputs=[]), "config.inputs: expected an object"),
        (lambda t: t["encoder"]["cross"].update(heads=0), r"config.encoder.cross: Block: heads"),
        (lambda t: t["encoder"]["cross"].update(qk_channels="a"), "qk_channels: expected"),
    ],
)
def test_damage_is_refused_with_its_place(change, message):
    with pytest.raises(ConfigError, match=message):
        read(damaged(change))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_written(value):
    with pytest.raises(ConfigError, match="finite numbers only"):
        network_json(p.Learned(4, scale=value))


def test_an_object_that_is_no_config_is_not_written():
    with pytest.raises(ConfigError, match="may not hold a object"):
        network_json(p.Learned(4, scale=object()))


def test_only_known_types_are_built():
    with pytest.raises(ConfigError, match="unknown type 'Fourier'; known: Learned"):
        from_json(to_json(p.Fourier(2)), p.Fourier, [p.Learned])


def test_preprocessing_may_neither_repeat_nor_invent():
    with pytest.raises(ConfigError, match=r"config\.encoder: expected an object in both files"):
        merge({"encoder": 1}, {"encoder": {"x": 1}})
    with pytest.raises(ConfigError, match=r"config\.a\.b: given twice"):
        merge({"a": {"b": 1}}, {"a": {"b": 2}})
    with pytest.raises(ConfigError, match="has no field 'colour'"):
        read(merge(network_json(tiny_config()), {"colour": "red"}))


def test_frozen_mappings_compare_and_hash_by_content():
    assert freeze({"a": 1, "b": 2}) == freeze({"b": 2, "a": 1})
    assert hash(freeze({"a": 1, "b": 2})) == hash(freeze({"b": 2, "a": 1}))
    assert freeze({"a": 1}) != freeze({"a": 2})
    assert list(freeze({"b": 1, "a": 2})) == ["b", "a"]


def test_suggestions_name_the_closest_and_all():
    assert suggestion("imgae", ["state", "image"]) == "did you mean 'image'? known: image, state"
    assert suggestion("q", []) == "known: none"


def test_a_preprocessing_field_may_have_a_default():
    @dataclasses.dataclass(frozen=True)
    class Own:
        network: int = 1
        host: int = preprocessing_field(default=2)

    assert network_json(Own()) == {"type": "Own", "network": 1}
    assert preprocessing_json(Own()) == {"host": 2}
    assert from_json({"type": "Own"}, Own, [Own]) == Own()


@pytest.mark.parametrize("name", ["values", "items", "a.b", ""])
def test_names_that_would_clash_are_refused(name):
    for changes in ({"inputs": {name: p.State(2)}}, {"outputs": {name: p.Classes(2)}}):
        with pytest.raises(ConfigError, match="cannot name an input, output or trunk"):
            tiny_config(**changes)


def test_a_model_config_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="at least one input"):
        tiny_config(inputs={})
    with pytest.raises(ConfigError, match="modality_dropout must be in"):
        tiny_config(modality_dropout=1.0)
    with pytest.raises(ConfigError, match="modality_padding must be at least 0"):
        tiny_config(modality_padding=-1)
