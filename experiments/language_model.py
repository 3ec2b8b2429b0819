"""The next byte of Shakespeare's plays: Perceiver AR beside plain causal transformers of the same size.

perceiver train experiments/language_model.py --root FOLDER        (FOLDER holds tinyshakespeare/)
python -m experiments.language_model runs/language_model           draws prefix.png and learning.png of all
perceiver generate runs/language_model --prompt "ROMEO:"

All read up to 512 bytes, foretell as many bytes in training, and are judged on the last 10 % of the file, each byte
once, from at least 384 bytes in front of it. The split is that of nanoGPT, whose 10.7 million parameters reach 1.47
nats; what is tuned, and the model that is kept, is chosen by the 5 % of the file in front of that.

Seed 0, 1.1 million parameters, 2.46 million foretold bytes each (2.6 times the text), each model on one of two
cores; on the test split:

| model | nats per byte | bits per byte | training |
|---|--:|--:|--:|
| Perceiver AR | 1.794 (1.762 to 1.826) | 2.588 | 25 min |
| a transformer of the same layers, with rotary positions | 1.822 (1.791 to 1.853) | 2.629 | 25 min |
| GPT-2's layers, with learned positions | 2.504 (2.492 to 2.517) | 3.613 | 35 min |
| counts of runs of 5 bytes | 1.669 | 2.408 | |
| xz | 1.746 | 2.518 | |
| untrained | 5.568 | 8.033 | |

The first two differ by 0.029 on the same stretches (0.019 to 0.038). The third learns little more than which byte
follows which in so few steps, at two windows a step: learned places take longer than rotary ones, so the second is
the one to compare with. Validation by steps, nats: Perceiver AR 2.050 at 400, 1.959, 1.798, 1.728, 1.662, 1.637 at
2,400; the rotary transformer 2.113, 1.918, 1.837, 1.755, 1.692, 1.665. All still learn, but in training Perceiver AR
is at 1.40 by then: these plays are more alike than those of the test, and nothing is dropped out. None is as good
there as the counts, which look at the whole text at once.

From longer prefixes the same bytes of the test are foretold better: 1.811 nats per byte from none in front of a
window of 128, 1.798 from 1, 1.797 from 8, 1.794 from 64 to 384 (python -m …, above).
"""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import tinyshakespeare
from perceiver import Block, Bytes, from_pretrained, viz
from perceiver.adapters.text import BYTE_VOCABULARY
from perceiver.attention import Activation
from perceiver.autoregressive import Autoregressive, AutoregressiveConfig
from perceiver.autoregressive_positions import Rotary
from perceiver.causal import CausalText, Language, LanguageConfig
from perceiver.continuation import Wish, continued
from perceiver.foretelling import Foretelling, Places, Window, nats_by_prefix, nats_of_text
from perceiver.generation import Sampling
from perceiver.model import ModelConfig
from perceiver.pipeline import training_stream
from perceiver.training.baselines import Runs, compressed_nats
from perceiver.training.evaluation import Judged, Sums, Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.load import folder_of
from perceiver.training.metrics import read_log
from perceiver.training.optimizers import muon, warmup_cosine

STRETCH = 2048
"""Bytes of an item, the unit of the intervals."""
WATCHED = 8
"""Items of the validation split, at least, by which a model is chosen while it learns, spread as some are easy."""
BESIDE, ROTARY = "causal transformer", "rotary transformer"
PREFIXES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 384)
"""Bytes in front of what is foretold, in the picture; those that a model takes."""
PROMPTS = ("ROMEO:", "First Citizen:\nBefore we proceed", "To be, or not to be")


def load(root: Path | None) -> dict[str, list[bytes]]:
    """The plays in stretches: test is the last 10 % of the file, validation the 5 % in front of it."""
    plays = tinyshakespeare.load(root)
    known, test = plays["train"], plays["validation"] + plays["test"]
    cut = len(known) - len(test) // 2
    return {"train": stretches(known[:cut]), "validation": stretches(known[cut:]), "test": stretches(test)}


def stretches(text: bytes) -> list[bytes]:
    """A text cut into items."""
    return [text[start : start + STRETCH] for start in range(0, len(text), STRETCH)]


# --- how a model is judged -------------------------------------------------------------------------------------------


def window_of(model: Any) -> Window:
    """What a model reads, and how far it moves between two looks: by its latents, or a quarter of what it reads."""
    config, length = model.config, model.config.text.max_length
    if isinstance(model, Autoregressive) and config.looks:
        return Window(length, config.latents // config.each)
    return Window(length, max(length // 4, 1))


def judge(model: Autoregressive | Language, items: Sequence[bytes]) -> Judged:
    """Nats and bits per byte of a text that is cut into items; a byte may be foretold from what is before its item."""
    held = list(items)
    return summed(held, nats_of_text(model, b"".join(held), window_of(model)))


def summed(items: Sequence[bytes], nats: np.ndarray) -> Judged:
    """Figures of a text's nats, byte by byte."""
    ends = np.cumsum([len(item) for item in items])
    own = np.array([part.sum() for part in np.split(nats, ends[:-1])])
    lengths = np.array([len(item) for item in items], np.float64)
    lines = [
        {"item": item[:40].decode(errors="replace"), "bytes": len(item), "nats_per_byte": total / len(item)}
        for item, total in zip(items, own, strict=True)
    ]

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        each = sums["nats"] / sums["bytes"]
        return {"nats_per_byte": each, "bits_per_byte": each / math.log(2)}

    return Judged(lines, {"nats": own, "bytes": lengths}, figures)


TASKS = {"tinyshakespeare": Task(load, judge)}


def validate(model: Any, items: Sequence[bytes]) -> dict[str, float]:
    """Figures of some items, one behind the other, and by which the best model is kept."""
    spread = list(items)[:: max(len(items) // WATCHED, 1)]
    found = figures_of(judge(model, spread))
    return found | {"likelihood": -found["nats_per_byte"]}


def baselines(splits: Mapping[str, Sequence[bytes]]) -> dict[str, Any]:
    """Counts of runs of bytes, as long as is best on the validation split, and xz; both know the other 90 %."""
    train, validation, test = (b"".join(splits[name]) for name in ("train", "validation", "test"))
    most = 6
    known = Runs.counted(train, most)
    order = min(range(1, most + 1), key=lambda own: known.nats(validation, own).mean())
    runs = Runs.counted(train + validation, order).nats(test, order)
    packed = compressed_nats(train + validation, test)
    return {
        f"runs of {order + 1} bytes": figures_of(summed(splits["test"], runs)),
        "xz": {"nats_per_byte": packed, "bits_per_byte": packed / math.log(2)},
    }


# --- what is trained -------------------------------------------------------------------------------------------------


def perceiver(length: int, latents: int, channels: int, depth: int, heads: int) -> AutoregressiveConfig:
    """Perceiver AR: as many layers as the transformer, of which one is the look at all that is read."""
    block = Block(heads=heads, widening=4, activation=Activation.SQUARED_RELU)
    text = Bytes(length, width=channels)
    return AutoregressiveConfig(text, latents, channels, depth, cross=block, latent=block, positions=Rotary(0.5))


def transformer(length: int, channels: int, depth: int, heads: int) -> LanguageConfig:
    """GPT-2's layers, with learned positions and its activation."""
    return LanguageConfig(CausalText(BYTE_VOCABULARY, length, channels, depth, Block(heads=heads, widening=4)))


def rotary(length: int, channels: int, depth: int, heads: int) -> AutoregressiveConfig:
    """Perceiver AR without a look, and with a latent for every place: a causal transformer with rotary positions."""
    return dataclasses.replace(perceiver(length, length, channels, depth, heads), looks=())


def written(model: Autoregressive, folder: Path) -> None:
    """written.txt: how the model goes on from a few prompts."""
    room = model.config.text.max_length - 1
    prompts = [prompt for prompt in PROMPTS if len(prompt) < room]
    texts = continued(model, prompts, Wish(sampling=Sampling(0.8, top_p=0.95), seed=0))
    blocks = [prompt + text.text for prompt, text in zip(prompts, texts, strict=True)]
    (folder / "written.txt").write_text("\n\n----\n\n".join(blocks) + "\n", encoding="utf-8")


def language_model(
    *,
    root: Path | None = None,
    steps: int = 2400,
    batch: int = 8,
    seed: int = 0,
    learning_rate: float = 2e-2,
    other_rate: float = 3e-3,
    length: int = 512,
    latents: int = 128,
    channels: int = 128,
    depth: int = 4,
    heads: int = 2,
    checkpoint_every: int = 200,
) -> Experiment:
    """The next byte of Shakespeare's plays: Perceiver AR beside plain causal transformers of the same size.

    Args:
        root: Folder that holds tinyshakespeare/; the variable PERCEIVER_DATA unless given.
        steps: Updates, of each of the three models.
        batch: Windows per update, of each of which `latents` bytes are foretold; the transformers, which foretell all,
            take fewer windows, so that they learn from as many bytes.
        seed: Of the parameters and the order of the data.
        learning_rate: Muon's peak for the linear maps, after a warm-up of a tenth of the steps.
        other_rate: Adam's peak for everything else.
        length: Bytes that either model reads at most.
        latents: Bytes that Perceiver AR foretells at once.
        channels: Width of all models.
        depth: Causal layers of Perceiver AR behind its look; the transformers have one more.
        heads: Attention heads.
        checkpoint_every: Updates between checkpoints.
    """
    splits = load(root)
    text = b"".join(splits["train"])

    def of(name: str, config: ModelConfig, window: Window, rows: int, **more: Any) -> Experiment:
        rates = warmup_cosine(learning_rate, steps), warmup_cosine(other_rate, steps)
        return Experiment(
            name=name,
            model=config,
            batches=training_stream(Places(text, length), window.drawn, seed=seed, batch=rows),
            objective=Foretelling(window.count),
            optimizer=muon(*rates),
            steps=steps,
            batch=rows,
            seed=seed,
            validate=lambda m: validate(m, splits["validation"]),
            best="likelihood",
            test=lambda m: scores(judge(m, splits["test"])),
            validate_every=max(steps // 6, 1),
            checkpoint_every=checkpoint_every,
            diagnosed=0,
            **more,
        )

    every, rows = Window(length, length), max(batch * latents // length, 1)
    beside = {
        BESIDE: of(BESIDE, transformer(length, channels, depth + 1, heads), every, rows),
        ROTARY: of(ROTARY, rotary(length, channels, depth + 1, heads), every, rows),
    }
    return of(
        "language_model",
        perceiver(length, latents, channels, depth, heads),
        Window(length, latents),
        batch,
        baselines=lambda: baselines(splits),
        pictures=written,
        companions=beside,
    )


# --- all models in one picture: python -m experiments.language_model RUN --------------------------------------------


def by_prefix(model: Any, text: bytes) -> dict[int, float]:
    """Nats per byte of the same bytes, by the length of what stands in front of the window that they are in."""
    window = window_of(model)
    taken = [prefix for prefix in PREFIXES if prefix <= window.longest]
    means = nats_by_prefix(model, text, window, taken, most=64).mean(axis=1)
    return dict(zip(taken, means.tolist(), strict=True))


def draw(folder: Path, root: Path | None = None) -> None:
    """prefix.png and learning.png of a finished run, and their numbers on the terminal."""
    runs = {"Perceiver AR": folder} | {name: folder / folder_of(name) for name in (BESIDE, ROTARY)}
    test = b"".join(load(root)["test"])
    figure = viz.figure(6.5, 4.2)
    axes = figure.add_subplot()
    for name, run in runs.items():
        found = by_prefix(from_pretrained(run), test)
        print(name, {prefix: round(nats, 4) for prefix, nats in found.items()})
        axes.plot([max(prefix, 0.5) for prefix in found], list(found.values()), marker="o", label=name)
    axes.set(xscale="log", xlabel="bytes read in front of the window (left: none)", ylabel="nats per byte, test")
    axes.set_title("The same bytes from longer and longer prefixes", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(folder / "prefix.png", dpi=110)
    learning(runs, folder / "learning.png")


def learning(runs: Mapping[str, Path], path: Path) -> None:
    """Loss in training (thin) and on the validation split over the steps, of all runs."""
    figure = viz.figure(6.5, 4.2)
    axes = figure.add_subplot()
    for number, (name, run) in enumerate(runs.items()):
        lines = read_log(run)
        for group, measure, style in (("train", "loss", {"lw": 0.8}), ("validation", "nats_per_byte", {"marker": "o"})):
            points = [(line["step"], line[measure]) for line in lines if line["group"] == group]
            label = name if group == "validation" else None
            axes.plot(*zip(*points, strict=True), color=f"C{number}", label=label, **style)
    axes.set(xlabel="step", ylabel="nats per byte", title="Learning")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
