"""`from_pretrained` on what it must refuse; what it takes is tested with each source."""

import json
import shutil

import pytest

import perceiver as p
from tests.models import CARRIED


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
