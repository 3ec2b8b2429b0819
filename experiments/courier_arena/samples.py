"""Moments of demonstrations as samples to learn from, and what the model that learns from them looks like."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from experiments.courier_arena.demonstrations import LOUDEST, Moment
from experiments.courier_arena.environment import STEP
from experiments.courier_arena.sensors import FARTHEST, RAYS, SAMPLE_RATE, SAMPLES
from experiments.courier_arena.task import LONGEST, mirrored, reworded
from experiments.courier_arena.world import COLOURS
from perceiver import (
    Block,
    Bytes,
    Chunk,
    Encoder,
    Fourier,
    LogMel,
    Ngrams,
    Output,
    PerceiverConfig,
    Points,
    Regression,
    Slots,
    Spectrogram,
    State,
)
from perceiver.pipeline import Sample
from perceiver.robot import Robot, Sensor
from perceiver.spectrogram import Log

HORIZON = 8
"""Actions of a chunk: a second and a half."""
KEYS = {
    "lidar": "observation.points.lidar",
    "left": "observation.audio.left",
    "right": "observation.audio.right",
    "state": "observation.state",
    "text": "task",
}
"""What the environment calls each of the model's inputs."""
SENSORS: Mapping[str, tuple[str, ...]] = {"lidar": ("lidar",), "sound": ("left", "right"), "odometry": ("state",)}
"""What may fail together: inputs by the name of the sensor."""
PLACES = (*COLOURS, "beacon", "goal")
"""See `Episode.places_from_robot`."""
TELLING = ("left", "right", "beep", "beacon", *COLOURS)
"""What an instruction is understood by; other words come and go."""


def model(latents: int, channels: int, depth: int) -> PerceiverConfig:
    """Sensors and words to a chunk of wheel speeds; and, to learn more from each moment, to where the crates are."""
    ear = LogMel(
        SAMPLES,
        Spectrogram(
            400, 200, mels=12, low=400.0, high=2600.0, sample_rate=SAMPLE_RATE, log=Log.NATURAL, mel_floor=1e-4
        ),
        sample_rate=SAMPLE_RATE,
        project=channels // 2,
        position=Fourier(bands=2),
        mean=(0.0,),
        std=(3.0,),
    )
    return PerceiverConfig(
        inputs={
            "lidar": Points(
                RAYS // 2,  # every other one, at random: a crate is seen by three at three metres
                low=(-FARTHEST, -FARTHEST, 0.0),
                high=(FARTHEST, FARTHEST, 1.0),
                features=("intensity",),
                project=channels // 2,
                hidden=channels // 2,
                position=Fourier(bands=6, max_resolution=(32.0, 32.0, 1.0), concatenate=False),
                mean=(0.3,),
                std=(0.25,),
            ),
            "left": ear,
            "right": ear,
            "state": State(
                6, project=channels // 2, mean=(1.5, 0.0, 0.5, 0.0, 4.0, 4.0), std=(1.5, 1.5, 0.5, 0.7, 3.0, 3.0)
            ),
            # Words that were never heard must say nothing, so their table starts at almost nothing.
            "text": Bytes(
                LONGEST, width=channels // 2, truncate=True, ngrams=Ngrams((4,), 4096, scale=1e-3, words=True)
            ),
        },
        encoder=Encoder(
            latents,
            channels,
            depth,
            cross=Block(heads=4, qk_channels=channels // 2, v_channels=channels),
            latent=Block(heads=4, widening=2),
        ),
        outputs={
            "action": Output(Chunk(HORIZON, 2, mean=(0.6, 0.6), std=(0.4, 0.4)), cross=Block(heads=4)),
            "places": Output(Regression(2, mean=(0.0, 0.0), std=(2.0, 2.0)), Slots(len(PLACES)), cross=Block(heads=4)),
        },
        robot=Robot(1.0 / STEP, {name: Sensor(key) for name, key in KEYS.items()}),
    )


INPUTS = model(1, 8, 1).inputs


def given(moment: Moment, absent: tuple[str, ...] = ()) -> Sample:
    """A moment to the model's inputs and masks, as `Observations` makes them in a control loop, and its targets.

    absent: inputs that say nothing.
    """
    raw = {
        "lidar": moment.points.astype(np.float32),
        "left": moment.left.astype(np.float32) / LOUDEST,
        "right": moment.right.astype(np.float32) / LOUDEST,
        "state": moment.state,
        "text": moment.text,
    }
    loaded = {name: INPUTS[name].load(value) for name, value in raw.items()}
    return {
        "inputs": {name: np.zeros_like(values) if name in absent else values for name, (values, _) in loaded.items()},
        "masks": {name: mask & (name not in absent) for name, (_, mask) in loaded.items()},
        "targets": {"action": moment.actions, "places": moment.places},
    }


def sample(moment: Moment, rng: np.random.Generator, dropout: float) -> Sample:
    """A moment as it might have been: in the mirror, in other words, with sensors that fail.

    The wheels' speeds are blurred, since they tell so well what was done a moment ago that a policy would learn to do
    that again (arXiv 1905.11979).
    dropout: chance that a sensor of a moment is absent.
    """
    moment = dataclasses.replace(moment, text=_told(moment.text, rng))
    if rng.random() < 0.5:
        moment = in_the_mirror(moment)
    state = moment.state.copy()
    state[4:] += rng.normal(0.0, 2.0, 2)
    failing = [name for names in SENSORS.values() if rng.random() < dropout for name in names]
    return given(dataclasses.replace(moment, state=state), tuple(failing))


def in_the_mirror(moment: Moment) -> Moment:
    """The same moment with left and right exchanged, which is as likely and as well done."""
    return Moment(
        state=moment.state[[0, 1, 2, 3, 5, 4]] * np.float32([1, -1, 1, -1, 1, 1]),
        points=moment.points * np.float16([1, -1, 1, 1]),
        left=moment.right,
        right=moment.left,
        text=mirrored(moment.text),
        actions=moment.actions[:, ::-1],
        places=moment.places * np.float32([1, -1]),
    )


def _told(text: str, rng: np.random.Generator) -> str:
    """Said in other words, some of those that tell nothing left out."""
    words = reworded(text, rng).split(" ")
    return " ".join(word for word in words if any(key in word for key in TELLING) or rng.random() < 0.8)
