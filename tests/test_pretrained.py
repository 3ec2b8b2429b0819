"""`from_pretrained` on what it takes and what it must refuse; each source has tests of its own."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

import perceiver as p
from perceiver.model import Model, ModelConfig
from perceiver.pretrained import write_hub
from perceiver.saving import weights
from perceiver.zoo import tables
from perceiver.zoo.architectures import FAMILIES
from perceiver.zoo.families import HubConfig
from tests.models import CARRIED, filled


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(CARRIED / "hf_perceiver_mlm", tmp_path / "language")


def changed(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert"}, "unknown architecture BertModel of model_type bert"),
        ({"architectures": ["PerceiverForMaskedLn"]}, "did you mean 'PerceiverForMaskedLM'"),
        ({"architectures": None}, "unknown architecture none of model_type perceiver"),
        ({"hidden_act": "gelo"}, "hidden_act: unknown 'gelo'; did you mean"),
        ({"vocab_size": 300}, "vocab_size: expected the 262 of bytes, got 300"),
        ({"num_latents": "10"}, "num_latents: expected int, got '10'"),
        ({"cross_attention_shape_for_attention": "qk"}, "expected 'q' or 'kv', got 'qk'"),
        ({"num_self_attention_heads": 5}, "5 heads do not divide"),
    ],
)  # fmt: skip
def test_a_config_that_is_not_understood_is_refused(folder, fields, message):
    changed(folder, **fields)
    with pytest.raises((p.ConfigError, p.InputError), match=message):
        p.from_pretrained(folder)


def test_weights_and_config_that_disagree_are_listed_together(folder):
    changed(folder, num_latents=11, num_self_attends_per_block=3)
    with pytest.raises(p.InputError, match="do not fit") as caught:
        p.from_pretrained(folder)
    assert "perceiver.embeddings.latents: expected shape (11, 48), got (10, 48)" in str(caught.value)
    assert "missing perceiver.encoder.self_attends.2.mlp.dense1.weight (48, 48)" in str(caught.value)


@pytest.mark.parametrize("size", [4, 100, 20_000])
def test_truncated_weights_are_refused(folder, size):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(p.InputError, match=r"model\.safetensors"):
        p.from_pretrained(folder)


def test_a_folder_that_is_no_model_says_so(tmp_path, folder):
    with pytest.raises(p.InputError, match=r"no MANIFEST\.json, and no config\.json either"):
        p.from_pretrained(tmp_path)
    with pytest.raises(p.InputError, match="revision"):
        p.from_pretrained(folder, revision="main")


def test_the_fields_names_load_their_own_kind_only(folder):
    for name in ("CLIPModel", "SiglipModel", "ViTForImageClassification"):
        with pytest.raises(p.InputError, match="expected a"):
            getattr(p, name).from_pretrained(folder)


TINY = {
    "model_type": "perceiver",
    "num_latents": 3,
    "d_latents": 8,
    "d_model": 8,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "max_position_embeddings": 6,
    "image_size": 7,
    "train_size": [4, 6],
    "num_frames": 2,
    "audio_samples_per_frame": 16,
    "samples_per_patch": 8,
    "output_shape": [1, 2, 8, 12],
    "output_num_channels": 8,
    "_label_trainable_num_channels": 8,
    "id2label": {"0": "ant", "1": "bee", "2": "cat"},
}
PERCEIVERS = sorted(name for name in FAMILIES if name.startswith("Perceiver"))


def published(architecture, folder, **fields):
    """A tiny model of one architecture, and its folder in the Hub's layout as transformers writes it."""
    family, values = FAMILIES[architecture], {**TINY, "architectures": [architecture], **fields}
    config = family.config(HubConfig(values))
    model = filled(lambda rngs: config.initial(rngs.params()))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values))
    arrays = {name: np.asarray(value) for name, value in weights(model).items()}
    if "Conv" in architecture:  # which keeps one average and one count where we keep two that agree
        kept = "adapters.image.stem.norms.0"
        arrays |= {f"{kept}.{part}.hidden": arrays[f"{kept}.{part}.value"] for part in ("mean", "variance")}
        arrays |= {f"{kept}.{part}.count": np.asarray(9, np.int32) for part in ("mean", "variance")}
    save_file(tables.write(family.rows(config), arrays), folder / "model.safetensors", {"format": "pt"})
    return config, arrays


def same(model, arrays):
    found = weights(model)
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", PERCEIVERS)
def test_every_perceiver_of_the_hub_is_read_written_and_read_again(architecture, tmp_path):
    config, arrays = published(architecture, tmp_path / "hub")
    model = p.from_pretrained(tmp_path / "hub")
    assert model.config == config
    assert model.config.encoder == dataclasses.replace(config.encoder, latents=3, channels=8, depth=2, towers=(0, 0))
    same(model, arrays)
    written = write_hub(model, tmp_path / "again")
    assert json.loads((written / "config.json").read_text())["architectures"] == [architecture]
    again = p.from_pretrained(written)
    assert again.config == config
    same(again, arrays)


@pytest.mark.parametrize("architecture", PERCEIVERS)
def test_everything_that_disagrees_is_listed_for_every_perceiver(architecture, tmp_path):
    published(architecture, tmp_path / "hub")
    changed(tmp_path / "hub", num_latents=4, num_self_attends_per_block=3)
    with pytest.raises(p.InputError, match="do not fit") as caught:
        p.from_pretrained(tmp_path / "hub")
    lines = str(caught.value).splitlines()[1:]
    assert "  perceiver.embeddings.latents: expected shape (4, 8), got (3, 8)" in lines
    assert len([line for line in lines if line.startswith("  missing perceiver.encoder.self_attends.2.")]) == 16
    assert len(lines) == 17


def test_fields_of_the_hub_say_what_is_built(tmp_path):
    config, _ = published(
        "PerceiverForMultimodalAutoencoding", tmp_path / "hub", qk_channels=4, v_channels=6, use_query_residual=False,
        hidden_act="relu", self_attention_widening_factor=3, attention_probs_dropout_prob=0.5, initializer_range=0.5,
    )  # fmt: skip
    encoder = config.encoder
    for block in (encoder.cross, encoder.latent):
        assert (block.qk_channels, block.v_channels, block.activation) == (4, 6, p.Activation.RELU)
        assert (block.attention_dropout, block.mean_when_blind) == (0.5, True)
    assert (encoder.latent.widening, encoder.cross.residual, encoder.latent_scale) == (3, False, 0.5)
    assert config.inputs["image"].shape == (2, 8, 12, 3)
    assert config.inputs["audio"].tokens == 4
    assert config.inputs["label"].names == ("ant", "bee", "cat")
    by_query = FAMILIES["PerceiverForMaskedLM"].config(HubConfig({**TINY, "cross_attention_shape_for_attention": "q"}))
    assert by_query.encoder.cross.qk_channels == 8


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize(
    ("architecture", "field"),
    [
        ("PerceiverForMaskedLM", "num_latents"),
        ("PerceiverForMaskedLM", "d_latents"),
        ("PerceiverForMaskedLM", "num_self_attends_per_block"),
        ("PerceiverForMaskedLM", "num_self_attention_heads"),
        ("PerceiverForMaskedLM", "self_attention_widening_factor"),
        ("PerceiverForMaskedLM", "num_blocks"),
        ("PerceiverForMaskedLM", "qk_channels"),
        ("PerceiverForMaskedLM", "max_position_embeddings"),
        ("PerceiverForImageClassificationLearned", "image_size"),
        ("PerceiverForMultimodalAutoencoding", "num_frames"),
        ("PerceiverForMultimodalAutoencoding", "audio_samples_per_frame"),
    ],
)
def test_sizes_that_cannot_be_are_refused(architecture, field, number):
    with pytest.raises(p.ConfigError):
        FAMILIES[architecture].config(HubConfig({**TINY, field: number}))


@pytest.mark.parametrize(
    ("architecture", "field", "number"),
    [
        ("PerceiverForSequenceClassification", "d_model", -1),
        ("PerceiverForMultimodalAutoencoding", "samples_per_patch", 0),
        ("PerceiverForMultimodalAutoencoding", "output_num_channels", 0),
        ("PerceiverForMultimodalAutoencoding", "_label_trainable_num_channels", -1),
    ],
)
def test_widths_that_cannot_be_are_refused(architecture, field, number):
    with pytest.raises(p.ConfigError):
        FAMILIES[architecture].config(HubConfig({**TINY, field: number})).abstract()


@pytest.mark.parametrize(
    ("architecture", "fields", "message"),
    [
        ("PerceiverForOpticalFlow", {"train_size": [4]}, r"train_size: expected a height and a width, got \[4\]"),
        ("PerceiverForOpticalFlow", {"train_size": [4, "6"]}, "train_size: expected a height and a width"),
        (
            "PerceiverForMultimodalAutoencoding",
            {"output_shape": [1, 3, 8, 8]},
            r"output_shape: expected \[1, 2, height",
        ),
        ("PerceiverForMultimodalAutoencoding", {"output_shape": [2, 8]}, "output_shape: expected"),
        ("PerceiverForSequenceClassification", {"id2label": {"0": "a", "2": "b"}}, "0, 1, 2, ... without a gap"),
        ("PerceiverForSequenceClassification", {"id2label": {"a": "b"}}, "id2label: expected numbers, got"),
        ("PerceiverForSequenceClassification", {"id2label": {"0": "only"}}, "at least 2"),
        ("PerceiverForMaskedLM", {"use_query_residual": 1}, "use_query_residual: expected bool, got 1"),
        ("PerceiverForMaskedLM", {"num_latents": True}, "num_latents: expected int, got True"),
        ("PerceiverForMaskedLM", {"initializer_range": "x"}, "initializer_range: expected int or float, got 'x'"),
    ],
)
def test_fields_that_are_not_understood_are_named(architecture, fields, message):
    with pytest.raises(p.ConfigError, match=message):
        FAMILIES[architecture].config(HubConfig({**TINY, **fields}))


@pytest.mark.parametrize(
    "content",
    [*("5", "null", "[]", '"type"', "{", "")],
)
def test_a_config_that_is_no_object_is_refused(content, folder):
    (folder / "config.json").write_text(content)
    with pytest.raises(p.InputError, match="language"):
        p.from_pretrained(folder)


def test_a_tokenizer_that_is_no_text_is_refused(folder):
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(p.InputError, match=r"tokenizer\.json"):
        p.from_pretrained(folder)


def test_a_folder_that_lost_its_manifest_or_its_weights_says_so(folder, tmp_path):
    own = p.PerceiverConfig({"a": p.State(2)}, p.Encoder(2, 4, 1, latent=p.Block(heads=2)), {"x": p.Classes(2)})
    filled(lambda rngs: own.initial(rngs.params())).save(tmp_path / "own")
    (tmp_path / "own" / "MANIFEST.json").unlink()
    with pytest.raises(p.InputError, match=r"own: expected a model folder, but it has no MANIFEST\.json$"):
        p.from_pretrained(tmp_path / "own")
    (folder / "model.safetensors").unlink()
    with pytest.raises(p.InputError, match=r"expected model\.safetensors or model\.safetensors\.index\.json"):
        p.from_pretrained(folder)
    with pytest.raises(p.InputError, match=r"a revision is for the Hub, this is a folder here"):
        p.from_pretrained(filled(lambda rngs: own.initial(rngs.params())).save(tmp_path / "saved"), revision="main")


IMAGES = {"image": p.Image((8, 8, 3), position=p.Fourier(2))}
CLIPS = {"audio": p.Waveform(32, 48_000, 8), "image": p.Video((2, 4, 4, 3), (1, 2, 2)), "label": p.Label(3)}
BACK = {
    "audio": p.Output(p.SoundPatches(8, 48_000), p.Grid((4,))),
    "image": p.Output(p.Dense(3), p.Grid((2, 4, 4))),
}
ENCODER = p.Encoder(2, 8, 1, latent=p.Block(heads=2))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"image": IMAGES["image"]}, {"label": p.Pooled(p.Classes(2))}),
        ({"text": p.Bytes(4, width=8)}, {"text": p.Output(p.TokenLogits(262), p.Slots(4))}),
        ({"frames": p.FramePair((4, 4, 3))}, {"flow": p.Output(p.Dense(2), p.Grid((4, 4)))}),
        ({"state": p.State(2)}, {"label": p.Classes(2)}),
    ],
)
def test_a_model_without_its_like_on_the_hub_is_not_written(inputs, outputs, tmp_path):
    model = p.PerceiverConfig(inputs, ENCODER, outputs).abstract()
    with pytest.raises(p.ConfigError, match="transformers has no equal of this model"):
        write_hub(model, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (IMAGES, {"label": p.Regression(2)}),
        ({"text": p.Bytes(4, width=8)}, {"label": p.Regression(2)}),
        (CLIPS, {**BACK, "label": p.Classes(3)}),
        (CLIPS, {**BACK, "label": p.Pooled(p.Classes(3))}),
    ],
)
def test_a_model_that_only_resembles_one_of_the_hub_is_not_written(inputs, outputs, tmp_path):
    model = p.PerceiverConfig(inputs, ENCODER, outputs).abstract()
    with pytest.raises(p.ConfigError, match="transformers has no equal of this model"):
        write_hub(model, tmp_path / "hub")


@dataclasses.dataclass(frozen=True)
class DoublingConfig(ModelConfig):
    """A kind of model that is no Perceiver."""

    width: int

    def initial(self, key):
        return Doubling(self, key)


class Doubling(Model):
    def __init__(self, config, key):
        self.config = config
        self.scale = nnx.Param(2.0 + 0.0 * jax.random.normal(key, (config.width,)))
        self.seen = nnx.BatchStat(jnp.zeros((), jnp.int32))


def test_a_model_of_ones_own_kind_is_built_saved_and_loaded(tmp_path):
    model = DoublingConfig(3).build(seed=1)
    np.testing.assert_array_equal(model.scale[...], 2.0)
    model.seen[...] = jnp.asarray(5, jnp.int32)
    folder = model.save(tmp_path / "run" / "model")
    with pytest.raises(p.ConfigError, match="unknown type 'DoublingConfig'"):
        p.from_pretrained(folder)
    again = p.from_pretrained(tmp_path / "run", types=[DoublingConfig])
    assert isinstance(again, Doubling)
    assert again.config == DoublingConfig(3)
    same(again, {name: np.asarray(value) for name, value in weights(model).items()})
