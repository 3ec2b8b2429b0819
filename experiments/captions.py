"""Captions of pictures by a language model that is frozen: a resampler and gated layers let it look.

perceiver train experiments/captions.py --root FOLDER
    (FOLDER holds emoji_noto64/, openclipart96/ and coco_captions_cc/)

First a causal language model of bytes learns the training captions without their pictures. It is then frozen, and what
is put between its layers learns to look. Not yet measured at these settings.
"""

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from data import coco_captions_cc, emoji_noto64, openclipart96
from data.pictures import over_white
from perceiver import Block, Descriptors, Fourier, Image, viz
from perceiver.adapters.text import BOS, BYTE_VOCABULARY, CLS, EOS, PAD, decode_bytes, encode_bytes
from perceiver.augment import random_resized_crop
from perceiver.captioner import Captioner, CaptionerConfig, caption, frozen, hold
from perceiver.causal import CausalText, Language, LanguageConfig
from perceiver.generation import Sampling
from perceiver.io.images import Fit, frame_image
from perceiver.objectives import mean
from perceiver.pipeline import Batch, Joined, Kept, Sample, in_batches, training_stream
from perceiver.resampler import GatedCrossAttend, Resampler
from perceiver.training.evaluation import Judged, Sums, Task, scores
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, frozen_where, warmup_cosine
from perceiver.typing import Array, Float, Int

SIDE, LENGTH, BATCH = 64, 96, 64
"""Pixels of a picture, ids of a caption, and captions of one compiled call when they are judged."""
LIKELIEST = Sampling(temperature=0.0)
SOURCES = {"emoji_noto64": emoji_noto64, "openclipart96": openclipart96, "coco_captions_cc": coco_captions_cc}


@dataclasses.dataclass(frozen=True, eq=False)
class Captioned:
    """A picture, uint8 [SIDE, SIDE, 3], and what is said of it: one or more captions."""

    file: str
    image: np.ndarray
    captions: tuple[str, ...]


def captioned(item: Any, captions: Callable[[Any], Sequence[str]]) -> Captioned:
    """An item of any of the datasets."""
    image = frame_image(over_white(item.image), SIDE, SIDE, fit=Fit.CENTRAL)
    return Captioned(item.file, image, tuple(captions(item)))


def names(item: Any) -> tuple[str, ...]:
    """Name or title, and keywords, as one caption."""
    return (", ".join(item.texts),)


CAPTIONS: dict[str, Callable[[Any], Sequence[str]]] = {
    "emoji_noto64": names,
    "openclipart96": names,
    "coco_captions_cc": lambda item: item.captions,
}
"""What is said of an item of each dataset."""


def load(name: str, root: Path | None) -> dict[str, Sequence[Captioned]]:
    """The splits of a dataset."""
    change = functools.partial(captioned, captions=CAPTIONS[name])
    return {split: Kept(items, change) for split, items in SOURCES[name].load(root).items()}


def ids_of(caption: str) -> np.ndarray:
    """int32 [LENGTH]: the picture's marker, a start, the bytes, an end, padding. A long caption is cut."""
    ids = np.full(LENGTH, PAD, np.int32)
    text = encode_bytes(caption)[: LENGTH - 3]
    ids[: len(text) + 3] = [CLS, BOS, *text, EOS]
    return ids


def sample(item: Captioned, rng: np.random.Generator) -> Sample:
    """A picture, cropped a little at random, with one of its captions."""
    caption = item.captions[int(rng.integers(len(item.captions)))]
    image = random_resized_crop(item.image, rng, (SIDE, SIDE), area=(0.8, 1.0))
    return {"inputs": {"image": image, "text": ids_of(caption)}}


def losses(logits: Float[Array, "b n v"], ids: Int[Array, "b n"]) -> tuple[Float[Array, "b m"], Array]:
    """Nats of each id of a caption behind its start, the end included; and which of them are real."""
    each = optax.softmax_cross_entropy_with_integer_labels(logits[:, 1:-1], ids[:, 2:])
    return each, ids[:, 2:] != PAD


def writing(model: Language, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
    """The objective of captions without pictures."""
    ids = batch["inputs"]["text"]
    return mean(*losses(model(ids, key=key), ids)), {}


def looking(model: Captioner, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
    """The objective of captions with pictures, for what is not the language model."""
    hold(model.text)
    ids = batch["inputs"]["text"]
    return mean(*losses(model(batch["inputs"]["image"][:, None], ids, key=key), ids)), {}


@functools.partial(jax.jit, static_argnames="graph")
def _nats(graph: nnx.GraphDef, state: nnx.State, image: Array, ids: Array) -> tuple[Array, Array]:
    model = nnx.merge(graph, state)
    logits = model(ids) if isinstance(model, Language) else model(image[:, None], ids)
    each, real = losses(logits, ids)
    return jnp.where(real, each, 0.0).sum(axis=1), real.sum(axis=1)


def nats(model: Any, items: Sequence[Captioned], seen: Sequence[Captioned]) -> tuple[np.ndarray, np.ndarray]:
    """Nats of all captions of each item, float [n], when the picture of another is seen; and how many ids they have."""
    graph, state = nnx.split(model)
    rows = [(i, caption) for i, item in enumerate(items) for caption in item.captions]
    samples = [{"image": seen[i].image, "ids": ids_of(caption)} for i, caption in rows]
    total = np.zeros((2, len(items)))
    place = 0
    for part, count in in_batches(samples, BATCH):
        found = np.stack(jax.device_get(_nats(graph, state, part["image"], part["ids"])))[:, :count]
        np.add.at(total, (slice(None), [i for i, _ in rows[place : place + count]]), found)
        place += count
    return total[0], total[1]


def judge(model: Any, items: Sequence[Captioned]) -> Judged:
    """Nats per byte of held-out captions with their own picture, and with that of another item of the same dataset;
    by how much the own one helps; and what the model writes of each, the likeliest byte at a time.

    Of a language model alone, which sees none, both are the same.
    """
    held = list(items)
    dealt = [held[i] for i in _moved(len(held))]
    own, count = nats(model, held, held)
    other, _ = nats(model, held, dealt)
    written = written_of(model, held) if isinstance(model, Captioner) else [""] * len(held)
    lines = [
        {"item": item.file, "nats": a, "nats_other_picture": b, "written": text, "captions": list(item.captions)}
        for item, a, b, text in zip(held, own, other, written, strict=True)
    ]

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        seen, unseen = sums["own"] / sums["count"], sums["other"] / sums["count"]
        return {"nats_per_byte": seen, "nats_per_byte_other_picture": unseen, "gained_by_picture": unseen - seen}

    return Judged(lines, {"own": own, "other": other, "count": count}, figures)


def _moved(count: int) -> np.ndarray:
    """A fixed permutation that leaves nothing in its place: each one's successor in a random order."""
    order = np.random.default_rng(0).permutation(count)
    moved = np.empty(count, int)
    moved[order] = np.roll(order, -1)
    return moved


def written_of(model: Captioner, items: Sequence[Captioned], sampling: Sampling = LIKELIEST) -> list[str]:
    """What a model says of pictures."""
    found: list[str] = []
    start = np.full(LENGTH, PAD, np.int32)
    start[:2] = CLS, BOS
    for part, count in in_batches([{"image": item.image} for item in items], BATCH):
        ids = np.broadcast_to(start, (len(part["image"]), LENGTH))
        rows = caption(
            model, part["image"][:, None], ids, np.full(len(ids), 2), end=EOS, padding=PAD, sampling=sampling
        )
        found += [decode_bytes(row) for row in rows[:count]]
    return found


TASKS = {name: Task(functools.partial(load, name), judge) for name in SOURCES}


def judged(model: Any, splits: Mapping[str, Sequence[Captioned]]) -> dict[str, Any]:
    """Of each dataset by its name, see `judge`."""
    return {name: judge(model, items) for name, items in splits.items()}


def mean_likelihood(model: Any, splits: Mapping[str, Sequence[Captioned]]) -> dict[str, float]:
    """Minus the nats per byte with the own pictures, of each dataset and their mean; nothing is written for it."""
    found = {}
    for name, items in splits.items():
        own, count = nats(model, list(items), list(items))
        found[name] = float(-own.sum() / count.sum())
    return {"likelihood": float(np.mean(list(found.values()))), **found}


def pictures(model: Captioner, folder: Path, splits: Mapping[str, Sequence[Captioned]]) -> None:
    """captions.png: some pictures of the test split, and what the model draws for a caption."""
    chosen = [item for items in splits.values() for item in list(items)[:5]]
    written = written_of(model, chosen, Sampling(0.7, top_k=20))
    tiles = [(_readable(text), item.image) for item, text in zip(chosen, written, strict=True)]
    viz.contact_sheet(tiles, folder / "captions.png")


def _readable(text: str) -> str:
    """Three lines of what any font has."""
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    return "\n".join(textwrap.wrap(plain, 26)[:3])


def text_model(channels: int, depth: int) -> CausalText:
    """The language model."""
    block = Block(heads=4, widening=4, dropout=0.1)
    return CausalText(BYTE_VOCABULARY, LENGTH, channels, depth, block)


def model(text: CausalText, latents: int) -> CaptionerConfig:
    """The language model with eyes."""
    width = text.channels
    return CaptionerConfig(
        media=Image(
            (SIDE, SIDE, 3),
            patch=8,
            border=4,
            descriptors=Descriptors(),
            hidden=width,
            project=64,
            position=Fourier(bands=4),
            mean=(0.75, 0.72, 0.68),
            std=(0.33, 0.34, 0.37),
        ),
        resampler=Resampler(latents, width, depth=2, heads=4, head_channels=32, widening=2),
        text=text,
        look=GatedCrossAttend(width, width, heads=4, head_channels=32, widening=2),
        marker=CLS,
    )


def captions(
    *,
    root: Path | None = None,
    steps: int = 1000,
    language_steps: int = 1000,
    batch: int = 64,
    seed: int = 0,
    learning_rate: float = 1e-3,
    look_rate: float = 4e-3,
    latents: int = 16,
    channels: int = 128,
    depth: int = 4,
    checkpoint_every: int = 500,
) -> Experiment:
    """Captions of pictures by a frozen language model that is given eyes.

    Args:
        root: Folder that holds emoji_noto64/, openclipart96/ and coco_captions_cc/; the variable PERCEIVER_DATA unless
            given.
        steps: Updates of what is put into the language model.
        language_steps: Updates of the language model, before it is frozen.
        batch: Captions per update.
        seed: Of the parameters, the order of the data and the augmentation.
        learning_rate: AdamW's peak for the language model, after a warm-up of a tenth of the steps.
        look_rate: The same for what looks, whose gates begin at 0 and move by no more than this a step.
        latents: Vectors that the language model sees of a picture.
        channels: Width of the language model and of the latents.
        depth: Layers of the language model, each with one that looks in front.
        checkpoint_every: Updates between checkpoints.
    """
    splits = {name: load(name, root) for name in SOURCES}
    validation, test = ({name: own[split] for name, own in splits.items()} for split in ("validation", "test"))
    text = text_model(channels, depth)

    def of(name: str, config: Any, updates: int, **more: Any) -> Experiment:
        source = Joined([own["train"] for own in splits.values()])
        return Experiment(
            name=name,
            model=config,
            batches=training_stream(source, sample, seed=seed, batch=batch),
            steps=updates,
            batch=batch,
            seed=seed,
            validate=lambda m: mean_likelihood(m, validation),
            best="likelihood",
            test=lambda m: scores(judged(m, test)),
            validate_every=max(updates // 6, 1),
            checkpoint_every=checkpoint_every,
            diagnosed=0,
            **more,
        )

    alone = of(
        "language",
        LanguageConfig(text),
        language_steps,
        objective=writing,
        optimizer=adamw(warmup_cosine(learning_rate, language_steps), weight_decay=0.1),
        ema=0.99,
    )
    return of(
        "captions",
        model(text, latents),
        steps,
        objective=looking,
        optimizer=frozen_where(frozen, adamw(warmup_cosine(look_rate, steps), weight_decay=0.1)),
        pictures=lambda m, folder: pictures(m, folder, test),
        pretraining=alone,
    )
