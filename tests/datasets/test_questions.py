"""Questions from labels: what is true, how it is asked, and that the test is asked otherwise."""

import string

import numpy as np
import pytest

from data import digits, ign_lidarhd
from data.fsdd import Recording
from data.questions import ANSWERS, WORDINGS, asked, exam, of_crop, of_pair, of_recording, of_scan, pairs

SOUND = np.zeros(100, np.float32)


def recording(digit, take=0):
    fields = {name: None for name in Recording.__dataclass_fields__}
    return Recording(**fields | {"file": f"{digit}_{take}.wav", "wave": SOUND, "digit": digit})


def crop(*labels):
    return ign_lidarhd.Crop(np.zeros((len(labels), 6), np.float32), np.array(labels, np.int32))


@pytest.mark.parametrize("kind", WORDINGS)
def test_no_wording_of_the_test_was_trained(kind):
    trained, held = ({" ".join(words.split()) for words in own} for own in WORDINGS[kind])
    assert len(trained) >= 6
    assert len(held) >= 3
    assert not trained & held


@pytest.mark.parametrize("digit", range(10))
def test_what_is_true_of_a_digit(digit):
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    for thing in (of_scan(3, image, digit), of_recording(recording(digit))):
        assert thing.answers == {
            "digit": digits.NAMES["English"][digit],
            "larger": "yes" if digit >= 5 else "no",
            "even": "yes" if digit in (0, 2, 4, 6, 8) else "no",
        }
        assert set(thing.answers.values()) <= set(ANSWERS)
    seen = of_scan(3, image, digit).seen["image"]
    assert seen.shape == (32, 32, 3)
    assert (seen[::4, ::4, :] == image).all()


def test_the_digit_that_is_asked_for_is_where_the_answer_says():
    for swapped, where in ((False, "sound"), (True, "second")):
        first, second = recording(7, 1), recording(2, 2)
        thing = of_pair(first, second, swapped)
        assert thing.said == "seven"
        assert thing.answers == {"which": "second" if swapped else "first"}
        assert thing.name.split(" and ")[where == "second"] == "7_1.wav"
        words = asked(thing, "which", np.random.default_rng(0), held_out=True).question
        assert "seven" in words
        assert "{" not in words


def test_pairs_are_of_different_digits_and_always_the_same():
    found = pairs([recording(digit, take) for digit in range(10) for take in range(3)], 200)
    assert len(found) == 200
    for thing in found:
        one, other = (name[0] for name in thing.name.split(" and "))
        assert one != other
    again = pairs([recording(digit, take) for digit in range(10) for take in range(3)], 200)
    assert [one.name for one in again] == [one.name for one in found]
    share = np.mean([thing.answers["which"] == "first" for thing in found])
    assert 0.4 < share < 0.6
    assert pairs([recording(1), recording(1, 1)], 5) == []  # no two digits, no pair


def test_shares_of_vegetation_and_buildings_leave_out_what_is_unclassified():
    names = list(ign_lidarhd.CLASSES.values())
    ground, low, high, building = (names.index(n) for n in ("ground", "low vegetation", "high vegetation", "building"))
    ignored = ign_lidarhd.IGNORED
    assert of_crop(0, crop(ground, low, high, low, ignored, ignored)).answers == {
        "building": "no",
        "vegetation": "75 percent",
    }
    assert of_crop(0, crop(building, building, ground, low)).answers == {"building": "yes", "vegetation": "25 percent"}
    assert of_crop(0, crop(ignored)).answers == {"building": "no", "vegetation": "0 percent"}
    one_of_a_hundred = crop(building, *[ground] * 99)
    assert of_crop(0, one_of_a_hundred).answers["building"] == "no"


def test_an_exam_asks_each_thing_everything_once_in_words_of_the_test():
    things = {"sounds": [of_recording(recording(digit)) for digit in range(4)]}
    found = exam(things)
    assert len({one.file for one in found}) == len(found) == 12
    assert all(one.question in WORDINGS[one.kind][True] for one in found)
    assert [one.question for one in exam(things)] == [one.question for one in found]
    assert [one.question for one in exam(things, seed=1)] != [one.question for one in found]


def test_wordings_fit_the_models_question():
    longest = max(len(words.format("seven").encode()) for own in WORDINGS.values() for part in own for words in part)
    assert longest <= 64 - 2
    assert set("".join(words for own in WORDINGS.values() for part in own for words in part)) <= {
        *string.ascii_letters,
        *" ?,.{}':",
    }
