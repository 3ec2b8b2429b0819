"""What recipes that write down speech have in common: the objective, and how transcripts are judged."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from perceiver.attention import split_key
from perceiver.ctc import BLANK, steps_needed
from perceiver.errors import InputError, require
from perceiver.model import Perceiver
from perceiver.objectives import mean
from perceiver.pipeline import Batch
from perceiver.speller import Speller, shifted, told
from perceiver.training.evaluation import Judged, Sums
from perceiver.training.experiment import Objective
from perceiver.transcription import Steps, Transcript, steps_of, transcribe_all
from perceiver.typing import Array, Float, Int


def ctc_objective(output: str = "text") -> Objective:
    """CTC loss of one output with batch["targets"][output], in nats a letter.

    The target is int [b, n], letters from 1 on with padding 0 behind them; see `target_of`. Steps of which no sample is
    real take no part. A sound that is shorter than its text needs (see `ctc.steps_needed`) has no alignment, and so no
    loss; metrics: the share of those, which `target_of` refuses.
    """

    def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
        steps = steps_of(model.config, output)
        logits = model(batch["inputs"], batch.get("masks"), [output], key=key)[output]
        return _aligned(logits, steps, batch)

    return objective


def spelling_objective(weight: float = 0.5) -> Objective:
    """CTC loss and the cross-entropy of each letter behind those before it, both in nats a letter, of a Speller.

    weight: of the CTC loss; the rest is the other's (hybrid CTC/attention, arXiv 1609.06773). Targets as for
    `ctc_objective`; metrics besides: both losses.
    """

    def objective(model: Speller, batch: Batch, key: jax.Array | None) -> tuple[Array, dict[str, Array]]:
        config, keys = model.config, split_key(key, 3)
        steps = steps_of(config.hearing, config.output)
        latents = model.hearing.encode(batch["inputs"], batch.get("masks"), key=keys[0])
        logits = model.hearing.decode(latents, [config.output], key=keys[1])[config.output]
        aligned, metrics = _aligned(logits, steps, batch)
        labels = jnp.asarray(batch["targets"][config.output])[:, : config.text.max_length]
        following = model.read(latents, shifted(labels, config.start), key=keys[2])
        spelled = mean(optax.softmax_cross_entropy_with_integer_labels(following, labels), told(labels))
        loss = weight * aligned + (1.0 - weight) * spelled
        return loss, metrics | {"ctc": aligned, "spelling": spelled}

    return objective


def _aligned(logits: Float[Array, "b t v"], steps: Steps, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """See `ctc_objective`."""
    sound = batch["inputs"][steps.modality]
    mask = jnp.asarray(batch.get("masks", {}).get(steps.modality, np.ones(sound.shape, bool)))
    real = steps.real(mask)[:, : logits.shape[1]]
    labels = jnp.asarray(batch["targets"][steps.output])
    fits = fewest_steps(labels) <= real.sum(axis=1)
    losses = optax.ctc_loss(logits, ~real, labels, labels == BLANK, blank_id=BLANK)
    letters = jnp.where(fits, (labels != BLANK).sum(axis=1), 0)
    loss = jnp.where(fits, losses, 0.0).sum() / jnp.maximum(letters.sum(), 1)
    return loss, {"unalignable": 1.0 - fits.mean()}


def fewest_steps(labels: Int[Array, "b n"]) -> Int[Array, "b"]:
    """As `ctc.steps_needed`, of padded rows."""
    real = labels != BLANK
    return real.sum(axis=1) + ((labels[:, 1:] == labels[:, :-1]) & real[:, 1:]).sum(axis=1)


def target_of(ids: Int[np.ndarray, "n"], steps: int, most: int) -> Int[np.ndarray, "most"]:
    """The letters of a text as a target, with padding.

    steps: of its sound. most: letters of the target.

    Raises:
        InputError: the text is longer, or does not fit into the steps.
    """
    needed = steps_needed(ids)
    if len(ids) > most:
        raise InputError(f"expected a text of at most {most} letters, got {len(ids)}")
    if needed > steps:
        raise InputError(f"a text of {len(ids)} letters needs at least {needed} steps of time, the sound has {steps}")
    padded = np.full(most, BLANK, np.int32)
    padded[: len(ids)] = ids
    return padded


def text_judge(
    name: Callable[[Any], str],
    sound: Callable[[Any], Any],
    text: Callable[[Any], str],
    write: Callable[[Any, Sequence[Any]], Sequence[Transcript]] = transcribe_all,
) -> Callable[[Any, Sequence[Any]], Judged]:
    """A Task's judge: word and character error rates of the transcripts of whole sounds. Needs the extra `speech`.

    name, sound, text: of an item. write: a model and sounds to transcripts.
    """

    def judge(model: Any, items: Sequence[Any]) -> Judged:
        held = list(items)
        said = [transcript.text for transcript in write(model, [sound(item) for item in held])]
        return written([name(item) for item in held], [text(item) for item in held], said)

    return judge


def written(items: Sequence[str], texts: Sequence[str], said: Sequence[str]) -> Judged:
    """Texts beside what was said to be them: wer and cer, edits over the words and letters of the texts, by jiwer; and
    the share of texts without any edit. Where a text is empty, each word that is said is an edit.
    """
    jiwer = require("jiwer", "speech")
    words, letters = (
        np.array([_edits(compare(*pair)) for pair in zip(texts, said, strict=True)], float).reshape(-1, 2)
        for compare in (jiwer.process_words, jiwer.process_characters)
    )
    lines = [
        {"item": item, "text": text, "transcript": guess, "word_edits": int(edits)}
        for item, text, guess, edits in zip(items, texts, said, words[:, 0], strict=True)
    ]
    counts = {
        "word_edits": words[:, 0],
        "words": words[:, 1],
        "letter_edits": letters[:, 0],
        "letters": letters[:, 1],
        "right": (words[:, 0] == 0).astype(float),
        "all": np.ones(len(lines)),
    }

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            wer, cer = sums["word_edits"] / sums["words"], sums["letter_edits"] / sums["letters"]
        return {"wer": wer, "cer": cer, "exact": sums["right"] / sums["all"]}

    return Judged(lines, counts, figures)


def _edits(compared: Any) -> tuple[int, int]:
    """Edits between a text and what was said, and how much there is of the text."""
    kept = compared.hits + compared.substitutions + compared.deletions
    return compared.substitutions + compared.deletions + compared.insertions, kept
