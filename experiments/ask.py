"""Questions in words about what is seen, heard and ranged: pictures, sounds and laser scans, one model for all.

perceiver train experiments/ask.py --root FOLDER
    (FOLDER holds fsdd/, ign_lidarhd/ and emoji_noto64/; needs the extras audio and points)

The question is one more input, as bytes; the answer is asked of the latents twice, as one of what is ever answered and
letter by letter. Test questions are about things that were never trained on, in wordings that were never trained on.

Seed 0, 69 minutes on one of two cores, 28 of them for the first model; per cent of the questions whose answer is right:

| question | of | right | by letters | two towers | by letters | question alone | commonest |
|---|--:|--:|--:|--:|--:|--:|--:|
| which digit? | 650 | 97.7 (96.5 to 98.8) | 93.8 | 97.8 | 96.8 | 10.2 | 10.2 |
| larger than four? | 650 | 97.4 (96.0 to 98.6) | 97.4 | 99.2 | 99.2 | 49.8 | 50.2 |
| even? | 650 | 98.6 (97.7 to 99.4) | 98.6 | 98.5 | 98.0 | 49.5 | 50.5 |
| which of two sounds? | 200 | 96.0 (93.0 to 98.5) | 94.5 | 94.5 | 85.5 | 43.0 | 43.0 |
| building in this tile? | 81 | 81.5 (74.1 to 90.1) | 80.2 | 82.7 | 77.8 | 65.4 | 65.4 |
| what share is vegetation? | 81 | 61.7 (50.6 to 71.6) | 56.8 | 63.0 | 54.3 | 25.9 | 25.9 |
| what kind of emoji? | 243 | 74.9 (69.5 to 80.2) | 65.4 | 72.8 | 65.8 | 14.0 | 15.2 |

In the two towers half of the latents read the question and half the senses, for as many updates: they do as well, so
that reading both together gains nothing here. Untrained at most 7.1 %.
"""

import enum
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data.questions import ANSWERS, Asked, Thing, asked, exam, load
from experiments import spoken_digits
from perceiver import (
    Block,
    Bytes,
    Classes,
    Descriptors,
    Encoder,
    Fourier,
    Image,
    Ngrams,
    Output,
    Perceiver,
    PerceiverConfig,
    Points,
    Slots,
    TokenLogits,
)
from perceiver.adapters.text import BYTE_VOCABULARY, EOS, PAD, encode_bytes, until_end
from perceiver.attention import split_key
from perceiver.augment import add_noise, random_resized_crop, turn_about_vertical
from perceiver.control.observations import absent
from perceiver.io.images import Fit, frame_image
from perceiver.model import Latents
from perceiver.objectives import accuracy, cross_entropy
from perceiver.pipeline import Batch, Sample, in_batches, training_stream
from perceiver.training.evaluation import Judged, Sums, Task, figures_of, scores
from perceiver.training.experiment import Experiment, Objective
from perceiver.training.optimizers import muon, warmup_cosine

SIDE, POINTS, QUESTION, LETTERS, BATCH = 32, 128, 64, 20, 64
"""Pixels of a picture, laser points, bytes of a question and of an answer, and questions of one compiled call."""
WORDS = "question"
SENSES = ("image", "sound", "second", "points")


class Way(enum.Enum):
    """What is read together with what."""

    TOGETHER = "question and senses are read by the same latents"
    APART = "half of the latents read the question, the other half the senses: two towers that meet in the decoder"
    BLIND = "the question alone is read"


@functools.cache
def inputs() -> Mapping[str, Any]:
    """The adapters, by input."""
    sound = spoken_digits.log_mel()
    return {
        "image": Image(
            (SIDE, SIDE, 3),
            patch=4,
            border=2,
            descriptors=Descriptors(),
            hidden=96,
            project=64,
            position=Fourier(bands=4),
            mean=(0.6,) * 3,
            std=(0.4,) * 3,
        ),
        "sound": sound,
        "second": sound,
        "points": Points(
            POINTS,
            low=(-5.0, -5.0, 0.0),
            high=(5.0, 5.0, 20.0),
            features=("intensity", "return_number", "number_of_returns"),
            project=64,
            position=Fourier(bands=6, max_resolution=(20.0, 20.0, 40.0), concatenate=False),
            mean=(800.0, 1.2, 1.5),
            std=(500.0, 0.5, 0.8),
        ),
        # Runs of bytes that were never seen must say nothing, so their table starts at almost nothing.
        WORDS: Bytes(QUESTION, width=64, truncate=True, ngrams=Ngrams((4,), 4096, scale=1e-3, words=True)),
    }


def model(latents: int, channels: int, depth: int) -> PerceiverConfig:
    """Senses and a question to an answer, by choice and by letters."""
    return PerceiverConfig(
        inputs=inputs(),
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=channels, v_channels=channels, dropout=0.1),
            latent=Block(heads=4, widening=2, dropout=0.1),
            cross_attends=(0, 1),
            towers=(0, 1),
        ),
        outputs={
            "answer": Output(Classes(len(ANSWERS), names=ANSWERS), cross=Block(heads=4)),
            "letters": Output(TokenLogits(BYTE_VOCABULARY), Slots(LETTERS), cross=Block(heads=4)),
        },
    )


def spelled(answer: str) -> np.ndarray:
    """An answer letter by letter, int32 [LETTERS]: its bytes, an end, padding."""
    ids = np.full(LETTERS, PAD, np.int32)
    letters = encode_bytes(answer)[: LETTERS - 1]
    ids[: len(letters) + 1] = [*letters, EOS]
    return ids


def sensed(name: str, seen: np.ndarray, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """What a sense gives the model, and which of it is real; in training a little changed."""
    adapter = inputs()[name]
    if name == "image":
        picture = frame_image(seen, SIDE, SIDE, fit=Fit.CENTRAL)
        if rng is not None:
            picture = random_resized_crop(picture, rng, (SIDE, SIDE), area=(0.7, 1.0))
        return picture, np.bool_(True)
    if name == "points":
        order = (np.random.default_rng(0) if rng is None else rng).permutation(len(seen))[:POINTS]
        return adapter.load(seen[order] if rng is None else turn_about_vertical(seen[order], rng))
    if rng is not None:
        speed = rng.uniform(0.85, 1.18)
        seen = np.interp(np.arange(0, len(seen) - 1, speed), np.arange(len(seen)), seen).astype(np.float32)
        seen = add_noise(seen, rng, low=20.0, high=50.0)
    return adapter.load(seen)


def given(item: Asked, rng: np.random.Generator | None = None) -> Sample:
    """A question and what it is about to the model's inputs; and its answer."""
    seen = item.thing.seen
    found = {name: sensed(name, seen[name], rng) if name in seen else absent(inputs()[name]) for name in SENSES}
    found[WORDS] = inputs()[WORDS].load(item.question)
    return {
        "inputs": {name: values for name, (values, _) in found.items()},
        "masks": {name: mask for name, (_, mask) in found.items()},
        "targets": {"answer": np.int32(ANSWERS.index(item.answer)), "letters": spelled(item.answer)},
    }


class Talk(Sequence[tuple[str, int]]):
    """What is learned from: as many questions about each kind of thing, however few there are. An item is the kind and
    a number.
    """

    def __init__(self, things: Mapping[str, Sequence[Thing]]):
        self._names = [name for name in things if len(things[name])]
        self._most = max(len(things[name]) for name in self._names)

    def __len__(self) -> int:
        return len(self._names) * self._most

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self._names[index % len(self._names)], index // len(self._names)


def sample(item: tuple[str, int], rng: np.random.Generator, things: Mapping[str, Sequence[Thing]]) -> Sample:
    """A question at random about a thing."""
    own = things[item[0]]
    thing = own[item[1] % len(own)]
    return given(asked(thing, str(rng.choice(list(thing.answers))), rng, held_out=False), rng)


# --- the model asked -------------------------------------------------------------------------------------------------


def answers(model: Perceiver, batch: Batch, way: Way, key: jax.Array | None = None) -> dict[str, jax.Array]:
    """Logits of both outputs."""
    encoding, other, decoding = split_key(key, 3)
    read, masks = batch["inputs"], batch["masks"]
    if way is Way.TOGETHER:
        latents = model.encode(read, masks, key=encoding)
    else:
        words = model.encode({WORDS: read[WORDS]}, {WORDS: masks[WORDS]}, key=encoding)
        latents = words
        if way is Way.APART:
            senses = model.encode({n: read[n] for n in SENSES}, {n: masks[n] for n in SENSES}, key=other)
            latents = Latents(jnp.concatenate([words.values, senses.values], axis=1), {})
    return model.decode(latents, key=decoding)


def objective(way: Way) -> Objective:
    """Nats of the answer, and of its letters."""

    def loss(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        found, wanted = answers(model, batch, way, key), batch["targets"]
        chosen = cross_entropy(found["answer"], wanted["answer"], smoothing=0.05)
        letters = cross_entropy(found["letters"], wanted["letters"], wanted["letters"] != PAD)
        return chosen + letters, {
            "letters": letters,
            "accuracy": accuracy(found["answer"], wanted["answer"]),
        }

    return loss


@functools.partial(jax.jit, static_argnames=("graph", "way"))
def _answers(graph: nnx.GraphDef, state: nnx.State, batch: Batch, way: Way) -> tuple[jax.Array, jax.Array]:
    found = answers(nnx.merge(graph, state), batch, way)
    return found["answer"].argmax(axis=-1), found["letters"].argmax(axis=-1)


def judge(model: Perceiver, items: Sequence[Asked], way: Way = Way.TOGETHER) -> dict[str, Judged]:
    """Of each kind of question, how many were answered right, by choice and by letters."""
    graph, state = nnx.split(model)
    held = list(items)
    parts = [
        tuple(np.asarray(rows)[:count] for rows in _answers(graph, state, part, way))
        for part, count in in_batches([{n: s for n, s in given(one).items() if n != "targets"} for one in held], BATCH)
    ]
    chosen, letters = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    verdicts = {}
    for kind in dict.fromkeys(one.kind for one in held):
        rows = [i for i, one in enumerate(held) if one.kind == kind]
        lines = [
            {
                "item": held[i].file,
                "asked": held[i].question,
                "answer": held[i].answer,
                "chosen": ANSWERS[chosen[i]],
                "spelled": until_end(letters[i])[0],
            }
            for i in rows
        ]
        counts = {
            "right": np.array([line["chosen"] == line["answer"] for line in lines], np.float64),
            "right_letters": np.array([line["spelled"] == line["answer"] for line in lines], np.float64),
            "all": np.ones(len(lines)),
        }
        verdicts[kind] = Judged(lines, counts, _figures)
    return verdicts


def _figures(sums: Sums) -> Mapping[str, np.ndarray]:
    return {"accuracy": sums["right"] / sums["all"], "accuracy_by_letters": sums["right_letters"] / sums["all"]}


def mean_accuracy(model: Perceiver, items: Sequence[Asked], way: Way) -> dict[str, float]:
    """Over kinds of questions; and each kind's."""
    each = {kind: figures_of(own)["accuracy"] for kind, own in judge(model, items, way).items()}
    return {"mean_accuracy": float(np.mean(list(each.values()))), **each}


def _exams(root: Path | None) -> dict[str, list[Asked]]:
    return {split: exam(things) for split, things in load(root).items()}


TASKS = {"questions": Task(_exams, judge)}


def commonest(train: Mapping[str, Sequence[Thing]], test: Sequence[Asked]) -> dict[str, float]:
    """Accuracy of always giving the answer that is commonest in training, by kind."""
    found = {}
    for kind in dict.fromkeys(one.kind for one in test):
        known = [thing.answers[kind] for part in train.values() for thing in part if kind in thing.answers]
        guess = max(sorted(set(known)), key=known.count)
        found[kind] = float(np.mean([one.answer == guess for one in test if one.kind == kind]))
    return found


def ask(
    *,
    root: Path | None = None,
    steps: int = 1200,
    batch: int = 64,
    seed: int = 0,
    learning_rate: float = 1.5e-3,
    latents: int = 32,
    channels: int = 96,
    depth: int = 2,
    beside: bool = True,
    checkpoint_every: int = 250,
) -> Experiment:
    """Questions in words about what is seen, heard and ranged.

    Args:
        root: Folder that holds fsdd/, ign_lidarhd/ and emoji_noto64/; the variable PERCEIVER_DATA unless given.
        steps: Updates.
        batch: Questions per update.
        seed: Of the parameters, the order of the data and its changes.
        learning_rate: Adam's peak, after a warm-up of a tenth of the steps; Muon's is twice that.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each of the two looks.
        beside: Also train a model that reads the question alone, and one of two towers.
        checkpoint_every: Updates between checkpoints.
    """
    things = load(root)
    exams = _exams(root)

    def of(name: str, way: Way, count: int, **more: Any) -> Experiment:
        return Experiment(
            name=name,
            model=model(count, channels, depth),
            batches=training_stream(
                Talk(things["train"]), functools.partial(sample, things=things["train"]), seed=seed, batch=batch
            ),
            objective=objective(way),
            optimizer=muon(
                warmup_cosine(2 * learning_rate, steps), warmup_cosine(learning_rate, steps), weight_decay=0.1
            ),
            steps=steps,
            batch=batch,
            seed=seed,
            validate=lambda m: mean_accuracy(m, exams["validation"], way),
            best="mean_accuracy",
            test=lambda m: scores(judge(m, exams["test"], way)),
            ema=0.998,
            validate_every=max(steps // 6, 1),
            checkpoint_every=checkpoint_every,
            diagnosed=0,
            **more,
        )

    companions = {
        "question alone": of("question alone", Way.BLIND, latents),
        "two towers": of("two towers", Way.APART, max(latents // 2, 1)),
    }
    return of(
        "ask",
        Way.TOGETHER,
        latents,
        baselines=lambda: {"commonest answer": commonest(things["train"], exams["test"])},
        companions=companions if beside else {},
    )
