"""Speech to letters: digits in a row, by people that are known and by one that is not; and a telephone's prompts.

perceiver train experiments/speech.py --root FOLDER
    (FOLDER holds fsdd/ and asterisk/; needs the extras audio, speech)

Seed 0, 48 minutes on one of two cores in all, 12 of them for the first model. New recordings of known speakers, 334
strings of 1 to 5 digits, 1,000 words: by the likeliest letters 3.1 % of the words are wrong (2.0 to 4.3), 91.9 % of
the strings right as a whole; by a search that knows how the ten words are spelled 0.8 % (0.3 to 1.5), 97.9 %; letter
by letter, by the speller, 3.1 % (1.9 to 4.5). Untrained 100.1 and, with the search, 90.7 %; texts of other strings
110.8 %. The recordings of the test are each in five strings, so the intervals are too narrow. Of 8 strings in a row,
13 s long and heard in windows that overlap by 1 s, 3.4 % of the words are wrong (2.2 to 4.7), with the search 0.4 %;
without overlap 12.7 and 0.7 %.

People who were never heard, words wrong by the likeliest letters and with the search, and of how many hundred the
recipe of single digits names the wrong one: george 40.2 % (38.2 to 42.0), 22.1 % (20.4 to 23.7), 26.4; jackson 32.7 %
(30.8 to 34.6), 11.6 % (10.3 to 12.8), 8.6, and on another machine 32.2 and 10.6 %; nicolas 38.7 % (36.8 to 40.7),
21.2 % (19.5 to 22.8), 29.6; theo 35.7 % (33.6 to 37.6), 9.7 % (8.4 to 11.0), 10.8. So with the search it is no worse
for three of them, and worse for jackson, whose six is often heard as eight. For him the exact best of all rows of the
ten words finds the same as the search, so the sound model errs, not the search. What did not help him, in trials
beside those 10.6 %: more dropout, a wider range of speeds and hidden moments (11.2 %), all of that with AdamW (12.3)
or with people three times as often (13.4); synthetic voices nearly three times as often (11.4), and of three times as
many words (12.6). Candidates scored at three speeds: 11.3 % of 400 strings, 10.2 % without. On a third machine, one run
each: the spectrogram of the recipe of single digits (25 ms every 10, 20 bands) 9.8 %, with it dropout of 0.2 also where
the sound is looked at 12.5, or 100 ms on either side in place of 160 11.9; the present one with half of the strings of
several people's words and half with each word at its own speed 15.3.

Prompts, 55 that were not trained on, of one voice, with a few hundred to learn from: as good as all words are wrong
by the likeliest letters (100.8 %, 53.1 % of the letters), 69.9 % (54.2 to 81.1) with a search that knows the training
texts, which recur as parts of others; untrained 100.2 %, texts of others 175.7 %. Letters are told and words are not:
it learned its 400 recordings by heart before half of its steps.

From the raw waveform through learned filters (--waveform, 10 minutes): 10.6 % of the words of known speakers are
wrong by the likeliest letters (8.6 to 12.7), 1.7 % with the search (1.0 to 2.6).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import asterisk, digit_strings, fsdd, synthetic_digits
from data.digit_strings import LOUDNESS, MOST, RATE, Said, Voice
from perceiver import (
    CTC,
    Block,
    Encoder,
    Filterbank,
    Fourier,
    FromTokens,
    LogMel,
    Output,
    PerceiverConfig,
    Spectrogram,
    Waveform,
)
from perceiver.augment import add_noise, band_stop, equaliser, filtered
from perceiver.causal import CausalText
from perceiver.ctc import Beam
from perceiver.dictation import dictate_all
from perceiver.fusion import counted_scorer
from perceiver.io import trim_silence
from perceiver.pipeline import Sample, Skipped, training_stream
from perceiver.spectrogram import Log
from perceiver.speller import Speller, SpellerConfig
from perceiver.training.evaluation import Judged, Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import muon, warmup_cosine
from perceiver.training.transcribing import ctc_objective, spelling_objective, target_of, text_judge
from perceiver.transcription import Steps, Transcript, steps_of, transcribe_all

STRING, PROMPT = 3.0, 4.0
"""Seconds that a model of digits hears at once, and one of prompts; what is longer is heard in windows."""
LETTERS = 80
"""Of a text at most that is learned from."""
LONGEST = 48
"""Letters that a decoder spells at most, the start included; five digits are 29 at most."""
WIDTH, WEIGHT, BONUS = 12, 1.0, 1.0
"""Of the search with a language model; the last two were chosen on the validation strings of known speakers."""
HEAD = CTC()
VOICES = 8
"""How often a speaker is drawn for each time that a synthetic voice is."""


@functools.cache
def log_mel(seconds: float) -> LogMel:
    """Strips of 40 ms of a log-mel spectrogram, each with the 160 ms on either side of it."""
    spectrogram = Spectrogram(
        256, 160, mels=32, low=60.0, high=3900.0, sample_rate=RATE, log=Log.NATURAL, mel_floor=0.03
    )
    return LogMel(
        int(seconds * RATE),
        spectrogram,
        sample_rate=RATE,
        patch=(2, None),
        border=8,
        hidden=128,
        project=64,
        position=Fourier(bands=16),
        mean=(-1.0,),
        std=(2.0,),
        loudness=LOUDNESS,
    )


def raw_waveform(seconds: float) -> Waveform:
    """Patches of 40 ms of samples, and the 160 ms on either side, through filters that are learned."""
    return Waveform(
        int(seconds * RATE),
        RATE,
        patch=320,
        border=1280,
        filters=Filterbank(bands=32, length=256, hop=160, low=60.0, high=3900.0, floor=7e-5, mean=-6.0, std=2.0),
        project=64,
        position=Fourier(bands=16),
        loudness=LOUDNESS,
    )


def model(seconds: float, latents: int, channels: int, depth: int, waveform: bool = False) -> PerceiverConfig:
    """Sound to a letter, or none, at each of its tokens, which are the queries; two looks at the sound."""
    cross = Block(heads=4, qk_channels=channels, v_channels=channels, widening=2)
    return PerceiverConfig(
        inputs={"audio": raw_waveform(seconds) if waveform else log_mel(seconds)},
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=cross,
            latent=Block(heads=4, widening=2, dropout=0.1),
            cross_attends=(0, 1),
            towers=(0, 1),
        ),
        outputs={"text": Output(HEAD, FromTokens("audio", project=channels), cross=cross)},
    )


@functools.cache
def steps_in(seconds: float) -> Steps:
    """How the letters lie in time, whatever the sizes of the model."""
    return steps_of(model(seconds, latents=1, channels=4, depth=1))


def learned(wave: np.ndarray, text: str, seconds: float) -> Sample:
    """A sound and its text to a sample of the model that hears so many seconds.

    Raises:
        InputError: the text does not fit into the sound.
    """
    raw, mask = log_mel(seconds).load(wave)  # as the raw waveform's
    target = target_of(HEAD.encode(text), int(steps_in(seconds).real(mask[None]).sum()), LETTERS)
    return {"inputs": {"audio": raw}, "masks": {"audio": mask}, "targets": {"text": target}}


def through(wave: np.ndarray, rng: np.random.Generator, speed: float) -> np.ndarray:
    """A sound as it is through another microphone, faster or slower."""
    filters = [equaliser(rng, decibels=8.0, bands=6, octaves=5.0)]
    if rng.random() < 0.5:
        filters.append(band_stop(rng))
    return add_noise(filtered(wave, *filters, speed=speed), rng, low=20.0, high=50.0)


def string(voice: Voice, rng: np.random.Generator) -> Sample:
    """Some digits by one speaker, as another person might say them."""
    speed, count = rng.uniform(0.85, 1.18), int(rng.integers(1, MOST + 1))
    most = int(0.98 * STRING * RATE * speed)  # the speed is met to 1 %
    wave, text = digit_strings.said(voice, rng.integers(0, len(voice.waves), count), rng, most)
    return learned(through(wave, rng, speed), text, STRING)


def prompt(item: Said, rng: np.random.Generator) -> Sample:
    """A prompt that fits into a window, at another speed."""
    longest = len(item.wave) / (0.98 * PROMPT * RATE)
    return learned(through(item.wave, rng, rng.uniform(max(0.9, longest), 1.1)), item.text, PROMPT)


def prompts(root: Path | None) -> dict[str, list[Said]]:
    """The splits of `asterisk`, without silence at the ends."""
    parts = asterisk.load(root, RATE)
    return {
        split: [Said(item.file, trim_silence(item.wave, RATE), item.spelled) for item in part]
        for split, part in parts.items()
    }


judged_by = functools.partial(text_judge, lambda item: item.name, lambda item: item.wave, lambda item: item.text)
greedy = judged_by()


def both(texts: Sequence[str]) -> Callable[[Any, Sequence[Said]], dict[str, Judged]]:
    """A judge of the likeliest letters alone, and of a search that knows which letters follow which in some texts."""
    beam = Beam(WIDTH, counted_scorer(texts, HEAD), WEIGHT, BONUS)
    searched = judged_by(functools.partial(transcribe_all, beam=beam))
    return lambda model, items: {"greedy": greedy(model, items), "searched": searched(model, items)}


PAIRS = [f"{one} {other}" for one in synthetic_digits.WORDS for other in synthetic_digits.WORDS]
"""The ten words in any order: all that the search knows of digit strings."""
TASKS = {
    "digit_strings": Task(digit_strings.load, both(PAIRS)),
    "asterisk": Task(prompts, greedy),
}


def dealt(items: Sequence[Said]) -> list[Said]:
    """The same sounds with the texts of others: what a recogniser scores that has but learned what is said."""
    order = np.random.default_rng(0).permutation(len(items))
    return [dataclasses.replace(items[a], text=items[b].text) for a, b in zip(order, np.roll(order, 1), strict=True)]


def with_accuracy(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures, and the share of words that are right, of which more is better."""
    return {"word_accuracy": 1.0 - figures["wer"], **figures}


def speller(hearing: PerceiverConfig, depth: int = 2) -> SpellerConfig:
    """The same model, with a decoder that spells what its latents heard."""
    width = hearing.encoder.channels
    text = CausalText(len(HEAD.alphabet) + 2, LONGEST, width, depth, Block(heads=4, widening=2, dropout=0.1))
    return SpellerConfig(hearing, text, Block(heads=4, qk_channels=width, v_channels=width, widening=2))


def spelled(model: Speller, items: Sequence[Said]) -> dict[str, Judged]:
    """What a Speller makes of sounds: by its CTC output, and letter by letter."""
    ways: dict[str, Any] = {"ctc": heard_by, "letters": dictate_all}
    return {name: judged_by(way)(model, items) for name, way in ways.items()}


def heard_by(model: Speller, sounds: Sequence[np.ndarray]) -> Sequence[Transcript]:
    """Transcripts by the CTC output of a Speller."""
    return transcribe_all(model.hearing, sounds)


def speech(
    *,
    root: Path | None = None,
    steps: int = 2000,
    prompt_steps: int = 1500,
    batch: int = 16,
    seed: int = 0,
    learning_rate: float = 4e-3,
    speaker: str = "george",
    unseen: bool = True,
    voices: int = 1000,
    prompted: bool = True,
    letters: bool = True,
    waveform: bool = False,
    latents: int = 32,
    channels: int = 96,
    depth: int = 1,
    checkpoint_every: int = 500,
) -> Experiment:
    """Speech to letters by CTC: digit strings of known speakers; beside them an unseen speaker, prompts, and a speller.

    Args:
        root: Folder that holds fsdd/ and asterisk/; the variable PERCEIVER_DATA unless given.
        steps: Updates of each model of digits.
        prompt_steps: Updates on prompts.
        batch: Sounds per update.
        seed: Of the parameters, the order of the data, the augmentation and the synthetic voices.
        learning_rate: Muon's peak, after a warm-up of a tenth of the steps; what is no linear map learns at half of it.
        speaker: Who is unseen.
        unseen: Also train without this speaker, and test on them.
        voices: Words of a synthesiser (extra speech) that this model learns beside those of people; 0 leaves it out.
        prompted: Also train on prompts, and test on others of the same voice.
        letters: Also train a decoder that spells digits of known speakers letter by letter.
        waveform: Hear the raw waveform through learned filters, not a log-mel spectrogram.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each of the two looks at the sound.
        checkpoint_every: Updates between checkpoints.
    """

    def of(
        name: str,
        source: Any,
        sample: Any,
        seconds: float,
        updates: int,
        held: Mapping[str, Sequence[Said]],
        texts: Sequence[str] = PAIRS,
        **other: Any,
    ) -> Experiment:
        schedule = functools.partial(warmup_cosine, steps=updates)
        given: dict[str, Any] = {
            "model": model(seconds, latents, channels, depth, waveform),
            "objective": ctc_objective(),
            "validate": lambda m: with_accuracy(figures_of(greedy(m, held["validation"]))),
            "test": lambda m: scores(both(texts)(m, held["test"])),
            "controls": lambda m: {"texts_of_others": figures_of(greedy(m, dealt(held["test"])))},
        }
        skipped = Skipped(most=100)  # a text that was drawn with a high speed may not fit
        return Experiment(
            name=name,
            batches=training_stream(source, sample, seed=seed, batch=batch, skipped=skipped),
            optimizer=muon(schedule(learning_rate), schedule(learning_rate / 2), weight_decay=0.1),
            steps=updates,
            batch=batch,
            seed=seed,
            best="word_accuracy",
            ema=0.99,
            validate_every=max(updates // 2, 1),
            checkpoint_every=checkpoint_every,
            skipped=skipped,
            diagnosed=0,
            **given | other,
        )

    def digits(name: str, held_out: str | None = None, **other: Any) -> Experiment:
        held = known if held_out is None else digit_strings.load(root, held_out)
        people = digit_strings.voices(fsdd.load(root, RATE, held_out)["train"], lambda item: item.speaker)
        made = synthetic_digits.load(voices, seed, RATE)["train"] if voices and held_out else []
        source = [*people * VOICES, *digit_strings.voices(made, lambda item: item.voice)]
        return of(name, source, string, STRING, steps, held, **other)

    known = digit_strings.load(root)
    whole, companions = digits("speech"), {}
    if unseen:
        companions[f"without {speaker}"] = digits(f"without {speaker}", speaker)
    if prompted:
        parts = prompts(root)
        short = [item for item in parts["train"] if len(item.wave) < PROMPT * RATE and len(item.text) <= LETTERS]
        companions["prompts"] = of(
            "prompts", short, prompt, PROMPT, prompt_steps, parts, [item.text for item in parts["train"]]
        )
    if letters:
        companions["letters"] = digits(
            "letters",
            model=speller(whole.model),
            objective=spelling_objective(),
            validate=lambda m: with_accuracy(figures_of(judged_by(heard_by)(m, known["validation"]))),
            test=lambda m: scores(spelled(m, known["test"])),
            controls=lambda m: {},
        )
    return dataclasses.replace(whole, companions=companions)
