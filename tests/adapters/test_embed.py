"""Positions that are added to the values instead of put behind them."""

import numpy as np
import pytest

import perceiver as p
from tests.models import built


@pytest.mark.parametrize(
    ("adapter", "raw"),
    [
        (p.Image((4, 4, 1), patch=2, project=6, position=p.Learned(6), add_position=True), (2, 4, 4, 1)),
        (p.Video((2, 2, 2, 1), (1, 1, 1), project=6, position=p.Learned(6), add_position=True), (2, 2, 2, 2, 1)),
        (p.Waveform(8, 8000, patch=2, project=6, position=p.Learned(6), add_position=True), (2, 8)),
    ],
)
def test_positions_may_be_added(adapter, raw):
    module = built(adapter)
    tokens = module(np.zeros(raw, np.float32)).values
    assert adapter.channels == tokens.shape[-1] == 6
    expected = module.embed.project.bias[...] + module.embed.position.table[...]
    np.testing.assert_allclose(tokens[0], expected, atol=1e-6)


def test_positions_that_are_added_have_the_values_width():
    with pytest.raises(p.ConfigError, match="as wide as the values"):
        _ = p.Image((4, 4, 1), position=p.Learned(6), add_position=True).channels
