"""One arm, several tasks, told in words which: a model of MetaWorld's scripted experts.

perceiver train experiments/metaworld.py      (needs the extra metaworld; no dataset: the demonstrations are recorded)

Any of MetaWorld's fifty tasks will do: --tasks reach-v3 door-open-v3. The model is given the simulator's state, not
pictures, and learns from 100 episodes of each task's scripted expert, which is pushed off its way while it shows
them.

Seed 0, 20 minutes on about a third of a core, and as long again for the judgement: of 100 episodes in places and
wordings that were never trained on, 90.0 % succeed (82.6 to 94.5), reach, open a drawer, press a button and open a
window always, push in half of them. The experts 100 %, actions at random and the untrained model none. Told the next
task's words, 47 % of 34: the drawer and the button are known by what is there, the others need the words. Other tasks
were not measured.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.metaworld_arena.demonstrations import demonstrations
from experiments.metaworld_arena.environment import (
    ACTION_DIMS,
    RATE,
    STATE,
    STATE_DIMS,
    WORLD,
    WORLD_DIMS,
    Expert,
    Tasks,
    words_of,
)
from perceiver import (
    Block,
    Bytes,
    Chunk,
    Encoder,
    Ngrams,
    Output,
    Perceiver,
    PerceiverConfig,
    State,
)
from perceiver.control.actions import action_objective
from perceiver.control.chunking import Receding
from perceiver.control.demonstrations import Demonstrations, explained
from perceiver.control.policy import Policy
from perceiver.control.rollout import RandomPolicy, Rollout, rollout
from perceiver.pipeline import Kept, Sample, Stream, training_stream
from perceiver.robot import TASK, Robot, Sensor
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import muon, warmup_cosine

HORIZON, EXECUTED = 8, 2
"""Actions of a chunk, and those that are done before the policy is asked again."""
TEST, VALIDATION = 2_000_000, 1_000_000
"""The first seeds of episodes that are not trained on."""
TASKS_LEARNED = ("reach-v3", "push-v3", "drawer-open-v3", "button-press-topdown-v3", "window-open-v3")


def model(latents: int, channels: int, depth: int) -> PerceiverConfig:
    """The arm, what is around it and words to a chunk of actions."""
    near, turn = (0.2,) * 3, (0.7,) * 4
    around = (*near, *turn, *near, *turn, *near, *near)
    return PerceiverConfig(
        inputs={
            "arm": State(STATE_DIMS, project=channels // 2, mean=(0.0, 0.6, 0.2, 0.5), std=(0.2, 0.2, 0.15, 0.4)),
            "world": State(WORLD_DIMS, project=channels // 2, mean=(0.0,) * WORLD_DIMS, std=around),
            # Words that were never heard must say nothing, so their table starts at almost nothing.
            "text": Bytes(48, width=32, truncate=True, ngrams=Ngrams((4,), 4096, scale=1e-3, words=True)),
        },
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=channels // 2, v_channels=channels),
            latent=Block(heads=4, widening=2),
        ),
        outputs={"action": Output(Chunk(HORIZON, ACTION_DIMS, mean=(0.0,) * 4, std=(0.6,) * 4), cross=Block(heads=4))},
        robot=Robot(RATE, {"arm": Sensor(STATE), "world": Sensor(WORLD), "text": Sensor(TASK)}),
    )


def driven(model: Perceiver, tasks: Tasks, seeds: Sequence[int], title: str = "policy") -> Rollout:
    """Episodes of a trained model."""
    with Policy(model) as policy:
        return rollout(tasks, Receding(policy, EXECUTED), seeds, title=title)


def figures(tasks: Tasks, judged: Rollout) -> dict[str, Any]:
    """Success over all episodes with its interval, the mean over tasks, and each task's own."""
    each = {
        name: Rollout([one for one in judged.trajectories if tasks.name_of(one.seed) == name]) for name in tasks.names
    }
    by_task = {name: own.figures()["success_rate"] for name, own in each.items() if own.trajectories}
    return judged.figures() | {"mean_over_tasks": float(np.mean(list(by_task.values()))), "by_task": by_task}


class Misled:
    """A policy that is told of another task than the one that counts."""

    def __init__(self, policy: Any, tasks: Tasks):
        self._policy, self._tasks = policy, tasks

    def reset(self) -> None:
        """See Policy."""
        self._policy.reset()

    def infer(self, obs: Any) -> Any:
        """See Policy."""
        names = self._tasks.names
        other = names[(names.index(self._tasks.name) + 1) % len(names)]
        return self._policy.infer(dict(obs) | {TASK: words_of(other)})


def controls(model: Perceiver, tasks: Tasks, seeds: Sequence[int]) -> dict[str, Any]:
    """The same model with the next task's words, and one that has learned nothing."""
    found = {"untrained": figures(tasks, driven(model.config.build(seed=0), tasks, seeds, "untrained"))}
    if len(tasks.names) > 1:
        with Policy(model) as policy:
            misled = rollout(tasks, Misled(Receding(policy, EXECUTED), tasks), seeds, title="another task's words")
        found["another task's words"] = figures(tasks, misled)
    return found


def baselines(tasks: Tasks, seeds: Sequence[int]) -> dict[str, Any]:
    """The experts, and actions at random."""
    return {
        "expert": figures(tasks, rollout(tasks, Expert(tasks), seeds, title="experts")),
        "random": figures(tasks, rollout(tasks, RandomPolicy(tasks.action_space), seeds, title="random")),
    }


def metaworld(
    *,
    tasks: tuple[str, ...] = TASKS_LEARNED,
    recordings: Path = Path("runs/demonstrations"),
    episodes: int = 100,
    steps: int = 1500,
    batch: int = 64,
    seed: int = 0,
    learning_rate: float = 1e-3,
    judged: int = 20,
    latents: int = 8,
    channels: int = 128,
    depth: int = 3,
    checkpoint_every: int = 1000,
) -> Experiment:
    """One arm, several tasks, told in words which.

    Args:
        tasks: Of MetaWorld, such as reach-v3.
        recordings: Folder of the demonstrations; what is there already is not recorded again.
        episodes: Demonstrations of each task to learn from.
        steps: Updates.
        batch: Moments per update.
        seed: Of the parameters and the order of the data.
        learning_rate: Its peak, after a warm-up of a tenth of the steps.
        judged: Episodes of each task in each judgement.
        latents: Vectors in the bottleneck.
        channels: Their width.
        depth: Self-attention layers.
        checkpoint_every: Updates between checkpoints.
    """
    shown, tested = Tasks(tasks), Tasks(tasks, held_out=True)
    config = model(latents, channels, depth)
    seeds = range(TEST, TEST + judged * len(tasks))

    def samples(first: int, count: int) -> Sequence[Sample]:
        data = demonstrations(recordings, shown, range(first, first + count * len(tasks)))
        return Demonstrations(data[:], config)

    def batches(_: Any) -> Stream:
        return training_stream(Kept(samples(0, episodes)), lambda item, rng: item, seed=seed, batch=batch)

    @functools.cache
    def unseen() -> Sequence[Sample]:
        return samples(VALIDATION, max(episodes // 10, 1))

    rate = functools.partial(warmup_cosine, steps=steps)
    return Experiment(
        name="metaworld",
        model=config,
        batches=batches,
        objective=action_objective("action"),
        optimizer=muon(rate(2 * learning_rate), rate(learning_rate), weight_decay=0.05),
        steps=steps,
        batch=batch,
        seed=seed,
        validate=lambda m: explained(m, unseen()),
        best="explained",
        test=lambda m: figures(tested, driven(m, tested, seeds)),
        baselines=lambda: baselines(tested, seeds),
        controls=lambda m: controls(m, tested, seeds[::3]),  # episodes that fail are the longest
        brief=lambda: metaworld(
            tasks=tasks[:2],
            recordings=recordings,
            episodes=2,
            steps=4,
            batch=16,
            judged=1,
            latents=2,
            channels=16,
            depth=1,
        ),
        ema=0.998,
        validate_every=max(steps // 8, 1),
        checkpoint_every=checkpoint_every,
    )
