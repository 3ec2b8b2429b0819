import numpy as np
import pytest

from data.lazy import Lazy
from data.rows import integer, read_rows, texts, unique
from data.splits import consecutive, divided, last_for_test, stratified
from perceiver import InputError


def whole(parts, count):
    """Whether parts are disjoint and complete."""
    return sorted(number for part in parts.values() for number in part) == list(range(count))


@pytest.mark.parametrize("count", [1, 2, 9, 10, 95, 1000])
def test_a_division_is_disjoint_complete_and_has_its_shares(count):
    parts = divided([f"key {i}" for i in range(count)])
    assert whole(parts, count)
    assert list(parts) == ["train", "validation", "test"]
    assert abs(len(parts["train"]) - 0.8 * count) < 1
    assert abs(len(parts["test"]) - 0.1 * count) <= 1


def test_a_division_depends_on_keys_and_seed_alone():
    keys = [f"key {i}" for i in range(200)]
    chosen = {keys[i] for i in divided(keys)["test"]}
    backwards = keys[::-1]
    assert {backwards[i] for i in divided(backwards)["test"]} == chosen
    assert {keys[i] for i in divided(keys, seed=1)["test"]} != chosen
    # Figures of other machines and versions are comparable only while this stays as it is.
    assert sorted(chosen)[:3] == ["key 108", "key 119", "key 129"]


def test_items_of_equal_key_stay_together_and_a_crowd_trains():
    keys = [f"key {i // 2}" for i in range(2000)] + ["crowd"] * 300
    parts = divided(keys)
    assert whole(parts, len(keys))
    of = {name: {keys[i] for i in part} for name, part in parts.items()}
    assert not of["train"] & of["test"]
    assert not of["train"] & of["validation"]
    assert not of["validation"] & of["test"]
    assert "crowd" in of["train"]


def test_a_stratified_division_has_every_class_in_its_share():
    classes = [0] * 100 + [1] * 300
    parts = stratified([str(i) for i in range(400)], classes)
    assert whole(parts, 400)
    assert [np.bincount(np.take(classes, part)).tolist() for part in parts.values()] == [[80, 240], [10, 30], [10, 30]]


def test_stretches_and_last_files():
    assert consecutive(range(10), {"train": 0.7, "validation": 0.8, "test": 1.0}) == {
        "train": range(7),
        "validation": range(7, 8),
        "test": range(8, 10),
    }
    assert last_for_test("abcd") == {"train": "ab", "validation": "c", "test": "d"}
    assert last_for_test("ab") == {"train": "", "validation": "", "test": "ab"}


def test_lazy_items_are_made_on_access():
    made = []

    def make(key):
        made.append(key)
        return key * 10

    items = Lazy([1, 2, 3], make)
    assert (len(items), made) == (3, [])
    assert (items[-1], made) == (30, [3])
    assert list(items[1:]) == [20, 30]
    with pytest.raises(IndexError):
        items[3]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1', "line 2: expected a JSON object in UTF-8, got JSONDecodeError"),
        ("", "line 2: expected a JSON object"),
        ("[1]", r"line 2: expected a JSON object, got \[1\]"),
        ('{"id": 1}', r"line 2: expected the field 'names', got \['id'\]"),
        ('{"id": true, "names": []}', "line 2, field 'id': expected a whole number, got True"),
        ('{"id": 1, "names": "a"}', "line 2, field 'names': expected a list of texts, got 'a'"),
        ('{"id": 1, "names": [2]}', "line 2, field 'names': expected a text, got 2"),
        ('{"id": 1, "names": ["\\ud800"]}', "line 2, field 'names': expected a text"),
        ('{"id": 0, "names": []}', None),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(line, message, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 0, "names": ["a"], "more": 1}\n' + line + "\n")
    if message is None:
        rows = read_rows(path, {"id": integer, "names": texts})
        assert rows == [{"id": 0, "names": ("a",)}, {"id": 0, "names": ()}]
        with pytest.raises(InputError, match="line 2: expected another id than line 1, got 0"):
            unique(rows, "id", path)
    else:
        with pytest.raises(InputError, match=rf"rows\.jsonl, {message}"):
            read_rows(path, {"id": integer, "names": texts})


def test_rows_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: expected a JSON object in UTF-8"):
        read_rows(tmp_path / "rows.jsonl", {})
