import json
import shutil
import subprocess
import sys

import pytest

from data import coco_captions_cc, emoji_noto64, fsdd, openclipart96, prepare, prepared, shards
from perceiver import InputError, MissingExtraError
from tests.datasets.making import coco, emoji, openclipart, recordings, same_items

MAKERS = {coco_captions_cc: coco, emoji_noto64: emoji, fsdd: recordings, openclipart96: openclipart}


@pytest.mark.parametrize("dataset", MAKERS, ids=lambda dataset: dataset.__name__)
def test_prepared_items_are_those_of_the_files(dataset, tmp_path):
    MAKERS[dataset](tmp_path / "raw")
    place = prepared.prepare(dataset.LAYOUT, tmp_path / "raw", tmp_path / "prepared")
    assert place == tmp_path / "prepared" / dataset.LAYOUT.name / "1.0.0"
    assert not list((tmp_path / "prepared").glob(".*"))
    from_files, from_records = dataset.load(tmp_path / "raw"), dataset.load(tmp_path / "prepared")
    assert list(from_files) == list(from_records)
    for name, part in from_files.items():
        assert len(part) == len(from_records[name]) > 0
        assert all(same_items(a, b) for a, b in zip(part, from_records[name], strict=True))


def test_a_prepared_speaker_can_be_held_out_and_resampled(tmp_path):
    recordings(tmp_path / "raw")
    prepared.prepare(fsdd.LAYOUT, tmp_path / "raw", tmp_path / "prepared")
    assert fsdd.speakers(tmp_path / "prepared") == ("Ben_2", "anna")
    for settings in ({"held_out": "anna"}, {"sample_rate": 11025}):
        a, b = (fsdd.load(tmp_path / root, **settings) for root in ("raw", "prepared"))
        for name in a:
            assert all(same_items(x, y) for x, y in zip(a[name], b[name], strict=True))


def test_empty_splits_are_prepared_and_read(tmp_path):
    recordings(tmp_path / "raw", indices=(0,))
    prepared.prepare(fsdd.LAYOUT, tmp_path / "raw", tmp_path / "prepared")
    assert [len(part) for part in fsdd.load(tmp_path / "prepared").values()] == [0, 0, 4]


def test_a_large_split_is_written_to_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "RECORDS_PER_FILE", 5)
    emoji(tmp_path / "raw")
    place = prepared.prepare(emoji_noto64.LAYOUT, tmp_path / "raw", tmp_path / "prepared")
    assert len(list(place.glob("*train*"))) == 5
    items = zip(
        emoji_noto64.load(tmp_path / "raw")["train"], emoji_noto64.load(tmp_path / "prepared")["train"], strict=True
    )
    assert all(same_items(a, b) for a, b in items)


@pytest.fixture
def damaged(tmp_path):
    """A prepared folder to damage, and what damages its test split."""
    emoji(tmp_path / "raw", count=60)
    place = prepared.prepare(emoji_noto64.LAYOUT, tmp_path / "raw", tmp_path)
    shutil.rmtree(tmp_path / "raw")
    return tmp_path, next(place.glob("*test*"))


@pytest.mark.parametrize("size", [0, 1000, 65536, 65536 + 4000])
def test_a_truncated_file_is_refused_at_once(damaged, size):
    root, file = damaged
    whole = file.read_bytes()
    assert len(whole) > size
    file.write_bytes(whole[:size])
    with pytest.raises(InputError, match=rf"1\.0\.0: {file.name}: expected an ArrayRecord file"):
        emoji_noto64.load(root)


def test_a_flipped_bit_is_refused_on_access(damaged):
    root, file = damaged
    data = bytearray(file.read_bytes())
    data[data.index(b"IDAT") + 20 if b"IDAT" in data else 2000] ^= 4
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"split test, record \d+: expected a whole record"):
        list(emoji_noto64.load(root)["test"])


def test_a_file_with_another_number_of_records_is_refused(damaged):
    root, file = damaged
    info = file.parent / "dataset_info.json"
    told = json.loads(info.read_text())
    next(split for split in told["splits"] if split["name"] == "test")["shardLengths"] = ["5"]
    info.write_text(json.dumps(told))
    with pytest.raises(InputError, match=rf"{file.name}: expected 5 records, got 9: the file is damaged"):
        emoji_noto64.load(root)


def test_another_dataset_under_the_name_is_refused(damaged):
    root, _ = damaged
    (root / "emoji_noto64").rename(root / "fsdd")
    with pytest.raises(InputError, match=r"fsdd/1\.0\.0: expected the field 'digit', got \["):
        fsdd.load(root)


def test_two_prepared_forms_are_refused(damaged):
    root, file = damaged
    shutil.copytree(file.parent, root / "emoji_noto64" / "2.0.0")
    with pytest.raises(InputError, match=r"emoji_noto64: expected one prepared dataset, got .*1\.0\.0, .*2\.0\.0"):
        emoji_noto64.load(root)


def test_the_variable_of_the_prepared_form_goes_before_that_of_files_but_not_before_the_option(tmp_path, monkeypatch):
    emoji(tmp_path / "raw", count=10)
    emoji(tmp_path / "other", count=20)
    prepared.prepare(emoji_noto64.LAYOUT, tmp_path / "other", tmp_path / "shelf")
    monkeypatch.setenv("PERCEIVER_DATA", str(tmp_path / "raw"))
    monkeypatch.delenv("PERCEIVER_PREPARED", raising=False)
    assert len(emoji_noto64.load()["train"]) == 8
    monkeypatch.setenv("PERCEIVER_PREPARED", str(tmp_path / "shelf"))
    assert len(emoji_noto64.load()["train"]) == 16
    assert len(emoji_noto64.load(tmp_path / "raw")["train"]) == 8


def test_a_damaged_source_leaves_nothing_behind(tmp_path):
    place = recordings(tmp_path / "raw")
    (place / "3_anna_2.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"3_anna_2\.wav: expected"):
        prepared.prepare(fsdd.LAYOUT, tmp_path / "raw", tmp_path / "prepared")
    assert list((tmp_path / "prepared").iterdir()) == []


def test_the_command_prepares_once_and_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    coco(tmp_path, count=10)
    monkeypatch.delenv("PERCEIVER_PREPARED", raising=False)
    words = ["coco_captions_cc", "--root", str(tmp_path)]
    for extra, code, said in (
        ([], 2, "expected a folder to write into: --to PREPARED, or the variable PERCEIVER_PREPARED"),
        (["--to", str(tmp_path / "out")], 0, "train 8, validation 1, test 1; every record was opened"),
        (["--to", str(tmp_path / "out")], 2, "prepared already"),
    ):
        if code:
            with pytest.raises(SystemExit, match=str(code)):
                prepare.main([*words, *extra])
        else:
            prepare.main([*words, *extra])
        streams = capsys.readouterr()
        assert said in (streams.err if code else streams.out)
    with pytest.raises(SystemExit):
        prepare.main(["--help"])
    assert all(name in capsys.readouterr().out for name in ("{coco_captions_cc,emoji_noto64,fsdd,openclipart96}",))


def test_every_layout_has_the_name_of_its_module():
    assert [layout.name for layout in prepare.LAYOUTS.values()] == sorted(
        dataset.__name__.removeprefix("data.") for dataset in MAKERS
    )


def test_nothing_of_it_needs_tensorflow_and_files_need_no_tfds(tmp_path):
    emoji(tmp_path / "raw", count=3)
    code = (
        "import sys; from data import emoji_noto64, prepared;"
        f"items = emoji_noto64.load(r'{tmp_path / 'raw'}')['train']; items[0];"
        "assert not {'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules);"
        f"prepared.prepare(emoji_noto64.LAYOUT, r'{tmp_path / 'raw'}', r'{tmp_path / 'out'}');"
        "assert not {'jax', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_without_a_prepared_form_has_none(tmp_path):
    assert shards.find(tmp_path) is None
    assert shards.find(tmp_path / "absent") is None


BEAM = {
    "in this process": (),
    "two processes": ("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BEAM)
def test_beam_writes_the_same_records_in_the_same_order(how, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install 'perceiver[beam]'")
    recordings(tmp_path / "raw", indices=(0,))  # two splits are empty
    place = prepared.prepare(fsdd.LAYOUT, tmp_path / "raw", tmp_path / "prepared", beam=BEAM[how])
    assert place == tmp_path / "prepared" / "fsdd" / "1.0.0"
    from_files, from_records = fsdd.load(tmp_path / "raw"), fsdd.load(tmp_path / "prepared")
    assert {name: len(part) for name, part in from_records.items()} == {"train": 0, "validation": 0, "test": 4}
    assert all(same_items(a, b) for a, b in zip(from_files["test"], from_records["test"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("how", BEAM)
def test_what_beam_cannot_read_is_named_and_nothing_is_left(how, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install 'perceiver[beam]'")
    recordings(tmp_path / "raw", indices=(0,))
    broken = sorted((tmp_path / "raw").rglob("*.wav"))[1]
    broken.write_bytes(b"junk")
    with pytest.raises(InputError, match=f"^{broken}: expected a file that starts with RIFF"):
        prepared.prepare(fsdd.LAYOUT, tmp_path / "raw", tmp_path / "prepared", beam=BEAM[how])
    assert not list((tmp_path / "prepared").iterdir())


def test_beam_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    recordings(tmp_path / "raw", indices=(0,))
    with pytest.raises(MissingExtraError, match=r"perceiver\[beam\]"):
        prepared.prepare(fsdd.LAYOUT, tmp_path / "raw", tmp_path / "prepared", beam=())
