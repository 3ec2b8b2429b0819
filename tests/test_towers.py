import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from flax import nnx
from tokenizers import models, pre_tokenizers, processors

import perceiver as p
from perceiver import saving, zeroshot
from perceiver.config import from_json, merge, network_json, preprocessing_json, to_json
from perceiver.contrast import Embedded, infonce
from perceiver.dual import (
    DualEncoder,
    DualEncoderConfig,
    ImageClassifierConfig,
    Projection,
    SigmoidContrast,
    SoftmaxContrast,
    VisionClassifier,
)
from perceiver.errors import ConfigError, InputError
from perceiver.model import Compute, ModelConfig
from perceiver.prompts import Prompts, Wording
from perceiver.towers import EndOfText, LastPosition, TextTower, VisionTower
from tests.models import close, filled

TYPES = [
    DualEncoderConfig,
    ImageClassifierConfig,
    VisionTower,
    TextTower,
    EndOfText,
    LastPosition,
    Prompts,
    Projection,
    SoftmaxContrast,
    SigmoidContrast,
]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "a", "photo", "of", "the", "cat", "dog", "red"]
BLOCK = p.Block(heads=2, mlp_channels=12, activation=p.Activation.QUICK_GELU, epsilon=1e-6, mean_when_blind=True)
PICTURE = p.Image((8, 12, 3), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def tokenizer():
    """Words to ids, between <s> and </s>."""
    codec = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    codec.pre_tokenizer = pre_tokenizers.Whitespace()
    codec.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return codec.to_str()


PROMPTS = Prompts(tokenizer(), padding=0, wording=Wording.BARE)


def clip_like(**changes):
    given = {
        "image": VisionTower(PICTURE, (4, 4), 8, 2, BLOCK, patch_bias=False, first_norm=True),
        "text": TextTower(len(WORDS), 9, 6, 2, BLOCK, EndOfText(2), causal=True, prompts=PROMPTS),
        "image_projection": Projection(5),
        "text_projection": Projection(5),
    }
    return DualEncoderConfig(**{**given, **changes})


def siglip_like(**changes):
    given = {
        "image": VisionTower(PICTURE, (4, 4), 8, 2, BLOCK, class_token=False, probe=BLOCK),
        "text": TextTower(len(WORDS), 9, 6, 2, BLOCK, LastPosition(), prompts=PROMPTS),
        "text_projection": Projection(8, bias=True),
        "contrast": SigmoidContrast(),
    }
    return DualEncoderConfig(**{**given, **changes})


def vit_like(**changes):
    tower = VisionTower(PICTURE, (4, 4), 8, 2, BLOCK, qkv_bias=False)
    return ImageClassifierConfig(**{"image": tower, "classes": p.Classes(3, ("x", "y", "z")), **changes})


CONFIGS = pytest.mark.parametrize("config", [clip_like(), siglip_like(), vit_like()], ids=["clip", "siglip", "vit"])
DUAL = pytest.mark.parametrize("config", [clip_like(), siglip_like()], ids=["clip", "siglip"])


def built(config, seed=0):
    return filled(lambda rngs: config.initial(rngs.params()), seed)


def pictures(count=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 12, 3), dtype=np.uint8)


def texts(count=3, length=9, seed=0):
    """Random words that end with </s>."""
    ids = np.random.default_rng(seed).integers(3, len(WORDS), (count, length), dtype=np.int32)
    ids[:, -1] = 2
    return ids


classified = nnx.jit(lambda model, raw: model(raw))
compared = nnx.jit(lambda model, raw, ids: model(raw, ids))
embedded_text = nnx.jit(lambda model, ids, mask=None: model.embed_text(ids, mask))


def answers(model, config):
    if isinstance(config, ImageClassifierConfig):
        return classified(model, pictures())
    return compared(model, pictures(), texts())


@CONFIGS
def test_configs_come_back_from_json(config):
    types = [*saving.known_types(), *TYPES]
    assert from_json(json.loads(json.dumps(to_json(config))), ModelConfig, types) == config
    network, host = network_json(config), preprocessing_json(config)
    assert "<unk>" not in json.dumps(network)
    assert merge(network, host) == to_json(config)
    assert hash(config) == hash(dataclasses.replace(config))


@CONFIGS
def test_models_come_back_from_a_folder(config, tmp_path):
    model = built(config)
    again = saving.load(model.save(tmp_path / "model"), types=TYPES)
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, answers(again, config), answers(model, config))


@CONFIGS
def test_a_fresh_model_is_built_and_bfloat16_is_near(config):
    model = config.build(seed=1)
    exact = answers(model, config)
    half = dataclasses.replace(config, compute=Compute.BFLOAT16)
    rough = answers(saving.with_weights(half, saving.weights(model), "here"), half)
    for near, wanted in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True):
        assert near.dtype == wanted.dtype == jnp.float32
        assert np.isfinite(wanted).all()
        assert np.abs(near - wanted).max() < 0.05 * max(1.0, float(np.abs(wanted).max()))


@DUAL
def test_embeddings_have_length_one_and_logits_are_their_scaled_products(config):
    model = built(config)
    found = answers(model, config)
    for name in ("image", "text"):
        assert found[name].shape == (3, config.channels)
        close(np.linalg.norm(found[name], axis=1), np.ones(3))
    bias = 0.0 if model.bias is None else float(model.bias[...])
    wanted = np.exp(float(model.log_scale[...])) * np.asarray(found["image"]) @ np.asarray(found["text"]).T + bias
    close(found["logits"], wanted)
    probabilities = np.asarray(config.contrast.probabilities(found["logits"]))
    assert probabilities.min() > 0
    if isinstance(config.contrast, SoftmaxContrast):
        close(probabilities.sum(axis=1), np.ones(3))
    else:
        close(probabilities, 1 / (1 + np.exp(-wanted)))


def test_bytes_and_standardised_floats_are_the_same_picture():
    model = built(vit_like())
    raw = pictures()
    plain = dataclasses.replace(vit_like().image, image=p.Image(PICTURE.shape))
    bare = saving.with_weights(vit_like(image=plain), saving.weights(model), "here")
    wanted = classified(model, raw)
    close(classified(model, raw / np.float32(255)), wanted)
    by_hand = (raw / np.float32(255) - np.float32(PICTURE.mean)) / np.float32(PICTURE.std)
    close(classified(bare, by_hand), wanted)


def test_pixels_that_fill_no_patch_are_left_out():
    image = dataclasses.replace(vit_like().image, image=p.Image((9, 14, 3)))
    assert image.grid == (2, 3)
    model = built(vit_like(image=image))
    raw = np.random.default_rng(0).random((2, 9, 14, 3), np.float32)
    spoilt = raw.copy()
    spoilt[:, 8:], spoilt[:, :, 12:] = 7.0, 7.0
    np.testing.assert_array_equal(classified(model, raw), classified(model, spoilt))


def test_a_tower_without_class_token_and_probe_gives_the_mean():
    tower = VisionTower(PICTURE, (4, 4), 8, 1, BLOCK, class_token=False)
    module = filled(lambda rngs: tower.build(dtype=jnp.dtype("float32"), rngs=rngs))
    states, vector = nnx.jit(lambda m, raw: (m.norm(m.states(raw)), m(raw)))(module, pictures())
    assert states.shape == (3, 6, 8)
    close(vector, states.mean(axis=1))


def test_without_qkv_bias_there_are_no_such_parameters():
    names = saving.weights(built(vit_like()))
    assert "image.stack.layers.attention.out.bias" in names
    assert not [n for n in names if n.endswith(("query.bias", "key.bias", "value.bias"))]


def test_a_causal_text_does_not_see_what_follows_the_end():
    module = built(clip_like()).text
    ids = np.array([[1, 4, 5, 2, 0, 0]], np.int32)
    other = np.array([[1, 4, 5, 2, 2, 9]], np.int32)
    run = nnx.jit(lambda m, ids: (m(ids), m.states(ids)))
    (vector, states), (other_vector, other_states) = run(module, ids), run(module, other)
    np.testing.assert_array_equal(vector, other_vector)
    close(states[:, :4], other_states[:, :4])
    assert not np.allclose(vector, run(module, np.array([[1, 4, 6, 2, 0, 0]], np.int32))[0])


def test_pooling_rules():
    ids = jnp.array([[1, 7, 2, 9, 9], [3, 3, 3, 3, 3], [2, 4, 2, 8, 1]])
    assert EndOfText(2).places(ids).tolist() == [2, 0, 0]
    assert EndOfText().places(ids).tolist() == [3, 0, 3]
    assert LastPosition().places(ids).tolist() == [4, 4, 4]


@DUAL
def test_masked_tokens_do_not_matter(config):
    model = built(config)
    ids, mask = texts(2), np.ones((2, 9), bool)
    mask[0, :3], mask[1] = False, False  # a text of which nothing is seen
    spoilt = ids.copy()
    spoilt[0, :3] = 0
    found = embedded_text(model, ids, mask)
    assert np.isfinite(found).all()
    close(embedded_text(model, spoilt, mask)[0], found[0])
    assert not np.allclose(embedded_text(model, ids, np.ones_like(mask))[0], found[0])
    close(embedded_text(model, ids, np.ones_like(mask)), embedded_text(model, ids))


def test_dropout_needs_a_key():
    block = dataclasses.replace(BLOCK, dropout=0.4, attention_dropout=0.2)
    model = built(vit_like(image=dataclasses.replace(vit_like().image, block=block)))
    run = nnx.jit(lambda m, raw, key: m(raw, key=key))
    first, second = (run(model, pictures(), jax.random.key(i)) for i in range(2))
    assert not np.allclose(first, second)
    assert not np.allclose(first, classified(model, pictures()))


@DUAL
def test_gradients_are_finite(config):
    model = built(dataclasses.replace(config, image=dataclasses.replace(config.image, remat=True)))
    mask = np.ones((3, 9), bool)
    mask[0] = False

    def loss(model):
        found = model(pictures(), texts(), mask)
        pairs = infonce(Embedded(found["image"]), Embedded(found["text"]), model.log_scale[...])
        return pairs - jax.nn.log_sigmoid(found["logits"]).sum()

    gradients = saving.flatten(nnx.jit(nnx.grad(loss))(model))
    assert all(np.isfinite(value).all() for value in gradients.values())
    still = [name for name, value in gradients.items() if not np.any(value)]
    assert not still


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.embed_image(np.zeros((2, 8, 8, 3), np.uint8)), r"pixels: expected shape \(b, 8, 12, 3\)"),
        (lambda m: m.embed_image(np.zeros((2, 8, 12, 3), np.int32)), "pixels: .*int32"),
        (lambda m: m.embed_text(np.zeros((2, 9), np.float32)), "ids: .*float32"),
        (lambda m: m.embed_text(np.zeros((2, 10), np.int32)), "ids: expected at most 9 tokens, got 10"),
        (lambda m: m.embed_text(np.zeros((2, 9), np.int32), np.ones((2, 9), np.int32)), "ids: a mask must be bool"),
        (lambda m: m.logits(np.zeros((2, 5), np.float32), np.zeros((2, 4), np.float32)), "text: expected shape"),
        (lambda m: m.encode_text("a cat"), "expected a list of strings"),
        (lambda m: zeroshot.classify(m, pictures(), "cat"), "names: expected a list"),
        (lambda m: zeroshot.classify(m, pictures(), ["cat"], ["a photo"]), "templates: expected {}"),
        (lambda m: zeroshot.classify(m, [], ["cat"]), "items: expected a list"),
        (lambda m: zeroshot.classify(m, [np.zeros((4, 4), bool)], ["cat"]), r"items\[0\]: "),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call(built(clip_like()))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: clip_like(image_projection=Projection(4)), "4 channels, texts with 5"),
        (lambda: siglip_like(text_projection=None), "8 channels, texts with 6"),
        (lambda: VisionTower(PICTURE, (9, 4), 8, 2, BLOCK), r"no patches of \(9, 4\)"),
        (lambda: VisionTower(p.Image((8, 12, 3), patch=4), (4, 4), 8, 2, BLOCK), "VisionTower.image"),
        (lambda: VisionTower(PICTURE, (4, 4), 9, 2, BLOCK), "VisionTower.channels is 9"),
        (lambda: TextTower(5, 9, 6, 0, BLOCK, LastPosition()), "one layer, got 6 and 0"),
        (lambda: TextTower(0, 9, 6, 1, BLOCK, LastPosition()), "at least one id"),
        (lambda: Prompts("", padding=-1), "Prompts.padding"),
        (lambda: Prompts("{}").encode(["a"], 3), "tokenizer.json"),
        (lambda: Projection(0), "Projection.channels"),
    ],
)
def test_bad_declarations(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_prompts_are_padded_and_keep_their_end():
    found = PROMPTS.encode(["a photo", "A   red, dog!", "a " * 20, ""], 7)
    assert found.dtype == np.int32
    assert found.tolist() == [
        [1, 4, 5, 2, 0, 0, 0],
        [1, 4, 10, 9, 2, 0, 0],
        [1, 4, 4, 4, 4, 4, 2],
        [1, 2, 0, 0, 0, 0, 0],
    ]


def test_wordings():
    text = "  A photo-graph,\tof\nTHE cat's (1st) ▁ house! "
    assert Wording.AS_IS(text) == text
    assert Wording.LOWER("The Cat!") == "the cat!"
    assert Wording.BARE(text) == "a photograph of the cats 1st ▁ house"


def test_a_tokenizer_of_another_model_is_noticed():
    config = clip_like(text=dataclasses.replace(clip_like().text, vocabulary=5))
    with pytest.raises(InputError, match="id 8, the model has 5"):
        built(config).encode_text(["the cat"])
    with pytest.raises(InputError, match="no tokenizer"):
        built(clip_like(text=dataclasses.replace(clip_like().text, prompts=None))).encode_text(["the cat"])


@DUAL
def test_zero_shot_by_prompt(config):
    model = built(config)
    names, templates = ["cat", "red dog"], ["a photo of a {}", "the {}"]
    found = zeroshot.classify(model, pictures(5), names, templates, batch=2)
    assert found.shape == (5, 2)
    assert found.dtype == np.float32

    ids = model.encode_text([template.replace("{}", name) for name in names for template in templates])
    means = np.asarray(embedded_text(model, ids)).reshape(2, 2, -1).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    logits = model.logits(compared(model, pictures(5), texts())["image"], means)
    close(found, config.contrast.probabilities(logits))
    close(zeroshot.classify(model, list(pictures(5)), names[::-1], templates[::-1], batch=2), found[:, ::-1])


def test_zero_shot_reads_files_and_pictures_of_any_size(tmp_path):
    from perceiver.io.images import write_png

    model = built(siglip_like())
    raw = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    write_png(tmp_path / "cat.png", raw)
    found = zeroshot.classify(model, [tmp_path / "cat.png", raw], ["cat", "dog", "red"])
    assert found.shape == (2, 3)
    np.testing.assert_array_equal(found[0], found[1])
    with pytest.raises(InputError, match=r"items\[1\]: .*nothing.png"):
        zeroshot.classify(model, [raw, tmp_path / "nothing.png"], ["cat"])


def test_models_have_their_own_kinds():
    assert isinstance(built(clip_like()), DualEncoder)
    assert isinstance(built(vit_like()), VisionClassifier)
    assert classified(built(vit_like()), pictures()).shape == (3, 3)
