"""A saved model draws, and its pictures have a record."""

import numpy as np
import pytest

from perceiver import InputError, cli, cli_draw, provenance
from perceiver.io import read_image
from perceiver.masked_tokens import Filling, drawn
from perceiver.pretrained import from_pretrained
from tests.models import noisy, tiny_model
from tests.test_masked_tokens import CONFIG, READER


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return noisy(CONFIG).save(tmp_path_factory.mktemp("draws") / "model")


def test_pictures_are_drawn_into_a_file_with_its_record(model, tmp_path, capsys):
    out = tmp_path / "deep" / "drawn.png"
    words = ["draw", str(model), "--label", "hat", "0", "--each", "3", "--steps", "4", "--seed", "5", "-o", str(out)]
    cli.main([*words, "--record"])
    assert "written: " in capsys.readouterr().out
    loaded = from_pretrained(model)
    levels = drawn(loaded, ["hat"] * 3 + [0] * 3, filling=Filling(4), seed=5)
    shown = read_image(out, channels=1)
    assert shown.shape == (6, 12, 1)
    for number, picture in enumerate(READER.pixels(levels)):
        down, across = divmod(number, 3)
        np.testing.assert_array_equal(shown[3 * down : 3 * down + 3, 4 * across : 4 * across + 4], picture)
    assert [finding.fine for finding in provenance.verify(out, loaded)] == [True, None, None, True]


def test_what_cannot_be_drawn_is_said(model, tmp_path):
    for words, said in (
        ({"label": ()}, "labels: expected at least one, got none"),
        ({"label": ("cap",)}, r"inputs\['label'\]: expected a class, got 'cap'"),
        ({"label": ("hat",), "each": 0}, "--each: expected at least 1, got 0"),
    ):
        with pytest.raises(InputError, match=said):
            cli_draw.draw(str(model), out=tmp_path / "x.png", **words)
    other = tiny_model().save(tmp_path / "other")
    with pytest.raises(InputError, match="expected a model with an input Levels"):
        cli_draw.draw(str(other), ("1",), out=tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
