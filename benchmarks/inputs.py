"""The arrays that both sides of a case get: numpy only, the same for every worker because the seed is the same."""

import typing

import numpy as np

SIZE = 224
"""Side of ImageNet's and Kinetics' pictures."""
MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
STD = np.asarray([0.229, 0.224, 0.225], np.float32)
CLASSES = 1000
LENGTH, VOCABULARY, SPECIALS = 2048, 262, 6
FRAME = (368, 496)
FRAMES, SAMPLES, PATCH = 16, 30_720, 16
LABELS = 700
IGNORED = -100
"""Label of a byte that is not asked for, as torch's cross-entropy takes it."""


def generator() -> np.random.Generator:
    """The one source of random numbers."""
    return np.random.default_rng(0)


def pictures(batch: int) -> np.ndarray:
    """Float32 [b, 224, 224, 3] in [0, 1]."""
    return generator().random((batch, SIZE, SIZE, 3), np.float32)


def classes(batch: int) -> np.ndarray:
    """Int32 [b]."""
    return generator().integers(CLASSES, size=batch).astype(np.int32)


class Text(typing.NamedTuple):
    """ids, labels: int32 [b, 2048]; labels are IGNORED where nothing is asked. mask: bool, True = real."""

    ids: np.ndarray
    mask: np.ndarray
    labels: np.ndarray


def text(batch: int, masked: float = 0.15) -> Text:
    """Full-length byte texts with a share of the bytes masked (id 3)."""
    rng = generator()
    ids = rng.integers(SPECIALS, VOCABULARY, (batch, LENGTH)).astype(np.int32)
    asked = rng.random(ids.shape) < masked
    return Text(np.where(asked, 3, ids).astype(np.int32), np.ones(ids.shape, bool), np.where(asked, ids, IGNORED))


def frames(batch: int) -> np.ndarray:
    """Pairs of frames, float32 [b, 2, 368, 496, 3] in [0, 1]."""
    return generator().random((batch, 2, *FRAME, 3), np.float32)


def surroundings(pairs: np.ndarray) -> np.ndarray:
    """Each pixel's 3 x 3 surroundings [b, 2, 27, h, w] in [-1, 1], as transformers takes frames."""
    padded = np.pad(pairs * 2 - 1, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    squares = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # [b, 2, h, w, c, rows, columns]
    patches = squares.transpose(0, 1, 5, 6, 4, 2, 3).reshape(*pairs.shape[:2], 27, *pairs.shape[2:4])
    return np.ascontiguousarray(patches, np.float32)


class Clip(typing.NamedTuple):
    """image [b, 16, 224, 224, 3] in [0, 1], audio [b, 30720] in [-1, 1], label [b, 700] of zeros; float32."""

    image: np.ndarray
    audio: np.ndarray
    label: np.ndarray


def clip(batch: int) -> Clip:
    """A video with sound; the label is hidden."""
    rng = generator()
    image = rng.random((batch, FRAMES, SIZE, SIZE, 3), np.float32)
    audio = (rng.random((batch, SAMPLES), np.float32) - 0.5) * 0.2
    return Clip(image, audio, np.zeros((batch, LABELS), np.float32))


def clip_points(chunk: int = 0, chunks: int = 128) -> dict[str, np.ndarray]:
    """Which pixels and runs of sound a chunk of the clip asks for, int32."""
    counts = {"image": FRAMES * SIZE * SIZE // chunks, "audio": SAMPLES // PATCH // chunks}
    return {name: np.arange(chunk * n, (chunk + 1) * n, dtype=np.int32) for name, n in counts.items()}


def features(batch: int, count: int, channels: int) -> np.ndarray:
    """Tokens that need no adapter, float32 [b, count, channels]."""
    return generator().standard_normal((batch, count, channels), np.float32)


def points(batch: int, count: int) -> np.ndarray:
    """Clouds: x, y, z in [-1, 1] metres and an intensity, float32 [b, count, 4]."""
    return generator().random((batch, count, 4), np.float32) * 2 - 1


class Pairs(typing.NamedTuple):
    """pixels: float32 [b, side, side, 3] in [0, 1]. ids: int32 [b, length], the last the end of the text."""

    pixels: np.ndarray
    ids: np.ndarray


def pairs(batch: int, side: int, length: int, vocabulary: int) -> Pairs:
    """Pictures and texts for CLIP."""
    rng = generator()
    ids = rng.integers(3, vocabulary - 1, (batch, length)).astype(np.int32)
    ids[:, -1] = vocabulary - 1
    return Pairs(rng.random((batch, side, side, 3), np.float32), ids)
