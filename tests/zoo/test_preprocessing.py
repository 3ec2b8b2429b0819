"""preprocessor_config.json against Image, and both against Hugging Face's processors."""

import json

import numpy as np
import pytest

import perceiver as p
from perceiver.errors import ConfigError
from perceiver.io.images import Fit, Resample, frame_image
from perceiver.zoo.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    HALVES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Processor,
    framed_size,
    framing,
    preprocessor_json,
)
from tests.models import GOLDENS

PLAIN = {"fit": Fit.STRETCH, "crop": 1.0, "resample": Resample.BICUBIC, "mean": HALVES, "std": HALVES}
IMAGENET = {**PLAIN, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
CLIP = {**PLAIN, "fit": Fit.SHORTER_SIDE, "mean": CLIP_MEAN, "std": CLIP_STD}
PERCEIVER = {**IMAGENET, "fit": Fit.CENTRAL, "crop": 0.875}
VIT = {**PLAIN, "resample": Resample.BILINEAR}

# As on the Hub, in the spellings of several years.
DEEPMIND_FOURIER = {
    "crop_size": 256,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "PerceiverFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
CLIP_NEW = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(CLIP_MEAN),
    "image_processor_type": "CLIPImageProcessorFast",
    "image_std": list(CLIP_STD),
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
    "data_format": "channels_first",
    "device": None,
    "do_pad": None,
    "pad_size": None,
}


def named(kind, **fields):
    return {"image_processor_type": kind.value, **fields}


@pytest.mark.parametrize(
    ("preprocessor", "fields", "size"),
    [
        (DEEPMIND_FOURIER, PERCEIVER, (224, 224)),
        (named(Processor.PERCEIVER), PERCEIVER, (224, 224)),
        (named(Processor.PERCEIVER, do_center_crop=False, size=[20, 30]), IMAGENET, (20, 30)),
        (named(Processor.PERCEIVER, size={"height": 20, "width": 30}, crop_size=[40, 60]), {**PERCEIVER, "crop": 0.5},
         (20, 30)),
        (CLIP_NEW, CLIP, (224, 224)),
        ({"image_processor": CLIP_NEW, "processor_class": "CLIPProcessor"}, CLIP, (224, 224)),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224}, CLIP, (224, 224)),
        (named(Processor.CLIP, size=256, crop_size=[200, 224]), {**CLIP, "crop": 0.875}, (200, 224)),
        (named(Processor.CLIP, size={"height": 30, "width": 40}, do_center_crop=False), {**CLIP, "fit": Fit.STRETCH},
         (30, 40)),
        (named(Processor.CLIP, size=[30, 40], crop_size=[30, 40]), {**CLIP, "fit": Fit.STRETCH}, (30, 40)),
        (named(Processor.VIT), VIT, (224, 224)),
        ({"image_processor_type": "ViTFeatureExtractor", "size": 384, "resample": 2}, VIT, (384, 384)),
        (named(Processor.VIT, do_normalize=False), {**VIT, "mean": (), "std": ()}, (224, 224)),
        (named(Processor.SIGLIP, size={"height": 384, "width": 384}), PLAIN, (384, 384)),
        (named(Processor.SIGLIP, resample=0, size=[8, 9]), {**PLAIN, "resample": Resample.NEAREST}, (8, 9)),
    ],
)  # fmt: skip
def test_files_of_every_spelling_are_read(preprocessor, fields, size):
    assert framing(json.loads(json.dumps(preprocessor))) == fields
    assert framed_size(preprocessor) == size
    p.Image((*size, 3), **framing(preprocessor))


def test_a_file_without_a_name_takes_the_one_given():
    assert framing({"size": 224}, Processor.VIT) == VIT
    assert framing({"size": 224, "crop_size": 224}, Processor.CLIP) == CLIP
    assert framing(DEEPMIND_FOURIER, Processor.VIT) == PERCEIVER  # what the file says comes first


def test_other_scales_become_the_scale_from_0_to_1():
    bytes_scale = {"do_rescale": False, "image_mean": [51.0], "image_std": [102.0]}
    fields = framing(named(Processor.VIT, **bytes_scale))
    np.testing.assert_allclose([*fields["mean"], *fields["std"]], [0.2, 0.4])
    half = framing(named(Processor.VIT, rescale_factor=1 / 127.5, do_normalize=False))
    np.testing.assert_allclose([*half["mean"], *half["std"]], [0] * 3 + [0.5] * 3)


@pytest.mark.parametrize(
    ("preprocessor", "message"),
    [
        ({}, "image_processor_type: expected PerceiverImageProcessor, .* got 'nothing'"),
        ({"image_processor_type": "BlipImageProcessor"}, "image_processor_type: .*got 'BlipImageProcessor'"),
        (named(Processor.VIT, do_resise=True), "unknown field 'do_resise'; did you mean 'do_resize'"),
        (named(Processor.VIT, do_resize=False), "do_resize: expected true"),
        (named(Processor.VIT, do_resize=1), "do_resize: expected true or false, got 1"),
        (named(Processor.VIT, do_pad=True), "do_pad: expected false"),
        (named(Processor.VIT, size={"longest_edge": 9}), r"size: .*got {'longest_edge': 9}"),
        (named(Processor.VIT, size={"shortest_edge": 9}), "do_center_crop: expected true"),
        (named(Processor.VIT, size=0), "size: .*got 0"),
        (named(Processor.VIT, size=[1, 2, 3]), r"size: .*got \[1, 2, 3\]"),
        (named(Processor.VIT, size=True), "size: .*got True"),
        (named(Processor.VIT, do_center_crop=True), "crop_size: .*got None"),
        (named(Processor.VIT, do_center_crop=True, crop_size=200), r"crop_size: .*stretched.*got \(200, 200\)"),
        (named(Processor.CLIP, crop_size={"shortest_edge": 9}), "crop_size: expected height and width"),
        (named(Processor.PERCEIVER, size={"shortest_edge": 9}), "size: expected height and width"),
        (named(Processor.PERCEIVER, size=[20, 30], crop_size=40), "crop_size: expected the proportions"),
        (named(Processor.SIGLIP, size=224), "do_center_crop: expected true"),
        (named(Processor.VIT, resample=7), r"resample: expected 0 \(NEAREST\).*got 7"),
        (named(Processor.VIT, resample="bicubic"), "resample: .*got 'bicubic'"),
        (named(Processor.VIT, image_mean=0.5), "image_mean: expected a list of numbers.*got 0.5"),
        (named(Processor.VIT, image_mean=[0.5]), "image_std: expected 1 numbers above 0"),
        (named(Processor.VIT, image_std=[0.5, 0.5, 0]), "image_std: expected 3 numbers above 0"),
        (named(Processor.VIT, rescale_factor=0), "rescale_factor: expected a number above 0, got 0"),
    ],
)
def test_what_is_not_known_is_refused_by_its_name(preprocessor, message):
    with pytest.raises(ConfigError, match=message):
        framing(preprocessor)


WRITTEN = [
    (p.Image((224, 224, 3), **PERCEIVER), None, Processor.PERCEIVER),
    (p.Image((20, 30, 3), **{**PERCEIVER, "crop": 20 / 24}), None, Processor.PERCEIVER),
    (p.Image((20, 30, 3), **IMAGENET), Processor.PERCEIVER, Processor.PERCEIVER),
    (p.Image((32, 32, 3), **CLIP), None, Processor.CLIP),
    (p.Image((32, 21, 3), **{**CLIP, "crop": 32 / 37}), None, Processor.CLIP),
    (p.Image((32, 21, 3), **IMAGENET), Processor.CLIP, Processor.CLIP),
    (p.Image((32, 21, 3), **VIT), None, Processor.VIT),
    (p.Image((32, 32, 3), **PLAIN), Processor.SIGLIP, Processor.SIGLIP),
    (p.Image((32, 32, 3)), Processor.SIGLIP, Processor.SIGLIP),
]


@pytest.mark.parametrize(("image", "kind", "expected"), WRITTEN)
def test_what_is_written_reads_back(image, kind, expected):
    content = json.loads(json.dumps(preprocessor_json(image, kind)))
    assert content["image_processor_type"] == expected.value
    assert framing(content) == {name: getattr(image, name) for name in PLAIN}
    assert framed_size(content) == image.shape[:2]


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (p.Image((8, 8, 3), dark_background=True), None, "dark_background"),
        (p.Image((8, 8, 3), **CLIP), Processor.VIT, "ViTImageProcessor cannot do SHORTER_SIDE"),
        (p.Image((8, 8, 3), **PERCEIVER), Processor.CLIP, "CLIPImageProcessor cannot do CENTRAL"),
        (p.Image((8, 8, 3), fit=Fit.CENTRAL, crop=0.77), None, "crop: expected 8 divided by a whole number, got 0.77"),
    ],
)
def test_what_no_file_can_say_is_refused(image, kind, message):
    with pytest.raises(ConfigError, match=message):
        preprocessor_json(image, kind)


def test_perceivers_reference_pictures():
    folders = sorted(path.parent for path in GOLDENS.glob("hf_perceiver*/preprocessor_config.json"))
    if not folders:
        pytest.skip("no hf_perceiver_* with a preprocessor_config.json in the folder of reference outputs")
    for folder in folders:
        fields = framing(json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8")))
        image = p.Image((16, 16, 3), **fields)
        with np.load(folder / "io.npz") as arrays:
            pairs = [(arrays[key], arrays[key.replace("image", "pixel_values")])
                     for key in arrays if key.startswith("processor/image")]  # fmt: skip
        assert len(pairs) >= 2
        for source, expected in pairs:
            pixels = image.load(source)[0].astype(np.float32) / 255
            pixels = (pixels - np.float32(image.mean)) / np.float32(image.std)
            np.testing.assert_allclose(pixels.transpose(2, 0, 1)[None], expected, rtol=0, atol=1e-5)


SIZES = [(1, 1), (2, 2), (7, 3), (16, 16), (33, 29), (40, 61), (61, 40), (97, 128), (128, 131), (301, 200)]


@pytest.mark.slow
@pytest.mark.parametrize(("image", "kind", "expected"), WRITTEN)
@pytest.mark.filterwarnings("ignore")
def test_pictures_are_those_of_hugging_face_bit_for_bit(image, kind, expected):
    transformers = pytest.importorskip("transformers")
    content = preprocessor_json(image, kind)
    reference = getattr(transformers, f"{expected.value}Pil")(**content)
    rng = np.random.default_rng(0)
    for size in SIZES:
        if image.fit is Fit.CENTRAL and int(image.crop * min(size)) < 1:
            continue  # theirs cuts out nothing
        source = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        given = {"input_data_format": "channels_last", "return_tensors": "np"}
        theirs = reference(source, do_rescale=False, do_normalize=False, **given)["pixel_values"][0]
        ours = image.load(source)[0]
        np.testing.assert_array_equal(ours, theirs.transpose(1, 2, 0))
        values = reference(source, **given)["pixel_values"][0].transpose(1, 2, 0)
        mean, std = (image.mean, image.std) if image.mean else (0.0, 1.0)
        np.testing.assert_allclose((ours / np.float32(255) - np.float32(mean)) / np.float32(std), values, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crops", [(16, 18), (224, 256), (20, 16), (24, 5), (15, 31)])
@pytest.mark.filterwarnings("ignore")
def test_central_crops_are_perceivers_also_beyond_the_picture(size, crops):
    transformers = pytest.importorskip("transformers")
    wanted, cropped = crops
    if wanted / cropped * min(size) < 1:
        pytest.skip("theirs cuts out nothing")
    source = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    reference = transformers.PerceiverImageProcessorPil(
        size=wanted, crop_size=cropped, do_rescale=False, do_normalize=False
    )
    theirs = reference(source, input_data_format="channels_last", return_tensors="np")["pixel_values"][0]
    ours = frame_image(source, wanted, wanted, fit=Fit.CENTRAL, crop=wanted / cropped)
    np.testing.assert_array_equal(ours, theirs.transpose(1, 2, 0))
