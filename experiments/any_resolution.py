"""Pictures and sound out of a few latents, asked at any place: trained at one resolution, decoded at others.

perceiver train experiments/any_resolution.py                                 digits, of scikit-learn
perceiver train experiments/any_resolution.py --clothes --sound --root FOLDER (FOLDER holds fashion_mnist/, fsdd/)

Seed 0; decibels of the peak to the error's root mean square, at the places that were trained on and at four times as
many along each axis, where the held-out pieces are interpolated by splines:

| | through | decoded | components | nearest | mean | untrained | asked at 4x | splines of the decoded |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
| digits, 8 x 8 | 32 numbers | 20.0 (19.8 to 20.2) | 25.8 | 17.1 | 11.3 | -2.2 | 20.6 | 21.1 |
| clothes, 28 x 28 | 128 numbers | 17.9 (17.9 to 18.0) | 21.9 | 16.5 | 10.6 | -1.8 | 18.5 | 18.6 |
| sound, 32 ms | 32 numbers | 30.3 (30.1 to 30.5) | 34.2 | 25.2 | 20.0 | -0.5 | 32.5 | 32.6 |

So as many principal components, fitted to the trained places alone, keep more, and what is asked in between is as
good as splines through what is asked at the trained places, not better. Digits took 671 s, clothes 623 and sound 147
s, on a core that other work shared. Asked in training at the 8 x 8 places alone the digits reached 19.4 dB there,
with blots in between.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import map_coordinates

from data import digits, fashion_mnist, fsdd
from perceiver import (
    Block,
    Dense,
    Encoder,
    Fourier,
    Grid,
    Image,
    Output,
    Perceiver,
    PerceiverConfig,
    SoundPatches,
    Waveform,
    decode_at,
    viz,
)
from perceiver.adapters.base import Adapter
from perceiver.decoders.heads import Head
from perceiver.inference import encode
from perceiver.objectives import squared_error
from perceiver.pipeline import Batch, Sample, in_batches, training_stream
from perceiver.training.evaluation import Judged, Sums, Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, warmup_cosine

RATE, SAMPLES = 8000, 256
"""Hz of the sound, and the samples of a piece of it: 32 ms."""
LOUD = 0.1
"""Root mean square that each piece of sound is brought to."""
ASKED = 128
"""Places of a piece that a training step asks for at most; it asks for half of them where there are few."""
FINER = 4
"""How many times as densely models are asked, along each axis, as they are trained."""
WATCHED = 500
"""Pieces by which a model is chosen while it learns, and that are asked more densely."""


@dataclasses.dataclass(frozen=True, eq=False)
class Piece:
    """A picture or a piece of sound. values: float32 [h, w] in [0, 1], or [n] in [-1, 1]."""

    name: str
    values: np.ndarray


# --- what is drawn ------------------------------------------------------------------------------------------------


def scans(root: Path | None = None) -> dict[str, list[Piece]]:
    """Digits of 8 x 8 pixels, which need no folder."""
    return {
        name: [Piece(f"{name}/{number}", image[..., 0] / np.float32(255)) for number, image in enumerate(split.images)]
        for name, split in digits.load().items()
    }


def clothes(root: Path | None = None) -> dict[str, Sequence[Piece]]:
    """Fashion-MNIST, 28 x 28 pixels."""
    return {name: Clothes(split) for name, split in fashion_mnist.load(root).items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Clothes(Sequence[Piece]):
    """A split of Fashion-MNIST as pieces, made when they are asked for."""

    split: fashion_mnist.Split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Clothes(self.split[index])
        item = self.split[index]
        return Piece(item.name, item.image[..., 0] / np.float32(255))


def sounds(root: Path | None = None) -> dict[str, list[Piece]]:
    """The loudest 32 ms of each spoken digit and what lies next to it, all equally loud."""
    found = {}
    for name, split in fsdd.load(root, RATE).items():
        pieces = [(item.file, start, part) for item in split for start, part in _loud_parts(item.wave)]
        found[name] = [Piece(f"{file} at {start}", part) for file, start, part in pieces]
    return found


def _loud_parts(wave: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The pieces of a sound that are no quieter than a fifth of the loudest one, at LOUD; a short sound has none."""
    starts = range(0, len(wave) - SAMPLES + 1, SAMPLES)
    power = {start: float(np.sqrt(np.square(wave[start : start + SAMPLES]).mean())) for start in starts}
    least = max(0.2 * max(power.values(), default=0.0), 1e-4)
    return [(at, wave[at : at + SAMPLES] * np.float32(LOUD / own)) for at, own in power.items() if own >= least]


# --- model and objective ------------------------------------------------------------------------------------------


def model(cells: tuple[int, ...], latents: int, channels: int) -> PerceiverConfig:
    """Pixels or samples to `latents` x `channels` numbers, and what there is at any place back.

    The queries end one step before 1, so that asking twice as densely asks the trained places again.
    """
    where = Fourier(bands=min(max(cells) // 2, 64))
    block = Block(heads=4, qk_channels=64, v_channels=64, mlp_channels=128)
    reader: Adapter
    head: Head
    if len(cells) == 1:
        reader, head = Waveform(cells[0], RATE, patch=8, project=64, position=where), SoundPatches(1, RATE)
    else:
        patch = 1 if max(cells) < 16 else 4
        reader, head = Image((*cells, 1), patch=patch, project=64, position=where), Dense(1)
    return PerceiverConfig(
        inputs={"piece": reader},
        encoder=Encoder(latents, channels, 2, cross=block, latent=dataclasses.replace(block, qk_channels=32)),
        outputs={"piece": Output(head, Grid(cells, where, project=64, inclusive=False), cross=block)},
    )


def as_it_is(piece: Piece) -> Sample:
    """A piece to the model's input: pictures get their channel."""
    return {"inputs": {"piece": piece.values if piece.values.ndim == 1 else piece.values[..., None]}}


def sample(piece: Piece, rng: np.random.Generator) -> Sample:
    """A picture as it is, a sound turned upside down half of the time, which nobody hears; and what to ask of it.

    Half of the time that are its own cells. Otherwise they are all moved on by one random part of a cell, and the
    answer is what splines through the cells give there: asked at its own cells alone, a model draws at will in between.
    """
    values = -piece.values if piece.values.ndim == 1 and rng.random() < 0.5 else piece.values
    moved = rng.random(values.ndim) * (rng.random() < 0.5)
    wanted = splines(values, np.indices(values.shape) + moved.reshape(-1, *[1] * values.ndim))
    targets = {"moved": moved.astype(np.float32), "values": wanted.reshape(-1, 1).astype(np.float32)}
    return {**as_it_is(dataclasses.replace(piece, values=values)), "targets": targets}


def splines(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Cubic splines through [h, w] or [n], at places counted in cells [axes, *any]; beyond the last cell as in it."""
    return map_coordinates(values.astype(np.float64), places, order=3, mode="nearest")


def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Squared error at some of the places, at random."""
    query = model.config.outputs["piece"].asked
    wanted, moved = jnp.asarray(batch["targets"]["values"]), jnp.asarray(batch["targets"]["moved"])
    chosen = jnp.arange(wanted.shape[1])
    if key is not None:
        chosen = jax.random.permutation(key, len(chosen))[: min(ASKED, len(chosen) // 2)]
    places = query.places(query.shape)[chosen] + (moved * 2.0 / np.array(query.shape))[:, None]
    answers = model(batch["inputs"], outputs=["piece"], queries={"piece": places}, key=key)["piece"]
    return squared_error(answers, wanted[:, chosen]), {}


# --- how it is judged ---------------------------------------------------------------------------------------------


def decoded(model: Perceiver, pieces: Sequence[Piece], times: int = 1, batch: int = 64) -> np.ndarray:
    """What comes back, asked so many times as densely along each axis: float32 [n, *cells]."""
    size = [times * count for count in model.config.outputs["piece"].asked.shape]
    parts = []
    for part, count in in_batches([as_it_is(piece) for piece in pieces], batch):
        parts.append(decode_at(model, encode(model, part["inputs"]), "piece", size)[:count, ..., 0])
    return np.concatenate(parts)


def compared(pieces: Sequence[Piece], back: np.ndarray) -> Judged:
    """PSNR (the largest value is 1) and the ratio of signal to noise, in decibels, of all pieces together."""
    truth = np.stack([piece.values for piece in pieces])
    inner = tuple(range(1, truth.ndim))
    error, signal = np.square(back - truth).mean(axis=inner), np.square(truth).mean(axis=inner)
    lines = [
        {"item": piece.name, "psnr_db": float(-10 * np.log10(max(own, 1e-10)))}
        for piece, own in zip(pieces, error, strict=True)
    ]

    def figures(sums: Sums) -> Mapping[str, np.ndarray]:
        wrong = np.maximum(sums["error"], 1e-10)
        return {
            "psnr_db": -10 * np.log10(wrong / sums["all"]),
            "signal_to_noise_db": 10 * np.log10(np.maximum(sums["signal"], 1e-10) / wrong),
        }

    return Judged(lines, {"error": error, "signal": signal, "all": np.ones(len(error))}, figures)


def judge(model: Perceiver, pieces: Sequence[Piece]) -> Judged:
    """How well pieces come back at the resolution that the model was trained at."""
    return compared(pieces, decoded(model, pieces))


TASKS = {"digits": Task(scans, judge), "fashion_mnist": Task(clothes, judge), "fsdd": Task(sounds, judge)}


def baselines(splits: Mapping[str, Sequence[Piece]], numbers: int, most: int = 10_000) -> dict[str, Any]:
    """The mean of the training pieces, the nearest one of them, and principal components, as many as the latents hold
    numbers; of `most` training pieces.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    known, truth = (np.stack([piece.values.ravel() for piece in splits[name]][:most]) for name in ("train", "test"))
    nearest = NearestNeighbors(n_neighbors=1).fit(known).kneighbors(truth, return_distance=False)[:, 0]
    components = PCA(min(numbers, *known.shape), random_state=0).fit(known)
    found = {
        "mean": np.broadcast_to(known.mean(axis=0), truth.shape),
        "nearest_training_piece": known[nearest],
        f"{components.n_components_}_principal_components": components.inverse_transform(components.transform(truth)),
    }
    shape = (-1, *splits["test"][0].values.shape)
    return {name: figures_of(compared(splits["test"], back.reshape(shape))) for name, back in found.items()}


def interpolated(values: np.ndarray) -> np.ndarray:
    """A piece at FINER times the cells along each axis, by splines, at the places that the queries ask."""
    return splines(values, np.indices([FINER * count for count in values.shape]) / FINER)


def finer(model: Perceiver, pieces: Sequence[Piece]) -> dict[str, dict[str, float]]:
    """At FINER times the cells, beside what splines make of the pieces: the model's answers there, and splines through
    its answers at the cells. Nobody knows what there really is between the cells.
    """
    held = [dataclasses.replace(piece, values=interpolated(piece.values)) for piece in pieces]
    own = np.stack([interpolated(values) for values in decoded(model, pieces)])
    found = {f"asked_at_{FINER}x": decoded(model, pieces, FINER), f"splines_at_{FINER}x": own}
    return {name: figures_of(compared(held, back)) for name, back in found.items()}


def pictures(model: Perceiver, folder: Path, pieces: Sequence[Piece]) -> None:
    """finer.png: held-out pieces, decoded at the trained resolution and at FINER times as many places."""
    shown = [pieces[number] for number in np.linspace(0, len(pieces) - 1, 10).astype(int)]
    own, dense = decoded(model, shown), decoded(model, shown, FINER)
    if own.ndim == 2:
        waves(shown, own, dense, folder / "finer.png")
        return
    rows = {
        "held out": np.stack([piece.values for piece in shown]),
        "decoded": own,
        f"asked at {FINER}x": dense,
        f"splines, {FINER}x": np.stack([interpolated(values) for values in own]),
        "held out, splines": np.stack([interpolated(piece.values) for piece in shown]),
    }
    side = " x ".join(map(str, own.shape[1:]))
    title = f"Trained at {side}, asked at {' x '.join(map(str, dense.shape[1:]))}"
    viz.image_rows({name: images[..., None] for name, images in rows.items()}, folder / "finer.png", title=title)


def waves(pieces: Sequence[Piece], own: np.ndarray, dense: np.ndarray, path: Path) -> None:
    """Four pieces of sound over time, with what is decoded at both rates."""
    figure = viz.figure(9, 7)
    for row in range(4):
        axes = figure.add_subplot(4, 1, row + 1)
        times = np.arange(own.shape[1]) / RATE * 1000
        between = np.arange(dense.shape[1]) / RATE / FINER * 1000
        axes.plot(times, pieces[row].values, color="grey", linewidth=3, alpha=0.4, label="held out")
        axes.plot(between, dense[row], linewidth=0.9, label=f"asked at {FINER * RATE} Hz")
        axes.plot(times, own[row], ".", markersize=3, label=f"decoded at {RATE} Hz")
        axes.set_title(pieces[row].name, fontsize=8)
        axes.tick_params(labelsize=7)
    axes.set_xlabel("ms")
    axes.legend(fontsize=7, ncols=3)
    figure.savefig(path, dpi=110)


def any_resolution(
    *,
    root: Path | None = None,
    steps: int = 2000,
    batch: int = 64,
    seed: int = 0,
    learning_rate: float = 4e-3,
    latents: int = 4,
    channels: int = 8,
    clothes: bool = False,
    sound: bool = False,
    checkpoint_every: int = 500,
) -> Experiment:
    """Digits through a code of few numbers, asked at any place; clothes and sound beside them.

    Args:
        root: Folder that holds fsdd/, and fashion_mnist/ where it is not where its Debian package puts it.
        steps: Updates of each model.
        batch: Pieces per update.
        seed: Of the parameters and the order of the data.
        learning_rate: Its peak, after a warm-up of a tenth of the steps.
        latents: Vectors of a digit's code; clothes and sound have four times as many.
        channels: Their width.
        clothes: Train a model of Fashion-MNIST too.
        sound: Train a model of spoken digits too, in pieces of 32 ms.
        checkpoint_every: Updates between checkpoints.
    """

    def of(name: str, splits: Mapping[str, Sequence[Piece]], count: int) -> Experiment:
        config = model(splits["train"][0].values.shape, count, channels)
        return Experiment(
            name=name,
            model=config,
            batches=training_stream(splits["train"], sample, seed=seed, batch=batch),
            objective=objective,
            optimizer=adamw(warmup_cosine(learning_rate, steps), weight_decay=0.01),
            steps=steps,
            batch=batch,
            seed=seed,
            validate=lambda m: figures_of(judge(m, splits["validation"][:WATCHED])),
            best="psnr_db",
            test=lambda m: scores(judge(m, splits["test"])) | finer(m, splits["test"][:WATCHED]),
            baselines=lambda: baselines(splits, count * channels),
            pictures=lambda m, folder: pictures(m, folder, splits["test"]),
            ema=0.995,
            validate_every=max(steps // 6, 1),
            checkpoint_every=checkpoint_every,
        )

    beside = {"clothes": TASKS["fashion_mnist"]} if clothes else {}
    beside |= {"sound": TASKS["fsdd"]} if sound else {}
    companions = {name: of(name, task.load(root), 4 * latents) for name, task in beside.items()}
    return dataclasses.replace(of("any_resolution", scans(), latents), companions=companions)
