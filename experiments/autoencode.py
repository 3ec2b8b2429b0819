"""Video, and range images of laser scanners, through a code of few bytes: read in patches, asked for pixel by pixel.

perceiver train experiments/autoencode.py --root FOLDER      (FOLDER holds sintel_frames/ and ouster_scans/)

Seed 0, one test clip each, so no interval; 1,029 and 783 s on one core of two that other work shared:
video at 1.04 bits per pixel 21.6 dB; JPEGs of that size 33.7, means of 8 x 8 pixels 21.8, untrained 5.4;
range image at 2.03 bits per pixel 24.0 dB over what the sensor saw; JPEG 24.5, means 17.0, untrained 7.5.
The model is far from good: of the video it keeps blurred shapes, of a range image little more than how far each row
sees. Code for code, JPEG is better.
"""

import dataclasses
import functools
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image as Picture

from data import ouster_scans, sintel_frames
from perceiver import Block, Dense, Encoder, Fourier, Grid, Output, Perceiver, PerceiverConfig, Video, viz
from perceiver.inference import decode, encode
from perceiver.objectives import squared_error
from perceiver.pipeline import Batch, Sample, training_stream
from perceiver.training.evaluation import Judged, Task, figures_of, measured, scores
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, warmup_cosine

REACH = 120.0
"""Metres beyond which a range is not told apart."""
ASKED = 256
"""Pixels of a block that a training step asks for."""
Block4 = tuple[int, int, int, int]
"""Frames, rows, columns and channels that share a code."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """name; frames: float32 [t, h, w, c] in [0, 1]; seen: bool [h, w], False where the sensor saw nothing."""

    name: str
    frames: np.ndarray
    seen: np.ndarray


def films(root: Path | None) -> Mapping[str, list[Clip]]:
    """Every two frames that follow each other, in the split of the second."""
    splits = sintel_frames.load(root)
    frames = [(frame, name) for name in ("train", "validation", "test") for frame in splits[name]]
    clips: dict[str, list[Clip]] = {"train": [], "validation": [], "test": []}
    for (before, _), (after, name) in itertools.pairwise(frames):
        pair = np.stack([before.image, after.image]).astype(np.float32) / 255
        clips[name].append(Clip(f"{before.file}, {after.file}", pair, np.ones(pair.shape[1:3], bool)))
    return clips


def ranges(root: Path | None) -> Mapping[str, list[Clip]]:
    """Range images on a logarithmic scale: 0 is where nothing came back, and 1 is REACH."""

    def clip(scan: ouster_scans.Scan) -> Clip:
        scaled = np.log1p(np.minimum(scan.range, REACH)) / math.log1p(REACH)
        return Clip(scan.file, scaled[None, ..., None].astype(np.float32), scan.range > 0)

    return {name: [clip(scan) for scan in scans] for name, scans in ouster_scans.load(root).items()}


def model(block: Block4, patch: tuple[int, int, int], latents: int, channels: int) -> PerceiverConfig:
    """A block of pixels to `latents` x `channels` numbers, and any pixel of it back."""
    position = Fourier(bands=8)
    return PerceiverConfig(
        inputs={"video": Video(block, patch, project=96, position=position)},
        encoder=Encoder(
            latents,
            channels,
            2,
            cross=Block(heads=4, qk_channels=64, v_channels=96, widening=4),
            latent=Block(heads=2, qk_channels=32, v_channels=32, widening=4),
            cross_attends=(0, 1),
            towers=(0, 1),
        ),
        outputs={
            "pixels": Output(
                Dense(block[3]),
                Grid(block[:3], position, project=96),
                cross=Block(heads=4, qk_channels=64, v_channels=96, widening=4),
            )
        },
    )


def sample(clip: Clip, rng: np.random.Generator, block: Block4) -> Sample:
    """A block from anywhere, mirrored half of the time, and which of its pixels were seen."""
    _, height, width, _ = block
    top, left = (
        int(rng.integers(size - part + 1)) for size, part in zip(clip.seen.shape, (height, width), strict=True)
    )
    pixels = clip.frames[:, top : top + height, left : left + width]
    seen = clip.seen[top : top + height, left : left + width]
    if rng.random() < 0.5:
        pixels, seen = pixels[:, :, ::-1], seen[:, ::-1]
    pixels = np.ascontiguousarray(pixels)
    whole = np.broadcast_to(seen, pixels.shape[:3])
    return {"inputs": {"video": pixels}, "targets": {"seen": np.ascontiguousarray(whole).reshape(-1)}}


def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Squared error of some random pixels that were seen."""
    pixels = jnp.asarray(batch["inputs"]["video"])
    flat = pixels.reshape(len(pixels), -1, pixels.shape[-1])
    chosen = jnp.arange(flat.shape[1]) if key is None else jax.random.permutation(key, flat.shape[1])[:ASKED]
    answers = model(batch["inputs"], outputs=["pixels"], queries={"pixels": chosen}, key=key)["pixels"]
    return squared_error(answers, flat[:, chosen], jnp.asarray(batch["targets"]["seen"])[:, chosen]), {}


# --- a whole picture, block by block ------------------------------------------------------------------------------


def blocks(frames: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """[t, h, w, c] as [n, t, height, width, c], the edge repeated where needed; and how many down and across."""
    (height, width), (_, rows, columns, _) = size, frames.shape
    down, across = -(-rows // height), -(-columns // width)
    padded = np.pad(frames, [(0, 0), (0, down * height - rows), (0, across * width - columns), (0, 0)], mode="edge")
    cut = padded.reshape(len(frames), down, height, across, width, -1).transpose(1, 3, 0, 2, 4, 5)
    return cut.reshape(down * across, len(frames), height, width, -1), (down, across)


def through_the_code(model: Perceiver, clip: Clip) -> tuple[np.ndarray, int]:
    """A clip as it comes back from latents that are rounded to 8 bits, and the bytes of them."""
    frames, height, width, channels = model.config.inputs["video"].shape
    cut, (down, across) = blocks(clip.frames, (height, width))
    parts, size = [], 0
    for start in range(0, len(cut), 64):
        kept = encode(model, {"video": _filled(cut[start : start + 64], 64)})
        values = np.asarray(kept.values)
        scale = np.abs(values).max(axis=(1, 2), keepdims=True) / 127
        rounded = np.round(values / scale).astype(np.int8)
        again = dataclasses.replace(kept, values=jnp.asarray(rounded * scale, jnp.float32))
        parts.append(decode(model, again, ["pixels"])["pixels"])
        size += min(64, len(cut) - start) * (rounded[0].size + 4)  # the scale is a float32
    pixels = np.concatenate(parts)[: len(cut)].reshape(down, across, frames, height, width, channels)
    whole = pixels.transpose(2, 0, 3, 1, 4, 5).reshape(frames, down * height, across * width, channels)
    return np.clip(whole[:, : clip.seen.shape[0], : clip.seen.shape[1]], 0.0, 1.0), size


def _filled(part: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([part, np.repeat(part[-1:], count - len(part), axis=0)])


def as_jpeg(clip: Clip, size: int) -> np.ndarray:
    """A clip as it comes back from JPEGs of its frames that have at most `size` bytes, or as few as JPEG can do."""
    best = None
    for quality in (1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 55, 70, 80, 90, 95):
        files = []
        for frame in clip.frames:
            file = io.BytesIO()
            Picture.fromarray(np.round(frame * 255).astype(np.uint8).squeeze()).save(file, "JPEG", quality=quality)
            files.append(file)
        if best is not None and sum(file.tell() for file in files) > size:
            break
        best = files
    back = np.stack([np.asarray(Picture.open(file), np.float32) / 255 for file in best or ()])
    return back.reshape(clip.frames.shape)


def psnr(clip: Clip, back: np.ndarray) -> float:
    """Decibels over the pixels that were seen, where the largest value is 1."""
    error = np.square(back - clip.frames)[:, clip.seen].mean()
    return float(-10 * np.log10(max(error, 1e-10)))


def judge(model: Perceiver, clips: Sequence[Clip]) -> Judged:
    """PSNR of each clip, beside that of JPEGs of the same size."""
    rows: dict[str, list[float]] = {"psnr_db": [], "jpeg_psnr_db": [], "bits_per_pixel": []}
    for clip in clips:
        back, size = through_the_code(model, clip)
        rows["psnr_db"].append(psnr(clip, back))
        rows["jpeg_psnr_db"].append(psnr(clip, as_jpeg(clip, size)))
        rows["bits_per_pixel"].append(8 * size / math.prod(clip.frames.shape[:3]))
    return measured([clip.name for clip in clips], {name: np.array(values) for name, values in rows.items()})


TASKS = {"sintel_frames": Task(films, judge), "ouster_scans": Task(ranges, judge)}


def baselines(clips: Sequence[Clip], block: Block4) -> dict[str, float]:
    """PSNR of the mean of each 8 x 8 pixels, which takes about as many bytes as the code of a video."""
    found = []
    for clip in clips:
        cut, _ = blocks(clip.frames, (8, 8))
        mean = np.broadcast_to(cut.mean(axis=(2, 3), keepdims=True), cut.shape)
        seen, _ = blocks(np.broadcast_to(clip.seen, clip.frames.shape[:3])[..., None].astype(np.float32), (8, 8))
        found.append(-10 * np.log10((np.square(mean - cut) * seen).sum() / (seen.sum() * block[3])))
    return {"mean_of_8_by_8_psnr_db": float(np.mean(found))}


def pictures(model: Perceiver, folder: Path, clip: Clip) -> None:
    """decoded.png: a part of a test clip, what the code gives back, and a JPEG of the same size."""
    back, size = through_the_code(model, clip)
    rows = {"sensor": clip.frames, "decoded": back, "JPEG": as_jpeg(clip, size)}
    part = {name: frames[-1:, :, : 4 * clip.seen.shape[0]] for name, frames in rows.items()}
    viz.image_rows(part, folder / "decoded.png", [clip.name], f"Test clip, through {size:,} bytes")


def autoencode(
    *,
    root: Path | None = None,
    steps: int = 1000,
    batch: int = 32,
    seed: int = 0,
    learning_rate: float = 2e-3,
    latents: int = 16,
    channels: int = 16,
    checkpoint_every: int = 500,
) -> Experiment:
    """Video through a code of few bytes, and beside it range images of laser scanners.

    Args:
        root: Folder that holds sintel_frames/ and ouster_scans/; the variable PERCEIVER_DATA unless given.
        steps: Updates of each model.
        batch: Blocks per update.
        seed: Of the parameters, the order of the data and the augmentation.
        learning_rate: Its peak, after a warm-up of a tenth of the steps.
        latents: Vectors of the code.
        channels: Their width; each number of them takes a byte.
        checkpoint_every: Updates between checkpoints.
    """

    def of(name: str, clips: Mapping[str, list[Clip]], block: Block4, patch: Any) -> Experiment:
        transform = functools.partial(sample, block=block)
        return Experiment(
            name=name,
            model=model(block, patch, latents, channels),
            batches=training_stream(clips["train"] * batch, transform, seed=seed, batch=batch),
            objective=objective,
            optimizer=adamw(warmup_cosine(learning_rate, steps), weight_decay=0.01),
            steps=steps,
            batch=batch,
            seed=seed,
            validate=lambda m: {"psnr_db": figures_of(judge(m, clips["validation"]))["psnr_db"]},
            best="psnr_db",
            test=lambda m: scores(judge(m, clips["test"])),
            baselines=lambda: baselines(clips["test"], block),
            pictures=lambda m, folder: pictures(m, folder, clips["test"][0]),
            ema=0.995,
            validate_every=max(steps // 4, 1),
            checkpoint_every=checkpoint_every,
        )

    scans = of("range images", ranges(root), (1, 16, 64, 1), (1, 2, 4))
    film = of("autoencode", films(root), (2, 32, 32, 3), (1, 4, 4))
    return dataclasses.replace(film, companions={"range images": scans})
