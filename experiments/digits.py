"""One Perceiver, three questions about a handwritten digit: its class, its name in eight languages, its pixels.

    perceiver train experiments/digits.py

Two CPU cores, 3 seeds: 92 s each; test accuracy 99.1 ± 0.4 %, zero-shot by prompt 99.0 ± 0.3 %, recall at 1 both ways
99.0 and 97.1 %, pixels decoded at 16.8 dB. Nearest neighbour 98.4 %, logistic regression 96.7 % on the same 450 scans.

The tokens are the 64 raw pixels with Fourier positions: no convolution, no patches. An image and a name meet in a
joint embedding, read from the same latents as everything else.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data import digits as dataset
from perceiver import (
    Block,
    Bytes,
    Classes,
    Dense,
    Embedding,
    Encoder,
    Fourier,
    Grid,
    Image,
    Output,
    Perceiver,
    PerceiverConfig,
    viz,
)
from perceiver.augment import shift_and_turn
from perceiver.contrast import Embedded, infonce
from perceiver.inference import ask, ask_all, look
from perceiver.objectives import accuracy, cross_entropy, squared_error
from perceiver.pipeline import Batch, Sample, training_stream
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw, warmup_cosine

TEXTS = [(language, digit, name) for language, names in dataset.NAMES.items() for digit, name in enumerate(names)]
SMOOTHING, RECONSTRUCTION = 0.1, 5.0
"""Label smoothing, and the weight of the pixels' squared error in the objective."""
TEXT_DIGITS = np.array([digit for _, digit, _ in TEXTS])


def model(latents: int, channels: int, depth: int) -> PerceiverConfig:
    """The model: pixels and bytes in, three answers out."""
    return PerceiverConfig(
        inputs={
            "image": Image((8, 8, 1), position=Fourier(bands=4), mean=(0.3,), std=(0.37,), dark_background=True),
            "text": Bytes(max_length=dataset.LONGEST_NAME, width=48),
        },
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=64, v_channels=64),
            latent=Block(heads=4, widening=2, dropout=0.1),
        ),
        outputs={
            "label": Classes(10, names=dataset.NAMES["English"]),
            "embedding": Embedding(64, candidates=tuple(name for _, _, name in TEXTS)),
            "image": Output(Dense(1), Grid((8, 8), Fourier(bands=4), project=48)),
        },
    )


def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Classification, alignment of images with names, and reconstruction of a random half of the pixels."""
    image, text, label = batch["inputs"]["image"], batch["inputs"]["text"], batch["targets"]["label"]
    few = len(image) // 4  # there are only 80 names: a quarter of a batch of them teaches as much in less time
    text, text_label = text[:few], batch["targets"]["text_label"][:few]
    image_key, text_key, pixel_key = (None,) * 3 if key is None else jax.random.split(key, 3)
    pixels = jnp.arange(64) if key is None else jax.random.permutation(pixel_key, 64)[:32]

    seen = model.encode({"image": image}, key=image_key)
    answers = model.decode(seen, ["label", "embedding", "image"], {"image": pixels}, key=image_key)
    name = model.decode(model.encode({"text": text}, key=text_key), ["embedding"], key=text_key)["embedding"]

    wanted = batch["targets"]["image"].reshape(len(image), 64, 1)[:, pixels]
    log_scale = model.decoders["embedding"].head.log_scale[...]
    classify = cross_entropy(answers["label"], label, smoothing=SMOOTHING)
    align = infonce(Embedded(answers["embedding"], label), Embedded(name, text_label), log_scale)
    rebuild = squared_error(answers["image"], wanted)
    metrics = {
        "classification": classify,
        "alignment": align,
        "reconstruction": rebuild,
        "accuracy": accuracy(answers["label"], label),
    }
    return classify + 0.5 * align + RECONSTRUCTION * rebuild, metrics


def sample(item: tuple[np.ndarray, int], rng: np.random.Generator, adapter: Bytes) -> Sample:
    """A scan, moved a little, and the name of a digit (not its own) in a random language."""
    pixels, label = item
    # Moving blurs eight pixels a little, so half of the scans stay as sharp as those that the model is for.
    if rng.random() < 0.5:
        pixels = shift_and_turn(pixels, rng, shift=0.8, degrees=12, scale=0.1)
    text = rng.integers(len(TEXTS))
    return {
        "inputs": {"image": pixels, "text": adapter.load(TEXTS[text][2])[0]},
        "targets": {
            "label": np.int32(label),
            "text_label": np.int32(TEXT_DIGITS[text]),
            "image": pixels.astype(np.float32) / 255,
        },
    }


def evaluate(model: Perceiver, split: dataset.Split, shuffle: bool = False) -> dict[str, Any]:
    """Figures on a split. shuffle: pair images with the labels of other images, which must destroy everything."""
    labels = np.random.default_rng(0).permutation(split.labels) if shuffle else split.labels
    samples = [{"inputs": {"image": image}} for image in split.images]
    answers = ask_all(model, samples, 128, ["label", "embedding", "image"])
    names = name_embeddings(model)
    prompts = np.stack([names[digit == TEXT_DIGITS].mean(axis=0) for digit in range(10)])
    similarity = answers["embedding"] @ names.T
    found = TEXT_DIGITS[similarity.argmax(axis=1)]
    truth = split.images / 255.0
    chances = np.asarray(jax.nn.log_softmax(answers["label"]))
    wanted = np.eye(10)[labels] * (1 - SMOOTHING) + SMOOTHING / 10
    error = float(np.square(answers["image"] - truth).mean())
    return {
        "accuracy": _share(answers["label"].argmax(axis=1) == labels),
        "score": float((chances * wanted).sum(axis=1).mean()) - RECONSTRUCTION * error,
        "zero_shot_accuracy": _share((answers["embedding"] @ prompts.T).argmax(axis=1) == labels),
        "recall_at_1": _share(found == labels),
        "text_to_image_recall_at_1": _share(labels[similarity.argmax(axis=0)] == TEXT_DIGITS),
        "reconstruction_mse": error,
        "reconstruction_psnr_db": float(-10 * np.log10(error)),
    }


def name_embeddings(model: Perceiver) -> np.ndarray:
    """Embeddings of all names, [80, 64]."""
    adapter = model.config.inputs["text"]
    ids = np.stack([adapter.load(name)[0] for _, _, name in TEXTS])
    return ask(model, {"text": ids}, outputs=["embedding"])["embedding"]


def per_language(model: Perceiver, split: dataset.Split) -> dict[str, float]:
    """Zero-shot accuracy with the names of a single language as prompts."""
    samples = [{"inputs": {"image": image}} for image in split.images]
    images = ask_all(model, samples, 128, ["label", "embedding", "image"])["embedding"]
    names = name_embeddings(model).reshape(len(dataset.NAMES), 10, -1)
    return {
        language: _share((images @ own.T).argmax(axis=1) == split.labels)
        for language, own in zip(dataset.NAMES, names, strict=True)
    }


def baselines(splits: Mapping[str, dataset.Split]) -> dict[str, float]:
    """Logistic regression and nearest neighbour on the same pixels and the same splits."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    flat = {name: split.images.reshape(len(split), -1) / 255.0 for name, split in splits.items()}
    train, test = splits["train"], splits["test"]
    simple = {
        "logistic_regression": LogisticRegression(max_iter=2000),
        "nearest_neighbour": KNeighborsClassifier(1),
    }
    scores = {n: float(m.fit(flat["train"], train.labels).score(flat["test"], test.labels)) for n, m in simple.items()}
    mean_image = flat["train"].mean(axis=0)
    return scores | {"mean_image_mse": float(np.square(flat["test"] - mean_image).mean())}


def pictures(model: Perceiver, folder: Path, split: dataset.Split) -> None:
    """reconstructions.png and attention.png, for the first test scan of each digit."""
    first = [int(np.flatnonzero(split.labels == digit)[0]) for digit in range(10)]
    images = split.images[first]
    answers = ask(model, {"image": images})
    latin = [i for i, (_, _, name) in enumerate(TEXTS) if ord(max(name)) < 0x250]  # what the plot's font can draw
    nearest = (answers["embedding"] @ name_embeddings(model)[latin].T).argmax(axis=1)
    found = [TEXTS[latin[i]][2] for i in nearest]
    rows = {"scan": images / 255.0, "decoded": answers["image"], "error": np.abs(answers["image"] - images / 255.0)}
    classes = [f"{label}\n{name}" for label, name in zip(answers["label"].argmax(axis=1), found, strict=True)]
    viz.image_rows(rows, folder / "reconstructions.png", classes, "Test scans, decoded from the latents pixel by pixel")
    weights = look(model, {"image": images})["image"].mean(axis=1).reshape(10, -1, 8, 8)
    shown = sorted(int(i) for i in np.argsort(-weights.std(axis=(0, 2, 3)))[:8])  # those that choose most
    viz.attention_over_image(images / 255.0, weights, shown, folder / "attention.png", [str(d) for d in range(10)])


def _share(hits: np.ndarray) -> float:
    return float(np.mean(hits))


def digits(
    *,
    steps: int = 800,
    batch: int = 128,
    seed: int = 0,
    split: int = 0,
    learning_rate: float = 3e-3,
    latents: int = 16,
    channels: int = 64,
    depth: int = 4,
    checkpoint_every: int = 300,
) -> Experiment:
    """Handwritten digits: class, name in eight languages, and pixels from one set of latents.

    Args:
        steps: Updates.
        batch: Scans, and names, per update.
        seed: Of the parameters, the order of the data and the augmentation.
        split: Which 25 % of the scans are held out for the test.
        learning_rate: Its peak, after a warm-up of a tenth of the steps.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers.
        checkpoint_every: Updates between checkpoints.
    """
    splits = dataset.load(split)
    config = model(latents, channels, depth)
    transform = functools.partial(sample, adapter=config.inputs["text"])
    return Experiment(
        name="digits",
        model=config,
        batches=training_stream(splits["train"], transform, seed=seed, batch=batch),
        objective=objective,
        optimizer=adamw(warmup_cosine(learning_rate, steps), weight_decay=0.05),
        steps=steps,
        batch=batch,
        seed=seed,
        validate=lambda m: evaluate(m, splits["validation"]),
        best="score",  # the objective: 135 scans are too few for their accuracy to tell good models apart
        test=lambda m: evaluate(m, splits["test"]) | {"zero_shot_by_language": per_language(m, splits["test"])},
        baselines=lambda: baselines(splits),
        controls=lambda m: {"shuffled_labels": evaluate(m, splits["test"], shuffle=True)},
        pictures=lambda m, folder: pictures(m, folder, splits["test"]),
        ema=0.99,
        validate_every=max(steps // 6, 1),
        checkpoint_every=checkpoint_every,
    )
