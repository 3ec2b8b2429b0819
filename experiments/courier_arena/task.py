"""What the robot is told, and in which words; the test's wordings are not among those of the training."""

import dataclasses
import itertools

import numpy as np

from experiments.courier_arena.world import COLOURS, Layout

TARGETS = {
    False: ("go to {}", "drive to {}", "find {}", "bring it to {}", "move over to {}", "your goal is {}"),
    True: ("head for {}", "deliver this to {}", "please take the parcel to {}"),
}
SIDES = {
    False: ("stay {} of the wall", "keep {} of the wall", "pass the wall on the {}", "take the {} side of the wall"),
    True: ("go around the wall on the {}", "the way is {} of the wall"),
}
SOUNDING = {
    False: ("the crate that beeps", "the beeping crate", "the beacon", "the crate with the beacon"),
    True: ("the crate where the beacon beeps",),
}
JOINS = {False: ("{0}, {1}", "{1} and {0}", "{0} and {1}"), True: ("{0}, but {1}", "{1}, then {0}")}
"""By whether they are held out: verbs, sides, names of the crate that sounds, and how the parts are joined."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """What is asked, in words and for whoever judges it.

    text: the words. goal: number of the crate. left: whether to pass the wall on its left, seen from the start.
    sounding: the crate is named by its beacon, not by its colour.
    """

    text: str
    goal: int
    left: bool
    sounding: bool


def draw_instruction(layout: Layout, rng: np.random.Generator, held_out: bool) -> Instruction:
    """An instruction at random that fits the arena: half by colour, half by sound.

    held_out: in the test's wordings.
    """
    sounding, left = bool(rng.random() < 0.5), bool(rng.random() < 0.5)
    goal = layout.beacon if sounding else int(rng.integers(len(layout.crates)))
    return Instruction(
        _said(None if sounding else layout.crates[goal].colour, left, rng, held_out), goal, left, sounding
    )


def reworded(text: str, rng: np.random.Generator) -> str:
    """Another of the training's wordings of the same instruction."""
    colour = next((colour for colour in COLOURS if colour in text), None)
    return _said(colour, "left" in text, rng, held_out=False)


def mirrored(text: str) -> str:
    """What is said in the arena's mirror image."""
    return text.replace("left", "\0").replace("right", "left").replace("\0", "right")


def _said(colour: str | None, left: bool, rng: np.random.Generator, held_out: bool) -> str:
    """colour: None for the crate that sounds."""
    name = _one(SOUNDING[held_out], rng) if colour is None else f"the {colour} crate"
    target = _one(TARGETS[held_out], rng).format(name)
    side = _one(SIDES[held_out], rng).format("left" if left else "right")
    return _one(JOINS[held_out], rng).format(target, side)


def wordings(held_out: bool) -> list[str]:
    """Every text that `draw_instruction` may give."""
    names = [*SOUNDING[held_out], *(f"the {colour} crate" for colour in COLOURS)]
    targets = [target.format(name) for target in TARGETS[held_out] for name in names]
    sides = [side.format(word) for side in SIDES[held_out] for word in ("left", "right")]
    return [join.format(*parts) for join in JOINS[held_out] for parts in itertools.product(targets, sides)]


LONGEST = max(len(text.encode()) for held_out in (False, True) for text in wordings(held_out))
"""Bytes of the longest instruction."""


def _one(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[rng.integers(len(choices))]
