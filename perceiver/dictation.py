"""Sounds of any length to text by a model that spells, letter by letter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perceiver.ctc import align, steps_needed
from perceiver.inference import encode
from perceiver.speller import Speller, spell
from perceiver.transcription import OVERLAP, Heard, Transcript, batches, listen, quiet_ids, seam, words_of
from perceiver.typing import Float


def dictate_all(model: Speller, sources: Sequence[Any], width: int = 1, overlap: float = OVERLAP) -> list[Transcript]:
    """What is said in each of some sounds, letter by letter; arguments and errors as for `transcribe`, `spell`.

    When a word is said comes from the CTC output of the same latents: the likeliest alignment of the letters. A text
    that needs more steps than the sound has is no transcript of it, and its words share the time evenly. One that is
    longer than the decoder can spell is cut, and the transcript not complete.
    """
    ears = listen(model.hearing, sources, overlap, model.config.output)
    clips = [clip for windows in ears.windows for clip in windows]
    texts: list[tuple[tuple[int, ...], bool]] = []
    for raw, mask, count in batches(clips):
        latents = encode(model.hearing, {ears.steps.modality: raw}, {ears.steps.modality: mask})
        texts += spell(model, latents, width)[:count]
    found, place = [], 0
    for number, windows in enumerate(ears.windows):
        own = slice(place, place + len(windows))
        place += len(windows)
        found.append(_put_together(model, ears.log_probs[own], texts[own], ears.starts(number), ears, number))
    return found


def _put_together(
    model: Speller,
    log_probs: Sequence[Float[np.ndarray, "t v"]],
    texts: Sequence[tuple[tuple[int, ...], bool]],
    starts: Sequence[int],
    ears: Heard,
    number: int,
) -> Transcript:
    """The words of windows that overlap: from each those in front of the pause in which the next one takes over."""
    head, words, begun = model.config.head, [], 0
    for place, (logs, (ids, _)) in enumerate(zip(log_probs, texts, strict=True)):
        ends = starts[place] + len(logs)
        if place + 1 < len(starts) and starts[place + 1] < ends:
            shared = ends - starts[place + 1]
            ends = starts[place + 1] + seam(logs[-shared:], log_probs[place + 1][:shared], quiet_ids(head))[0]
        for text, first, last in words_of(head, ids, _spans(logs, ids)):
            if begun <= starts[place] + (first + last) / 2 < ends:
                words.append((text, starts[place] + first, starts[place] + last))
        begun = ends
    return ears.told(number, words, all(ended for _, ended in texts))


def _spans(log_probs: Float[np.ndarray, "t v"], ids: Sequence[int]) -> np.ndarray:
    if steps_needed(ids) <= len(log_probs):
        return align(log_probs, ids)
    edges = np.linspace(0, len(log_probs), len(ids) + 1).astype(int)
    return np.stack([edges[:-1], np.maximum(edges[1:] - 1, edges[:-1])], axis=1)
