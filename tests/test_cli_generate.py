"""A saved model writes, and what it is asked wrongly is said."""

import json

import pytest

from perceiver import Encoder, PerceiverConfig, cli, cli_generate, provenance
from perceiver.adapters.text import SPECIALS
from perceiver.continuation import Ended, Piece, continued
from perceiver.generation import Sampling
from perceiver.pretrained import from_pretrained
from perceiver.watermark import Watermark
from tests.models import noisy, tiny_inputs
from tests.started import ended
from tests.test_continuation import CONFIG, LIKELIEST, Wish, told_to


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return noisy(CONFIG).save(tmp_path_factory.mktemp("writes") / "model")


def written(capsys, *words):
    cli.main(["generate", *map(str, words)])
    return capsys.readouterr()


def test_a_prompt_is_gone_on_from(model, capsys):
    shown = written(capsys, model, "--prompt", "To be", "--most", "12", "--temperature", "0.7", "--top-k", "40")
    wish = Wish(12, Sampling(0.7, top_k=40), seed=0)
    (text,) = continued(from_pretrained(model), ["To be"], wish)
    assert shown.out == "To be" + text.text.translate(cli_generate.UNSHOWN) + "\n"
    assert "it is as long as was asked for" in shown.err


def test_several_prompts_options_and_json(model, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("und so weiter", encoding="utf-8")
    words = [model, "--prompt", "a", "", "--file", tmp_path / "more.txt", "--most", "9", "--seed", "4"]
    words += ["--top-p", "0.9", "--repetition", "1.2", "--stop", "qq", "zz"]
    words += ["--watermark", "rosebud"]
    told = json.loads(written(capsys, *words, "--json").out)
    assert [entry["prompt"] for entry in told] == ["a", "", "und so weiter"]
    wish = Wish(9, Sampling(1.0, None, 0.9, 1.2, Watermark("rosebud")), 4, ("qq", "zz"))
    texts = continued(from_pretrained(model), ["a", "", "und so weiter"], wish)
    assert [entry["text"] for entry in told] == [text.text for text in texts]
    assert {entry["ended"] for entry in told} <= {"length", "end", "stop"}
    shown = written(capsys, *words)
    parts = shown.out.rstrip("\n").split(cli_generate.RULE)
    assert len(parts) == 3
    assert parts[2].startswith("und so weiter")
    assert "text 2: " in shown.err


def test_what_is_written_into_a_file_has_its_record(model, tmp_path, capsys):
    out = tmp_path / "deep" / "text.txt"
    shown = written(capsys, model, "--prompt", "ab", "--most", "5", "--seed", "7", "-o", out, "--record")
    assert out.read_text(encoding="utf-8").startswith("ab")
    assert "written: " in shown.err
    findings = provenance.verify(out, from_pretrained(model))
    assert [finding.fine for finding in findings] == [True, None, True]
    assert json.loads(provenance.beside(out).read_text())["seed"] == 7


def test_a_text_is_shown_as_it_comes(capsys):
    def pieces():
        yield Piece(1, "y", None)
        assert capsys.readouterr().out == "A"
        yield Piece(0, "x", None)
        assert capsys.readouterr().out == "x"
        yield Piece(1, "z", Ended.END)
        yield Piece(0, "", Ended.LENGTH)

    rest = list(cli_generate._shown(pieces(), ["A", "B"]))
    assert len(rest) == 4
    assert capsys.readouterr().out == cli_generate.RULE + "Byz\n"


@pytest.mark.parametrize(
    ("byte", "shown", "kept"), [(0xE2, "\ufffd", "\ufffd"), (0x1B, "\ufffd", "\x1b"), (0x0A, "\n", "\n")]
)
def test_bytes_that_are_no_text_or_that_a_terminal_obeys(byte, shown, kept, tmp_path, capsys):
    made = told_to(SPECIALS + byte)
    folder = made.save(tmp_path / "model")
    out = tmp_path / "out.txt"
    words = [folder, "--prompt", "é", "--most", "3", "--temperature", "0", "-o", out]
    assert written(capsys, *words).out == "é" + 3 * shown + "\n"
    assert out.read_text(encoding="utf-8") == "é" + 3 * kept + "\n"
    assert continued(made, ["é"], Wish(3, LIKELIEST))[0].text == 3 * kept


def test_what_cannot_be_written_is_said(model, tmp_path, capsys):
    def refused(*words):
        return ended(["generate", *map(str, words)], 2, capsys).err

    assert "expected something to go on from, by --prompt or --file" in refused(model)
    assert "prompt 1: expected 1 to 39 tokens, to leave room for more, got 61" in refused(
        model, "--prompt", "a", "b" * 60
    )
    assert "prompt 0: expected text that UTF-8 can write" in refused(model, "--prompt", "\udcff")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "latin.txt: expected text in UTF-8" in refused(model, "--file", tmp_path / "latin.txt")
    assert "none.txt: expected text in UTF-8" in refused(model, "--file", tmp_path / "none.txt")
    assert "--record: expected a file to write beside" in refused(model, "--prompt", "a", "--record")
    assert "Sampling.temperature: expected 0 or more" in refused(model, "--prompt", "a", "--temperature=-1")
    assert "Wish.most: expected at least 1" in refused(model, "--prompt", "a", "--most", "0")
    assert "Wish.stop: expected strings with letters" in refused(model, "--prompt", "a", "--stop", "")
    reads = noisy(PerceiverConfig({"text": tiny_inputs()["text"]}, Encoder(4, 8, depth=1), {})).save(tmp_path / "reads")
    assert "expected an autoregressive model of text, got Perceiver" in refused(reads, "--prompt", "a")
    assert "expected" in refused(tmp_path / "nothing", "--prompt", "a")


def test_help_teaches_by_example(capsys):
    with pytest.raises(SystemExit):
        cli.main(["generate", "--help"])
    assert 'perceiver generate runs/language_model --prompt "ROMEO:"' in capsys.readouterr().out
