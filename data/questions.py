"""Questions about pictures, sounds and laser scans, made from the labels that people gave them.

Not a dataset of its own: what is asked about is of the digits inside of scikit-learn, fsdd, ign_lidarhd and
emoji_noto64, in their own splits. The wordings of the test are never those of the training.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data import digits, emoji_noto64, fsdd, ign_lidarhd
from data.pictures import over_white

YES, NO, FIRST, SECOND = "yes", "no", "first", "second"
DIGITS = digits.NAMES["English"]
SHARES = tuple(f"{share} percent" for share in (0, 25, 50, 75, 100))
CATEGORIES = (
    "activities",
    "animals & nature",
    "component",
    "flags",
    "food & drink",
    "objects",
    "people & body",
    "smileys & emotion",
    "symbols",
    "travel & places",
)
ANSWERS = (*DIGITS, YES, NO, FIRST, SECOND, *SHARES, *CATEGORIES)
"""Everything that is ever answered."""
FEW = 0.02
"""A scan with a smaller share of points on buildings has none."""
SIDE = 10.0
"""Metres along the square of a scan."""

WORDINGS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "digit": (
        (
            "which digit is this?",
            "what digit is it?",
            "name the digit",
            "tell me the digit",
            "which number is it?",
            "what is this number?",
            "say which digit you have here",
            "the digit, please",
        ),
        ("tell me which digit it is", "what is the digit here?", "please name this number"),
    ),
    "larger": (
        (
            "is it larger than four?",
            "is this digit larger than four?",
            "is the number above four?",
            "is it more than four?",
            "tell me if this is larger than four",
            "larger than four or not?",
            "does this number lie above four?",
        ),
        ("is the digit more than four?", "tell me if it lies above four", "is this number larger than four or not?"),
    ),
    "even": (
        (
            "is it even?",
            "is this digit even?",
            "even or odd? say yes if even",
            "tell me if the number is even",
            "can it be divided by two?",
            "is this an even number?",
            "does two divide it?",
        ),
        ("is the number even?", "tell me if this digit can be divided by two", "is it an even digit?"),
    ),
    "which": (
        (
            "which of these two sounds says {}?",
            "which sound says {}?",
            "who says {}, the first or the second?",
            "where do you hear {}?",
            "is {} in the first or the second sound?",
            "tell me which of the two says {}",
            "{}: first or second?",
        ),
        ("which of the two sounds is {}?", "tell me where you hear {}", "who says {}?"),
    ),
    "building": (
        (
            "is there a building in this tile?",
            "is there a building?",
            "do you see a building here?",
            "any building in this scan?",
            "tell me if there is a house or building",
            "does this scan show a building?",
            "building, yes or no?",
        ),
        ("does this tile show a building?", "do you see any building?", "tell me if a building is in this scan"),
    ),
    "vegetation": (
        (
            "what share is vegetation?",
            "how much of this is vegetation?",
            "what part of the tile is vegetation?",
            "which share of the points is vegetation?",
            "how much vegetation is there?",
            "tell me the share of vegetation",
            "vegetation: how many percent?",
        ),
        (
            "what share of the tile is vegetation?",
            "tell me how much vegetation there is",
            "how many percent is vegetation?",
        ),
    ),
    "category": (
        (
            "what emoji category is this?",
            "which category is it?",
            "name the category of this emoji",
            "tell me the category",
            "what kind of emoji is it?",
            "which kind of picture is this?",
            "the emoji's category, please",
        ),
        ("which emoji category is it?", "tell me what kind of emoji this is", "name its category"),
    ),
}
"""By kind: how it is asked in training, and how in the test."""


@dataclasses.dataclass(frozen=True, eq=False)
class Thing:
    """Something to ask about.

    name: what it is called. seen: what the senses are given, by "image" (uint8 [h, w, 3]), "sound" and "second"
    (float32 [t]) or "points" (float32 [n, 6]). answers: by kind of question. said: a digit that the question names, for
    "which".
    """

    name: str
    seen: Mapping[str, np.ndarray]
    answers: Mapping[str, str]
    said: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """A thing, and one question about it."""

    thing: Thing
    kind: str
    question: str

    @property
    def answer(self) -> str:
        """The right one."""
        return self.thing.answers[self.kind]

    @property
    def file(self) -> str:
        """What it is called."""
        return f"{self.thing.name} {self.kind}"


def asked(thing: Thing, kind: str, rng: np.random.Generator, held_out: bool) -> Asked:
    """A question of a kind about a thing, in one of its wordings at random."""
    return Asked(thing, kind, str(rng.choice(WORDINGS[kind][held_out])).format(thing.said))


def about_digit(digit: int) -> dict[str, str]:
    """What is true of a digit."""
    return {"digit": DIGITS[digit], "larger": YES if digit > 4 else NO, "even": NO if digit % 2 else YES}


def of_scan(number: int, image: np.ndarray, digit: int) -> Thing:
    """A written digit; its 8 x 8 pixels as squares of 4 x 4."""
    picture = np.repeat(np.repeat(np.repeat(image, 4, axis=0), 4, axis=1), 3, axis=2)
    return Thing(f"scan {number}", {"image": picture}, about_digit(digit))


def of_recording(item: fsdd.Recording) -> Thing:
    """A spoken digit."""
    return Thing(item.file, {"sound": item.wave}, about_digit(item.digit))


def of_pair(first: fsdd.Recording, second: fsdd.Recording, swapped: bool) -> Thing:
    """Two spoken digits, of which the question names the first, or after a swap the second. They have to differ."""
    said = DIGITS[first.digit]
    pair = (second, first) if swapped else (first, second)
    seen = {"sound": pair[0].wave, "second": pair[1].wave}
    return Thing(f"{pair[0].file} and {pair[1].file}", seen, {"which": SECOND if swapped else FIRST}, said)


def of_crop(number: int, crop: ign_lidarhd.Crop) -> Thing:
    """A square of an airborne scan; unclassified points count for nothing."""
    labels = crop.labels[crop.labels != ign_lidarhd.IGNORED]
    named = np.array(list(ign_lidarhd.CLASSES.values()))[labels]
    green = np.char.endswith(named, "vegetation").mean() if len(named) else 0.0
    built = (named == "building").mean() if len(named) else 0.0
    answers = {"building": YES if built >= FEW else NO, "vegetation": SHARES[round(4 * float(green))]}
    return Thing(f"square {number}", {"points": crop.points}, answers)


def of_emoji(item: emoji_noto64.Emoji) -> Thing:
    """An emoji over white."""
    return Thing(item.file, {"image": over_white(item.image)}, {"category": item.category.lower()})


@functools.cache
def load(root: Path | None = None) -> dict[str, dict[str, list[Thing]]]:
    """By split, things by where they are from: "scans", "sounds", "pairs", "squares" and "emoji".

    Raises:
        InputError: a dataset is absent or damaged.
    """
    sounds, scans, emoji = fsdd.load(root, sample_rate=8000), digits.load(), emoji_noto64.load(root)
    tiles = ign_lidarhd.load(root)
    found = {}
    for split in ("train", "validation", "test"):
        recordings = list(sounds[split])
        squares = ign_lidarhd.crops(tiles[split], SIDE, SIDE / 4 if split == "train" else SIDE / 2, 512)
        found[split] = {
            "scans": [of_scan(number, *scans[split][number]) for number in range(len(scans[split]))],
            "sounds": [of_recording(item) for item in recordings],
            "pairs": pairs(recordings, len(recordings)),
            "squares": [of_crop(number, crop) for number, crop in enumerate(squares)],
            "emoji": [of_emoji(item) for item in emoji[split]],
        }
    return found


def pairs(recordings: Sequence[fsdd.Recording], count: int, seed: int = 0) -> list[Thing]:
    """So many pairs of different digits, the same for the same seed."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count and len({item.digit for item in recordings}) > 1:
        one, other = (recordings[int(i)] for i in rng.integers(len(recordings), size=2))
        if one.digit != other.digit:
            found.append(of_pair(one, other, bool(rng.random() < 0.5)))
    return found


def exam(things: Mapping[str, Sequence[Thing]], seed: int = 0) -> list[Asked]:
    """Every question that a thing can be asked, each once, in the test's wordings; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return [asked(thing, kind, rng, True) for part in things.values() for thing in part for kind in thing.answers]
