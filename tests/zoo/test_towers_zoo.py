import importlib.util
import json
import math

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import perceiver as p
from perceiver import pretrained, saving
from perceiver.errors import ConfigError, InputError
from perceiver.io.images import Fit, Resample
from perceiver.prompts import Wording
from perceiver.towers import EndOfText
from perceiver.zoo import clip, siglip, tables, vit
from tests.models import GOLDENS, close, filled

LAYERS = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
PICTURES = {"image_size": 9, "patch_size": 4, "num_channels": 3}
VIT = {"model_type": "vit", **LAYERS, **PICTURES, "hidden_act": "relu", "qkv_bias": False, "num_labels": 3}
CLIP = {
    "model_type": "clip",
    "projection_dim": 5,
    "text_config": {**LAYERS, "hidden_size": 9, "vocab_size": 30, "max_position_embeddings": 7, "eos_token_id": 28},
    "vision_config": {**LAYERS, **PICTURES},
}
SIGLIP = {
    "model_type": "siglip",
    "text_config": {**LAYERS, "hidden_size": 9, "vocab_size": 30, "max_position_embeddings": 7, "projection_size": 12},
    "vision_config": {**LAYERS, **PICTURES},
}
SIGLIP_CLASSES = {**SIGLIP, "architectures": ["SiglipForImageClassification"], "id2label": {"1": "dog", "0": "cat"}}
FAMILIES = pytest.mark.parametrize(
    ("family", "hub"),
    [(vit, VIT), (clip, CLIP), (siglip, SIGLIP), (siglip, SIGLIP_CLASSES)],
    ids=["vit", "clip", "siglip", "siglip classes"],
)

# torch.device("meta") and transformers 5.23: sum(p.numel() for p in M(C(...)).parameters()), where
#   ViTForImageClassification(ViTConfig(num_labels=1000)), CLIPModel(CLIPConfig()) and SiglipModel(SiglipConfig()) are
#   the base models, and the others have these arguments:
#   ViT large: hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
#   CLIP base 16: vision_config={"patch_size": 16}
#   CLIP large: projection_dim=768, text_config={"hidden_size": 768, "intermediate_size": 3072,
#     "num_attention_heads": 12}, vision_config as ViT large with "patch_size": 14
#   SigLIP so400m: in both, hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16;
#     vision_config also "image_size": 384, "patch_size": 14
COUNTS = [
    (vit.vit_base_patch16_224, 86_567_656),
    (vit.vit_large_patch16_224, 304_326_632),
    (clip.clip_vit_base_patch32, 151_277_313),
    (clip.clip_vit_base_patch16, 149_620_737),
    (clip.clip_vit_large_patch14, 427_616_513),
    (siglip.siglip_base_patch16_224, 203_155_970),
    (siglip.siglip_so400m_patch14_384, 877_960_498),
]


def shapes(config):
    return {name: value.shape for name, value in saving.weights(config.abstract()).items()}


def changed(tree, path, value):
    """A copy of a tree of dicts with one entry replaced."""
    name, _, rest = path.partition(".")
    return {**tree, name: changed(tree[name], rest, value) if rest else value}


def noisy(config, seed=0):
    return filled(lambda rngs: config.initial(rngs.params()), seed)


@pytest.mark.parametrize(("named", "count"), COUNTS, ids=[named.__name__ for named, _ in COUNTS])
def test_named_models_have_the_parameters_of_the_originals(named, count):
    config = named()
    assert sum(math.prod(shape) for shape in shapes(config).values()) == count
    family = next(f for f in (vit, clip, siglip) if f.__name__ == named.__module__)
    assert {entry.ours for entry in family.rows(config)} == shapes(config).keys()


@FAMILIES
def test_weights_written_and_read_again_are_the_same(family, hub):
    config = family.config(hub, None, None)
    ours = {name: np.asarray(value) for name, value in saving.weights(noisy(config)).items()}
    theirs = tables.write(family.rows(config), ours)
    theirs |= {name: np.arange(3) for name in family.IGNORED if name not in theirs}
    again = tables.read(family.rows(config), theirs, shapes(config), "test", family.IGNORED)
    assert again.keys() == ours.keys()
    for name, value in ours.items():
        assert again[name].shape == value.shape, name
        np.testing.assert_array_equal(again[name], value)


@FAMILIES
def test_configs_written_and_read_again_are_the_same(family, hub):
    config = family.config(hub, None, None)
    assert family.config(family.hub_config(config), None, None) == config
    json.dumps(family.hub_config(config))


@pytest.mark.parametrize(("family", "name"), [(vit, "hf_vit"), (clip, "hf_clip"), (siglip, "hf_siglip")])
def test_checkpoints_are_written_as_they_were_read(family, name):
    folder = GOLDENS / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in {GOLDENS}")
    config = family.config(json.loads((folder / "config.json").read_text()), None, None)
    tensors = load_file(folder / "model.safetensors")
    written = tables.write(family.rows(config), tables.read(family.rows(config), tensors, shapes(config), name))
    assert {key: value.shape for key, value in written.items()} == {key: v.shape for key, v in tensors.items()}
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)
        assert written[key].flags.c_contiguous, f"safetensors would write {key} in the wrong order"


@pytest.mark.parametrize(
    ("family", "hub", "path", "value", "message"),
    [
        (vit, VIT, "model_type", "deit", "model_type: expected 'vit', got 'deit'"),
        (vit, VIT, "architectures", ["ViTModel"], r"architectures: .*ViTModel"),
        (vit, VIT, "hidden_act", "mish", "config.json.hidden_act: no activation 'mish'"),
        (vit, VIT, "hidden_size", "12", "config.json.hidden_size"),
        (vit, VIT, "num_attention_heads", 5, "num_attention_heads: expected a divisor"),
        (vit, VIT, "image_size", [9], r"config.json.image_size: .*\[9\]"),
        (vit, VIT, "patch_size", 10, "no patches"),
        (vit, VIT, "qkv_bias", 1, "config.json.qkv_bias"),
        (vit, VIT, "id2label", {"0": "a", "2": "b"}, "id2label"),
        (vit, VIT, "num_labels", 1, "num_labels"),
        (clip, CLIP, "model_type", "clip_vision_model", "model_type"),
        (clip, CLIP, "text_config", [1], "text_config: expected an object"),
        (clip, CLIP, "text_config.eos_token_id", [1, 2], "text_config.eos_token_id"),
        (clip, CLIP, "text_config.layer_norm_eps", None, "text_config.layer_norm_eps"),
        (clip, CLIP, "projection_dim", None, "config.json.projection_dim"),
        (siglip, SIGLIP, "model_type", "siglip2", "model_type"),
        (siglip, SIGLIP, "vision_config.vision_use_head", False, "vision_config.vision_use_head"),
        (siglip, SIGLIP, "text_config.projection_size", 11, "text_config.projection_size"),
        (siglip, SIGLIP, "vision_config.num_hidden_layers", 0, "vision_config.num_hidden_layers"),
    ],
)
def test_what_is_not_supported_is_named(family, hub, path, value, message):
    with pytest.raises(ConfigError, match=message):
        family.config(changed(hub, path, value), None, None)


@pytest.mark.parametrize(("family", "other"), [(vit, SIGLIP_CLASSES), (clip, SIGLIP), (siglip, CLIP), (siglip, VIT)])
def test_models_of_another_kind_are_not_written(family, other):
    reader = {"vit": vit, "clip": clip, "siglip": siglip}[other["model_type"]]
    with pytest.raises(ConfigError):
        family.hub_config(reader.config(other, None, None))


def test_absent_fields_and_older_layouts_take_the_defaults_of_transformers():
    bare = clip.config({"model_type": "clip"}, None, None)
    assert (bare.image.channels, bare.text.channels, bare.text.vocabulary, bare.channels) == (768, 512, 49408, 512)
    assert bare.text.pooling == EndOfText(49407)
    older = changed(CLIP, "text_config_dict", {"hidden_size": 16, "eos_token_id": 2})
    text = clip.config(older, None, None).text
    assert (text.channels, text.vocabulary, text.pooling) == (16, 49408, EndOfText())
    assert siglip.config({"model_type": "siglip"}, None, None).text.vocabulary == 32000
    assert vit.config({"model_type": "vit"}, None, None).classes == p.Classes(2)
    assert siglip.config(SIGLIP_CLASSES, None, None).classes.names == ("cat", "dog")


def test_preprocessing_is_taken_over():
    assert clip.config(CLIP, None, None).image.image == p.Image((9, 9, 3))
    image = clip.config(CLIP, {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2], "size": 9, "crop_size": 9}, None)
    assert image.image.image.mean == (0.1, 0.2, 0.3)
    assert image.image.image.std == (1.0, 1.0, 2.0)
    assert (image.image.image.fit, image.image.image.crop) == (Fit.SHORTER_SIDE, 1.0)
    for named, fit, resample in [
        (vit.vit_base_patch16_224(), Fit.STRETCH, Resample.BILINEAR),
        (clip.clip_vit_base_patch32(), Fit.SHORTER_SIDE, Resample.BICUBIC),
        (siglip.siglip_base_patch16_224(), Fit.STRETCH, Resample.BICUBIC),
    ]:
        assert (named.image.image.fit, named.image.image.resample) == (fit, resample)
        assert len(named.image.image.mean) == 3
    with pytest.raises(ConfigError, match="preprocessor"):
        siglip.config(SIGLIP, {"do_resize": False}, None)


def test_padding_and_wording_follow_the_tokenizer():
    def content(*names):
        return json.dumps({"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": n, "id": i} for i, n in names]})

    prompts = clip.config(CLIP, None, content((7, "<|startoftext|>"), (8, "<|endoftext|>"))).text.prompts
    assert (prompts.padding, prompts.wording) == (8, Wording.AS_IS)
    first = siglip.config(SIGLIP, None, json.dumps({"model": {"vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0]]}}))
    assert (first.text.prompts.padding, first.text.prompts.wording) == (1, Wording.BARE)
    second = siglip.config(SIGLIP, None, content((0, "<pad>"), (1, "<eos>")))
    assert (second.text.prompts.padding, second.text.prompts.wording) == (0, Wording.LOWER)
    with pytest.raises(ConfigError, match="tokenizer"):
        clip.config(CLIP, None, "[]")


@pytest.mark.parametrize(
    ("name", "hub", "other"),
    [
        (clip.CLIPModel, (clip, CLIP), (siglip, SIGLIP)),
        (siglip.SiglipModel, (siglip, SIGLIP), (clip, CLIP)),
        (vit.ViTForImageClassification, (vit, VIT), (clip, CLIP)),
    ],
)
def test_the_names_of_the_field_load_their_own_kind(name, hub, other, monkeypatch):
    def loads(family, tree):
        model = family.config(tree, None, None).abstract()
        monkeypatch.setattr(pretrained, "from_pretrained", lambda source, revision=None: model)
        return model

    model = loads(*hub)
    assert name.from_pretrained("somewhere", revision="main") is model
    loads(*other)
    with pytest.raises(InputError, match="somewhere: expected a"):
        name.from_pretrained("somewhere")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@FAMILIES
def test_transformers_loads_what_we_write(family, hub, tmp_path):
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}, with which the files are read again")
    import torch
    import transformers

    config = family.config(hub, None, None)
    model = noisy(config)
    ours = {name: np.asarray(value) for name, value in saving.weights(model).items()}
    tree = family.hub_config(config)
    (tmp_path / "config.json").write_text(json.dumps(tree))
    save_file(tables.write(family.rows(config), ours), tmp_path / "model.safetensors", {"format": "pt"})
    kind = getattr(transformers, tree["architectures"][0])
    theirs, report = kind.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(2, 9, 9, 3)).astype(np.float32)
    given = {"pixel_values": torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))}
    if "text_config" not in tree:
        with torch.no_grad():
            close(nnx.jit(lambda m: m(pixels))(model), theirs(**given).logits.numpy())
        return
    ids = rng.integers(0, 28, (4, 7), dtype=np.int64)
    ids[:, 5] = 28
    with torch.no_grad():
        found = theirs(input_ids=torch.from_numpy(ids), **given)
    answers = nnx.jit(lambda m: m(pixels, ids.astype(np.int32)))(model)
    for name, value in (("image", found.image_embeds), ("text", found.text_embeds), ("logits", found.logits_per_image)):
        close(answers[name], value.numpy())
