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
from perceiver.adapters.text import EOS, SPECIAL_NAMES, decode_bytes, encode_bytes, until_end
from perceiver.config import from_json, network_json, preprocessing_json, to_json
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


@settings(deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_NAMES, "[", "MASK", "]", "[MASK", "é", " "])).map("".join))
def test_special_tokens_in_a_text_survive(content):
    ids = encode_bytes(content, special=True)
    assert decode_bytes(ids, keep_special=True) == content
    assert len(ids) == len(encode_bytes(content)) - sum(len(name) - 1 for name in names_in(content))
    assert decode_bytes(encode_bytes(content)) == content


def names_in(content):
    """The special tokens of a text, found in another way than by the code under test."""
    return [name for name in SPECIAL_NAMES for _ in range(content.count(name))]


def test_special_tokens_and_broken_bytes_do_not_stop_decoding():
    ids = [text.BOS, 6 + ord("h"), text.MASK, 6 + ord("i"), text.EOS, text.PAD]
    assert decode_bytes(ids) == "hi"
    assert decode_bytes(ids, keep_special=True) == "[BOS]h[MASK]i[EOS][PAD]"
    assert decode_bytes(np.array([6 + 0xC3])) == "�"
    assert decode_bytes(np.zeros(0, int)) == ""


@pytest.mark.parametrize("ids", [[262], [-1], [6, 1000]])
def test_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(InputError, match=r"tokens in \[0, 262\), got"):
        decode_bytes(ids)


def test_text_that_utf8_cannot_write_is_refused():
    with pytest.raises(InputError, match=r"UTF-8 can write, got 'a.ud800'"):
        SMALL.load("a\ud800")


def test_a_mask_in_a_sentence_is_one_masked_byte():
    config = p.Bytes(9, special=True)
    ids, mask = config.load("a [MASK]c")
    assert ids.tolist() == [6 + ord("a"), 6 + ord(" "), text.MASK, 6 + ord("c"), *[text.PAD] * 5]
    assert mask.tolist() == [True] * 4 + [False] * 5
    assert config.decode(ids) == "a c"
    assert p.Bytes(9).load("a [MASK]c")[0].tolist() == encode_bytes("a [MASK]c").tolist()


def test_an_enclosed_text():
    config = p.Bytes(5, enclosed=True)
    assert config.load("hi")[0].tolist() == [text.CLS, 6 + ord("h"), 6 + ord("i"), text.SEP, text.PAD]
    assert config.load("")[1].tolist() == [True, True, False, False, False]
    assert config.decode(config.load("hi")[0]) == "hi"
    assert config.decode(config.load("hi")[0], keep_special=True) == "[CLS]hi[SEP][PAD]"
    with pytest.raises(InputError, match="1 to 5 tokens, got 6 from 'four'"):
        config.load("four")


def test_a_text_is_cut_where_that_is_asked_for():
    assert p.Bytes(3, truncate=True).decode(p.Bytes(3, truncate=True).load("four")[0]) == "fou"
    ids, mask = p.Bytes(4, enclosed=True, truncate=True).load("four")
    assert ids.tolist() == [text.CLS, 6 + ord("f"), 6 + ord("o"), text.SEP]
    assert mask.all()
    assert p.Bytes(4, special=True, truncate=True).load("abc[MASK]d")[0][-1] == text.MASK


@pytest.mark.parametrize("fields", [{"max_length": 0}, {"max_length": 2, "enclosed": True}])
def test_a_length_that_holds_nothing_is_refused(fields):
    with pytest.raises(ConfigError, match=r"Bytes\.max_length"):
        p.Bytes(**fields)


def test_the_handling_of_text_belongs_to_the_preprocessing():
    config = p.Bytes(9, special=True, enclosed=True, truncate=True)
    assert preprocessing_json(config) == {"special": True, "enclosed": True, "truncate": True}
    assert not preprocessing_json(config).keys() & network_json(config).keys()
    assert from_json(to_json(config), p.Bytes, [p.Bytes]) == config
    assert from_json(network_json(config), p.Bytes, [p.Bytes]) == p.Bytes(9)  # as saved by earlier versions


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


def test_masked_tokens_keep_their_embedding():
    module = built(SMALL)
    hidden = np.arange(6) < 4
    values = module(IDS, np.broadcast_to(hidden, (2, 6))).values
    np.testing.assert_array_equal(values, module(IDS).values)


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
    assert config.decode(np.array([1, 3, 4]), keep_special=True) == "go right"
    np.testing.assert_array_equal(built(config)(ids[None]).mask[0], mask)
    assert built(config).table.shape == (5, 8)


def test_the_tokenizers_own_padding_comes_first():
    assert p.Subwords(4, tokenizer({**WORDS, "<fill>": 5}, "<fill>")).padding == 5
    assert p.Subwords(4, tokenizer({"?": 0, "<pad>": 1})).padding == 1
    assert p.Subwords(4, tokenizer({"?": 0, "go": 1})).padding == 0


def test_special_subwords_are_shown_on_request():
    made = Tokenizer.from_str(tokenizer(WORDS))
    made.add_special_tokens(["[SEP]"])
    config = p.Subwords(4, made.to_str())
    ids = config.encode("go [SEP] left")
    assert config.decode(ids) == "go left"
    assert config.decode(ids, keep_special=True) == "go [SEP] left"


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


def test_a_text_ends_at_its_end():
    seven = encode_bytes("seven")
    assert until_end(np.array([*seven, EOS, *seven])) == ("seven", True)
    assert until_end(seven) == ("seven", False)
    assert until_end(np.array([EOS])) == ("", True)
