"""The `perceiver` command: train and evaluate; what is about a finished model is in `cli_models`."""

import dataclasses
import functools
import importlib.util
import inspect as introspection
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from tyro.conf import Positional

from perceiver.cli_models import AS_IT_IS, Smaller, convert_words, inspect_words, predict_words
from perceiver.console import fail, parse
from perceiver.errors import ConfigError, InputError, MissingExtraError

if TYPE_CHECKING:
    from perceiver.training.experiment import Experiment

USAGE = """\
perceiver: one JAX model for any sensor.

  perceiver train EXPERIMENT.py     train, or go on training; writes a report
  perceiver evaluate RUN            figures of a trained model on its test split
  perceiver predict MODEL --…       answers about your own files
  perceiver convert MODEL FOLDER    published weights to our folder, or ours to the Hub's layout
  perceiver inspect MODEL|RUN …     what a model is made of, how runs went

Start with:  perceiver train experiments/digits.py
Compiled programs are kept in ~/.cache/perceiver/programs; PERCEIVER_COMPILATION_CACHE names another folder, or "off".
Each command explains itself:  perceiver train --help"""
SMOKE_STEPS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; problems with the input end it with one clear line and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "evaluate": _evaluate,
        "predict": predict_words,
        "convert": convert_words,
        "inspect": inspect_words,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    if words[0] in ("-V", "--version"):
        from perceiver import __version__

        print(__version__)
        return
    if words[0] not in commands:
        fail(f"unknown command {words[0]!r}; known: {', '.join(commands)}")
    from perceiver.compiled import keep_programs
    from perceiver.training.loop import TrainingError

    try:
        keep_programs()
        commands[words[0]](words[1:])
    except (InputError, ConfigError, MissingExtraError, TrainingError) as error:
        if os.environ.get("PERCEIVER_TRACEBACK"):
            traceback.print_exc()
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from the last checkpoint", code=130)


# --- train ------------------------------------------------------------------------------------------------------


def _train(words: list[str]) -> None:
    path = next((word for word in words if word.endswith(".py")), None)
    if path is None:
        parse(_train_any, words, "train")
        return
    build = load_experiment(Path(path))
    command = _train_command(build)
    parse(command, words, "train", _teach_training(build, path))


def _train_any(experiment: Positional[Path]) -> None:
    """Train an experiment, or go on where it stopped.

    An experiment is a Python file with one function that returns an Experiment; its keyword arguments become options.

    Examples:
        perceiver train experiments/digits.py
        perceiver train experiments/digits.py --help            the experiment's own options
        perceiver train experiments/digits.py --smoke           a few steps, to see that everything works
        perceiver train experiments/digits.py --seed 1 --workdir runs/digits-1

    Args:
        experiment: The experiment's file, such as experiments/digits.py.
    """
    raise InputError(f"{experiment}: expected an experiment file that ends in .py")


def _teach_training(build: Callable[..., "Experiment"], path: str) -> str:
    return (
        f"{introspection.getdoc(build) or ''}".split("\nArgs:")[0].strip()
        + f"\n\nExamples:\n  perceiver train {path}\n  perceiver train {path} --smoke\n"
        + f"  perceiver train {path} --seed 1 --workdir runs/{Path(path).stem}-1"
    )


def _train_command(build: Callable[..., "Experiment"]) -> Callable[..., None]:
    """The experiment's options beside those that every training run has."""

    @functools.wraps(build)
    def collect(**options: Any) -> dict[str, Any]:
        return options

    def command(
        file: Positional[Path],
        options: Annotated[dict, tyro.conf.arg(name="", constructor=collect)],
        workdir: Path | None = None,
        stop_at: int | None = None,
        smoke: bool = False,
    ) -> None:
        """Train.

        Args:
            file: The experiment's file.
            options: The experiment's own options.
            workdir: Folder of the run; runs/NAME unless given. Training goes on where such a folder stopped.
            stop_at: End after this many steps in all, as if interrupted.
            smoke: Take a few steps only, to see that everything works.
        """
        experiment = build(**options)
        if smoke:
            experiment = shortened(experiment)
        place = workdir or Path("runs") / (experiment.name + ("-smoke" if smoke else ""))
        _run(experiment, place, options | ({"smoke": True} if smoke else {}), stop_at)

    return command


def _run(experiment: "Experiment", workdir: Path, options: Mapping[str, Any], stop_at: int | None) -> None:
    from perceiver.training.report import Finished, run

    ended = run(experiment, workdir, options, stop_at=stop_at)
    console = Console()
    if not isinstance(ended, Finished):
        console.print(f"stopped after step {ended.step}; the same command without --stop-at goes on", highlight=False)
        return
    console.print(Markdown(_without_pictures((workdir / "report.md").read_text(encoding="utf-8"))))
    files = ", ".join(sorted(p.name for p in workdir.iterdir() if p.suffix in (".json", ".md", ".png")))
    console.print(f"{workdir}: model/, {files}", highlight=False)


def _without_pictures(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("!["))


def shortened(experiment: "Experiment") -> "Experiment":
    """The same experiment for a few steps."""
    steps = min(SMOKE_STEPS, experiment.steps)
    companions = {name: shortened(companion) for name, companion in experiment.companions.items()}
    return dataclasses.replace(
        experiment, steps=steps, validate_every=steps, checkpoint_every=max(steps // 2, 1), companions=companions
    )


def load_experiment(path: Path) -> Callable[..., "Experiment"]:
    """The function of an experiment file that bears the file's name.

    The folder above the file's is put on the import path, so that experiments find `data`.

    Raises:
        InputError: no such file, or no such function in it.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected an experiment file, there is none")
    root = str(path.resolve().parent.parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    name = path.stem
    spec = importlib.util.spec_from_file_location(f"experiments.{name}", path)
    assert spec is not None
    assert spec.loader is not None  # a path that ends in .py always has both
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    build = getattr(module, name, None)
    if not callable(build):
        raise InputError(f"{path}: expected a function called {name!r} that returns an Experiment")
    return build


# --- evaluate ---------------------------------------------------------------------------------------------------


def _evaluate(words: list[str]) -> None:
    parse(evaluate, words, "evaluate")


def evaluate(
    run: Positional[Path],
    smaller: Annotated[Smaller, tyro.conf.arg(name="")] = AS_IT_IS,
    experiment: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Compute a trained model's figures on its test split again, from the saved folder.

    Examples:
        perceiver evaluate runs/digits
        perceiver evaluate runs/digits --json
        perceiver evaluate runs/digits --experiment my/digits.py
        perceiver evaluate runs/digits --weights int8

    The figures come from the experiment that trained the model: experiments/NAME.py below the current folder,
    with the options of the run, unless another file is given.

    Args:
        run: Folder of the run, or the model folder in it.
        smaller: How much of the model is used.
        experiment: The experiment's file, where it is not experiments/NAME.py.
        as_json: Print {"test": …} and nothing else on standard output.
    """
    from perceiver.pretrained import from_pretrained
    from perceiver.saving import read_json
    from perceiver.training.report import flat

    workdir = run.parent if run.name == "model" and (run.parent / "experiment.json").is_file() else run
    noted = read_json(workdir / "experiment.json") if (workdir / "experiment.json").is_file() else {}
    options = {k: v for k, v in dict(noted.get("arguments", {})).items() if k != "smoke"}
    test = load_experiment(experiment or _own_experiment(run, noted))(**options).test
    scores = dict(test(smaller.apply(from_pretrained(run))))
    if as_json:
        print(json.dumps({"test": scores}))
        return
    reported = read_json(workdir / "report.json")["test"] if (workdir / "report.json").is_file() else {}
    before = flat(reported)
    table = Table(title=str(run))
    for column in ("figure", "now", "in the report"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in flat(scores).items():
        table.add_row(name, f"{value:.6f}", f"{before[name]:.6f}" if name in before else "–")
    Console().print(table)


def _own_experiment(run: Path, noted: Mapping[str, Any]) -> Path:
    name = noted.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{run}: no experiment.json says which experiment trained this; give --experiment FILE")
    path = Path("experiments") / f"{name}.py"
    if not path.is_file():
        raise InputError(f"{path}: not below the current folder; go to the project's folder or give --experiment FILE")
    return path
