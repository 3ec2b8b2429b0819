"""Clip art and its titles and keywords in one space: pictures find words, and words find pictures.

perceiver train experiments/clipart.py --root FOLDER      (FOLDER holds openclipart96/ and emoji_noto64/)

As experiments/emoji.py, with figures of the other dataset. Seed 0, 31 minutes on one core with another at work:
recall at 10 among 246 held-out pieces of clip art 32.5 % (26.4 to 38.2) from pictures to texts, 35.8 % (29.7 to 41.9)
from texts to pictures; at 1, 14.6 and 13.4 %. Linear canonical correlation, which also learns from the validation
split: 35.0 and 34.1 %, at 1 13.4 and 15.9 %. Dealt anew 3.9 %, untrained 5.7 and 5.3 %. So it is no better than a
linear method. The model that validation chose is that of step 750 of 1,200; longer runs were not tried. The model of
experiments/emoji.py, which learns from the same pictures and was chosen by the same validation splits, had 35.4 and
38.6 % of these.
"""

from pathlib import Path

from data import emoji_noto64, openclipart96
from experiments import emoji as recipe
from perceiver.training.evaluation import Task
from perceiver.training.experiment import Experiment

TASKS = {"openclipart96": Task(openclipart96.load, recipe.judge)}


def clipart(
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
    """Clip art and its titles and keywords, in one space.

    Args:
        root: Folder that holds openclipart96/ and emoji_noto64/; the variable PERCEIVER_DATA unless given.
        steps: Updates.
        batch: Pictures and texts per update.
        seed: Of the parameters, the order of the data and the augmentation.
        learning_rate: Adam's peak, after a warm-up of a tenth of the steps; Muon's is twice that.
        more: Learn from emoji beside clip art.
        kinds: Weight of the search for what is of the same category, beside that for the thing itself.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers after each look.
        looks: At the picture or the text.
        width: Of the shared space.
        checkpoint_every: Updates between checkpoints.
    """
    return recipe.pairs_of(
        "clipart",
        openclipart96,
        emoji_noto64 if more else None,
        root,
        recipe.model(latents, channels, depth, looks, width),
        steps=steps,
        batch=batch,
        seed=seed,
        learning_rate=learning_rate,
        kinds=kinds,
        checkpoint_every=checkpoint_every,
    )
