"""Speech to letters: digits in a row, from people that are known and from one that is not; and spoken prompts.

perceiver train experiments/speech.py --root FOLDER      (FOLDER holds fsdd/; needs the extras audio, speech)
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import fsdd, synthetic_digits
from perceiver import (
    CTC,
    Block,
    Encoder,
    Fourier,
    FromTokens,
    LogMel,
    Output,
    PerceiverConfig,
    Spectrogram,
)
from perceiver.augment import add_noise, band_stop, equaliser, filtered
from perceiver.io import trim_silence
from perceiver.pipeline import Sample, Skipped, training_stream
from perceiver.spectrogram import Log
from perceiver.training.evaluation import Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, warmup_cosine
from perceiver.training.transcribing import ctc_objective, target_of, text_judge
from perceiver.transcription import steps_of

RATE, SECONDS, LETTERS = 8000, 3.0, 40
"""Hz; seconds of a window; letters of the longest text in one."""
SAMPLES = int(RATE * SECONDS)
LOUDNESS, TRIM = 0.1, 45.0
"""Of a sound: root mean square; and decibels below the loudest part at which a recording's ends are cut off."""
WORDS, GAP, MOST = synthetic_digits.WORDS, 0.25, 5
"""Digits; seconds between two of a string at most; digits of a string at most."""
HEAD = CTC()


def hearing() -> LogMel:
    """Strips of 40 ms of a log-mel spectrogram."""
    spectrogram = Spectrogram(
        200, 80, fft_length=256, mels=32, low=60.0, high=3900.0, sample_rate=RATE, log=Log.NATURAL, mel_floor=0.03
    )
    return LogMel(
        SAMPLES,
        spectrogram,
        sample_rate=RATE,
        patch=(4, None),
        project=64,
        position=Fourier(bands=16),
        mean=(-1.0,),
        std=(2.0,),
        loudness=LOUDNESS,
    )


def model(latents: int, channels: int, depth: int) -> PerceiverConfig:
    """Sound to a letter, or none, at each of its tokens; two looks at it."""
    return PerceiverConfig(
        inputs={"audio": hearing()},
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=channels, v_channels=channels),
            latent=Block(heads=4, widening=2, dropout=0.1),
            cross_attends=(0, 1),
            towers=(0, 1),
        ),
        outputs={
            "text": Output(
                HEAD,
                FromTokens("audio", project=channels),
                cross=Block(heads=4, qk_channels=channels, v_channels=channels, widening=2),
            )
        },
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """A sound, float32 [n] at RATE, and what is said in it."""

    name: str
    wave: np.ndarray
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
    """All that is known of one speaker's words: trimmed sounds with their digits."""

    name: str
    words: tuple[tuple[int, np.ndarray], ...]


def voices(items: Sequence[Any], who: Any) -> list[Voice]:
    """Items by their speaker, in alphabetical order."""
    by_name: dict[str, list[tuple[int, np.ndarray]]] = {}
    for i in range(len(items)):
        item = items[i]
        wave = trim_silence(item.wave, RATE, decibels=TRIM)
        rms = np.sqrt(np.mean(np.square(wave))) + 1e-6
        by_name.setdefault(who(item), []).append((item.digit, wave * np.float32(LOUDNESS / rms)))
    return [Voice(name, tuple(words)) for name, words in sorted(by_name.items())]


def spoken(words: Sequence[tuple[int, np.ndarray]], rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Words in a row, with gaps of random length before, between and behind; as many as the window takes."""
    parts, length = [], 0
    text: list[str] = []
    for digit, wave in words:
        gap = int(rng.integers(0, int(GAP * RATE)))
        if text and length + gap + len(wave) > SAMPLES:
            break
        parts += [np.zeros(gap, np.float32), wave]
        length += gap + len(wave)
        text.append(WORDS[digit])
    return np.concatenate([*parts, np.zeros(int(rng.integers(0, int(GAP * RATE))), np.float32)]), " ".join(text)


def drawn(voice: Voice, rng: np.random.Generator, most: int) -> tuple[np.ndarray, str]:
    """Some words of one voice."""
    count = int(rng.integers(1, most + 1))
    return spoken([voice.words[i] for i in rng.integers(0, len(voice.words), count)], rng)


def sample(voice: Voice, rng: np.random.Generator) -> Sample:
    """A string of digits as another person might say it, into another microphone."""
    wave, text = drawn(voice, rng, MOST)
    filters = [equaliser(rng, decibels=8.0, bands=6, octaves=5.0)]
    if rng.random() < 0.5:
        filters.append(band_stop(rng))
    wave = filtered(wave, *filters, speed=rng.uniform(0.85, 1.18))
    return given(add_noise(wave, rng, low=20.0, high=50.0), text)


def given(wave: np.ndarray, text: str) -> Sample:
    """A sound and its text to a sample."""
    raw, mask = hearing().load(wave)
    steps = int(STEPS.real(mask[None]).sum())
    return {
        "inputs": {"audio": raw},
        "masks": {"audio": mask},
        "targets": {"text": target_of(HEAD.encode(text), steps, LETTERS)},
    }


STEPS = steps_of(model(1, 4, 1))


def strings(items: Sequence[Any], rounds: int = 5, seed: int = 0) -> list[Said]:
    """Fixed strings: in each round every recording is said once, in strings of 1 to MOST by its speaker."""
    rng = np.random.default_rng(seed)
    found = []
    for voice in voices(items, lambda item: item.speaker):
        for turn in range(rounds):
            order = list(rng.permutation(len(voice.words)))
            while order:
                count = min(int(rng.integers(1, MOST + 1)), len(order))
                some, order = order[:count], order[count:]
                wave, text = spoken([voice.words[i] for i in some], rng)
                found.append(Said(f"{voice.name} {turn} {len(found)}", wave, text))
    return found


judge = text_judge(name=lambda item: item.name, sound=lambda item: item.wave, text=lambda item: item.text)
TASKS = {
    "fsdd": Task(
        lambda root: {name: strings(part) for name, part in fsdd.load(root, sample_rate=RATE).items()},
        judge,
    )
}


def speech(
    *,
    root: Path | None = None,
    steps: int = 1500,
    batch: int = 32,
    seed: int = 0,
    learning_rate: float = 2e-3,
    latents: int = 32,
    channels: int = 96,
    depth: int = 1,
    checkpoint_every: int = 500,
) -> Experiment:
    """Speech to letters.

    Args:
        root: Folder that holds fsdd/; the variable PERCEIVER_DATA unless given.
        steps: Updates.
        batch: Strings per update.
        seed: Of the parameters, the order of the data and the augmentation.
        learning_rate: AdamW's peak, after a warm-up of a tenth of the steps.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each of the two looks at the sound.
        checkpoint_every: Updates between checkpoints.
    """
    splits = fsdd.load(root, sample_rate=RATE)
    people = voices(splits["train"], lambda item: item.speaker)
    skipped = Skipped(most=100)
    validation, test = strings(splits["validation"], 2), strings(splits["test"])
    return Experiment(
        name="speech",
        model=model(latents, channels, depth),
        batches=training_stream(people * 8, sample, seed=seed, batch=batch, skipped=skipped),
        objective=ctc_objective(),
        optimizer=adamw(warmup_cosine(learning_rate, steps), weight_decay=0.05),
        steps=steps,
        batch=batch,
        seed=seed,
        validate=lambda m: known(figures_of(judge(m, validation))),
        best="word_accuracy",
        test=lambda m: scores(judge(m, test)),
        ema=0.99,
        validate_every=max(steps // 4, 1),
        checkpoint_every=checkpoint_every,
        skipped=skipped,
    )


def known(figures: Mapping[str, float]) -> dict[str, float]:
    """With a figure of which more is better."""
    return {"word_accuracy": 1.0 - figures["wer"], **figures}
