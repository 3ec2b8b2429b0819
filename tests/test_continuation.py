import functools
import importlib

import jax.numpy as jnp
import numpy as np
import pytest

from perceiver import Bytes, InputError
from perceiver.adapters.text import EOS, SPECIALS, encode_bytes
from perceiver.attention import Block
from perceiver.autoregressive import AutoregressiveConfig
from perceiver.autoregressive_parts import Ids
from perceiver.errors import ConfigError
from perceiver.generation import Sampling
from tests.models import noisy

continuation = importlib.import_module("perceiver.continuation")
Ended, Wish = continuation.Ended, continuation.Wish
CONFIG = AutoregressiveConfig(Bytes(40, width=8), 8, 8, 1, cross=Block(heads=2), latent=Block(heads=2))
LIKELIEST = Sampling(0.0)


@functools.cache
def model():
    return noisy(CONFIG)


@functools.cache
def told_to(answer):
    """A model that writes the same bytes over and over: it foretells by nothing but its last id."""
    made = noisy(CONFIG)
    made.logits.kernel[...] = jnp.zeros_like(made.logits.kernel[...])
    made.logits.bias[...] = jnp.zeros(262).at[answer].set(50.0)
    return made


def test_texts_go_on_by_their_seed_and_not_by_their_company():
    wish = Wish(20, Sampling(0.8, top_k=50), seed=3)
    both = continuation.continued(model(), ["To be", "a longer prompt"], wish)
    assert both == continuation.continued(model(), ["To be", "a longer prompt"], wish)
    assert both[0] == continuation.continued(model(), ["To be"], wish)[0]
    assert both[1] == continuation.continued(model(), ["x", "a longer prompt"], wish)[1]
    assert both[0] != continuation.continued(model(), ["To be"], Wish(20, wish.sampling, seed=4))[0]


def test_the_pieces_are_the_whole_and_nothing_recompiles_for_a_length():
    before = continuation._go_on._cache_size()
    wish = Wish(None, Sampling(0.9), seed=1)
    pieces = list(continuation.stream(model(), ["a", "other"], wish))
    whole = continuation.continued(model(), ["a", "other"], wish)
    for row in (0, 1):
        own = [piece for piece in pieces if piece.row == row]
        assert "".join(piece.text for piece in own) == whole[row].text
        assert [piece.ended for piece in own] == [None] * (len(own) - 1) + [whole[row].ended]
    for most in (1, 7, 30):
        continuation.continued(model(), ["b", "longer by far"], Wish(most, Sampling(0.9)))
    assert continuation._go_on._cache_size() == before + 1


def test_an_answer_ends_with_its_length_the_budget_or_the_end():
    letter = told_to(SPECIALS + ord("x"))
    assert continuation.continued(letter, ["ab"], Wish(5, LIKELIEST)) == [("x" * 5, Ended.LENGTH)]
    assert continuation.continued(letter, ["ab"], Wish(500, LIKELIEST)) == [("x" * 37, Ended.BUDGET)]
    assert continuation.continued(told_to(EOS), ["ab"], Wish(5, LIKELIEST)) == [("", Ended.END)]


def test_an_empty_prompt_lets_the_model_start():
    assert continuation.continued(told_to(SPECIALS + ord("x")), [""], Wish(3, LIKELIEST)) == [("xxx", Ended.LENGTH)]


def test_bytes_that_are_no_utf8_are_shown_as_such():
    assert continuation.continued(told_to(SPECIALS + 0xE2), ["é"], Wish(4, LIKELIEST)) == [("\ufffd" * 4, Ended.LENGTH)]


def test_a_letter_is_told_once_it_is_whole(monkeypatch):
    answer = encode_bytes("añ€b😀")
    monkeypatch.setattr(continuation, "CHUNK", 1)
    pieces = list(_writing(answer, monkeypatch))
    assert [piece.text for piece in pieces if piece.text] == ["a", "ñ", "€", "b", "😀"]


def _writing(answer, monkeypatch, stop=()):
    """The pieces of a text that is written whatever the model."""

    def written(graph, state, draft, until, key, sampling, end, about):
        place = min(int(until), int(draft.limits[0]))
        ids = np.asarray(draft.ids).copy()
        ids[0, 1:place] = answer[: place - 1]
        return continuation.dataclasses.replace(draft, ids=jnp.asarray(ids), place=jnp.int32(place))

    monkeypatch.setattr(continuation, "_go_on", written)
    return continuation.stream(model(), [""], Wish(len(answer), LIKELIEST, stop=stop))


@pytest.mark.parametrize("chunk", [1, 3, 16])
@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("three",), "one two "),
        (("twin", "two t"), "one "),
        (("threes", "hre"), "one two t"),
        (("four",), "one two three"),
    ],
)
def test_a_text_ends_in_front_of_a_stop_string_however_it_is_cut_into_pieces(stop, text, chunk, monkeypatch):
    monkeypatch.setattr(continuation, "CHUNK", chunk)
    pieces = list(_writing(encode_bytes("one two three"), monkeypatch, stop))
    assert "".join(piece.text for piece in pieces) == text
    assert pieces[-1].ended is (Ended.LENGTH if "four" in stop else Ended.STOP)


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match="prompt 1: expected 1 to 39 tokens, to leave room for more, got 41"):
        continuation.stream(model(), ["a", "b" * 40])
    with pytest.raises(InputError, match="prompts: expected at least one"):
        continuation.stream(model(), [])
    with pytest.raises(InputError, match="prompt 0: expected text that UTF-8 can write"):
        continuation.stream(model(), ["\ud800"])
    numbers = AutoregressiveConfig(Ids(20, 40, 8), 8, 8, 1, cross=Block(heads=2), latent=Block(heads=2))
    with pytest.raises(InputError, match="expected an autoregressive model of text, got Autoregressive"):
        continuation.stream(noisy(numbers), ["a"])
    for wrong, name in ((lambda: Wish(0), "most"), (lambda: Wish(stop=("",)), "stop")):
        with pytest.raises(ConfigError, match=rf"Wish\.{name}: expected"):
            wrong()
