"""Written digits, spoken digits and words in one space, where any finds any other: pictures find sounds, though no
picture was ever trained beside a sound.

perceiver train experiments/digits_any.py --root FOLDER      (FOLDER holds fsdd/; needs the extras audio, speech)

Seed 0, 1,200 steps. Precision of the nearest on the test splits, where the speakers are known: from pictures to sounds
99.1 % of 450 (98.0 to 99.8) and from sounds to pictures 97.0 % of 200 (94.5 to 99.0), which were never trained as
pairs; pictures to words 99.1, sounds to words 97.5, words to pictures and to sounds 100 % of 80. With the recordings'
digits dealt anew 4 to 15 %; logistic regression names 96.5 % of the sounds. What the third modality costs: trained
without sounds, pictures to words 98.9 %; without pictures, sounds to words 96.5 %.

People that were never heard: sounds to words 80.0 % on average (george 74.0, jackson 87.8, nicolas 74.4, theo 83.6)
and to pictures 79.4 %, pictures to sounds 97.2 %, where a classifier of the same sounds, trained as long, has 82.8 %
(73.8, 89.0, 77.0, 91.2). A third of the steps leaves 67.1 %.

The model of all three takes 395 s on one core of two with the other at work too; with the ten that stand beside it,
trained as long, it was run on a machine that did much else and has not been timed.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import digits, fsdd, synthetic_digits
from experiments import spoken_digits
from perceiver import Block, Bytes, Classes, Embedding, Encoder, Fourier, Image, Output, Perceiver, PerceiverConfig
from perceiver.augment import shift_and_turn
from perceiver.pipeline import Joined, Sample, together, training_stream
from perceiver.retrieval import retrieved
from perceiver.training.classification import class_judge, class_objective
from perceiver.training.evaluation import Judged, Sums, Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.matching import embedded, matching_objective, mean_figures
from perceiver.training.optimizers import adamw, warmup_cosine

MODALITIES = ("image", "audio", "text")
PAIRS = (("image", "text"), ("audio", "text"))
"""What is trained to belong together; images and sounds meet in words only."""
WORDS = [(word, digit) for names in digits.NAMES.values() for digit, word in enumerate(names)]
"""What the digits are called in eight languages."""


@functools.cache
def inputs() -> dict[str, Any]:
    """By modality, what an input is seen as."""
    scan = Image((8, 8, 1), border=1, hidden=32, project=64, position=Fourier(bands=4), mean=(0.3,), std=(0.37,))
    return {"image": scan, "audio": spoken_digits.log_mel(), "text": Bytes(digits.LONGEST_NAME, width=64)}


def model(modalities: Sequence[str], latents: int, channels: int, depth: int, output: Output) -> PerceiverConfig:
    """Any of the modalities to an answer; two looks."""
    return PerceiverConfig(
        inputs={name: inputs()[name] for name in modalities},
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=channels, v_channels=channels, dropout=0.2),
            latent=Block(heads=4, widening=2, dropout=0.2),
            cross_attends=(0, 1),
            towers=(0, 1),
        ),
        outputs={"embedding" if isinstance(output.head, Embedding) else "label": output},
    )


def see(item: tuple[np.ndarray, int], rng: np.random.Generator) -> Sample:
    """A scan, moved a little."""
    pixels, label = item
    if rng.random() < 0.8:
        pixels = shift_and_turn(pixels, rng, shift=0.8, degrees=12, scale=0.1)
    return {"inputs": {"image": pixels}, "targets": {"image": np.int32(label)}}


def hear(item: Any, rng: np.random.Generator) -> Sample:
    """A recording as another person might say it."""
    heard = spoken_digits.sample(item, rng)
    return {**heard, "targets": {"audio": heard["targets"]["label"]}}


def read(item: tuple[str, int], rng: np.random.Generator | None = None) -> Sample:
    """A word as it is."""
    del rng
    ids, mask = inputs()["text"].load(item[0])
    return {"inputs": {"text": ids}, "masks": {"text": mask}, "targets": {"text": np.int32(item[1])}}


def judge(
    model: Perceiver, recordings: Sequence[fsdd.Recording], scans: digits.Split | None = None
) -> dict[str, Judged]:
    """Precision of the nearest: whether what is found first shows, says or means the same digit; each way.

    recordings: of fsdd. scans: of digits, the test split unless given. Of a model without one modality, what remains.
    """
    drawn = digits.load()["test"] if scans is None else scans
    held = list(recordings)
    sides = {
        "image": ([f"scan {i}" for i in range(len(drawn))], [{"inputs": {"image": p}} for p in drawn.images]),
        "audio": ([item.file for item in held], [spoken_digits.given(item.wave) for item in held]),
        "text": ([word for word, _ in WORDS], [read(item) for item in WORDS]),
    }
    labels = {
        "image": drawn.labels,
        "audio": np.array([item.digit for item in held]),
        "text": np.array([digit for _, digit in WORDS]),
    }
    here = [name for name in sides if name in model.config.inputs]
    vectors = {name: embedded(model, sides[name][1]) for name in here}
    found = {}
    for one, other in itertools.permutations(here, 2):
        same = labels[one][:, None] == labels[other]
        searched = retrieved(sides[one][0], vectors[one] @ vectors[other].T, same, sides[other][0], among=(1,))
        found[f"{one}_to_{other}"] = dataclasses.replace(searched, figures=_precision)
    return found


def _precision(sums: Sums) -> Mapping[str, np.ndarray]:
    """Of the nearest, where many candidates are right."""
    return {"precision_at_1": sums["at_1"] / np.maximum(sums["all"], 1)}


hearing = class_judge(
    lambda item: spoken_digits.given(item.wave), name=lambda item: item.file, label=lambda item: item.digit
)
TASKS = {"fsdd": Task(functools.partial(fsdd.load, sample_rate=spoken_digits.RATE), judge)}


def digits_any(
    *,
    root: Path | None = None,
    steps: int = 1200,
    batch: int = 64,
    seed: int = 0,
    learning_rate: float = 2e-3,
    voices: int = 2000,
    beside: bool = True,
    latents: int = 16,
    channels: int = 96,
    depth: int = 1,
    checkpoint_every: int = 500,
) -> Experiment:
    """Written digits, spoken digits and words in one space.

    Args:
        root: Folder that holds fsdd/; the variable PERCEIVER_DATA unless given.
        steps: Updates.
        batch: Items of each modality per update.
        seed: Of the parameters, the order of the data, the augmentation and the synthetic voices.
        learning_rate: AdamW's peak, after a warm-up of a tenth of the steps.
        voices: Words of a synthesiser (extra speech) that are learned beside those of people; 0 leaves it out.
        beside: Also train on two modalities at a time, to see what three cost, and without each speaker in turn: this
            model, and a classifier of the same sounds.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each of the two looks.
        checkpoint_every: Updates between checkpoints.
    """
    everybody = fsdd.speakers(root) if beside else ()  # first: absent data is said before voices are made
    synthetic = synthetic_digits.load(voices, seed)["train"] if voices else []
    written = digits.load()
    scans = [written["train"][i] for i in range(len(written["train"]))]
    shared = Output(Embedding(64), cross=Block(heads=4))

    def common(speaker: str | None) -> tuple[dict[str, Sequence[fsdd.Recording]], Joined]:
        """Splits without a speaker in training, and the words to learn from."""
        splits = fsdd.load(root, spoken_digits.RATE, speaker)
        return splits, spoken_digits.spoken(splits["train"], synthetic)

    def of(name: str, config: PerceiverConfig, updates: int, **more: Any) -> Experiment:
        return Experiment(
            name=name,
            model=config,
            optimizer=adamw(warmup_cosine(learning_rate, updates), weight_decay=0.05),
            steps=updates,
            batch=batch,
            seed=seed,
            ema=0.995,
            validate_every=max(updates // 2, 1),
            checkpoint_every=checkpoint_every,
            **more,
        )

    def meeting(name: str, modalities: Sequence[str], speaker: str | None = None) -> Experiment:
        """Modalities that meet in words."""
        splits, words = common(speaker)
        sources: dict[str, tuple[Sequence[Any], Any]] = {
            "image": (scans, see),
            "audio": (words, hear),
            "text": (WORDS, read),
        }
        streams = [training_stream(*sources[modality], seed=seed, batch=batch) for modality in modalities]
        return of(
            name,
            model(modalities, latents, channels, depth, shared),
            steps,
            batches=together(streams),
            objective=matching_objective([pair for pair in PAIRS if set(pair) <= set(modalities)]),
            validate=lambda m: mean_figures(judge(m, splits["validation"], written["validation"])),
            best="precision_at_1",
            test=lambda m: scores(judge(m, splits["test"])),
        )

    def classifying(name: str, speaker: str) -> Experiment:
        """The same sounds to their classes."""
        splits, words = common(speaker)
        return of(
            name,
            model(
                ["audio"],
                latents,
                channels,
                depth,
                Output(Classes(10, names=spoken_digits.NAMES), cross=Block(heads=4)),
            ),
            steps,
            batches=training_stream(words, spoken_digits.sample, seed=seed, batch=batch),
            objective=class_objective(),
            validate=lambda m: figures_of(hearing(m, splits["validation"])),
            best="accuracy",
            test=lambda m: scores(hearing(m, splits["test"])),
        )

    pairs = {f"{one} and {other}": meeting(f"{one} and {other}", (one, other)) for one, other in PAIRS}
    without = {f"without {name}": meeting(f"without {name}", MODALITIES, name) for name in everybody}
    classes = {f"classifier without {name}": classifying(f"classifier without {name}", name) for name in everybody}
    companions = {**pairs, **without, **classes} if beside else {}
    published = fsdd.load(root, spoken_digits.RATE)
    return dataclasses.replace(
        meeting("digits_any", MODALITIES),
        baselines=lambda: spoken_digits.baselines(published),
        controls=lambda m: {"digits dealt anew": _dealt(m, published["test"])},
        companions=companions,
        summary=summary,
    )


def _dealt(model: Perceiver, recordings: Sequence[fsdd.Recording]) -> dict[str, Any]:
    """The figures when each recording is said to be of another's digit."""
    order = np.random.default_rng(0).permutation(len(recordings))
    held = list(recordings)
    return scores(judge(model, [dataclasses.replace(held[i], digit=held[j].digit) for i, j in enumerate(order)]))


def summary(tests: Mapping[str, Any]) -> dict[str, float]:
    """Means over the speakers that were left out: pictures to sounds and back, words, and the classifier's accuracy."""
    unheard = [figures for name, figures in tests.items() if name.startswith("without ")]
    classified = [figures["accuracy"] for name, figures in tests.items() if name.startswith("classifier ")]
    if not unheard:
        return {}
    means = {
        f"unseen_speakers_{way}": float(np.mean([figures[way]["precision_at_1"] for figures in unheard]))
        for way in ("audio_to_image", "image_to_audio", "audio_to_text")
    }
    return means | {"unseen_speakers_classifier": float(np.mean(classified))}
