"""Hugging Face's preprocessor_config.json: read into the fields of `Image`, and written from them.

Source: transformers 5.23, the classes that `Processor` names and their Pillow backend. Files of older versions spell
sizes as one number, name a ...FeatureExtractor and leave flags out; a field that is absent or null takes the default
of the class, as there. Perceiver's ImageNet models use IMAGENET_MEAN and IMAGENET_STD, its optical flow HALVES twice.
"""

import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from perceiver.adapters.image import Image
from perceiver.config import suggestion
from perceiver.errors import ConfigError
from perceiver.io.images import Fit, Resample

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALVES = (0.5, 0.5, 0.5)


class Processor(enum.Enum):
    """The kinds of file that are known, by the name they carry."""

    PERCEIVER = "PerceiverImageProcessor"
    CLIP = "CLIPImageProcessor"
    VIT = "ViTImageProcessor"
    SIGLIP = "SiglipImageProcessor"


# `default_to_square` says whether a size of one number is both sides or the shorter one.
_COMMON = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "do_center_crop": False,
    "do_pad": False,
    "default_to_square": True,
    "resample": Resample.BICUBIC.value,
    "image_mean": HALVES,
    "image_std": HALVES,
    "size": {"height": 224, "width": 224},
}
_DEFAULTS: dict[Processor, dict[str, Any]] = {
    Processor.PERCEIVER: {
        **_COMMON,
        "do_center_crop": True,
        "crop_size": 256,
        "image_mean": IMAGENET_MEAN,
        "image_std": IMAGENET_STD,
    },
    Processor.CLIP: {
        **_COMMON,
        "do_center_crop": True,
        "default_to_square": False,
        "size": {"shortest_edge": 224},
        "crop_size": 224,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    },
    Processor.VIT: {**_COMMON, "resample": Resample.BILINEAR.value},
    Processor.SIGLIP: {**_COMMON, "default_to_square": False},
}

_NAMES = ("image_processor_type", "feature_extractor_type")
# What says nothing about the numbers: the reader's layout, where it runs, and how it is found. Pictures get the
# channels that `Image.shape` declares, whatever `do_convert_rgb` says.
_IGNORED = {
    *_NAMES,
    "processor_class",
    "do_convert_rgb",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "model_input_names",
    "pad_size",
    "_valid_processor_keys",
    "_valid_kwargs_names",
}


class _Framed(NamedTuple):
    size: tuple[int, int]
    fit: Fit
    crop: float


def framing(preprocessor: Mapping[str, Any], kind: Processor | None = None) -> dict[str, Any]:
    """The fields `fit`, `crop`, `resample`, `mean` and `std` of `Image` from a preprocessor_config.json.

    Args:
        preprocessor: the file's content; also that of a processor_config.json, which has it under "image_processor".
        kind: what to take the file for where it does not say.

    Raises:
        ConfigError: names the field that is unknown, malformed, or asks for what `Image` cannot do.
    """
    kind, fields = _settle(preprocessor, kind)
    framed = _frame(kind, fields)
    mean, std = _statistics(fields)
    return {"fit": framed.fit, "crop": framed.crop, "resample": _resample(fields["resample"]), "mean": mean, "std": std}


def framed_size(preprocessor: Mapping[str, Any], kind: Processor | None = None) -> tuple[int, int]:
    """Height and width of the pictures that such a file gives; arguments and errors as for `framing`."""
    return _frame(*_settle(preprocessor, kind)).size


def preprocessor_json(image: Image, kind: Processor | None = None) -> dict[str, Any]:
    """The content of a preprocessor_config.json that does what `image.load` does, transparent pixels aside.

    Args:
        image: the adapter.
        kind: the class to write for; None takes the one that fits: Perceiver's for CENTRAL, CLIP's for SHORTER_SIDE,
            ViT's for STRETCH.

    Raises:
        ConfigError: names the field of `Image` that no such file can express.
    """
    if image.dark_background:
        raise ConfigError("Image.dark_background: no image processor does this, expected False")
    kind = kind or {Fit.CENTRAL: Processor.PERCEIVER, Fit.SHORTER_SIDE: Processor.CLIP}.get(image.fit, Processor.VIT)
    height, width, channels = image.shape
    size = {"height": height, "width": width}
    fields: dict[str, Any] = {
        "image_processor_type": kind.value,
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "resample": image.resample.value,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": bool(image.mean),
    }
    if image.mean:
        fields |= {"image_mean": list(image.mean), "image_std": list(image.std)}
    if image.fit is Fit.STRETCH:
        return fields | {"size": size, "do_center_crop": False}
    if (image.fit, kind) == (Fit.CENTRAL, Processor.PERCEIVER):
        whole = {name: _whole(side, image.crop) for name, side in size.items()}
        return fields | {"size": size, "do_center_crop": True, "crop_size": whole}
    if (image.fit, kind) == (Fit.SHORTER_SIDE, Processor.CLIP):
        shorter = {"shortest_edge": _whole(max(height, width), image.crop)}
        return fields | {"size": shorter, "do_center_crop": True, "crop_size": size}
    raise ConfigError(f"Image.fit: {kind.value} cannot do {image.fit.name}")


def _settle(preprocessor: Mapping[str, Any], kind: Processor | None) -> tuple[Processor, dict[str, Any]]:
    """The kind of a file, and its fields with the defaults of that kind; unknown fields are refused."""
    if isinstance(preprocessor.get("image_processor"), Mapping):
        preprocessor = preprocessor["image_processor"]
    given = {name: value for name, value in preprocessor.items() if value is not None}
    named = [given[name] for name in _NAMES if name in given]
    if named:
        # An older file may carry both; a class that only has another backend does the same.
        plain = str(named[0]).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
        if plain not in {known.value for known in Processor}:
            raise _error("image_processor_type", _join(known.value for known in Processor), named[0])
        kind = Processor(plain)
    elif kind is None:
        raise _error("image_processor_type", _join(known.value for known in Processor), "nothing")
    known = {*_COMMON, "crop_size", *_IGNORED}
    if unknown := set(given) - known:
        first = min(unknown)
        raise ConfigError(f"preprocessor: unknown field {first!r}; {suggestion(first, known)}")
    fields = _DEFAULTS[kind] | {name: value for name, value in given.items() if name not in _IGNORED}
    for name, value in fields.items():
        if (name.startswith("do_") or name == "default_to_square") and not isinstance(value, bool):
            raise _error(name, "true or false", value)
    return kind, fields


def _frame(kind: Processor, fields: Mapping[str, Any]) -> _Framed:
    if not fields["do_resize"]:
        raise _error("do_resize", "true, so that all pictures get one size", False)
    if fields["do_pad"]:
        raise _error("do_pad", "false", True)
    size = _sides("size", fields["size"], fields["default_to_square"])
    if fields["do_center_crop"]:
        return _crop(kind, size, fields)
    if isinstance(size, int):
        raise _error("do_center_crop", "true where only the shorter side's size is given", False)
    return _Framed(size, Fit.STRETCH, 1.0)


def _crop(kind: Processor, size: tuple[int, int] | int, fields: Mapping[str, Any]) -> _Framed:
    """Perceiver's class crops, then resizes; the others resize, then crop."""
    cropped = _sides("crop_size", fields.get("crop_size"), True)
    if isinstance(cropped, int):
        raise _error("crop_size", "height and width", fields["crop_size"])
    if kind is not Processor.PERCEIVER:
        if isinstance(size, int):
            return _Framed(cropped, Fit.SHORTER_SIDE, max(cropped) / size)
        if cropped != size:
            raise _error("crop_size", f"the size {size}, since the picture is stretched to that before", cropped)
        return _Framed(size, Fit.STRETCH, 1.0)
    if isinstance(size, int):
        raise _error("size", "height and width", fields["size"])
    crop = size[0] / cropped[0]
    if size[1] / cropped[1] != crop:
        raise _error("crop_size", f"the proportions of size {size}", fields["crop_size"])
    return _Framed(size, Fit.CENTRAL, crop)


def _statistics(fields: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation on the scale [0, 1], whatever scale the file has."""
    mean, std = (_numbers(name, fields[name]) for name in ("image_mean", "image_std"))
    if len(mean) != len(std) or min(std) <= 0:
        raise _error("image_std", f"{len(mean)} numbers above 0", fields["image_std"])
    factor = fields["rescale_factor"] if fields["do_rescale"] else 1.0
    if not _is_number(factor) or factor <= 0:
        raise _error("rescale_factor", "a number above 0", factor)
    white = 1.0 if math.isclose(255 * factor, 1.0, rel_tol=1e-6) else 255 * factor
    if fields["do_normalize"]:
        return tuple(m / white for m in mean), tuple(s / white for s in std)
    return ((), ()) if white == 1.0 else ((0.0,) * len(mean), (1 / white,) * len(mean))


def _sides(name: str, value: Any, square: bool) -> tuple[int, int] | int:
    """Height and width, or the shorter side."""
    sides: Any = value
    if isinstance(value, Mapping):
        sides = (value["height"], value["width"]) if set(value) == {"height", "width"} else None
        sides = value["shortest_edge"] if set(value) == {"shortest_edge"} else sides
    elif _is_side(value) and square:
        sides = (value, value)
    if _is_side(sides):
        return sides
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(_is_side(side) for side in sides):
        return sides[0], sides[1]
    raise _error(name, "a whole number, [height, width], {height, width} or {shortest_edge}", value)


def _resample(value: Any) -> Resample:
    if isinstance(value, bool) or value not in [known.value for known in Resample]:
        raise _error("resample", _join(f"{known.value} ({known.name})" for known in Resample), value)
    return Resample(value)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not value or not all(_is_number(entry) for entry in value):
        raise _error(name, "a list of numbers, one for each channel", value)
    return tuple(float(entry) for entry in value)


def _whole(side: int, crop: float) -> int:
    """The whole number n with side / n = crop."""
    whole = max(1, round(side / crop))
    if side / whole != crop:
        raise ConfigError(f"Image.crop: expected {side} divided by a whole number, got {crop}")
    return whole


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _join(names: Any) -> str:
    return ", ".join(names)


def _error(name: str, expected: str, got: Any) -> ConfigError:
    return ConfigError(f"preprocessor: {name}: expected {expected}, got {got!r:.80}")
