import numpy as np
import pytest

from perceiver import InputError
from perceiver.control.rollout import rollout
from perceiver.control.watching import Watched, level, recording

rerun = pytest.importorskip("rerun")
chunks = pytest.importorskip("rerun.chunk")

PICTURE = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
CLOUD = np.array([[1, 2, 3, 0.0], [4, 5, 6, 1.0], [np.nan, 0, 0, 0.5]], np.float32)


class Track:
    """Goes for three steps, sees and hears, and is told where."""

    action_space = type("Space", (), {"shape": (2,)})

    def reset(self, seed):
        self.steps = 0
        return self.seen(), {}

    def step(self, action):
        self.steps += 1
        return self.seen(), 0.0, self.steps == 3, False, {}

    def seen(self):
        return {
            "observation.state": np.float32([self.steps, 7.0]),
            "observation.images.front": PICTURE + np.uint8(self.steps),
            "observation.points.lidar": CLOUD,
            "observation.audio.left": np.full(8, 10.0**-self.steps, np.float32),
            "observation.state.timestamp": 0.0,
            "task": "go",
            "timestamp": 0.1 * self.steps,
        }


class Steady:
    """Always does the same, and falls back in its second step."""

    def __init__(self, *action):
        self.action, self.calls, self.seeds = np.float32(action), 0, []

    def seed(self, episode):
        self.seeds.append(episode)

    def reset(self):
        self.calls = 0

    def infer(self, obs):
        self.calls += 1
        return {"actions": self.action[None], "timing": {}, "fallback": "late" if self.calls == 2 else None}


def read(path):
    """Rows by entity, each a dict by component, of a recording."""
    rows = {}
    for chunk in chunks.RrdReader(path).stream():
        batch = chunk.to_record_batch()
        kept = batch.select([name for name in batch.schema.names if name not in ("log_time", "time")])
        seconds = batch["time"].cast("int64").to_numpy() / 1e9 if "time" in batch.schema.names else []
        told = [{"seconds": float(value)} for value in seconds] or [{}] * len(batch)
        rows.setdefault(chunk.entity_path, []).extend(a | b for a, b in zip(kept.to_pylist(), told, strict=True))
    return rows


def column(rows, entity, ending):
    """The values of one component, in the order of the steps."""
    found = sorted((r for r in rows[entity] if r.get("step") is not None), key=lambda row: row["step"])
    names = {name for row in found for name in row if name.endswith(ending)}
    (name,) = names
    return [row[name] for row in found]


def test_a_rollout_is_kept_as_it_was(tmp_path):
    policy, expert = Steady(1.0, -2.0), Steady(0.5, -0.5)
    path = tmp_path / "deep" / "rollout.rrd"
    with Watched(policy, recording(path), expert=expert, rate=10.0, names=("left",)) as watched:
        watched_run = rollout(Track(), watched, [3, 4])
    plain = rollout(Track(), Steady(1.0, -2.0), [3, 4])
    for one, other in zip(watched_run.trajectories, plain.trajectories, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
    assert policy.seeds == expert.seeds == [3, 4]
    rows = read(path)
    assert column(rows, "/action/left/policy", "scalars") == [[1.0]] * 6
    assert column(rows, "/action/left/expert", "scalars") == [[0.5]] * 6
    assert column(rows, "/action/1/policy", "scalars") == [[-2.0]] * 6
    assert column(rows, "/observation/state", "scalars") == [[float(n), 7.0] for n in (0, 1, 2)] * 2
    assert column(rows, "/episode", "scalars") == [[0.0]] * 3 + [[1.0]] * 3
    np.testing.assert_allclose(
        column(rows, "/observation/audio/left/level_db", "scalars"), [[0], [-20], [-40]] * 2, atol=1e-4
    )
    assert all(value[0] > 0 for value in column(rows, "/latency_ms", "scalars"))
    pictures = column(rows, "/observation/images/front", "buffer")
    assert [bytes(np.uint8(picture[0])) for picture in pictures[:2]] == [
        PICTURE.tobytes(),
        (PICTURE + np.uint8(1)).tobytes(),
    ]
    points = column(rows, "/observation/points/lidar", "positions")
    assert points[0] == [[1, 2, 3], [4, 5, 6]]  # without the one that is not finite
    assert column(rows, "/log", "text") == [["go"], ["fallback: late"]] * 2
    seconds = [row["seconds"] for row in sorted(rows["/episode"], key=lambda row: row["step"])]
    np.testing.assert_allclose(seconds, [0, 0.1, 0.2] * 2)
    assert not any("timestamp" in entity for entity in rows)


def test_loudness_is_of_the_loudest():
    assert level(np.ones(4, np.float32)) == 0.0
    assert level(np.zeros(4, np.float32)) == -100.0
    np.testing.assert_allclose(level(np.sin(np.arange(10_000) * 0.1)), -3.01, atol=0.01)


def test_a_recording_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a file, or live=True"):
        recording()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="folder: cannot be written"):
        recording(tmp_path / "folder")
