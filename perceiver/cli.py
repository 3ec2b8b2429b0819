"""The `perceiver` command, and training; what is about a finished model is in `cli_evaluate` and `cli_models`."""

import dataclasses
import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.markdown import Markdown
from tyro.conf import Positional

from perceiver.cli_deploy import export_words, serve_words
from perceiver.cli_draw import draw_words
from perceiver.cli_evaluate import evaluate_words
from perceiver.cli_generate import generate_words
from perceiver.cli_import import import_words
from perceiver.cli_models import convert_words, inspect_words, predict_words
from perceiver.cli_provenance import sign_words, verify_words
from perceiver.cli_search import embed_words, search_words
from perceiver.cli_transcribe import transcribe_words
from perceiver.console import described, fail, parse
from perceiver.errors import ConfigError, InputError, MissingExtraError
from perceiver.training.load import load_experiment

if TYPE_CHECKING:
    from perceiver.training.experiment import Experiment

USAGE = """\
perceiver: one JAX model for any sensor.

  perceiver train EXPERIMENT.py     train, or go on training; writes a report
  perceiver evaluate RUN            figures of a trained model on its test split, or on other data
  perceiver predict MODEL --…       answers about your own files
  perceiver generate MODEL --…      text that goes on from your prompt
  perceiver draw MODEL --label …    pictures of a class
  perceiver transcribe FILE         what is said in a sound, and when
  perceiver convert MODEL FOLDER    published weights to our folder, or ours to the Hub's layout
  perceiver inspect MODEL|RUN …     what a model is made of, how runs went
  perceiver export MODEL            programs that run without this package: jax.export, ONNX
  perceiver serve MODEL             a policy over the network, by openpi's protocol
  perceiver import BAG …            a dataset out of recordings of ROS
  perceiver embed FOLDER -o INDEX   what a model makes of your files, to search in
  perceiver search INDEX --…        the files that are nearest to a text, a picture or a sound
  perceiver verify FILE             whether a file is what a model made, a model what was signed
  perceiver sign MODEL --key …      sign a model folder

Start with:  perceiver train experiments/digits.py
Compiled programs are kept in ~/.cache/perceiver/programs; PERCEIVER_COMPILATION_CACHE names another folder, or "off".
Each command explains itself:  perceiver train --help"""
SMOKE_STEPS = 4
DIVERGED, UNSAVED = 3, 4
"""Exit codes of a training run that cannot go on, beside 2 for what it was given and 128 + n for the signal n."""
CUT_OFF = 141
"""What a shell says of a program that a closed pipe ended."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; problems with the input end it with one clear line and exit code 2."""
    try:
        _obey(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else the interpreter complains as it ends
        sys.exit(CUT_OFF)


def _obey(words: list[str]) -> None:
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "evaluate": evaluate_words,
        "predict": predict_words,
        "generate": generate_words,
        "draw": draw_words,
        "transcribe": transcribe_words,
        "convert": convert_words,
        "inspect": inspect_words,
        "export": export_words,
        "serve": serve_words,
        "import": import_words,
        "embed": embed_words,
        "search": search_words,
        "verify": verify_words,
        "sign": sign_words,
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
    from perceiver.training.checkpoints import SaveError
    from perceiver.training.faults import TrainingError

    try:
        keep_programs()
        commands[words[0]](words[1:])
    except (InputError, ConfigError, MissingExtraError, TrainingError, SaveError) as error:
        if os.environ.get("PERCEIVER_TRACEBACK"):
            traceback.print_exc()
        codes: dict[type[Exception], int] = {TrainingError: DIVERGED, SaveError: UNSAVED}
        fail(str(error), code=codes.get(type(error), 2))
    except OSError as error:  # BrokenPipeError among them
        if error.errno not in NO_ROOM:
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror}; what was saved before is kept, and the same command goes on", code=UNSAVED)
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
        described(build)
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
        mesh: str | None = None,
        workers: int = 0,
        profile: int = 0,
        coordinator: str | None = None,
        processes: int | None = None,
        process: int | None = None,
    ) -> None:
        """Train.

        Args:
            file: The experiment's file.
            options: The experiment's own options.
            workdir: Folder of the run; runs/NAME unless given. Training goes on where such a folder stopped.
            stop_at: End after this many steps in all, as if interrupted.
            smoke: Take a few steps only, to see that everything works.
            mesh: Devices to share the work, such as data=4,fsdp=2; one unless given. See docs/training.md.
            workers: Processes that prepare the data, in place of two threads, where these do not keep up.
            profile: Trace so many steps into the run's folder profile/; docs/training.md says how to read it.
            coordinator: Host and port of the first of several processes; found out where a cluster's launcher says.
            processes: How many there are.
            process: Which one this is, from 0.
        """
        from perceiver.training.processes import found, join

        join(found(os.environ, coordinator, processes, process))
        experiment = build(**options)
        if smoke:
            experiment = shortened(experiment)
        place = workdir or Path("runs") / (experiment.name + ("-smoke" if smoke else ""))
        from perceiver.training.sharding import MeshShape

        shape = None if mesh is None else MeshShape.parse(mesh)
        given = options | ({"smoke": True} if smoke else {})
        _run(experiment, place, given, stop_at=stop_at, mesh=shape, profile=profile, workers=workers)

    return command


def _run(experiment: "Experiment", workdir: Path, options: Mapping[str, Any], **how: Any) -> None:
    from perceiver.training.processes import first
    from perceiver.training.report import Finished, run

    ended = run(experiment, workdir, options, **how)
    console = Console(quiet=not first())
    if not isinstance(ended, Finished):
        if ended.stopped_by is not None:
            fail(f"stopped by {ended.stopped_by.name}; the same command goes on", code=128 + ended.stopped_by)
        console.print(f"stopped after step {ended.step}; the same command without --stop-at goes on", highlight=False)
        return
    if not first():
        return
    console.print(Markdown(_without_pictures((workdir / "report.md").read_text(encoding="utf-8"))))
    files = ", ".join(sorted(p.name for p in workdir.iterdir() if p.suffix in (".json", ".md", ".png")))
    console.print(f"{workdir}: model/, {files}", highlight=False)


def _without_pictures(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("!["))


def shortened(experiment: "Experiment") -> "Experiment":
    """The same experiment for a few steps, or its own brief version."""
    if experiment.brief is not None:
        experiment = experiment.brief()
    steps = min(SMOKE_STEPS, experiment.steps)
    return dataclasses.replace(
        experiment,
        steps=steps,
        validate_every=steps,
        checkpoint_every=max(steps // 2, 1),
        companions={name: shortened(companion) for name, companion in experiment.companions.items()},
        pretraining=None if experiment.pretraining is None else shortened(experiment.pretraining),
    )
