import dataclasses
import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save as save_tensors

import perceiver as p
from perceiver import saving
from perceiver.errors import ConfigError, InputError
from tests.models import filled, tiny_batch, tiny_config, tiny_model

FILES = ("config.json", "preprocessing.json", "model.safetensors", "MANIFEST.json")


def small_model(seed=0, **changes):
    given = {"inputs": {"state": p.State(2)}, "encoder": p.Encoder(2, 4, 1, latent=p.Block(heads=2))}
    config = p.PerceiverConfig(**{**given, "outputs": {"label": p.Classes(2, ("no", "yes"))}, **changes})
    return filled(lambda rngs: p.Perceiver(config, rngs), seed)


def parameters(model):
    return saving.flatten(nnx.state(model, saving.STORED))


@pytest.fixture
def folder(tmp_path):
    return small_model().save(tmp_path / "model")


def resealed(folder, name, content):
    """Change a file and bring the manifest in line, as somebody who edits by hand might."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def edited(folder, name, change):
    tree = json.loads((folder / name).read_text())
    change(tree)
    resealed(folder, name, json.dumps(tree).encode())


def test_a_model_comes_back_bit_for_bit(tmp_path):
    model = tiny_model()
    again = p.from_pretrained(model.save(tmp_path / "deep" / "model"))
    assert again.config == model.config
    before, after = parameters(model), parameters(again)
    assert list(before) == list(after)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    run = nnx.jit(lambda m: m(tiny_batch(), outputs=["label"])["label"])
    np.testing.assert_array_equal(run(again), run(model))


def test_the_folder_holds_four_plain_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert json.loads((folder / "preprocessing.json").read_text())["outputs"]["label"]["head"]["names"] == ["no", "yes"]
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_training_run_stands_for_the_model_in_it(tmp_path):
    small_model().save(tmp_path / "run" / "model")
    assert p.from_pretrained(str(tmp_path / "run")).config == small_model().config


@pytest.mark.parametrize("name", FILES[:3])
def test_a_flipped_byte_is_refused_wherever_it_is(folder, name):
    content = (folder / name).read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(InputError, match=rf"{name}: expected sha256 .*: the file was changed"):
            p.from_pretrained(folder)


@pytest.mark.parametrize("name", FILES[:3])
def test_a_truncated_file_is_refused(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(InputError, match=rf"{name}: expected {len(content)} bytes, got {len(content) - 1}"):
        p.from_pretrained(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        p.from_pretrained(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "MANIFEST.json: not JSON"),
        (b"\xff", "MANIFEST.json: not JSON"),
        (b"[" * 100_000, "MANIFEST.json: not JSON"),
        (b"[]", "MANIFEST.json: expected format 1"),
        (b'{"format": 2, "files": {}}', "MANIFEST.json: expected format 1"),
        (b'{"format": 1, "files": {"../config.json": {}}}', "plain file names"),
        (b'{"format": 1, "files": {"config.json": 5}}', "plain file names"),
        (b'{"format": 1, "files": {}}', "MANIFEST.json: expected it to list config.json"),
    ],
)
def test_a_damaged_manifest_is_refused(folder, content, message):
    (folder / "MANIFEST.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        p.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(colour="red"), "config.json: PerceiverConfig has no field 'colour'"),
        (lambda t: t["encoder"].update(type="Encodr"), r"config.json.encoder: unknown type 'Encodr'; did you mean"),
        (lambda t: t.update(modality_dropout=float("nan")), "config.json.modality_dropout: expected a finite number"),
        (lambda t: t["encoder"].pop("depth"), "config.json.encoder: Encoder lacks the field 'depth'"),
    ],
)
def test_a_config_that_is_not_understood_is_refused(folder, change, message):
    edited(folder, "config.json", change)
    with pytest.raises(ConfigError, match=message):
        p.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"{", b"1" * 5000, b"\xff\xfe"], ids=["cut", "digits", "not text"])
def test_a_config_that_is_not_json_is_refused(folder, content):
    resealed(folder, "config.json", content)
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        p.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{bad]", b"\xff" * 40], ids=["empty", "header", "length"])
def test_weights_that_are_not_safetensors_are_refused(folder, content):
    resealed(folder, "model.safetensors", content)
    with pytest.raises(InputError, match=r"model\.safetensors: "):
        p.from_pretrained(folder)


def test_weights_of_a_dtype_that_no_model_has_are_refused(folder):
    header = json.dumps({"x": {"dtype": "U16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    resealed(folder, "model.safetensors", len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        p.from_pretrained(folder)


def test_all_disagreements_between_weights_and_config_are_listed_at_once(folder):
    tensors = {name: np.asarray(value) for name, value in parameters(small_model()).items()}
    gone = tensors.pop("encoder.latents")
    tensors["encoder.latent"] = gone
    tensors["decoders.label.head.linear.bias"] = np.zeros(3, np.float32)
    tensors["decoders.label.head.linear.kernel"] = np.zeros((4, 2), np.float16)
    resealed(folder, "model.safetensors", save_tensors(tensors))
    with pytest.raises(InputError, match="weights do not fit the config") as caught:
        p.from_pretrained(folder)
    problems = str(caught.value).splitlines()
    assert problems[0].startswith(str(folder / "model.safetensors"))
    assert [line.strip() for line in problems[1:]] == [
        "missing encoder.latents (2, 4)",
        "unexpected encoder.latent (2, 4)",
        "decoders.label.head.linear.bias: expected float32 (2,), got float32 (3,)",
        "decoders.label.head.linear.kernel: expected float32 (4, 2), got float16 (4, 2)",
    ]


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing: expected a folder with config\.json, got nothing"):
        p.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"but it has no MANIFEST\.json"):
        p.from_pretrained(tmp_path)


def test_a_model_folder_is_replaced_as_a_whole(folder):
    (folder / "left over").write_text("")
    other = small_model(seed=1)
    other.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    after = parameters(p.from_pretrained(folder))
    for name, value in parameters(other).items():
        np.testing.assert_array_equal(after[name], value)
    assert list(folder.parent.iterdir()) == [folder]


def test_an_empty_folder_is_filled_and_any_other_is_left_alone(tmp_path):
    (tmp_path / "empty").mkdir()
    small_model().save(tmp_path / "empty")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("words")
    (tmp_path / "file").write_text("words")
    for name in ("thesis", "file"):
        with pytest.raises(InputError, match=f"{name}: exists and is not a model folder"):
            small_model().save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter").read_text() == "words"
    assert (tmp_path / "file").read_text() == "words"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("failing", ["write", "move"])
def test_a_failed_save_leaves_the_old_model_in_place(folder, monkeypatch, failing):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError("no space left")

    if failing == "write":
        monkeypatch.setattr(saving, "write_durably", full)
    else:
        replace = saving.os.replace
        monkeypatch.setattr(
            saving.os, "replace", lambda a, b: full() if b == folder and ".old." not in str(a) else replace(a, b)
        )
    with pytest.raises(OSError, match="no space left"):
        small_model(seed=1).save(folder)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(folder.parent.iterdir()) == [folder]


def test_a_copied_folder_is_the_same_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    assert p.from_pretrained(tmp_path / "copy").config == small_model().config


@dataclasses.dataclass(frozen=True)
class Thermometer(p.State):
    """An adapter of a user."""

    unit: str = "kelvin"


def test_an_adapter_of_ones_own_is_loaded_when_it_is_named(tmp_path):
    model = small_model(inputs={"heat": Thermometer(1)})
    folder = model.save(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"config.json.inputs\['heat'\]: unknown type 'Thermometer'"):
        p.from_pretrained(folder)
    again = p.from_pretrained(folder, types=[Thermometer])
    assert again.config.inputs["heat"] == Thermometer(1)
    run = nnx.jit(lambda m: m({"heat": jnp.ones((1, 1, 1))})["label"])
    np.testing.assert_array_equal(run(again), run(model))


def test_parameters_of_the_tiny_model_have_readable_names():
    names = parameters(tiny_config().abstract())
    assert names["encoder.towers.0.layers.mlp.widen.kernel"].shape == (2, 8, 8)
    assert names["adapters.text.table"].shape == (262, 8)
    assert len(names) == len(jax.tree.leaves(nnx.state(tiny_config().abstract(), nnx.Param)))
