import dataclasses

import jax
import numpy as np
import pytest

import perceiver as p
from perceiver.buckets import Buckets, powers_of_two
from perceiver.errors import ConfigError, InputError
from perceiver.inference import ask, ask_all
from perceiver.objectives import squared_error
from perceiver.pipeline import in_batches
from perceiver.training.experiment import Experiment
from perceiver.training.optimizers import adamw
from perceiver.training.trainer import Trainer
from tests.models import MELS, close, noisy

NARROW = p.Fourier(bands=2, max_resolution=(8.0, 8.0, 8.0))
CONFIG = p.PerceiverConfig(
    inputs={
        "points": p.Points(32, (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), position=NARROW),
        "text": p.Bytes(16, width=8),
    },
    encoder=p.Encoder(4, 8, depth=1, latent=p.Block(heads=2)),
    outputs={"label": p.Classes(3), "part": p.Output(p.Dense(2), p.FromTokens("points"))},
)
BUCKETS = Buckets({"points": (8, 16, 32), "text": (4, 8, 16)}, follows={"part": "points"})
RNG = np.random.default_rng(0)


def sample(points, letters):
    cloud, seen = CONFIG.inputs["points"].load(RNG.uniform(-1, 1, (points, 3)))
    text, read = CONFIG.inputs["text"].load("x" * letters)
    return {"inputs": {"points": cloud, "text": text}, "masks": {"points": seen, "text": read}}


def batch(*sizes):
    return next(in_batches([sample(*size) for size in sizes], len(sizes)))[0]


def shapes(given):
    return {name: np.shape(raw)[1] for name, raw in given["inputs"].items()}


def test_powers_of_two_end_with_the_whole_budget():
    assert powers_of_two(1024, 4096) == (1024, 2048, 4096)
    assert powers_of_two(3, 20) == (3, 6, 12, 20)
    assert powers_of_two(5, 5) == (5,)
    with pytest.raises(ConfigError, match="got 8 and 4"):
        powers_of_two(8, 4)


@pytest.mark.parametrize(
    ("sizes", "place"), [([(8, 1), (3, 4)], 0), ([(9, 1), (3, 4)], 1), ([(2, 9), (3, 4)], 2), ([(32, 16)], 2)]
)
def test_a_batch_takes_the_first_place_that_holds_all_of_it(sizes, place):
    whole = batch(*sizes)
    cut = BUCKETS.trimmed(whole)
    assert shapes(cut) == {name: row[place] for name, row in BUCKETS.lengths.items()}
    for name, mask in cut["masks"].items():
        np.testing.assert_array_equal(mask, whole["masks"][name][:, : mask.shape[1]])
        assert not whole["masks"][name][:, mask.shape[1] :].any()
        np.testing.assert_array_equal(cut["inputs"][name], whole["inputs"][name][:, : mask.shape[1]])


def test_what_has_no_mask_of_elements_counts_as_full_and_targets_follow():
    whole = batch((5, 2))
    targets = {"part": np.zeros((1, 32, 2)), "label": np.zeros(1)}
    cut = BUCKETS.trimmed({**whole, "targets": targets})
    assert cut["targets"]["part"].shape == (1, 8, 2)
    assert cut["targets"]["label"].shape == (1,)
    full = BUCKETS.trimmed({**whole, "masks": {"points": whole["masks"]["points"], "text": np.ones(1, bool)}})
    assert shapes(full) == {"points": 32, "text": 16}
    np.testing.assert_array_equal(full["masks"]["text"], [True])
    only = {"inputs": {"state": np.zeros((1, 3))}}
    assert BUCKETS.trimmed(only) is only


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"targets\['part'\]: expected shape \(b, 32"):
        BUCKETS.trimmed({**batch((5, 2)), "targets": {"part": np.zeros((1, 9, 2))}})
    with pytest.raises(InputError, match=r"inputs\['points'\]: expected at most 8 elements, .* got 9"):
        Buckets({"points": (8,)}).trimmed(batch((9, 1)))
    for given, message in (
        ({"lengths": {}}, "equally many"),
        ({"lengths": {"a": (1, 2), "b": (1,)}}, "equally many"),
        ({"lengths": {"a": (2, 1)}}, "smallest first"),
        ({"lengths": {"a": (1,)}, "follows": {"y": "b"}}, r"follows\['y'\]: no lengths for the modality 'b'"),
    ):
        with pytest.raises(ConfigError, match=message):
            Buckets(**given)


def test_answers_do_not_change_and_keep_their_shape():
    model = noisy(CONFIG)
    for place in range(BUCKETS.count):
        lengths = [(row[place], row[place] - 1) for row in BUCKETS.lengths.values()]
        given = batch(*zip(*lengths, strict=True))
        assert shapes(BUCKETS.trimmed(given)) == {name: row[place] for name, row in BUCKETS.lengths.items()}
        whole = ask(model, given["inputs"], given["masks"])
        cut = ask(model, given["inputs"], given["masks"], buckets=BUCKETS)
        for name, expected in whole.items():
            close(cut[name], expected, 1e-6)
    chosen = ask(model, given["inputs"], given["masks"], ["part"], {"part": np.array([31, 1])}, buckets=BUCKETS)
    close(chosen["part"], whole["part"][:, [31, 1]], 1e-6)


def test_answers_about_many_samples_join_though_their_lengths_differ():
    model, samples = noisy(CONFIG), [sample(*size) for size in ((3, 2), (30, 1), (4, 4), (2, 2), (7, 3))]
    parts, whole = (ask_all(model, samples, 2, buckets=buckets) for buckets in (BUCKETS, None))
    for name, expected in whole.items():
        close(parts[name], expected, 1e-6)


@pytest.mark.parametrize(
    "adapter",
    [
        p.Waveform(64, sample_rate=8000, patch=8, position=p.Fourier(2)),
        p.LogMel(96, MELS, sample_rate=8000, patch=(2, 2), position=p.Fourier(2)),
        p.State(3, history=64, position=p.Fourier(2)),
        p.Vectors(64, 3),
    ],
    ids=["waveform", "log mel", "state", "vectors"],
)
def test_every_ragged_modality_computes_less_and_answers_the_same(adapter):
    shape = adapter.example(2).shape
    raw, mask = RNG.normal(size=shape).astype(np.float32), np.arange(shape[1]) < np.array([[40], [33]])
    buckets = Buckets({"x": (48, shape[1])})
    cut = buckets.trimmed({"inputs": {"x": raw}, "masks": {"x": mask}})
    model = noisy(p.PerceiverConfig({"x": adapter}, CONFIG.encoder, {"label": p.Classes(3)}))
    tokens = jax.eval_shape(lambda: model.tokenise(cut["inputs"], cut["masks"])["x"].values)
    assert tokens.shape[1] < adapter.tokens
    close(ask(model, {"x": raw}, {"x": mask}, buckets=buckets)["label"], ask(model, {"x": raw}, {"x": mask})["label"])


@pytest.mark.slow
def test_fifty_ragged_batches_compile_the_step_once_a_bucket():
    def objective(model, batch, key):
        answers = model(batch["inputs"], batch["masks"], key=key)
        return squared_error(answers["part"], batch["targets"]["part"]), {}

    trainer = Trainer(
        Experiment(
            name="ragged",
            model=dataclasses.replace(CONFIG, outputs={"part": CONFIG.outputs["part"]}),
            batches=None,
            objective=objective,
            optimizer=adamw(1e-3),
            steps=50,
            batch=2,
            validate=lambda model: {},
            best="none",
            test=lambda model: {},
        )
    )
    state, seen = trainer.start(), set()
    rng = np.random.default_rng(3)
    for _ in range(50):
        sizes = rng.integers(1, [33, 17], (2, 2)) // rng.integers(1, 9)
        given = batch(*np.maximum(sizes, 1)) | {"targets": {"part": np.zeros((2, 32, 2), np.float32)}}
        cut = BUCKETS.trimmed(given)
        seen.add(tuple(shapes(cut).values()))
        state, _ = trainer.step(state, cut)
    assert len(trainer.programs) == len(seen) == BUCKETS.count
    assert int(state.step) == 50
