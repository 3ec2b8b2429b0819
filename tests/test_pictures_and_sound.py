"""What the recipes of generated pictures and sound compare with: splines between cells, and a critic of copies."""

import numpy as np
import pytest

from experiments import any_resolution, masked_images
from perceiver import Grid, Levels


@pytest.mark.parametrize("shape", [(5, 7), (16,)])
def test_what_is_asked_between_cells_is_where_the_answer_is_taken_from(shape):
    ramp = np.indices(shape).sum(axis=0) / np.float32(20)  # splines through it are the same ramp
    inner = (slice(1, -2),) * len(shape)
    for seed in range(6):
        made = any_resolution.sample(any_resolution.Piece("ramp", ramp), np.random.default_rng(seed))
        sign = -1 if made["inputs"]["piece"].ravel()[-1] < 0 else 1
        moved, values = made["targets"]["moved"], made["targets"]["values"].reshape(shape)
        places = np.asarray(Grid(shape, inclusive=False).places(shape)) + 2.0 * moved / np.array(shape)
        cells = (places + 1) / 2 * np.array(shape)  # what the model is asked, counted in cells
        there = sign * cells.sum(axis=-1).reshape(shape) / 20
        np.testing.assert_allclose(values[inner], there[inner], atol=0.02)
        assert made["inputs"]["piece"].shape == (shape if len(shape) == 1 else (*shape, 1))


def test_splines_go_through_the_cells():
    values = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    finer = any_resolution.interpolated(values)
    assert finer.shape == (24, 32)
    np.testing.assert_allclose(finer[::4, ::4], values, atol=1e-6)


def test_decibels_are_of_all_pieces_together():
    pieces = [any_resolution.Piece(str(level), np.full((2, 2), level, np.float32)) for level in (0.5, 1.0)]
    back = np.stack([piece.values + 0.1 for piece in pieces])
    figures = any_resolution.figures_of(any_resolution.compared(pieces, back))
    assert figures["psnr_db"] == pytest.approx(20.0, abs=1e-3)
    assert figures["signal_to_noise_db"] == pytest.approx(10 * np.log10(0.625 / 0.01), abs=1e-3)


def test_sound_is_cut_into_loud_pieces_and_silence_into_none():
    wave = np.concatenate([np.zeros(256), 0.2 * np.sin(np.arange(512)), np.full(256, 1e-3), np.zeros(100)])
    found = any_resolution._loud_parts(wave.astype(np.float32))
    assert [start for start, _ in found] == [256, 512]
    assert all(np.sqrt(np.square(part).mean()) == pytest.approx(any_resolution.LOUD, rel=1e-3) for _, part in found)
    assert any_resolution._loud_parts(np.zeros(1000, np.float32)) == []
    assert any_resolution._loud_parts(np.ones(100, np.float32)) == []


def test_the_critic_knows_copies_classes_and_pictures_of_noise():
    splits, reader = masked_images.scans(), Levels((8, 8), 17)
    critic, test = masked_images.Critic.taught(splits["train"], reader), splits["test"]
    labels = test.labels[:100]
    real = masked_images.rows(masked_images.levels_of(test[:100], reader), reader)
    copied, seen = critic(critic.known[:100], splits["train"].labels[:100]), critic(real, labels)
    assert copied["copies"] == 1.0
    assert copied["from_training"] == pytest.approx(0.0, abs=1e-6)
    assert seen["copies"] == 0.0
    assert seen["right_class"] > 0.9
    assert critic(real, np.roll(labels, 1))["right_class"] < 0.3
    alone = critic(masked_images.alone(splits["train"], reader, labels), labels)
    assert alone["from_training"] > 1.5 * seen["from_training"]


def test_knowing_more_takes_fewer_nats():
    figures = masked_images.baselines(masked_images.scans(), Levels((8, 8), 17))
    by_nothing, by_place, by_class = figures.values()
    assert 0.0 < by_class < by_place < by_nothing < np.log(17)
