"""A robot on two wheels, told in words which crate to drive to and on which side of a wall, in a simulator.

perceiver train experiments/courier.py      (needs the extra robotics; no dataset: the demonstrations are recorded)
"""

import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.courier_arena.demonstrations import Demonstrations, demonstrations
from experiments.courier_arena.environment import MOST_STEPS
from experiments.courier_arena.judging import Judge
from experiments.courier_arena.samples import HORIZON, PLACES, given, model, sample
from perceiver import Perceiver
from perceiver.adapters.base import standardise
from perceiver.attention import split_key
from perceiver.control.actions import action_loss, asker
from perceiver.control.policy import Policy
from perceiver.inference import ask_all
from perceiver.objectives import absolute_error
from perceiver.pipeline import Batch, Joined, Stream, training_stream
from perceiver.saving import weights
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import muon, warmup_cosine

VALIDATION, TEST, GATHERING = 1_000_000, 2_000_000, 3_000_000
"""The first seeds of arenas that are not trained on, and of those where a policy drives and the expert corrects."""
WEIGHT = 0.5
"""Weight of the error of where the crates are, beside that of the actions."""


def objective(model: Perceiver, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The error of the actions, and of where the crates are, both in deviations."""
    encoding, decoding = split_key(key, 2)
    latents = model.encode(batch["inputs"], batch["masks"], key=encoding)
    outputs, targets = model.config.outputs, batch["targets"]
    action = action_loss(outputs["action"].head, asker(model, latents, "action", decoding), targets["action"])
    head, found = outputs["places"].head, model.decode(latents, ["places"], key=decoding)["places"]
    place = absolute_error(*(standardise(each, head.mean, head.std) for each in (found, targets["places"])))
    return action + WEIGHT * place, {"loss/action": action, "loss/places": place}


def validated(model: Perceiver, moments: Demonstrations, most: int = 1500) -> dict[str, float]:
    """How near the actions of unseen moments come: the share that is explained of the error of their median; and, in
    metres, how far from each crate it is believed to be, half of the time.
    """
    chosen = np.random.default_rng(0).permutation(len(moments))[:most]
    samples = [given(moments[int(number)]) for number in chosen]
    answers = ask_all(model, samples, 64)
    wanted, places = (np.stack([each["targets"][name] for each in samples]) for name in ("action", "places"))
    error, blind = np.abs(answers["action"] - wanted).mean(), np.abs(np.median(wanted, axis=0) - wanted).mean()
    away = np.median(np.linalg.norm(answers["places"] - places, axis=-1), axis=0)
    metres = {f"metres_from_{name}": float(value) for name, value in zip(PLACES, away, strict=True)}
    return {"explained": float(1.0 - error / blind), **metres}


def driver(model: Perceiver | None) -> tuple[Any, str]:
    """What makes the policy of a trained model, and what its demonstrations are called on disk."""
    if model is None:
        return None, "expert"
    digest = hashlib.sha256()
    for name, array in sorted(weights(model).items()):
        digest.update(name.encode() + np.asarray(array).tobytes())
    return (lambda: Policy(model)), f"corrected-{digest.hexdigest()[:12]}"


def courier(
    *,
    recordings: Path = Path("runs/demonstrations"),
    episodes: int = 1600,
    steps: int = 3400,
    batch: int = 32,
    seed: int = 0,
    learning_rate: float = 2e-3,
    dropout: bool = True,
    dagger: int = 0,
    judged: int = 100,
    most_steps: int = MOST_STEPS,
    latents: int = 16,
    channels: int = 96,
    depth: int = 2,
    checkpoint_every: int = 500,
) -> Experiment:
    """A robot on two wheels, told in words which crate to drive to and on which side of a wall.

    Args:
        recordings: Folder of the demonstrations; what is there already is not recorded again.
        episodes: Demonstrations of the expert to learn from.
        steps: Updates.
        batch: Moments per update.
        seed: Of the parameters, the order of the data and its changes.
        learning_rate: Its peak, after a warm-up of a tenth of the steps.
        dropout: Let sensors of training moments fail, so that the policy knows what to do when one does.
        dagger: Rounds in which the policy drives, the expert says what it would do, and training goes on with that.
        judged: Episodes of each judgement.
        most_steps: Control steps after which an episode is given up.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers.
        checkpoint_every: Updates between checkpoints.
    """
    brief = functools.partial(
        courier,
        recordings=recordings,
        episodes=2,
        batch=4,
        dropout=dropout,
        dagger=dagger,
        judged=1,
        most_steps=20,
        latents=4,
        channels=16,
        depth=1,
    )
    record = functools.partial(demonstrations, recordings, horizon=HORIZON)
    taught: list[Demonstrations] = []

    def batches(driving: Perceiver | None) -> Stream:
        drives, name = driver(driving)
        first, count = (0, episodes) if driving is None else (GATHERING + episodes * len(taught), max(episodes // 4, 1))
        taught.append(record(first, count, driver=drives, name=name))
        return training_stream(
            Joined(taught), functools.partial(sample, dropout=0.15 if dropout else 0.0), seed=seed, batch=batch
        )

    @functools.cache
    def unseen() -> Demonstrations:
        return record(VALIDATION, max(min(60, episodes // 8), 1))

    judge = Judge(range(TEST, TEST + judged), most_steps)
    shown = Judge(judge.seeds[:8], most_steps)
    rate = functools.partial(warmup_cosine, steps=steps)
    experiment: Experiment | None = None
    for number in range(dagger + 1):
        experiment = Experiment(
            name="courier",
            model=model(latents, channels, depth),
            batches=batches,
            objective=objective,
            optimizer=muon(rate(2 * learning_rate), rate(learning_rate), weight_decay=0.05),
            steps=steps,
            batch=batch,
            seed=seed,
            validate=lambda m: validated(m, unseen()),
            best="explained",
            test=judge.scored,
            baselines=judge.beside,
            controls=judge.without_sensors,
            pictures=shown.pictures,
            pretraining=experiment,
            ema=0.998,
            validate_every=max(steps // 5, 1),
            checkpoint_every=checkpoint_every,
            brief=brief if number == dagger else None,
        )
    assert experiment is not None
    return experiment
