"""What the robot senses, with what is wrong with real sensors: noise, drop-outs, slip.

Sources: the LiDAR follows a planar spinning laser (deviation of 2 cm, lost rays); the microphones are cardioids with
sound at 343 m/s and pressure falling with distance; odometry is that of a differential drive (Siegwart and Nourbakhsh,
"Introduction to Autonomous Mobile Robots", 5.2.4).
"""

import math

import numpy as np

from experiments.courier_arena.world import LIDAR_HEIGHT, TRACK, WHEEL_RADIUS, World

RAYS = 288
"""Of one scan, evenly around the robot."""
FARTHEST = 8.0
"""Metres that a ray sees."""
LOST = 0.03
"""Share of the rays that bring nothing back."""
RANGE_NOISE, INTENSITY_NOISE = 0.02, 0.05
"""Deviations, in metres and as a share of the light."""

SAMPLE_RATE, SAMPLES = 8000, 800
"""Of both microphones, Hz, and how many samples an observation has: the last tenth of a second."""
SPEED_OF_SOUND = 343.0
EARS = {"left": (0.0, 0.12, math.radians(60.0)), "right": (0.0, -0.12, math.radians(-60.0))}
"""Where each microphone is on the robot (x, y in metres) and the direction in which it hears best."""
PITCH, SWING, WARBLE = 900.0, 300.0, 6.0
"""Of the beacon, Hz: its tone, how far that goes up and down, and how often a second."""
SOUND_NOISE = 0.01
"""Deviation of what a microphone hears where all is silent; the beacon has an amplitude of 0.3 at one metre."""


def scan(world: World, rng: np.random.Generator) -> np.ndarray:
    """A revolution of the LiDAR, float32 [RAYS, 4]: x, y, z in metres in the robot's frame, and intensity in [0, 1].

    All zeros where a ray was lost or met nothing, as sensors of this kind report it.
    """
    x, y, heading = world.pose
    angles = np.arange(RAYS) * (2 * math.pi / RAYS)
    rays = np.stack([np.cos(angles + heading), np.sin(angles + heading), np.zeros(RAYS)], axis=1)
    geoms, distances = np.full(RAYS, -1, np.int32), np.full(RAYS, -1.0)
    eye = np.array([x, y, LIDAR_HEIGHT])
    world.mujoco.mj_multiRay(
        world.model, world.data, eye, rays.ravel(), None, True, world.robot, geoms, distances, None, RAYS, FARTHEST
    )
    seen = (geoms >= 0) & (rng.random(RAYS) >= LOST)
    far = distances + rng.normal(0.0, RANGE_NOISE, RAYS)
    light = world.model.geom_user[geoms, 0] + rng.normal(0.0, INTENSITY_NOISE, RAYS)
    height = np.full(RAYS, LIDAR_HEIGHT)
    points = np.stack([far * np.cos(angles), far * np.sin(angles), height, np.clip(light, 0.0, 1.0)], axis=1)
    return np.where(seen[:, None], points, 0.0).astype(np.float32)


def beacon(times: np.ndarray) -> np.ndarray:
    """What the beacon sends, at any times in seconds: a tone and its octave, whose pitch goes up and down."""
    swing = SWING / WARBLE * np.sin(2 * math.pi * WARBLE * times)  # its slope is SWING at most
    phase = 2 * math.pi * PITCH * times + swing
    return 0.2 * np.sin(phase) + 0.1 * np.sin(2 * phase)


def hear(
    source: tuple[float, float],
    before: np.ndarray,
    now: np.ndarray,
    end: float,
    seconds: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """What both microphones heard of a source lately, float32 [SAMPLES] each, by name.

    before, now: the robot's poses `seconds` ago and at the time `end`, when the sound ends.
    Delay and loudness follow the distance from sample to sample, the direction weights it by a cardioid.
    """
    ages = np.arange(SAMPLES)[::-1] / SAMPLE_RATE
    share = 1.0 - ages[:, None] / seconds
    turn = (now[2] - before[2] + math.pi) % (2 * math.pi) - math.pi
    place = before[:2] + share * (now - before)[:2]
    heading = before[2] + share[:, 0] * turn
    times = end - ages
    heard = {}
    for name, (x, y, best) in EARS.items():
        ear = place + np.stack(
            [x * np.cos(heading) - y * np.sin(heading), x * np.sin(heading) + y * np.cos(heading)], 1
        )
        way = np.asarray(source) - ear
        far = np.linalg.norm(way, axis=1)
        gain = 0.5 + 0.5 * np.cos(np.arctan2(way[:, 1], way[:, 0]) - heading - best)
        wave = gain * beacon(times - far / SPEED_OF_SOUND) / np.maximum(far, 0.2)
        heard[name] = np.clip(wave + rng.normal(0.0, SOUND_NOISE, SAMPLES), -1.0, 1.0).astype(np.float32)
    return heard


class Odometry:
    """Where the robot believes to be, by its wheels alone, counted from where it started.

    slip: deviation of each wheel's radius from what is believed, drawn once for an episode.
    """

    def __init__(self, wheels: np.ndarray, rng: np.random.Generator, slip: float = 0.01, noise: float = 0.01):
        self._scale = 1.0 + rng.normal(0.0, slip, 2)
        self._noise, self._rng = noise, rng
        self._last, self._pose, self._speed = wheels, np.zeros(3), np.zeros(2)

    def update(self, wheels: np.ndarray, seconds: float) -> None:
        """Take in how far the wheels have turned, radians [2], by the end of the last `seconds`."""
        turned = (wheels - self._last) * self._scale * (1.0 + self._rng.normal(0.0, self._noise, 2))
        self._last, self._speed = wheels, turned / seconds
        left, right = turned * WHEEL_RADIUS
        x, y, heading = self._pose
        middle, turn = (left + right) / 2, (right - left) / TRACK
        mean = heading + turn / 2
        self._pose = np.array([x + middle * math.cos(mean), y + middle * math.sin(mean), heading + turn])

    @property
    def state(self) -> np.ndarray:
        """float32 [6]: x and y in metres, cosine and sine of the heading, speeds of the wheels in radians a second."""
        x, y, heading = self._pose
        return np.array([x, y, math.cos(heading), math.sin(heading), *self._speed], np.float32)
