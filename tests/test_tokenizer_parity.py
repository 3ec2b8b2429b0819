"""The byte vocabulary against DeepMind's BytesTokenizer and Hugging Face's PerceiverTokenizer."""

import functools
import json

import numpy as np
import pytest

import perceiver as p
from perceiver.adapters.text import SPECIAL_NAMES, decode_bytes, encode_bytes
from tests.models import GOLDENS

LONGEST = 512
DEEPMIND = p.Bytes(LONGEST)
HUGGING_FACE = p.Bytes(LONGEST, special=True, enclosed=True)


@functools.cache
def reference():
    path = GOLDENS / "tokenizer.json"
    if not path.is_file():
        pytest.skip(f"no tokenizer.json in {GOLDENS}")
    return json.loads(path.read_text(encoding="utf-8"))


def test_special_tokens_have_their_numbers():
    assert {f"[{name}]": number for name, number in reference()["special_ids"].items()} == {
        name: number for number, name in enumerate(SPECIAL_NAMES)
    }
    assert DEEPMIND.vocabulary == reference()["dm_vocab_size"] == reference()["hf_len"]


def test_every_text_is_encoded_as_by_both():
    items = reference()["items"]
    assert len(items) >= 200
    for item in items:
        text = item["text"]
        assert DEEPMIND.encode(text).tolist() == item["dm_ids"], text
        assert encode_bytes(text, special=True).tolist() == item["hf_ids_no_special"], text
        assert HUGGING_FACE.encode(text).tolist() == item["hf_ids"], text
    differing = {i["text"] for i in items if encode_bytes(i["text"], special=True).tolist() != i["dm_ids"]}
    assert differing == set(reference()["hf_differs_from_dm"])


def test_every_text_comes_back_as_from_both():
    for item in reference()["items"]:
        text = item["text"]
        assert decode_bytes(DEEPMIND.encode(text)) == item["dm_roundtrip"], text
        ids = encode_bytes(text, special=True)
        assert decode_bytes(ids, keep_special=True) == item["hf_decode"], text
        assert decode_bytes(ids) == item["hf_decode_skip_special"], text


def test_any_ids_are_decoded_as_by_both():
    for case in reference()["decode"]:
        ids = np.array(case["ids"])
        assert DEEPMIND.decode(ids) == case["dm_to_string"]
        assert HUGGING_FACE.decode(ids, keep_special=True) == case["hf_decode"]
        assert HUGGING_FACE.decode(ids) == case["hf_decode_skip_special"]


def test_padding_and_truncation():
    for case in reference()["pad_truncate"]:
        config = p.Bytes(case["max_length"], special=True, enclosed=True, truncate=True)
        loaded = [config.load(text) for text in case["texts"]]
        np.testing.assert_array_equal([ids for ids, _ in loaded], case["input_ids"])
        np.testing.assert_array_equal([mask for _, mask in loaded], np.array(case["attention_mask"], bool))


def test_pairs_are_one_text_with_a_separator():
    for case in reference()["pairs"]:
        assert HUGGING_FACE.encode(f"{case['a']}[SEP]{case['b']}").tolist() == case["hf_ids"]
