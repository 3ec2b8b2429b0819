"""Demonstrations for behaviour cloning, kept on disk: what was sensed, and what the expert would do from there.

The robot is pushed off the way while it is shown, see `perceiver.control.recording.Drift`. With a `driver` the policy
itself drives and the expert only says what it would do (DAgger, arXiv 1011.0686).
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments.courier_arena.environment import Courier
from experiments.courier_arena.expert import Expert
from perceiver.control.recording import Drift, recorded_once
from perceiver.control.rollout import Policy
from perceiver.errors import InputError

VERSION = 3
"""Raised when the arena or what is kept of it changes, so that older files are made anew."""
NOISE = (0.0, 0.15, 0.3, 0.5)
"""Deviations of the noise on the wheels' speeds, one of them drawn for each episode."""
MEMORY = 0.7
"""Share of the noise that lasts from one step to the next."""
LOUDEST = 32767
"""Of sounds as they are kept, 16 bits as in a WAV file."""
ARRAYS = ("episode", "state", "points", "left", "right", "task", "actions", "places")


@dataclasses.dataclass(frozen=True, eq=False)
class Moment:
    """One step of a demonstration.

    state: float32 [6]. points: float16 [RAYS, 4]. left, right: int16 [SAMPLES]. text: the instruction.
    actions: float32 [horizon, 2], what the expert would do from here. places: float32 [5, 2], where the crates are, see
    `Episode.places_from_robot`.
    """

    state: np.ndarray
    points: np.ndarray
    left: np.ndarray
    right: np.ndarray
    text: str
    actions: np.ndarray
    places: np.ndarray


class Demonstrations(Sequence[Moment]):
    """The steps of a folder that `demonstrations` wrote, read when they are asked for."""

    def __init__(self, place: Path):
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        self._texts = about["texts"]
        self._arrays = {  # plain arrays over mapped memory, whose rows are quicker to take out than those of a memmap
            name: np.asarray(np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False)) for name in ARRAYS
        }
        counts = {name: len(array) for name, array in self._arrays.items()}
        if set(counts.values()) != {about["moments"]}:
            raise InputError(
                f"{place}: expected {about['moments']} rows in each array, got {counts}; remove the folder"
            )

    def __len__(self) -> int:
        return len(self._arrays["state"])

    def __getitem__(self, index) -> Moment:
        rows = {name: np.asarray(array[index]) for name, array in self._arrays.items() if name != "episode"}
        return Moment(text=self._texts[int(rows.pop("task"))], **rows)

    @property
    def states(self) -> np.ndarray:
        """All states, float32 [n, 6]."""
        return np.asarray(self._arrays["state"])

    @property
    def actions(self) -> np.ndarray:
        """All chunks, float32 [n, horizon, 2]."""
        return np.asarray(self._arrays["actions"])


def demonstrations(
    folder: Path,
    first_seed: int,
    episodes: int,
    horizon: int,
    driver: Callable[[], Policy] | None = None,
    name: str = "expert",
) -> Demonstrations:
    """Demonstrations from so many seeds on, made unless they are in the folder; the same arguments give the same.

    driver: makes the policy that drives in the expert's place, by the first action of each of its chunks.
    name: what the driver is called on disk.
    """
    place = folder / f"courier-{VERSION}-{name}-{first_seed}-{episodes}-{horizon}"
    return Demonstrations(
        recorded_once(
            place,
            lambda new: _write(
                new, range(first_seed, first_seed + episodes), horizon, None if driver is None else driver()
            ),
        )
    )


def _write(work: Path, seeds: range, horizon: int, driver: Policy | None) -> None:
    environment = Courier()
    expert = Expert(environment, horizon)
    work.mkdir()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
    texts: list[str] = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for seed in bar.track(seeds, description="demonstrations"):
            for name, values in _episode(environment, expert, driver, seed).items():
                rows[name].append(values)
            texts.append(environment.running.instruction.text)
            rows["task"].append(np.full(len(rows["state"][-1]), len(texts) - 1, np.int32))
    for name, parts in rows.items():
        np.save(work / f"{name}.npy", np.concatenate(parts), allow_pickle=False)
    about = {"texts": texts, "moments": sum(map(len, rows["state"])), "horizon": horizon}
    (work / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _episode(environment: Courier, expert: Expert, driver: Policy | None, seed: int) -> dict[str, np.ndarray]:
    """What is kept of one episode, all but the text, by the name of the array."""
    drift = Drift(np.random.default_rng([seed, 1]), 2, NOISE if driver is None else (0.0,), MEMORY)
    obs, _ = environment.reset(seed=seed)
    expert.reset()
    if driver is not None:
        driver.reset()
    seen, shown, places, ended = [], [], [], False
    while not ended:
        taught = expert.infer(obs)["actions"]
        seen.append(obs)
        shown.append(taught)
        places.append(environment.running.places_from_robot)
        done = taught[0] if driver is None else driver.infer(obs)["actions"][0]
        obs, _, terminated, truncated, _ = environment.step(np.clip(done + drift.next(), -1.0, 1.0))
        ended = terminated or truncated
    return {
        "episode": np.full(len(seen), seed, np.int32),
        "state": np.stack([o["observation.state"] for o in seen]),
        "points": np.stack([o["observation.points.lidar"] for o in seen]).astype(np.float16),
        "left": np.stack([_sound(o["observation.audio.left"]) for o in seen]),
        "right": np.stack([_sound(o["observation.audio.right"]) for o in seen]),
        "actions": np.stack(shown),
        "places": np.stack(places).astype(np.float32),
    }


def _sound(wave: np.ndarray) -> np.ndarray:
    return np.round(wave * LOUDEST).astype(np.int16)
