"""The code in docs/ does what it says there."""

import json
import re

import numpy as np
import pytest

from perceiver import Embedding, Encoder, Image, PerceiverConfig, cli
from perceiver.io import write_wav
from tests.models import noisy, tiny_batch, tiny_inputs

RATE = 16000


def blocks(request, name):
    text = (request.config.rootpath / "docs" / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_a_folder_of_files_becomes_a_trained_model_in_under_sixty_lines(request, tmp_path, monkeypatch):
    (code,) = blocks(request, "new_dataset.md")
    assert len(code.splitlines()) < 60
    experiment = tmp_path / "experiments" / "birds.py"
    experiment.parent.mkdir()
    experiment.write_text(code, encoding="utf-8")
    rng = np.random.default_rng(0)
    for kind, pitch in (("owl", 0.05), ("tit", 0.4)):
        place = tmp_path / "files" / "birds" / kind
        place.mkdir(parents=True)
        for take in range(10):
            wave = 0.3 * np.sin(np.arange(9000) * pitch * rng.uniform(0.9, 1.1))
            write_wav(place / f"{take}.wav", wave.astype(np.float32), RATE)
    monkeypatch.chdir(request.config.rootpath)
    run = tmp_path / "run"
    cli.main(["train", str(experiment), "--root", str(tmp_path / "files"), "--smoke", "--workdir", str(run)])
    report = json.loads((run / "report.json").read_text())
    assert report["test"]["items"] == 4
    assert report["training"]["skipped_samples"]["count"] == 0


@pytest.mark.slow
def test_a_modality_of_ones_own_is_one_file(request, tmp_path, monkeypatch):
    adapter, use = blocks(request, "new_modality.md")
    (tmp_path / "radar.py").write_text(adapter, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(use, names)
    model, radar = names["model"], names["Radar"](200)
    sweep, mask = radar.load(np.random.default_rng(0).uniform(0, 1, (40, 4)))
    assert isinstance(model.config.inputs["camera"], Image)
    seen = model({"radar": sweep[None]}, {"radar": mask[None]})["obstacle"]
    sweep[40:] = np.nan
    assert np.array_equal(seen, model({"radar": sweep[None]}, {"radar": mask[None]})["obstacle"])
    with pytest.raises(ValueError, match="at most 200 detections"):
        radar.load(np.zeros((201, 4)))


@pytest.mark.slow
def test_the_objective_of_several_senses_brings_them_together(request):
    (code,) = blocks(request, "contrast.md")
    names = {}
    exec(code, names)
    inputs = {"image": tiny_inputs()["image"], "text": tiny_inputs()["text"], "audio": tiny_inputs()["waveform"]}
    model = noisy(PerceiverConfig(inputs, Encoder(4, 8, depth=1), {"embedding": Embedding(4)}))
    given = tiny_batch(4)
    batch = {
        "inputs": {"image": given["image"], "text": given["text"], "audio": given["waveform"]},
        "targets": {
            "concept": np.array([0, 1, 1, 2]),
            **{f"has_{name}": np.array([True, True, name != "audio", True]) for name in inputs},
        },
    }
    loss, _ = names["objective"](model, batch, None)
    assert np.isfinite(loss)
    assert loss > 0
    alone, _ = names["objective"](model, batch | {"targets": batch["targets"] | {"concept": np.arange(4)}}, None)
    assert alone != loss


@pytest.mark.slow
def test_a_language_model_is_given_eyes(request):
    (code,) = blocks(request, "captions.md")
    found = {}
    exec(code, found)
    assert found["logits"].shape == (1, 64, 262)
    assert found["rows"].shape == (1, 64)
    assert (found["rows"][0, :3] == found["ids"][0, :3]).all()
