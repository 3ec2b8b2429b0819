import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save as save_tensors

from perceiver import hub
from perceiver.errors import InputError

HTTP = importlib.import_module(errors.HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
"""What the Hub's client speaks HTTP with: httpx or, since 2.0, httpx2."""

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = {"a.w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(3, np.int64), "c": np.ones((0, 4), "f4")}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def filled(folder, tensors=None, **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"d_model": 8}')
    if tensors is not None:
        (folder / "model.safetensors").write_bytes(save_tensors(tensors))
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def cached(cache, repository="org/tiny", ref="main", tensors=WEIGHTS, **files):
    """A repository as the Hub's client caches it: snapshots link to blobs, refs name a commit."""
    root = cache / ("models--" + repository.replace("/", "--"))
    snapshot = filled(root / "snapshots" / COMMIT, tensors, **files)
    (root / "blobs").mkdir()
    for number, path in enumerate(sorted(snapshot.iterdir())):
        os.replace(path, root / "blobs" / str(number))
        path.symlink_to(Path("../../blobs") / str(number))
    (root / "refs" / ref).parent.mkdir(parents=True)
    (root / "refs" / ref).write_text(COMMIT)
    return snapshot


def sharded(folder, where, shards):
    filled(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    for name, tensors in shards.items():
        (folder / name).write_bytes(save_tensors(tensors))
    return folder


def raw(header, data=b"", length=None):
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def same(found, expected):
    assert list(found) == sorted(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].flags.writeable
        np.testing.assert_array_equal(found[name], values)


def refused(match, source, revision=None):
    with pytest.raises(InputError, match=match) as caught:
        hub.resolve(source, revision)
    assert str(caught.value).startswith(f"{source}: ")
    return str(caught.value)


def online(monkeypatch, answer, download=None):
    """Put the Hub's two functions into a test's hands; returns what was asked."""
    asked = []

    def model_info(self, repository, *, revision=None, timeout=None):
        asked.append(("info", repository, revision))
        assert timeout
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in answer])

    def snapshot_download(repository, **options):
        asked.append(("download", repository, options.get("local_files_only", False)))
        if options.get("local_files_only"):
            return original(repository, **options)
        if isinstance(download, Exception):
            raise download
        asked.append(
            huggingface_hub.utils.filter_repo_objects(
                answer, allow_patterns=options["allow_patterns"], ignore_patterns=options["ignore_patterns"]
            )
        )
        return str(download)

    original = huggingface_hub.snapshot_download
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def http_error(kind, status):
    return kind("no", response=HTTP.Response(status, request=HTTP.Request("GET", "https://huggingface.co")))


def test_a_local_folder(tmp_path, monkeypatch):
    folder = filled(tmp_path / "org" / "tiny", WEIGHTS, preprocessor_config__json='{"size": 4}')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (folder, str(folder), "org/tiny", "./org/tiny", "~/org/tiny", Path("org/tiny")):
        found = hub.resolve(source)
        assert found.source == str(source)
        assert found.folder.samefile(folder)
        assert found.config() == {"d_model": 8}
        assert found.optional_json("preprocessor_config.json") == {"size": 4}
        assert found.optional_json("tokenizer_config.json") is None
        same(found.tensors(), WEIGHTS)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_an_id_comes_from_the_cache_when_offline(cache, revision):
    snapshot = cached(cache)
    found = hub.resolve("org/tiny", revision)
    assert found == hub.HubFiles("org/tiny", snapshot)
    assert found.config() == {"d_model": 8}
    same(found.tensors(), WEIGHTS)


def test_a_pull_request_of_the_cache(cache):
    cached(cache, ref="refs/pr/1")
    same(hub.resolve("org/tiny", "refs/pr/1").tensors(), WEIGHTS)
    refused("neither a local folder nor whole in the cache", "org/tiny")


@pytest.mark.parametrize(
    "error",
    [
        HTTP.ConnectError("[Errno -2] Name or service not known"),
        HTTP.ReadTimeout("timed out"),
        HTTP.ProxyError("no"),
        OSError("no route"),
        http_error(errors.HfHubHTTPError, 503),
        http_error(errors.RepositoryNotFoundError, 404),
    ],
)
def test_the_cache_serves_when_the_hub_does_not(cache, monkeypatch, error):
    cached(cache)
    asked = online(monkeypatch, error)
    same(hub.resolve("org/tiny").tensors(), WEIGHTS)
    assert asked == [("info", "org/tiny", None), ("download", "org/tiny", True)]


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (HTTP.ConnectError("[Errno -2] Name"), r"the Hub could not be reached \(ConnectError: \[Errno -2\] Name\)"),
        (http_error(errors.RepositoryNotFoundError, 401), "the Hub has no public model of this name"),
        (http_error(errors.GatedRepoError, 403), "terms are to be accepted at https://huggingface.co/org/tiny first"),
        (http_error(errors.RevisionNotFoundError, 404), "the Hub has no revision 'v2' of it"),
        (http_error(errors.HfHubHTTPError, 502), "the Hub answered with status 502"),
        (RuntimeError("x" * 10_000), "the Hub could not be reached"),
    ],
)
def test_what_is_nowhere_is_refused_with_the_reason_and_a_remedy(cache, monkeypatch, error, match):
    online(monkeypatch, error)
    message = refused(match, "org/tiny", "v2")
    assert f"neither a local folder nor whole in the cache ({cache})" in message
    assert "Check the spelling, connect to the network, or pass a folder with config.json" in message
    assert len(message) < 1000


def test_offline_is_said(cache):
    refused("HF_HUB_OFFLINE is set, so that the Hub was not asked", "org/tiny")


def test_only_what_is_read_is_downloaded(tmp_path, monkeypatch):
    folder = filled(tmp_path / "snapshot", WEIGHTS)
    read = [
        "config.json",
        "tokenizer.json",
        "vocab.txt",
        "spiece.model",
        "model.safetensors",
        "model-00001-of-2.safetensors",
    ]
    unread = [
        "pytorch_model.bin",
        "tf_model.h5",
        "training_args.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "README.md",
    ]
    asked = online(monkeypatch, read + unread, folder)
    assert hub.resolve("org/tiny", "v2").folder == folder
    assert asked[:2] == [("info", "org/tiny", "v2"), ("download", "org/tiny", False)]
    assert list(asked[2]) == read


def test_a_download_that_breaks_is_refused(tmp_path, monkeypatch):
    online(monkeypatch, ["config.json", "model.safetensors"], OSError(28, "No space left on device"))
    refused("No space left on device", "org/tiny")


def test_pickles_on_the_hub_are_refused_before_any_download(monkeypatch):
    asked = online(monkeypatch, ["config.json", "pytorch_model.bin"])
    message = refused(
        r"expected model.safetensors, got only pytorch_model.bin \(a pickle, which can run code", "org/tiny"
    )
    assert "hf download org/tiny --local-dir tiny && python -c" in message
    assert "revision='refs/pr/N'" in message
    assert asked == [("info", "org/tiny", None)]


def test_pickles_in_the_cache_are_refused(cache, monkeypatch):
    cached(cache, tensors=None, pytorch_model__bin="x")
    assert "HF_HUB_OFFLINE is set" in refused(r"got only pytorch_model.bin \(a pickle", "org/tiny")
    online(monkeypatch, HTTP.ConnectError("no network"))
    assert "no network" in refused(r"got only pytorch_model.bin \(a pickle", "org/tiny")


def test_a_cache_with_half_a_model_is_refused(cache):
    cached(cache, tensors=None)
    refused(r"expected model.safetensors or model.safetensors.index.json, found config.json$", "org/tiny")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("pytorch_model.bin", r"got only pytorch_model.bin \(a pickle, .* Convert it once: python -c \"import sys"),
        ("model.ckpt", r"got only model.ckpt \(a pickle, .* Convert it once: with the framework that it comes from"),
        ("tf_model.h5", r"got only tf_model.h5 \(another framework's format\)"),
        ("flax_model.msgpack", r"got only flax_model.msgpack \(another framework's format\)"),
    ],
)
def test_other_weights_in_a_folder_are_refused(tmp_path, name, match):
    folder = filled(tmp_path / "a model")
    (folder / name).write_text("x")
    message = refused(match, folder)
    assert name != "pytorch_model.bin" or message.endswith(f"'{folder}'")


def test_a_folder_without_a_model_is_refused(tmp_path):
    refused("expected a folder with config.json, got nothing", tmp_path / "none")
    refused("expected model.safetensors or .*, found nothing$", tmp_path)
    (tmp_path / "words").write_text("x")
    refused("expected a folder with config.json, got a file", tmp_path / "words")
    for number in range(30):
        (tmp_path / f"{number:02}").write_text("")
    refused("found 00, 01, .*, 19 and 11 more$", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(save_tensors(WEIGHTS))
    refused("expected config.json, found 00", tmp_path)


@pytest.mark.parametrize(
    "source", ["./org/tiny", "../tiny", "/no/such/tiny", "~/no/such/tiny", Path("org/tiny"), "~nobody/x"]
)
def test_a_path_is_never_sent_to_the_hub(monkeypatch, source):
    asked = online(monkeypatch, ["config.json", "model.safetensors"])
    refused("expected a folder with config.json, got nothing", source)
    assert not asked


@pytest.mark.parametrize(
    "source", ["", "a/b/c", "x y", "a\\b", "org/..", "org/x--y", "a\0b", "https://huggingface.co/org/tiny"]
)
def test_what_is_no_id_is_never_sent_to_the_hub(monkeypatch, source):
    asked = online(monkeypatch, ["config.json", "model.safetensors"])
    refused("expected a folder, or an id such as owner/name, got neither", source)
    assert not asked


def test_a_revision_of_a_folder_is_refused(tmp_path):
    refused("expected a revision for ids on the Hub only, got 'v1' for a folder", filled(tmp_path, WEIGHTS), "v1")


def test_floats_become_float32_and_integers_stay(tmp_path):
    values = np.array([1.5, -2.0, np.inf, np.nan, 3e-5], np.float32)
    kinds = {"half": np.float16, "double": np.float64, "single": np.float32}
    others = {d: np.array([0, 1], d) for d in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint64", "int64")}
    folder = filled(tmp_path, {**{n: values.astype(d) for n, d in kinds.items()}, **others})
    found = hub.resolve(folder).tensors()
    same(found, {**{n: values.astype(d).astype(np.float32) for n, d in kinds.items()}, **others})


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([[1.5, -2.0, 3.14], [np.inf, 1e-40, 65536]], np.float32).astype(ml_dtypes.bfloat16)
    header = {"x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}
    (filled(tmp_path) / "model.safetensors").write_bytes(raw(header, values.tobytes()))
    same(hub.resolve(tmp_path).tensors(), {"x": values.astype(np.float32)})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "expected content, got an empty file"),
        (b"words", "expected safetensors"),
        (b"\xff" * 40, "expected safetensors"),
        (save_tensors(WEIGHTS)[:-1], "expected safetensors"),
        (save_tensors(WEIGHTS)[:20], "expected safetensors"),
        (save_tensors(WEIGHTS) + b"x", "expected safetensors"),
        (raw({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, bytes(8)), "expected safetensors"),
        (raw({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)), "expected safetensors"),
        (raw({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, bytes(8)), "expected safetensors"),
        (raw({"x": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12)), "expected safetensors"),
        (raw({"x": {"dtype": "OBJ", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "expected safetensors"),
        (raw(b"{", length=2**60), "expected safetensors"),
        (raw(b'{"a": ' * 5000), "expected safetensors"),
        (
            raw({"x": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
            "x: expected one of the dtypes",
        ),
        (save_tensors({"x": np.array([1e300])}), "x: expected values within float32, got FloatingPointError"),
    ],
)
def test_damaged_weights_are_refused(tmp_path, content, match):
    path = filled(tmp_path) / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=match) as caught:
        hub.resolve(tmp_path).tensors()
    assert str(caught.value).startswith(f"{path}: ")


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_shards_are_joined(tmp_path):
    shards = {ONE: {"a.w": WEIGHTS["a.w"]}, TWO: {"b": WEIGHTS["b"], "c": WEIGHTS["c"], "unlisted": np.zeros(1)}}
    folder = sharded(tmp_path, {"b": TWO, "a.w": ONE, "c": TWO}, shards)
    same(dict(sorted(hub.resolve(folder).tensors().items())), WEIGHTS)


def test_missing_shards_and_tensors_are_listed_together(tmp_path):
    where = {"a": ONE, "b": TWO, "c": TWO, "d": "model-3.safetensors", "e": "model-4.safetensors"}
    folder = sharded(tmp_path, where, {ONE: {"a": np.zeros(1)}, TWO: {"x": np.zeros(1)}})
    with pytest.raises(InputError) as caught:
        hub.resolve(folder).tensors()
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{folder / 'model.safetensors.index.json'}: expected all that it lists:"
    assert [line.strip() for line in lines[1:]] == [
        "missing model-3.safetensors",
        "missing model-4.safetensors",
        f"{TWO} lacks b",
        f"{TWO} lacks c",
    ]


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "a\\b.safetensors", "x.bin", ""]
)
def test_an_index_names_files_of_its_folder_only(tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes(save_tensors(WEIGHTS))
    folder = sharded(tmp_path / "model", {"b": name}, {})
    with pytest.raises(InputError, match=r"index\.json: expected plain names of safetensors files"):
        hub.resolve(folder).tensors()


@pytest.mark.parametrize(
    "content",
    ["{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": [1]}}'],
)
def test_an_index_without_a_map_is_refused(tmp_path, content):
    filled(tmp_path, model__safetensors__index__json=content)
    with pytest.raises(InputError, match=r"index\.json: expected a weight_map from tensors to files"):
        hub.resolve(tmp_path).tensors()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "1" * 5000, "\0"])
def test_json_that_is_no_object_is_refused(tmp_path, content):
    files = hub.resolve(filled(tmp_path, WEIGHTS, config__json=content, tokenizer_config__json=content))
    for read, name in ((files.config, "config.json"), (lambda: files.optional_json("tokenizer_config.json"), "tokeni")):
        with pytest.raises(InputError, match=f"{name}.*: expected"):
            read()


def test_importing_costs_neither_jax_nor_the_hub():
    heavy = "{'jax', 'torch', 'huggingface_hub'} & set(sys.modules)"
    for module, expected in (("perceiver", "set() False"), ("perceiver.hub", "set() True")):
        code = f"import sys, {module}; print({heavy}, 'perceiver.hub' in sys.modules)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected
