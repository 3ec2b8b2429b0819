import threading

import jax
import numpy as np
import pytest

import perceiver as p
from perceiver import ConfigError, InputError, Robot, Sensor
from perceiver.control.actions import act
from perceiver.control.policy import Fallback, Instead, Policy, Why
from perceiver.saving import load
from tests.models import close, noisy

STILL = (7.0, -7.0)


def config(robot=True):
    inputs = {"state": p.State(2, history=2), "text": p.Bytes(8, width=8)}
    sensors = {"state": Sensor("observation.state", max_age=0.1), "text": Sensor("task", max_age=100.0)}
    robot = Robot(10.0, sensors) if robot else None
    return p.PerceiverConfig(inputs, p.Encoder(2, 8, 1), {"action": p.Chunk(3, 2)}, robot=robot)


def observation(number=1.0):
    return {"observation.state": np.array([number, -number], np.float32), "task": "go"}


@pytest.fixture(scope="module")
def model():
    return noisy(config())


class Slow:
    """A model that answers when it is let, with actions that say how often it was asked."""

    def __init__(self):
        self.calls, self.let = 0, threading.Event()
        self.begun = threading.Event()

    def __call__(self, given):
        self.calls += 1
        self.begun.set()
        assert self.let.wait(60)
        return np.arange(6, dtype=np.float32).reshape(3, 2) + 10 * self.calls


def slowed(policy):
    policy._run = Slow()
    return policy._run


def finished(policy):
    policy._worker.submit(int).result(60)


def test_a_saved_policy_answers_as_its_model(model, tmp_path):
    folder = model.save(tmp_path / "policy")
    policy = Policy(folder)
    policy.infer(observation(5.0))
    policy.reset()
    policy.observe(observation(1.0))
    answer = policy.infer(observation(2.0))
    inputs = {"state": np.array([[[1, -1], [2, -2]]], np.float32)}
    raw, mask = config().inputs["text"].load("go")
    inputs["text"] = raw[None]
    expected = act(load(folder), inputs, {"text": mask[None]})[0]
    close(answer["actions"], expected, 1e-5)
    assert (answer["actions"].dtype, answer["fallback"], answer["absent"]) == (np.float32, None, ())
    assert answer["timing"]["total_ms"] > 0
    assert (policy.latency.count, policy.latency.misses) == (2, 0)


def test_nothing_is_compiled_after_the_policy_is_made(model):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
    )
    policy = Policy(model, deadline=60.0, fallback=Fallback(Instead.STOP, STILL))
    made = len(compiled)
    assert made > 0
    for obs in (observation(), {}, observation() | {"task": None}, {"timestamp": 100.0}, observation()):
        policy.infer(obs)
    assert len(compiled) == made
    policy.close()


@pytest.mark.parametrize("instead", Instead)
def test_a_late_answer_is_replaced_and_used_where_it_still_holds(model, instead):
    policy = Policy(model, deadline=0.05, fallback=Fallback(instead, STILL))
    slow = slowed(policy)
    first = policy.infer(observation())
    assert (first["fallback"], first["actions"].tolist()) == (Why.LATE, [list(STILL)] * 3)
    second = policy.infer(observation())  # waits behind the first and is dropped
    assert second["fallback"] is Why.LATE
    slow.let.set()
    finished(policy)
    assert slow.calls == 1
    slow.let.clear()
    third = policy.infer(observation())
    assert policy.latency.misses == 3
    # the answer to the first observation, two control steps ago, has one action left
    expected = [[14, 15], [*STILL], [*STILL]] if instead is Instead.CONTINUE else [[*STILL]] * 3
    assert third["actions"].tolist() == expected
    slow.let.set()
    policy.close()


def test_holding_repeats_what_was_done_last(model):
    policy = Policy(model, fallback=Fallback(Instead.HOLD, STILL))
    done = policy.infer(observation())["actions"]
    for steps, row in ((2, 1), (9, 2)):
        policy.reset()
        policy.infer(observation() | {"timestamp": 0.0})
        blind = policy.infer({"timestamp": steps / 10})
        assert (blind["fallback"], blind["absent"]) == (Why.BLIND, ("state",))
        np.testing.assert_array_equal(blind["actions"], [done[row]] * 3)
    policy.reset()
    assert policy.infer({"task": "go"})["actions"].tolist() == [list(STILL)] * 3


def test_an_answer_for_the_last_episode_is_not_used_in_the_next(model):
    policy = Policy(model, deadline=0.05, fallback=Fallback(Instead.CONTINUE, STILL))
    slow = slowed(policy)
    policy.infer(observation())
    policy.reset()
    slow.let.set()
    finished(policy)
    slow.let.clear()
    assert policy.infer(observation())["actions"].tolist() == [list(STILL)] * 3
    slow.let.set()
    policy.close()


def test_numbers_that_are_not_finite_never_reach_the_robot(model):
    for deadline in (None, 60.0):
        policy = Policy(model, deadline=deadline, fallback=Fallback(Instead.STOP, STILL))
        policy._run = lambda given: np.full((3, 2), np.nan, np.float32)
        answer = policy.infer(observation())
        assert (answer["fallback"], answer["actions"].tolist()) == (Why.NOT_FINITE, [list(STILL)] * 3)
        policy.close()
    policy = Policy(model)
    policy._run = lambda given: np.full((3, 2), np.nan, np.float32)
    with pytest.raises(InputError, match="actions: expected finite numbers of the model"):
        policy.infer(observation())


def test_a_policy_that_cannot_be_is_refused(model):
    for arguments, message in [
        ({"deadline": 0.01}, "fallback: a deadline needs one"),
        ({"deadline": 0.0, "fallback": Fallback(Instead.STOP, STILL)}, "deadline: expected seconds above 0"),
        ({"fallback": Fallback(Instead.STOP, (0.0,))}, "Fallback.still: expected 2 finite numbers"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Policy(model, **arguments)
    with pytest.raises(ConfigError, match="expected a Robot"):
        Policy(noisy(config(robot=False)))
    with pytest.raises(InputError, match="expected a model folder"):
        Policy("nowhere")
