"""Sounds of any length to text, with the time of each word, by a model that has an output CTC."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from perceiver.adapters.audio import Clip, LogMel, Sound, Waveform
from perceiver.ctc import BLANK, Beam, align, beam_search, greedy
from perceiver.decoders.decoder import Output
from perceiver.decoders.queries import FromTokens, Grid
from perceiver.decoders.transcripts import CTC
from perceiver.errors import ConfigError
from perceiver.inference import ask
from perceiver.model import Perceiver, PerceiverConfig
from perceiver.typing import Bool, Float, Int

BATCH = 8
"""Windows of one compiled call."""
OVERLAP = 1.0
"""Seconds that windows of a long sound share, or a third of the window where that is less."""


class Word(NamedTuple):
    """A word, and when it is said: seconds from the start of the sound."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Transcript:
    """What is said. seconds: how long the sound is. complete: False where it was more than the model can spell."""

    text: str
    words: tuple[Word, ...]
    seconds: float
    complete: bool = True


@dataclasses.dataclass(frozen=True)
class Steps:
    """How a model's answers lie in time.

    output, modality: the model's output CTC and the sound that it hears. count: steps of a full window. samples: of
    one step. rate: samples a second.
    """

    output: str
    modality: str
    count: int
    samples: int
    rate: int

    @property
    def seconds(self) -> float:
        """Of one step."""
        return self.samples / self.rate

    def real(self, mask: Bool[Any, "b n"]) -> Bool[Any, "b t"]:
        """Which steps a sound has, from the mask of its samples: those whose first sample is real."""
        starts = np.minimum(np.arange(self.count) * self.samples, mask.shape[1] - 1)
        return mask[:, starts]


def steps_of(config: PerceiverConfig, output: str | None = None) -> Steps:
    """Where a model's text lies in time. output: which of the outputs, if it has more than one that is CTC.

    Raises:
        ConfigError: there is no such output, or its queries are not steps of the time of one sound.
    """
    named = [name for name, o in config.outputs.items() if isinstance(o.head, CTC) and output in (None, name)]
    if not named:
        kinds = ", ".join(f"{name}: {type(o.head).__name__}" for name, o in config.outputs.items())
        raise ConfigError(f"expected a model with an output CTC{f' called {output!r}' if output else ''}, got {kinds}")
    asked = config.outputs[named[0]]
    sounds = {name: adapter for name, adapter in config.inputs.items() if isinstance(adapter, Sound)}
    query = asked.asked if isinstance(asked, Output) else None
    source = query.source if query is not None and query.source else next(iter(sounds), None)
    if source not in sounds:
        raise ConfigError(f"outputs[{named[0]!r}]: expected a model that hears, got inputs {', '.join(config.inputs)}")
    sound = sounds[source]
    samples, count = _step(sound, query, named[0])
    return Steps(named[0], source, count, samples, sound.sample_rate)


def _step(sound: Sound, query: Any, name: str) -> tuple[int, int]:
    """Samples of one step, and steps of a whole window."""
    if isinstance(query, FromTokens) and isinstance(sound, Waveform):
        return sound.patch, sound.tokens
    if isinstance(query, FromTokens) and isinstance(sound, LogMel) and sound.grid[1] == 1:
        return sound.patch[0] * sound.spectrogram.hop, sound.tokens
    if isinstance(query, Grid) and len(query.cells) == 1 and sound.samples % query.cells[0] == 0:
        return sound.samples // query.cells[0], query.cells[0]
    raise ConfigError(
        f"outputs[{name!r}]: expected queries that are steps of time: FromTokens of a sound whose tokens take all "
        f"mels, or a Grid of one axis that divides its {sound.samples} samples; got {query}"
    )


def transcribe(
    model: Perceiver, source: Any, beam: Beam | None = None, overlap: float = OVERLAP, output: str | None = None
) -> Transcript:
    """What is said in a sound of any length.

    source: a sound file at any rate, or a film with sound; or samples [n] at the model's rate. beam: how widely is
    searched; None takes the likeliest letter of each step. overlap: seconds that windows of a long sound share.

    Raises:
        InputError: the source cannot be read. ConfigError: the model is no recogniser.
    """
    return transcribe_all(model, [source], beam, overlap, output)[0]


def transcribe_all(
    model: Perceiver,
    sources: Sequence[Any],
    beam: Beam | None = None,
    overlap: float = OVERLAP,
    output: str | None = None,
) -> list[Transcript]:
    """What is said in each of some sounds; see `transcribe`."""
    ears = listen(model, sources, overlap, output)
    head, found, place = model.config.outputs[ears.steps.output].head, [], 0
    for number, windows in enumerate(ears.windows):
        parts = ears.log_probs[place : place + len(windows)]
        place += len(windows)
        whole = joined(parts, ears.starts(number), quiet_ids(head))
        ids = greedy(whole) if beam is None else beam_search(whole, beam)
        found.append(ears.told(number, words_of(head, ids, align(whole, ids))))
    return found


@dataclasses.dataclass(frozen=True)
class Heard:
    """What a model hears: the windows of each sound, and of all of them, in their order, log-probabilities [t, v]."""

    steps: Steps
    windows: Sequence[Sequence[Clip]]
    log_probs: Sequence[Float[np.ndarray, "t v"]]

    def starts(self, number: int) -> list[int]:
        """The step at which each window of a sound begins; the first is 0."""
        clips = self.windows[number]
        return [(clip.start - clips[0].start) // self.steps.samples for clip in clips]

    def told(self, number: int, words: Sequence[tuple[str, int, int]], complete: bool = True) -> Transcript:
        """Words of a sound, with their first and last step, as its transcript."""
        clips, step = self.windows[number], self.steps.seconds
        offset = clips[0].start / self.steps.rate
        end = (clips[-1].start + int(clips[-1].mask.sum())) / self.steps.rate
        timed = [Word(text, offset + first * step, min(offset + (last + 1) * step, end)) for text, first, last in words]
        return Transcript(" ".join(word.text for word in timed), tuple(timed), end, complete)


def listen(model: Perceiver, sources: Sequence[Any], overlap: float = OVERLAP, output: str | None = None) -> Heard:
    """Put a model's windows over sounds, as many as they need; arguments and errors as for `transcribe`."""
    steps = steps_of(model.config, output)
    adapter = model.config.inputs[steps.modality]
    assert isinstance(adapter, Sound)  # steps_of saw to it
    share = min(round(overlap * steps.rate), adapter.samples // 3) // steps.samples * steps.samples
    windows = [adapter.windows(source, overlap=share, every=steps.samples) for source in sources]
    return Heard(steps, windows, _heard(model, steps, [clip for clips in windows for clip in clips]))


def quiet_ids(head: CTC) -> list[int]:
    """The ids that say no letter: the blank, and the space where there is one."""
    return [BLANK, *([head.alphabet.index(" ") + 1] if " " in head.alphabet else [])]


def _heard(model: Perceiver, steps: Steps, clips: Sequence[Clip]) -> list[Float[np.ndarray, "t v"]]:
    """The log-probabilities of each window, of its real steps alone."""
    found: list[np.ndarray] = []
    for raw, mask, count in batches(clips):
        logits = ask(model, {steps.modality: raw}, {steps.modality: mask}, [steps.output])[steps.output]
        logs, real = np.asarray(jax.nn.log_softmax(logits, axis=-1)), steps.real(mask).sum(axis=1)
        found += [logs[row, : real[row]] for row in range(count)]
    return found


def batches(clips: Sequence[Clip]) -> Iterator[tuple[np.ndarray, Bool[np.ndarray, "b n"], int]]:
    """Sounds [b, n] and masks of a few windows at a time, and how many of them are real, not there to fill the batch.

    All batches have one shape, but a single window is one by itself.
    """
    size = BATCH if len(clips) > 1 else 1
    for start in range(0, len(clips), size):
        some = [clips[min(start + row, len(clips) - 1)] for row in range(size)]
        yield np.stack([clip.raw for clip in some]), np.stack([clip.mask for clip in some]), len(clips[start:][:size])


def joined(
    parts: Sequence[Float[np.ndarray, "t v"]], starts: Sequence[int], quiet: Sequence[int]
) -> Float[np.ndarray, "t v"]:
    """The log-probabilities of windows that overlap, as those of one sound.

    starts: the step at which each begins. Where two overlap, the first gives way to the second in the middle of their
    longest common pause, so that no word is cut; a window knows little of what is near to its ends, so that the outer
    quarters of the overlap are left out if they can be.
    """
    whole = parts[0]
    for part, start in zip(parts[1:], starts[1:], strict=True):
        shared = len(whole) - start
        if shared <= 0:
            whole = np.concatenate([whole, part])
            continue
        cut, pause = seam(whole[start:], part[:shared], quiet)
        middle = part[:shared].copy()
        middle[:cut] = whole[start : start + cut]
        if len(quiet) > 1:  # a space that only one of them puts into the pause is kept
            here = slice(*pause)
            both = np.stack([whole[start:][here], part[here]])
            surer = both[:, :, quiet[1]].argmax(axis=0)
            middle[here] = np.take_along_axis(both, surer[None, :, None], axis=0)[0]
        whole = np.concatenate([whole[:start], middle, part[shared:]])
    return whole


def seam(
    before: Float[np.ndarray, "t v"], behind: Float[np.ndarray, "t v"], quiet: Sequence[int]
) -> tuple[int, tuple[int, int]]:
    """Where one window gives way to the next, and from where to where both are quiet around it."""
    silence = np.minimum(*(np.logaddexp.reduce(each[:, quiet], axis=1) for each in (before, behind)))
    count = len(silence)
    inner = np.zeros(count, bool)
    inner[count // 4 : max(count - count // 4, count // 4 + 1)] = True
    calm = (silence > np.log(0.5)) & inner
    if not calm.any():
        best = int(np.where(inner, silence, -np.inf).argmax())
        return best, (best, best)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], calm.astype(int), [0]]))).reshape(-1, 2)
    first, last = edges[(edges[:, 1] - edges[:, 0]).argmax()]
    return int(first + last) // 2, (int(first), int(last))


def words_of(head: CTC, ids: Sequence[int], spans: Int[np.ndarray, "n 2"]) -> list[tuple[str, int, int]]:
    """Words with the first step of their first letter and the last step of their last."""
    text = head.decode(ids)
    found, begun = [], 0
    for place, letter in enumerate([*text, " "]):
        if letter != " ":
            continue
        if place > begun:
            found.append((text[begun:place], int(spans[begun, 0]), int(spans[place - 1, 1])))
        begun = place + 1
    return found
