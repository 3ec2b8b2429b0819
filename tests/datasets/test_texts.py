import pytest

from data import banking77, sentence_polarity, tinyshakespeare
from perceiver import InputError


def polarity(root, praise, complaint):
    place = root / "sentence_polarity"
    place.mkdir()
    (place / "rt-polarity.pos").write_bytes(praise)
    (place / "rt-polarity.neg").write_bytes(complaint)


def test_sentences_are_divided_with_both_classes_everywhere(tmp_path):
    praise = "".join(f"good {i} \n" for i in range(50))
    complaint = "".join(f"bad {i} \n" for i in range(50))
    polarity(tmp_path, praise.encode(), complaint.encode())
    splits = sentence_polarity.load(tmp_path)
    assert {name: (len(part), sum(one.label for one in part)) for name, part in splits.items()} == {
        "train": (80, 40),
        "validation": (10, 5),
        "test": (10, 5),
    }
    assert len({one.text for part in splits.values() for one in part}) == 100
    assert all(one.label == one.text.startswith("good") for part in splits.values() for one in part)
    assert splits == sentence_polarity.load(tmp_path) != sentence_polarity.load(tmp_path, seed=1)


def test_sentences_are_read_in_either_encoding(tmp_path):
    polarity(tmp_path, "un café\x85 or two\n".encode(), "un café\x85 or two\n".encode("latin-1"))
    texts = [one.text for part in sentence_polarity.load(tmp_path).values() for one in part]
    assert texts == ["un café\x85 or two"] * 2


def test_a_blank_line_and_an_empty_file_are_named(tmp_path):
    polarity(tmp_path, b"a\n\nb\n", b"c\n")
    with pytest.raises(InputError, match=r"rt-polarity\.pos, line 2: expected a sentence, got a blank line"):
        sentence_polarity.load(tmp_path)
    (tmp_path / "sentence_polarity" / "rt-polarity.neg").write_bytes(b"")
    with pytest.raises(InputError, match=r"rt-polarity\.neg: expected content"):
        sentence_polarity.load(tmp_path)


def test_a_play_is_cut_in_order_and_between_characters(tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    text = ("é" * 101).encode()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(text)
    splits = tinyshakespeare.load(tmp_path)
    assert b"".join(splits.values()) == text
    assert [len(part.decode()) for part in splits.values()] == [91, 5, 5]
    assert {len(part) for part in splits.values()} == {182, 10}


def test_a_play_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_bytes(b"to be\xff")
    with pytest.raises(InputError, match=r"input\.txt: expected text in UTF-8, got byte 255 at 5"):
        tinyshakespeare.load(tmp_path)


def banking(root, categories='["a", "b"]', rows="how?,a\n"):
    place = root / "banking77"
    place.mkdir()
    (place / "categories.json").write_text(categories)
    for name in ("train", "test"):
        (place / f"{name}.csv").write_text("text,category\n" + rows)
    return place


def test_a_question_with_an_unknown_category_is_named_by_line(tmp_path):
    banking(tmp_path, rows="how?,a\nwhy?,c\n")
    with pytest.raises(InputError, match=r"train\.csv, line 3.*known category"):
        banking77.load(tmp_path)


def test_a_missing_table_and_a_bad_list_of_categories_are_named(tmp_path):
    place = banking(tmp_path)
    (place / "test.csv").unlink()
    with pytest.raises(InputError, match=r"test\.csv: expected .* no such file"):
        banking77.load(tmp_path)
    (place / "categories.json").write_text("[1]")
    with pytest.raises(InputError, match=r"categories\.json: expected a JSON list of names, got \[1\]"):
        banking77.load(tmp_path)


def test_the_real_texts(data_root):
    splits = sentence_polarity.load(data_root)
    assert {name: len(part) for name, part in splits.items()} == {"train": 8530, "validation": 1066, "test": 1066}
    assert sum(one.label for one in splits["test"]) == 533
    play = tinyshakespeare.load(data_root)
    assert [len(part) for part in play.values()] == [1_003_854, 55_770, 55_770]
    assert play["train"].startswith(b"First Citizen:\n")


def test_the_real_questions(data_root):
    splits = banking77.load(data_root)
    assert {name: len(part) for name, part in splits.items()} == {"train": 9002, "validation": 1001, "test": 3080}
    assert len(banking77.categories(data_root)) == 77
