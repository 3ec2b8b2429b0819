"""Emoji and what they are called in one space: pictures find words, and words find pictures.

perceiver train experiments/emoji.py --root FOLDER      (FOLDER holds emoji_noto64/ and openclipart96/)

Seed 0, 63 minutes on one core that other work shared. Recall at 10 among 243 held-out emoji: pictures to texts 55.1 %
(48.6 to 61.3), texts to pictures 51.9 % (45.3 to 58.0); at 1, 19.3 and 16.9 %. Linear canonical correlation, which also
learns from the validation split: 54.7 and 55.6 %, at 1 28.0 and 24.7 %. Dealt anew 5.6 %, untrained 3.3 and 4.9 %.

So it is no better than a linear method yet, and worse at the first place. One look with eight latents ended at 49 %
after 2,400 steps. In short trials on the validation split it helped to learn from clip art too, and to search for what
is of the same kind; few keywords at a time, more dropout and patches of 4 x 4 pixels did not. Whole words beside runs
of bytes gave as much in 1,200 steps as runs alone in 2,000. A picture's kind, of 95, is what is hard to see: logistic
regression on gradients and colours finds 42 % of them, a small convolutional network 49 %, while words tell 79 %.

Left to do, found by trials on the training split alone, five folds of it or two. Of all five: a histogram of the whole
picture's colours, 512 of them by the square root of their share, lifts the linear method from 61.1 and 56.5 % to 71.6
and 66.9 % at 10, before any network. Of two, with gradients, mean colours and that histogram each of the same spread:
the linear method 71.9 and 66.6 %; InfoNCE with a linear map on either side and Gaussian noise on what it is given, as
large as that method's ridge, 74.1 and 68.8; without noise 59.7 and 57.1, with a hidden layer of 256 beside the map 73.0
and 68.4, learning from clip art too 70.1 and 64.7. In place of the noise on texts, words dropped gave 70.1 and
64.2 at best, and weight decay beside that 61.7 and 59.0.

Of one fold, where the linear method has 73.4 and 65.3 %, this recipe's model, taught by emoji alone and as they are,
with one more token of those numbers and one of a text's words, both with noise and both added to the query of the
answer too, has 50 and 50 % after 300 steps: patches and letters, which have no noise, are learned by heart. With those
two tokens alone, four latents and the mean of these as the answer it is 59 and 58 % after 400. So between a linear map
and this model the rest is lost.
"""

import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data import emoji_noto64, openclipart96
from data.pictures import over_white
from perceiver import (
    Block,
    Bytes,
    Descriptors,
    Embedding,
    Encoder,
    Fourier,
    Image,
    Ngrams,
    Output,
    Perceiver,
    PerceiverConfig,
    viz,
)
from perceiver.augment import colour_jitter, random_resized_crop
from perceiver.pipeline import Joined, Kept, Sample, training_stream
from perceiver.retrieval import both_ways
from perceiver.training.baselines import canonical_correlation, oriented_gradients
from perceiver.training.evaluation import Task, figures_of, scores
from perceiver.training.experiment import Experiment
from perceiver.training.matching import embedded, matching_judge, matching_objective, mean_figures
from perceiver.training.optimizers import muon, warmup_cosine

SIDE, LENGTH = 64, 192
"""Pixels of a picture, and bytes of a text; longer ones are cut."""


Named = emoji_noto64.Emoji | openclipart96.Clipart
"""A picture, and what it is called."""


def model(latents: int, channels: int, depth: int, looks: int, width: int) -> PerceiverConfig:
    """A picture or a text to a vector, after some looks at it."""
    return PerceiverConfig(
        inputs={
            "image": Image(
                (SIDE, SIDE, 3),
                patch=8,
                border=4,
                descriptors=Descriptors(),
                hidden=128,
                project=96,
                position=Fourier(bands=4),
                mean=(0.75, 0.72, 0.68),
                std=(0.33, 0.34, 0.37),
            ),
            # Runs of bytes that were never seen must say nothing, so their table starts at almost nothing.
            "text": Bytes(
                LENGTH, width=channels, truncate=True, ngrams=Ngrams((3, 4, 5), 2**15, scale=1e-3, words=True)
            ),
        },
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=8, qk_channels=channels, v_channels=channels, dropout=0.1),
            latent=Block(heads=4, widening=2, dropout=0.1),
            cross_attends=tuple(range(looks)),
            towers=tuple(range(looks)),
        ),
        outputs={"embedding": Output(Embedding(width), cross=Block(heads=4))},
    )


@functools.cache
def inputs() -> Mapping[str, Any]:
    """The adapters, by modality."""
    return model(1, 8, 1, 1, 8).inputs


def words_of(item: Named) -> str:
    """Everything that it is called, as one text."""
    return ", ".join(item.texts)


def kind_of(item: Named) -> str:
    """What it is one of several of: an emoji's subcategory, such as food-fruit, or the categories of clip art."""
    return item.subcategory if isinstance(item, emoji_noto64.Emoji) else "/".join(item.category)


def view(item: Named, modality: str) -> Sample:
    """One side of an item to the model's inputs."""
    if modality == "text":
        ids, mask = inputs()["text"].load(words_of(item))
        return {"inputs": {"text": ids}, "masks": {"text": mask}}
    return {"inputs": {"image": inputs()["image"].load(over_white(item.image))[0]}}


def sample(item: Named, rng: np.random.Generator) -> Sample:
    """A picture, cropped a little and in hardly another light, as colours and sides have names; and some of its words,
    in any order half of the time.
    """
    ids, mask = inputs()["text"].load(some_words(item.texts, rng))
    pixels = inputs()["image"].load(over_white(item.image))[0]
    pixels = random_resized_crop(pixels, rng, (SIDE, SIDE), area=(0.8, 1.0))
    return {
        "inputs": {"image": colour_jitter(pixels, rng, brightness=0.1, contrast=0.1, colour=0.1), "text": ids},
        "masks": {"text": mask},
        "targets": {"kind": np.int32(zlib.crc32(kind_of(item).encode()) >> 1)},
    }


def some_words(texts: Sequence[str], rng: np.random.Generator) -> str:
    """The name four times of five, and of the rest a random part."""
    share = rng.uniform(0.5, 1)
    rest = [word for word in texts[1:] if rng.random() < share]
    chosen = [texts[0], *rest] if rng.random() < 0.8 or not rest else rest
    return ", ".join(rng.permutation(chosen) if rng.random() < 0.5 else chosen)


judge = matching_judge(
    "image", "text", view, lambda item, modality: words_of(item) if modality == "text" else item.file
)
dealt = matching_judge("image", "text", view, lambda item, modality: item.file, dealt=True)
TASKS = {"emoji_noto64": Task(emoji_noto64.load, judge)}


def baselines(splits: Mapping[str, Sequence[Named]]) -> dict[str, Any]:
    """Linear canonical correlation of gradients and colours with words by TF-IDF, learned from all but the test."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    known, test = [*splits["train"], *splits["validation"]], list(splits["test"])
    words = TfidfVectorizer(sublinear_tf=True)
    texts = words.fit_transform([words_of(item) for item in known]).toarray()
    images = np.stack([features(item) for item in known])
    project = canonical_correlation(images, texts, ridge=(3.0, 3.0), channels=200)
    unseen = np.stack([features(item) for item in test]), words.transform([words_of(item) for item in test]).toarray()
    vectors = project(*unseen)
    names = [item.file for item in test]
    ways = both_ways((names, vectors[0]), (names, vectors[1]), np.eye(len(test), dtype=bool))
    return {
        f"canonical_correlation_{way}": figures_of(judged)
        for way, judged in zip(("image_to_text", "text_to_image"), ways, strict=True)
    }


def features(item: Named) -> np.ndarray:
    """Gradients by direction, and the colours of 8 x 8 parts."""
    pixels = view(item, "image")["inputs"]["image"] / 255.0
    parts = pixels.reshape(8, SIDE // 8, 8, SIDE // 8, 3).mean(axis=(1, 3))
    return np.concatenate([oriented_gradients(pixels.mean(axis=-1)), parts.ravel()])


def pictures(model: Perceiver, folder: Path, items: Sequence[Named]) -> None:
    """found.png: for some texts of the test split the pictures that are nearest to them, of all of that split."""
    held = list(items)
    seen = embedded(model, [view(item, "image") for item in held])
    asked = np.random.default_rng(0).permutation(len(held))[:6]
    read = embedded(model, [view(held[i], "text") for i in asked])
    tiles: list[tuple[str, Any]] = []
    for number, row in zip(asked, read @ seen.T, strict=True):
        tiles.append(("", words_of(held[number])))
        tiles += [("right" if i == number else "", over_white(held[i].image)) for i in np.argsort(-row)[:7]]
    viz.contact_sheet(tiles, folder / "found.png", columns=8)


def pairs_of(
    name: str,
    own: ModuleType,
    other: ModuleType | None,
    root: Path | None,
    config: PerceiverConfig,
    *,
    steps: int,
    batch: int,
    seed: int,
    learning_rate: float,
    kinds: float,
    checkpoint_every: int,
) -> Experiment:
    """Pictures and their words. own: the dataset, of which the figures are; other: a further one to learn from."""
    splits, more = (
        {split: Kept(items) for split, items in ({} if dataset is None else dataset.load(root)).items()}
        for dataset in (own, other)
    )
    known = Joined([part["train"] for part in (splits, more) if part])
    rate = functools.partial(warmup_cosine, steps=steps)
    return Experiment(
        name=name,
        model=config,
        batches=training_stream(known, sample, seed=seed, batch=batch),
        objective=matching_objective(kinds=kinds),
        optimizer=muon(rate(2 * learning_rate), rate(learning_rate), weight_decay=0.1),
        steps=steps,
        batch=batch,
        seed=seed,
        validate=lambda m: validated(m, [part["validation"] for part in (splits, more) if part]),
        best="mean_reciprocal_rank",
        test=lambda m: scores(judge(m, splits["test"])),
        baselines=lambda: baselines(splits),
        controls=lambda m: {"pairs dealt anew": mean_figures(dealt(m, splits["test"]))},
        pictures=lambda m, folder: pictures(m, folder, splits["test"]),
        ema=0.998,
        validate_every=max(steps // 8, 1),
        checkpoint_every=checkpoint_every,
    )


def validated(model: Perceiver, parts: Sequence[Sequence[Named]]) -> dict[str, float]:
    """The mean of each figure over both ways and over the datasets: one alone has few pictures to choose a model by."""
    figures = [mean_figures(judge(model, part)) for part in parts]
    return {name: float(np.mean([own[name] for own in figures])) for name in figures[0]}


def emoji(
    *,
    root: Path | None = None,
    steps: int = 1200,
    batch: int = 128,
    seed: int = 0,
    learning_rate: float = 2e-3,
    more: bool = True,
    kinds: float = 0.5,
    latents: int = 16,
    channels: int = 128,
    depth: int = 2,
    looks: int = 2,
    width: int = 128,
    checkpoint_every: int = 500,
) -> Experiment:
    """Emoji and what they are called, in one space.

    Args:
        root: Folder that holds emoji_noto64/ and openclipart96/; the variable PERCEIVER_DATA unless given.
        steps: Updates.
        batch: Pictures and texts per update.
        seed: Of the parameters, the order of the data and the augmentation.
        learning_rate: Adam's peak, after a warm-up of a tenth of the steps; Muon's is twice that.
        more: Learn from clip art beside emoji.
        kinds: Weight of the search for what is of the same subcategory, beside that for the thing itself.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each look.
        looks: At the picture or the text.
        width: Of the shared space.
        checkpoint_every: Updates between checkpoints.
    """
    return pairs_of(
        "emoji",
        emoji_noto64,
        openclipart96 if more else None,
        root,
        model(latents, channels, depth, looks, width),
        steps=steps,
        batch=batch,
        seed=seed,
        learning_rate=learning_rate,
        kinds=kinds,
        checkpoint_every=checkpoint_every,
    )
