"""What stands where, and the same as a MuJoCo model. Metres, radians, seconds, kilograms; x ahead, y left, z up."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver.errors import require

SIDE = 6.0
"""Of the square arena, whose middle is the origin."""
WHEEL_RADIUS, TRACK, BODY_RADIUS = 0.1, 0.3, 0.2
"""Of the robot's wheels, between their middles, and of its round body."""
FASTEST = 8.0
"""Radians per second at which a wheel turns at most."""
CRATE, THICKNESS = 0.22, 0.1
"""Half of a crate's side, and how thick a wall is."""
LIDAR_HEIGHT = 0.3
SUBSTEP = 0.01
"""Seconds of one step of the physics."""
REFLECTANCE: Mapping[str, float] = {"red": 0.9, "green": 0.65, "blue": 0.4, "wall": 0.2, "pillar": 0.1, "floor": 0.1}
"""The share of the laser's light that comes back, by paint or material."""
COLOURS = ("red", "green", "blue")


@dataclasses.dataclass(frozen=True)
class Crate:
    """A crate on the floor: its middle and how it is turned."""

    colour: str
    x: float
    y: float
    angle: float


@dataclasses.dataclass(frozen=True)
class Wall:
    """The wall across the way: its middle, half of its length, and the angle of its normal, which points away from the
    start.
    """

    x: float
    y: float
    half: float
    angle: float

    def across(self, points: np.ndarray) -> np.ndarray:
        """Places [n, 2] to [n, 2]: how far behind the wall's line (below 0: before it), and how far to the left."""
        ahead = np.array([math.cos(self.angle), math.sin(self.angle)])
        return (points - [self.x, self.y]) @ np.stack([ahead, [-ahead[1], ahead[0]]], axis=1)


@dataclasses.dataclass(frozen=True)
class Layout:
    """An arena.

    start: the robot's x, y and heading. pillars: x, y and radius of each. beacon: number of the crate that it is on.
    """

    start: tuple[float, float, float]
    wall: Wall
    crates: tuple[Crate, ...]
    pillars: tuple[tuple[float, float, float], ...]
    beacon: int


def draw_layout(rng: np.random.Generator, pillars: int = 3) -> Layout:
    """An arena at random: crates behind the wall, pillars anywhere that leaves a way on both sides of it."""
    start = (rng.uniform(-2.5, -2.1), rng.uniform(-0.6, 0.6), rng.uniform(-0.4, 0.4))
    wall = Wall(rng.uniform(-1.0, -0.5), rng.uniform(-0.3, 0.3), rng.uniform(0.7, 1.0), rng.uniform(-0.25, 0.25))
    places = _apart(rng, len(COLOURS), low=(0.9, -2.3), high=(2.4, 2.3), distance=1.35, others=np.zeros((0, 2)))
    angles = rng.uniform(0.0, math.pi / 2, len(places))
    colours = rng.permutation(COLOURS)
    crates = tuple(Crate(str(c), *place, angle) for c, place, angle in zip(colours, places, angles, strict=True))
    along = np.array([-math.sin(wall.angle), math.cos(wall.angle)])
    middle = np.array([wall.x, wall.y])
    ends = [middle + share * wall.half * along for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    taken = np.array([*places, *ends, start[:2]])
    standing = _apart(rng, pillars, low=(-1.5, -2.6), high=(2.6, 2.6), distance=0.85, others=taken)
    return Layout(
        start,
        wall,
        crates,
        tuple((float(x), float(y), rng.uniform(0.1, 0.18)) for x, y in standing),
        int(rng.integers(len(crates))),
    )


def _apart(
    rng: np.random.Generator,
    count: int,
    low: tuple[float, float],
    high: tuple[float, float],
    distance: float,
    others: np.ndarray,
) -> np.ndarray:
    """Places [count, 2] of a rectangle, at least so far from each other and from `others` [n, 2]."""
    while True:  # a dead end is rare, and begun anew
        found = others
        for _ in range(60):
            if len(found) == len(others) + count:
                return found[len(others) :]
            place = rng.uniform(low, high)
            if not len(found) or np.linalg.norm(found - place, axis=1).min() >= distance:
                found = np.concatenate([found, place[None]])


def mjcf(layout: Layout) -> str:
    """The arena as an MJCF document; `geom_user` of each surface is its reflectance.

    Wheels are ellipsoids, which touch the floor in one point, and casters slide without friction: what the robot does
    on a free floor is then within a centimetre and 0.01 radians of what the wheels say. Where it is in the way of
    something, wheels slip.
    """
    x, y, heading = layout.start
    wall, edge = layout.wall, (SIDE + THICKNESS) / 2
    things = [_box("wall", wall.x, wall.y, THICKNESS / 2, wall.half, wall.angle, "wall")]
    things += [_box(f"border{s}y", 0.0, s * edge, SIDE / 2, THICKNESS / 2, 0.0, "wall") for s in (-1, 1)]
    things += [_box(f"border{s}x", s * edge, 0.0, THICKNESS / 2, SIDE / 2, 0.0, "wall") for s in (-1, 1)]
    things += [_box(f"crate{i}", c.x, c.y, CRATE, CRATE, c.angle, c.colour) for i, c in enumerate(layout.crates)]
    things += [
        f'<geom name="pillar{i}" type="cylinder" pos="{x} {y} 0.25" size="{r} 0.25" user="{REFLECTANCE["pillar"]}"/>'
        for i, (x, y, r) in enumerate(layout.pillars)
    ]
    standing = "\n    ".join(things)
    return f"""
<mujoco model="courier">
  <compiler angle="radian"/>
  <option timestep="{SUBSTEP}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <size nuser_geom="1"/>
  <default>
    <default class="wheel">
      <geom type="ellipsoid" size="{WHEEL_RADIUS} 0.02 {WHEEL_RADIUS}" mass="0.4" friction="1"/>
    </default>
    <default class="caster"><geom type="sphere" size="0.03" mass="0.05" condim="1" priority="1"/></default>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="{SIDE} {SIDE} 0.1" user="{REFLECTANCE["floor"]}"/>
    {standing}
    <body name="robot" pos="{x} {y} {WHEEL_RADIUS}" euler="0 0 {heading}">
      <freejoint name="free"/>
      <geom name="body" type="cylinder" pos="0 0 0.05" size="{BODY_RADIUS} 0.06" mass="5" friction="0.3"/>
      <geom class="caster" pos="0.15 0 -0.0698"/>
      <geom class="caster" pos="-0.15 0 -0.0698"/>
      {_wheel("left", TRACK / 2)}
      {_wheel("right", -TRACK / 2)}
    </body>
  </worldbody>
  <actuator>
    <velocity name="left" joint="left" kv="0.3" ctrlrange="{-FASTEST} {FASTEST}" forcerange="-1 1"/>
    <velocity name="right" joint="right" kv="0.3" ctrlrange="{-FASTEST} {FASTEST}" forcerange="-1 1"/>
  </actuator>
</mujoco>"""


def _box(name: str, x: float, y: float, half_x: float, half_y: float, angle: float, paint: str) -> str:
    where = f'pos="{x} {y} 0.25" size="{half_x} {half_y} 0.25" euler="0 0 {angle}"'
    return f'<geom name="{name}" type="box" {where} user="{REFLECTANCE[paint]}"/>'


def _wheel(name: str, y: float) -> str:
    return (
        f'<body name="{name}" pos="0 {y} 0"><joint name="{name}" type="hinge" axis="0 1 0" damping="0.01"/>'
        f'<geom name="{name}" class="wheel"/></body>'
    )


SOLID, FIRST_CRATE = 1, 2
"""What a surface is to the robot: 0 for the floor and its own parts, then what is in the way, then each crate."""


class World:
    """The physics of an arena: MuJoCo's model and data, and where the robot is in them."""

    def __init__(self, layout: Layout):
        mujoco = require("mujoco", "robotics")
        self.layout = layout
        self.mujoco: Any = mujoco
        self.model = mujoco.MjModel.from_xml_string(mjcf(layout))
        self.data = mujoco.MjData(self.model)
        self.robot = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, "robot")
        names = [self.model.geom(number).name for number in range(self.model.ngeom)]
        crates = {f"crate{i}": FIRST_CRATE + i for i in range(len(layout.crates))}
        solid = {name: SOLID for name in names if name.startswith(("wall", "border", "pillar"))}
        self._touchable = np.array([(solid | crates).get(name, 0) for name in names])
        mujoco.mj_forward(self.model, self.data)

    @property
    def pose(self) -> np.ndarray:
        """Where the robot is: x, y and heading, float64 [3]."""
        axes = self.data.xmat[self.robot].reshape(3, 3)
        return np.array([*self.data.xpos[self.robot][:2], math.atan2(axes[1, 0], axes[0, 0])])

    @property
    def wheels(self) -> np.ndarray:
        """How far the left and the right wheel have turned, radians, float64 [2]."""
        return self.data.qpos[7:9].copy()

    def drive(self, left: float, right: float, seconds: float) -> tuple[int | None, bool]:
        """Turn the wheels at so many radians per second for a while; ends early when a crate is touched.

        Returns:
            The number of the crate that was touched, if any, and whether anything else was.
        """
        self.data.ctrl[:] = left, right
        bumped = False
        for _ in range(round(seconds / SUBSTEP)):
            self.mujoco.mj_step(self.model, self.data)
            touched = int(self._touchable[self.data.contact.geom].max(initial=0))
            if touched >= FIRST_CRATE:
                return touched - FIRST_CRATE, bumped
            bumped |= touched == SOLID
        return None, bumped
