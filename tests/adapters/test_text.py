import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import perceiver as p
from perceiver.adapters import text
from perceiver.adapters.text import decode_bytes, encode_bytes
from perceiver.errors import ConfigError, InputError, MissingExtraError
from tests.models import built, check_masked_elements_do_not_matter, close, encoding

SMALL = p.Bytes(6, width=8)
IDS = np.random.default_rng(0).integers(6, 262, (2, 6), dtype=np.int32)


def tokenizer(vocabulary, padding=None):
    """The content of a tokenizer.json of whole words."""
    made = Tokenizer(WordLevel(vocabulary, unk_token="?"))
    made.pre_tokenizer = Whitespace()
    if padding is not None:
        made.enable_padding(pad_id=vocabulary[padding], pad_token=padding)
    made.enable_truncation(max_length=2)
    return made.to_str()


WORDS = {"?": 0, "go": 1, "left": 2, "right": 3, "[PAD]": 4}


@settings(deadline=None)
@given(st.text())
def test_any_text_survives_the_byte_vocabulary(content):
    ids = encode_bytes(content)
    assert len(ids) == len(content.encode())
    assert ids.dtype == np.int32
    assert not len(ids) or (ids.min() >= 6 and ids.max() < SMALL.vocabulary == 262)
    assert decode_bytes(ids) == content


def test_special_tokens_and_broken_bytes_do_not_stop_decoding():
    ids = [text.BOS, 6 + ord("h"), text.MASK, 6 + ord("i"), text.EOS, text.PAD]
    assert decode_bytes(ids) == "hi"
    assert decode_bytes(np.array([6 + 0xC3])) == "�"


def test_tokens_are_rows_of_the_table_plus_positions():
    module = built(SMALL)
    tokens = module(IDS)
    assert tokens.values.shape == (2, SMALL.tokens, SMALL.channels)
    close(tokens.values, module.table[...][IDS] + module.position.table[...])
    assert tokens.mask.all()


def test_small_integer_ids_are_read_in_full():
    module = built(SMALL)
    np.testing.assert_array_equal(module(IDS.clip(max=255).astype(np.uint8)).values, module(IDS.clip(max=255)).values)


def test_padding_does_not_matter():
    encode, _ = encoding(SMALL)
    short = IDS.copy()
    short[:, 4:] = text.PAD
    close(encode(short), encode(IDS[:, :4]))
    np.testing.assert_array_equal(encode(short), encode(IDS, np.broadcast_to(np.arange(6) < 4, (2, 6))))


def test_what_a_mask_hides_does_not_matter():
    check_masked_elements_do_not_matter(SMALL, IDS, np.arange(6) < np.array([[3], [5]]), 99)
    check_masked_elements_do_not_matter(SMALL, IDS, np.array([True, False]), 7)


def test_a_full_mask_can_show_padding_ids_and_presence_cannot():
    module, ids = built(SMALL), np.zeros((2, 6), np.int32)
    assert module(ids, np.ones((2, 6), bool)).mask.all()
    assert not module(ids, np.ones(2, bool)).mask.any()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 7), np.int32), "at most 6 tokens, got 7"),
        (np.zeros((2, 6), np.float32), "integer values, got dtype float32"),
        (np.zeros(6, np.int32), r"shape \(b, n\), got \(6,\)"),
        ("go left", r"an array of shape \(b, n\), got str"),
    ],
)
def test_what_does_not_fit_is_refused(raw, message):
    module = built(SMALL)
    with pytest.raises(InputError, match=message):
        module(raw)


def test_a_string_is_encoded_and_padded():
    ids, mask = SMALL.load("hé")
    np.testing.assert_array_equal(ids, [6 + 104, 6 + 0xC3, 6 + 0xA9, 0, 0, 0])
    np.testing.assert_array_equal(mask, np.arange(6) < 3)
    assert SMALL.decode(ids) == "hé"
    assert (ids.shape, ids.dtype) == (SMALL.example(1).shape[1:], SMALL.example(1).dtype)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "1 to 6 tokens, got 0"),
        ("1234567", "1 to 6 tokens, got 7 from '1234567'"),
        (b"hi", "expected a string, got bytes"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(source, message):
    with pytest.raises(InputError, match=message):
        SMALL.load(source)


def test_subwords_take_their_vocabulary_from_the_tokenizer():
    config = p.Subwords(4, tokenizer(WORDS), width=8)
    assert (config.vocabulary, config.padding) == (5, 4)
    ids, mask = config.load("go right up")  # longer than the tokenizer's own truncation
    np.testing.assert_array_equal(ids, [1, 3, 0, 4])
    np.testing.assert_array_equal(mask, [True, True, True, False])
    assert config.decode(np.array([1, 3, 4])) == "go right"
    np.testing.assert_array_equal(built(config)(ids[None]).mask[0], mask)
    assert built(config).table.shape == (5, 8)


def test_the_tokenizers_own_padding_comes_first():
    assert p.Subwords(4, tokenizer({**WORDS, "<fill>": 5}, "<fill>")).padding == 5
    assert p.Subwords(4, tokenizer({"?": 0, "<pad>": 1})).padding == 1
    assert p.Subwords(4, tokenizer({"?": 0, "go": 1})).padding == 0


def test_ids_with_gaps_have_a_row_each():
    config = p.Subwords(4, tokenizer({"?": 0, "go": 1, "far": 9}))
    assert config.vocabulary == 10
    np.testing.assert_array_equal(config.load("far")[0][:1], [9])


def test_a_broken_tokenizer_is_refused():
    with pytest.raises(ConfigError, match=r"not the content of a tokenizer\.json"):
        p.Subwords(4, '{"version": "1.0"}')


def test_a_missing_tokenizer_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"perceiver\[text\]"):
        p.Subwords(4, tokenizer({"?": 0, "never seen before": 1}))
