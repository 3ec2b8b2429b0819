"""DeepMind's checkpoints, from small files of the same names."""

import pickle

import numpy as np
import pytest

import perceiver as p
from perceiver.saving import weights
from perceiver.zoo import flow, kinetics, releases, tables
from perceiver.zoo.releases import RELEASES, Release, flat, told_by
from tests.models import filled

ENCODER = p.Encoder(3, 8, 2, latent=p.Block(heads=2))


def image(**fields):
    fields = {"position": p.Fourier(2)} | fields
    return p.PerceiverConfig({"image": p.Image((16, 16, 3), **fields)}, ENCODER, {"label": p.Classes(3)})


TEXT = {"text": p.Bytes(6, width=8)}
WORDS = {"text": p.Output(p.TokenLogits(262, tied_to="text"), p.Slots(6, width=8), p.Block(residual=False))}


def clips():
    return kinetics.autoencoder(
        frames=(2, 4, 8),
        samples=32,
        samples_per_patch=8,
        video=p.Fourier(2, (2.0, 1.0, 2.0)),
        audio=p.Fourier(3, (32.0,)),
        classes=p.Classes(3),
        label_width=5,
        encoder=ENCODER,
        trunk=(p.Block(residual=False), 6),
    )


def tiny(name, config):
    """A released model at a tiny size: the same mark and table."""
    found = {release.name: release for release in RELEASES}[name]
    return Release(name, found.mark, config, found.rows)


SMALL = {
    release.name: release
    for release in (
        tiny("language", lambda: p.PerceiverConfig(TEXT, ENCODER, WORDS)),
        tiny("flow", lambda: flow._flow((4, 6), ENCODER, p.Block(residual=False))),
        tiny("kinetics", clips),
        tiny("imagenet_conv", lambda: image(stem=p.ConvStem(4))),
        tiny("imagenet_learned", lambda: image(project=4, position=p.Projected(p.Learned(4), 4))),
        tiny("imagenet_fourier", image),
    )
}


def checkpoint(release, seed=0):
    """A model and its parameters as Haiku nests them."""
    model = filled(lambda rngs: release.config().initial(rngs.params()), seed)
    arrays = tables.write(release.rows(model.config), {name: np.asarray(v) for name, v in weights(model).items()})
    tree = {"params": {}, "state": {}}
    for key, array in arrays.items():
        module, name = key.rsplit("/", 1)
        tree["state" if "_ema" in key else "params"].setdefault(module, {})[name] = array
    return model, tree


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(releases, "RELEASES", tuple(SMALL.values()))


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_is_told_by_its_contents_and_read(name, tmp_path, small):
    model, tree = checkpoint(SMALL[name])
    path = tmp_path / "released.pystate"
    path.write_bytes(pickle.dumps(tree))
    again = p.from_pretrained(path)
    assert again.config == model.config
    for key, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[key], value)


def test_parameters_may_come_without_state_or_as_a_pair(small):
    _, tree = checkpoint(SMALL["imagenet_fourier"])
    whole = flat(tree, "here")
    for form in (tree["params"], (tree["params"], tree["state"])):
        assert flat(form, "here").keys() == whole.keys()


def test_the_released_marks_tell_the_full_models_apart():
    for release in RELEASES:
        config = release.config()
        keys = {key for entry in release.rows(config) for key in entry.keys}
        assert told_by(dict.fromkeys(keys, np.zeros(1)), "here") is release
    assert {release.name for release in RELEASES} == SMALL.keys()


def test_what_is_no_released_model_is_refused(tmp_path, small):
    path = tmp_path / "other.pickle"
    for tree, message in (
        ({"resnet": {"w": np.zeros(2)}}, "expected a released Perceiver IO, got the modules resnet"),
        ([1, 2, 3], "expected a dict of parameters, got list"),
        ({"params": {"a": np.zeros(2)}}, "a: expected a dict by name"),
        ({"params": {"a": {"w": "text"}}}, "a/w: expected an array, got str"),
    ):
        path.write_bytes(pickle.dumps(tree))
        with pytest.raises(p.InputError, match=message):
            p.from_pretrained(path)


def test_arrays_that_do_not_fit_are_listed(tmp_path, small):
    _, tree = checkpoint(SMALL["imagenet_fourier"])
    del tree["params"]["classification_decoder/~/basic_decoder/output"]["b"]
    tree["params"]["more"] = {"w": np.zeros(2, np.float32)}
    path = tmp_path / "released.pickle"
    path.write_bytes(pickle.dumps(tree))
    with pytest.raises(p.InputError, match=r"read as imagenet_fourier") as caught:
        p.from_pretrained(path)
    assert "missing classification_decoder/~/basic_decoder/output/b (3,)" in str(caught.value)
    assert "unexpected more/w (2,)" in str(caught.value)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch evil",)


def test_a_pickle_with_code_in_it_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pickle"
    path.write_bytes(pickle.dumps({"params": Evil()}))
    with pytest.raises(p.InputError, match=r"evil\.pickle.*system"):
        p.from_pretrained(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["evil.pickle"]


@pytest.mark.parametrize("ending", [".pickle", ".PKL"])
@pytest.mark.parametrize("form", ["pair", "without state", "arrays only"])
def test_a_file_may_hold_parameters_in_any_of_their_forms(form, ending, tmp_path, small):
    model, tree = checkpoint(SMALL["imagenet_fourier"])
    forms = {
        "pair": (tree["params"], tree["state"]),
        "without state": {"params": tree["params"], "state": None},
        "arrays only": tree["params"],
    }
    path = tmp_path / f"released{ending}"
    path.write_bytes(pickle.dumps(forms[form]))
    for key, value in weights(p.from_pretrained(str(path))).items():
        np.testing.assert_array_equal(value, weights(model)[key])


def test_missing_statistics_are_listed(tmp_path, small):
    _, tree = checkpoint(SMALL["imagenet_conv"])
    path = tmp_path / "released.pystate"
    path.write_bytes(pickle.dumps({"params": tree["params"]}))
    with pytest.raises(p.InputError, match="read as imagenet_conv") as caught:
        p.from_pretrained(path)
    norm = "image_preprocessor/~/conv2_d_downsample/~/batchnorm/~"
    missing = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert missing == [
        f"missing {norm}/{kind}_ema/{name}" for kind in ("mean", "var") for name in
        ("average (1, 1, 1, 4)", "counter ()", "hidden (1, 1, 1, 4)")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "empty file"), (b"\x80\x04", "byte 2: expected an instruction")],
)
def test_what_is_no_pickle_is_refused(content, message, tmp_path):
    path = tmp_path / "released.pystate"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(p.InputError, match=rf"released\.pystate: .*{message}"):
        p.from_pretrained(path)


def test_an_empty_tree_is_refused(tmp_path):
    path = tmp_path / "released.pickle"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(p.InputError, match="got the modules none"):
        p.from_pretrained(path)


def test_a_revision_of_a_file_is_refused(tmp_path, small):
    _, tree = checkpoint(SMALL["imagenet_fourier"])
    path = tmp_path / "released.pickle"
    path.write_bytes(pickle.dumps(tree))
    with pytest.raises(p.InputError, match="revision"):
        p.from_pretrained(path, revision="main")
