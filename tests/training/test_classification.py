import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perceiver as p
from perceiver.training import classification
from perceiver.training.classification import class_judge, class_objective

MODEL = p.PerceiverConfig(
    inputs={"features": p.Vectors(2, 3)},
    encoder=p.Encoder(2, 8, 1),
    outputs={"label": p.Classes(3, names=("a", "b", "c"))},
)


@pytest.mark.slow
def test_a_share_of_a_class_is_a_target_too():
    model, inputs = MODEL.build(0), {"features": np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)}
    labels = np.array([0, 1, 2, 1], np.int32)
    objective = class_objective()
    hard = objective(model, {"inputs": inputs, "targets": {"label": labels}}, None)
    shared = objective(model, {"inputs": inputs, "targets": {"label": np.eye(3, dtype=np.float32)[labels]}}, None)
    assert float(hard[0]) == pytest.approx(float(shared[0]), rel=1e-6)
    assert float(hard[1]["accuracy"]) == float(shared[1]["accuracy"])


def test_views_of_an_item_answer_with_their_mean_log_probability(monkeypatch):
    answers = {  # the item's views alone would say 0, 1 and 1
        0: [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]],
        1: [[0.2, 0.3, 0.5], [0.0, 0.8, 0.2]],
    }
    told = lambda model, samples, output: np.array([answers[item][view] for item, view in samples])  # noqa: E731
    monkeypatch.setattr(classification, "probabilities", told)
    views = [lambda item: (item, 0), lambda item: (item, 1)]
    head = types.SimpleNamespace(head=types.SimpleNamespace(names=("a", "b", "c")))
    model = types.SimpleNamespace(config=types.SimpleNamespace(outputs={"label": head}))
    both = class_judge(*views, name=str, label=lambda item: 1)(model, [0, 1])
    assert [line["prediction"] for line in both.lines] == ["b", "b"]
    first = class_judge(views[0], name=str, label=lambda item: 1)(model, [0, 1])
    assert [line["prediction"] for line in first.lines] == ["a", "c"]


def test_a_view_is_what_the_model_sees():
    model = MODEL.build(0)
    items = list(np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32))
    logits = model({"features": jnp.asarray(np.stack(items))})["label"]
    judged = class_judge(lambda item: {"inputs": {"features": item}}, name=lambda item: "x", label=lambda item: 0)
    names = [line["prediction"] for line in judged(model, items).lines]
    assert names == [("a", "b", "c")[place] for place in np.asarray(jax.nn.softmax(logits)).argmax(axis=1)]
