import numpy as np
import pytest

import perceiver as p
from perceiver.ctc import BLANK, Beam, beam_search
from perceiver.errors import InputError
from perceiver.fusion import counted_scorer

HEAD = p.CTC(" abc")


def test_letters_follow_as_often_as_was_counted():
    scores = counted_scorer(["ab", "ab", "ac"], HEAD, order=3)
    texts = [(), (2,), (2, 3), (4, 4, 4)]
    shares = np.exp(scores([tuple(HEAD.encode(text)) for text in ("", "a", "ab", "cc")]))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares[0].argmax() == 2  # a
    assert shares[1][3] > shares[1][4] > shares[1][2]  # b, then c, then what never came
    assert shares[2].argmax() == BLANK  # the end
    one = counted_scorer(["ab"], HEAD, order=1)([()])[0]
    np.testing.assert_allclose(np.exp(one), (np.array([1, 0, 1, 1, 0]) + 3 / 5) / 6)
    assert len(scores(texts)) == 4


def test_a_word_that_is_cut_short_is_completed():
    path = [2, 3, 4, 1, 2, 3, 0]  # "abc ab", all but sure; a "c" may be in the last step
    shares = np.full((7, 5), 0.01)
    shares[np.arange(7), path] = 0.96
    shares[6] = [0.6, 0.01, 0.01, 0.01, 0.37]
    logs = np.log(shares)
    assert HEAD.decode(beam_search(logs, Beam(8))) == "abc ab"
    scorer = counted_scorer(["abc abc", "abc", "abc abc abc"], HEAD)
    assert HEAD.decode(beam_search(logs, Beam(8, scorer))) == "abc abc"


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(InputError, match="expected at least one to count the letters of, got none"):
        counted_scorer([], HEAD)
    with pytest.raises(InputError, match="got 'x'"):
        counted_scorer(["axb"], HEAD)
