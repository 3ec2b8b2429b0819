"""The whole path on the main job, with a few steps: train, go on, evaluate, predict, inspect."""

import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest

import perceiver
from perceiver import cli
from perceiver.io import write_png
from tests.started import ended

EXPERIMENT = "experiments/digits.py"
OPTIONS = ["--latents", "4", "--channels", "16", "--depth", "1", "--batch", "16"]


@pytest.fixture(scope="module", autouse=True)
def _at_the_project(request):
    patch = pytest.MonkeyPatch()
    patch.chdir(request.config.rootpath)
    patch.setenv("COLUMNS", "120")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that stopped half-way and went on: its folder, whether it had a report then, and what both said."""
    workdir = tmp_path_factory.mktemp("runs") / "digits"
    words = ["train", EXPERIMENT, "--workdir", str(workdir), "--smoke", *OPTIONS]
    said = [io.StringIO(), io.StringIO()]
    with contextlib.redirect_stdout(said[0]):
        cli.main([*words, "--stop-at", "2"])
    reported = (workdir / "report.json").exists()
    with contextlib.redirect_stderr(said[1]):
        cli.main(words)
    return workdir, reported, [each.getvalue() for each in said]


@pytest.fixture(scope="module")
def run(interrupted):
    return interrupted[0]


@pytest.fixture
def scan(tmp_path):
    from sklearn.datasets import load_digits

    path = tmp_path / "scan.png"
    write_png(path, (load_digits().images[0] * 15.9).astype(np.uint8))
    return path


def test_training_leaves_a_report_with_every_promised_figure_and_picture(run):
    report = json.loads((run / "report.json").read_text())
    assert report["test"].keys() >= {"accuracy", "zero_shot_accuracy", "recall_at_1"}
    assert report["baselines"]["logistic_regression"] > 0.9
    assert report["baselines"]["nearest_neighbour"] > 0.9
    assert report["control"].keys() == {"untrained", "shuffled_labels"}
    assert report["seconds"] > 0
    assert report["training"]["compilations"] == 1
    text = (run / "report.md").read_text()
    for name in ("curves.png", "reconstructions.png", "attention.png"):
        assert (run / name).read_bytes()[:4] == b"\x89PNG"
        assert name in text
    assert any((run / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {line["group"] for line in lines} == {"train", "validation", "latents"}


def test_evaluate_reproduces_the_report_from_the_saved_folder(run, capsys):
    cli.main(["evaluate", str(run), "--json"])
    got = json.loads(capsys.readouterr().out)
    reported = json.loads((run / "report.json").read_text())
    assert got["test"] == reported["test"]
    cli.main(["evaluate", str(run / "model")])
    table = capsys.readouterr().out
    assert f"{reported['test']['accuracy']:.6f}" in table


def test_predict_answers_all_three_questions_about_a_png(run, scan, tmp_path, capsys):
    cli.main(["predict", str(run), "--image", str(scan), "--out", str(tmp_path / "out"), "--json"])
    answers = json.loads(capsys.readouterr().out)
    assert answers.keys() == {"label", "embedding", "image"}
    assert sum(entry["probability"] for entry in answers["label"]["top"]) <= 1.001
    assert len(answers["embedding"]["nearest"]) == 10
    assert (tmp_path / "out" / "image.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "out" / "answers.json").read_text()) == answers


def test_predict_reads_dark_ink_on_white_paper_like_bright_ink_on_black(run, scan, tmp_path, capsys):
    from perceiver.io import read_image

    negative = tmp_path / "negative.png"
    write_png(negative, 255 - read_image(scan))
    for path in (scan, negative):
        cli.main(["predict", str(run), "--image", str(path), "--out", str(tmp_path), "--json"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second


def test_predict_answers_about_a_text_and_about_both(run, scan, tmp_path, capsys):
    cli.main(["predict", str(run), "--text", "sieben", "--image", str(scan), "--out", str(tmp_path)])
    assert "embedding" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_is_converted_to_fewer_bits_and_used_in_fewer_bits(run, scan, tmp_path, capsys):
    cli.main(["convert", str(run), str(tmp_path / "small"), "--weights", "bfloat16", "--compute", "bfloat16"])
    cli.main(["inspect", str(tmp_path / "small")])
    assert "computing in bfloat16" in capsys.readouterr().out
    for words in ([str(tmp_path / "small")], [str(run), "--weights", "bfloat16", "--compute", "bfloat16"]):
        cli.main(["predict", *words, "--image", str(scan), "--out", str(tmp_path), "--json"])
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    cli.main(["evaluate", str(run), "--json", "--weights", "int8"])
    assert json.loads(capsys.readouterr().out)["test"].keys() >= {"accuracy"}


def test_inspect_shows_parts_attention_and_runs(run, capsys):
    cli.main(["inspect", str(run), str(run)])
    shown = capsys.readouterr().out
    for word in ("input image", "encoder", "output embedding", "inputs → latents", "test.accuracy", "±", "XLA"):
        assert word in shown


def test_a_run_has_a_model_card_that_the_hub_reads(run):
    from huggingface_hub import ModelCard

    card = ModelCard.load(run / "card.md")
    assert card.data.library_name == "perceiver"
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    report = json.loads((run / "report.json").read_text())
    assert found["accuracy"] == pytest.approx(report["test"]["accuracy"], abs=1e-6)
    assert "untrained" in card.text


def test_inspect_lists_and_draws_what_a_run_says(run, tmp_path, capsys):
    (tmp_path / "young").mkdir()  # a run that has not validated yet has no model to describe
    shutil.copy(run / "metrics.jsonl", tmp_path / "young")
    cli.main(["inspect", str(tmp_path / "young")])
    shown = capsys.readouterr().out
    for word in ("share_of_peak", "GFLOP/s", "MiB", "compile_seconds", "gradient_norm/encoder", "latent_rank/within"):
        assert word in shown
    for name in ("attention_share", "attention_entropy", "influence"):
        assert f"{name}/image" in shown
        assert f"{name}/text" in shown
    assert (tmp_path / "young" / "curves.png").stat().st_size > 10_000


def test_a_run_goes_on_where_it_stopped(interrupted):
    workdir, reported, (stopped, went_on) = interrupted
    assert "stopped after step 2" in stopped
    assert not reported
    assert "goes on after step 2 of 4" in went_on
    assert (workdir / "report.json").exists()


def refused(words, capsys):
    return ended(words, 2, capsys).err.replace("\n", " ")


def test_a_folder_of_another_run_is_refused_with_the_difference(run, capsys):
    message = refused(["train", EXPERIMENT, "--workdir", str(run), "--smoke", *OPTIONS, "--seed", "7"], capsys)
    assert "seed was 0, is 7" in message


def test_mistakes_end_with_one_clear_line(run, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    cases = [
        (["fly"], "unknown command 'fly'"),
        (["train", "experiments/nothing.py"], "experiments/nothing.py: expected an experiment file"),
        (["train", str(empty)], "expected a function called 'empty'"),
        (["train", "digits"], "digits: expected an experiment file that ends in .py"),
        (["evaluate", str(tmp_path)], "no experiment.json says which experiment"),
        (["predict", str(tmp_path)], "MANIFEST.json"),
        (["predict", str(run)], "nothing to look at; give at least one of --image, --text"),
        (["predict", str(run), "--image", str(broken)], "broken.png"),
        (["predict", str(run), "--text", "a text that is far too long"], "expected 1 to 15 tokens, got 27"),
        (
            ["predict", str(run), "--text", "one", "--depth", "7"],
            "depth: expected 1, got 7; the model was trained at one",
        ),
        (["inspect"], "at least one"),
    ]
    for words, expected in cases:
        assert expected in refused(words, capsys), words


def test_a_damaged_model_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run / "model", copy)
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "model.safetensors: expected sha256" in refused(["inspect", str(copy)], capsys)


@pytest.mark.parametrize(
    ("words", "example"),
    [
        ([], "perceiver train experiments/digits.py"),
        (["train", "--help"], "perceiver train experiments/digits.py --smoke"),
        (["train", EXPERIMENT, "--help"], "--learning-rate"),
        (["evaluate", "--help"], "perceiver evaluate runs/digits --json"),
        (["predict", "--help"], "perceiver predict runs/digits --image scan.png"),
        (["inspect", "--help"], "perceiver inspect runs/digits"),
    ],
)
def test_help_teaches_by_example(words, example, capsys):
    with contextlib.suppress(SystemExit):
        cli.main(words)
    assert example in capsys.readouterr().out


def test_predict_help_names_the_modalities_of_the_model(run, capsys):
    with pytest.raises(SystemExit):
        cli.main(["predict", str(run), "--help"])
    shown = capsys.readouterr().out
    assert "--image" in shown
    assert "--text" in shown


def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["perceiver", "--version"])
    runpy.run_module("perceiver", run_name="__main__")
    assert capsys.readouterr().out.strip() == perceiver.__version__


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    for words in (["--help"], ["train", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "perceiver", *words], stdout=writing, stderr=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stderr) == (cli.CUT_OFF, b"")
    os.close(writing)
