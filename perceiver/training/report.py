"""What a finished run says: report.json, report.md, card.md, curves.png and the experiment's own pictures."""

import dataclasses
import functools
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from perceiver import viz
from perceiver.config import types_in
from perceiver.errors import InputError
from perceiver.model import parameter_count
from perceiver.pretrained import from_pretrained
from perceiver.saving import dump, read_json
from perceiver.training.card import model_card
from perceiver.training.experiment import Experiment, Scores
from perceiver.training.figures import counts, flat, scored
from perceiver.training.load import folder_of
from perceiver.training.lock import held
from perceiver.training.loop import Outcome, fit
from perceiver.training.metrics import read_log
from perceiver.training.processes import first
from perceiver.training.sharding import MeshShape

PACKAGES = ("perceiver", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@dataclasses.dataclass(frozen=True)
class Finished:
    """A trained experiment: how it went and what it scores."""

    outcome: Outcome
    report: Mapping[str, Any]


def run(
    experiment: Experiment,
    workdir: Path,
    arguments: Mapping[str, Any],
    *,
    stop_at: int | None = None,
    mesh: MeshShape | None = None,
    profile: int = 0,
    workers: int = 0,
) -> Finished | Outcome:
    """Train to the end and write the report; or train to `stop_at`, or a signal, and give the outcome so far."""
    with held(workdir):
        if first():
            claim(experiment.name, workdir, arguments)
        outcome = fit(experiment, workdir, stop_at=stop_at, mesh=mesh, profile=profile, workers=workers)
        if outcome.interrupted:
            return outcome
        return _reported(experiment, workdir, arguments, outcome, functools.partial(fit, mesh=mesh, workers=workers))


def _reported(
    experiment: Experiment,
    workdir: Path,
    arguments: Mapping[str, Any],
    outcome: Outcome,
    train: Callable[[Experiment, Path], Outcome],
) -> Finished | Outcome:
    """Train the companions and write the report; or the outcome of a companion that was interrupted."""
    started = time.perf_counter()
    report = {"name": experiment.name} | scores(experiment, workdir)
    companions = {}
    for name, companion in experiment.companions.items():
        place = workdir / folder_of(name)
        ended = train(companion, place)
        if ended.interrupted:
            return ended
        companions[name] = scores(companion, place) | {"seconds": round(ended.seconds, 1)}
        companions[name] |= left_out(companion)
        companions[name]["gained_together"] = gains(report["test"], companions[name]["test"])
    report |= {
        "companions": companions,
        "summary": dict(experiment.summary({name: own["test"] for name, own in companions.items()})),
        "pretraining": {}
        if experiment.pretraining is None
        else scores(experiment.pretraining, workdir / "pretraining"),
        "seconds": round(outcome.seconds + time.perf_counter() - started, 1),
        "training": {
            "seconds": round(outcome.seconds, 1),
            "steps": outcome.step,
            "best_step": outcome.best_step,
            "best_validation": {experiment.best: outcome.best},
            "compilations": outcome.compilations,
            "parameters": parameter_count(_kept(experiment, workdir)),
            **left_out(experiment),
            **{name: count for name, count in outcome.faults.items() if count},
        },
        "arguments": {name: _plain(value) for name, value in arguments.items()},
        "machine": machine(),
    }
    if not first():
        return Finished(outcome, report)
    (workdir / "report.json").write_bytes(dump(report))
    viz.curves(read_log(workdir), workdir / "curves.png", experiment.name)
    (workdir / "report.md").write_text(markdown(report, workdir), encoding="utf-8")
    (workdir / "card.md").write_text(model_card(report, experiment.model), encoding="utf-8")
    return Finished(outcome, report)


def scores(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    """Figures of the kept model on the test split, with baselines, controls and pictures."""
    model = _kept(experiment, workdir)
    untrained = experiment.model.build(experiment.seed)
    if first():
        experiment.pictures(model, workdir)
    return {
        "test": dict(experiment.test(model)),
        "baselines": dict(experiment.baselines()),
        "control": {"untrained": dict(experiment.test(untrained)), **experiment.controls(model)},
    }


def _kept(experiment: Experiment, workdir: Path) -> Any:
    return from_pretrained(workdir / "model", types=types_in(experiment.model))


def left_out(experiment: Experiment) -> dict[str, Any]:
    """The bad samples that were skipped in training, where the experiment notes them: how many, and what is wrong."""
    if experiment.skipped is None:
        return {}
    problems = experiment.skipped.problems
    return {"skipped_samples": {"count": len(problems), "problems": problems}}


def gains(whole: Scores, companion: Scores) -> dict[str, float]:
    """What the main experiment's test figures have over a companion's, for the figures that both have.

    None where both were tested on different numbers of things, so on different tests.
    """
    ours, theirs = flat(whole), flat(companion)
    both = [name for name in theirs if name in ours]
    if any(counts(name) and ours[name] != theirs[name] for name in both):
        return {}
    return {name: ours[name] - theirs[name] for name in both if scored(name)}


def claim(name: str, workdir: Path, arguments: Mapping[str, Any]) -> None:
    """Note what a folder is used for, or see that it is used for the same thing.

    Raises:
        InputError: the folder belongs to another experiment, or to other arguments; lists the differences.
    """
    path = workdir / "experiment.json"
    mine: dict[str, Any] = {"name": name, "arguments": {k: _plain(v) for k, v in arguments.items()}}
    if not path.is_file():
        path.write_bytes(dump(mine))
        return
    theirs = read_json(path)
    if theirs == mine:
        return
    before, now = theirs.get("arguments", {}), mine["arguments"]
    differing = [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
    changes = [f"{n} was {before.get(n)!r}, is {now.get(n)!r}" for n in differing]
    if theirs.get("name") != name:
        changes.insert(0, f"experiment was {theirs.get('name')!r}, is {name!r}")
    raise InputError(f"{workdir}: holds another run ({'; '.join(changes)}): choose another --workdir, or delete it")


def machine() -> dict[str, Any]:
    """Where and with what a figure was made."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    devices = sorted({device.device_kind for device in jax.devices()})
    return {"python": platform.python_version(), "devices": devices, "versions": versions}


def spread(values: list[float]) -> str:
    """Mean ± standard deviation over runs (n - 1), as text."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def markdown(report: Mapping[str, Any], workdir: Path) -> str:
    """The report as a page."""
    training = report["training"]
    lines = [
        f"# {report['name']}",
        "",
        f"{training['parameters']:,} parameters, {training['steps']} steps, {report['seconds']} s in all "
        f"({training['seconds']} s training, compilation and validation included), on "
        + ", ".join(report["machine"]["devices"])
        + ".",
        f"Kept: the model of step {training['best_step']}, best on the validation split "
        + ", ".join(f"({n} {v:.4f})." for n, v in training["best_validation"].items()),
        "The test split was used once, after that.",
        "",
        *_skipped(training),
        *_table("Test", report["test"], report["control"].get("untrained", {})),
        *_table("Baselines on the same split", report["baselines"]),
    ]
    for name, control in report["control"].items():
        if name != "untrained":
            lines += _table(f"Control: {name.replace('_', ' ')}", control)
    if report["pretraining"]:
        before = report["pretraining"]
        lines += _table("What it was trained on before", before["test"], before["control"].get("untrained", {}))
    if report["summary"]:
        lines += _table("Companions together", report["summary"])
    for name, companion in report["companions"].items():
        title = f"Beside it: {name} ({companion['seconds']} s)"
        lines += _table(title, companion["test"], companion["control"]["untrained"])
        lines += _skipped(companion)
        if companion["gained_together"]:
            lines += _table(f"{report['name']} minus {name}", companion["gained_together"])
    pictures = sorted(path.name for path in workdir.glob("*.png"))
    lines += [f"![{name}]({name})\n" for name in pictures]
    lines += ["Arguments: " + ", ".join(f"`{n}={v}`" for n, v in report["arguments"].items()), ""]
    return "\n".join(lines)


def _skipped(figures: Mapping[str, Any]) -> list[str]:
    """The bad samples as a list, where they were noted."""
    if "skipped_samples" not in figures:
        return []
    skipped = figures["skipped_samples"]
    lines = [f"- {name}: {problem}" for name, problem in skipped["problems"].items()]
    return [f"Bad training samples, left out: {skipped['count']}.", "", *lines, *([""] if lines else [])]


def _table(title: str, figures: Mapping[str, Any], untrained: Mapping[str, Any] | None = None) -> list[str]:
    other = flat(untrained or {})
    beside = untrained is not None
    lines = [f"## {title}", "", "| figure | value |" + (" untrained |" if beside else "")]
    lines.append("|---|---|" + ("---|" if beside else ""))
    for name, value in flat(figures).items():
        cells = [name.replace("_", " "), f"{value:.4f}"]
        if beside:
            cells.append(f"{other[name]:.4f}" if name in other else "")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
