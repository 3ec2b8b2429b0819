"""The `perceiver` command: train, evaluate, predict, convert, inspect."""

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
Each command explains itself:  perceiver train --help"""
SMOKE_STEPS = 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line; problems with the input end it with one clear line and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "evaluate": _evaluate,
        "predict": _predict,
        "convert": _convert,
        "inspect": _inspect,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    if words[0] in ("-V", "--version"):
        from perceiver import __version__

        print(__version__)
        return
    if words[0] not in commands:
        _fail(f"unknown command {words[0]!r}; known: {', '.join(commands)}")
    from perceiver.training.loop import TrainingError

    try:
        commands[words[0]](words[1:])
    except (InputError, ConfigError, MissingExtraError, TrainingError) as error:
        if os.environ.get("PERCEIVER_TRACEBACK"):
            traceback.print_exc()
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from the last checkpoint", code=130)


def _fail(message: str, code: int = 2) -> None:
    Console(stderr=True).print(f"[bold red]error:[/] {_escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def _parse(command: Callable[..., None], words: list[str], name: str, description: str | None = None) -> None:
    """Run a command with the words of the command line; its docstring is the help."""
    markers = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    if description is None:  # all of the docstring but the arguments, which become the options' help
        description = (introspection.getdoc(command) or "").split("\nArgs:")[0].strip()
    tyro.cli(command, args=words, prog=f"perceiver {name}", description=description, config=markers)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


# --- train ------------------------------------------------------------------------------------------------------


def _train(words: list[str]) -> None:
    path = next((word for word in words if word.endswith(".py")), None)
    if path is None:
        _parse(_train_any, words, "train")
        return
    build = load_experiment(Path(path))
    command = _train_command(build)
    _parse(command, words, "train", _teach_training(build, path))


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
    _parse(evaluate, words, "evaluate")


def evaluate(
    run: Positional[Path], experiment: Path | None = None, as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
) -> None:
    """Compute a trained model's figures on its test split again, from the saved folder.

    Examples:
        perceiver evaluate runs/digits
        perceiver evaluate runs/digits --json
        perceiver evaluate runs/digits --experiment my/digits.py

    The figures come from the experiment that trained the model: experiments/NAME.py below the current folder,
    with the options of the run, unless another file is given.

    Args:
        run: Folder of the run, or the model folder in it.
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
    scores = dict(test(from_pretrained(run)))
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


# --- predict ----------------------------------------------------------------------------------------------------


def _predict(words: list[str]) -> None:
    model = next((word for word in words if not word.startswith("-")), None)
    if model is None:
        _parse(_predict_any, words, "predict")
        return
    from perceiver.pretrained import from_pretrained

    loaded = from_pretrained(model)
    _parse(_predict_command(loaded), words, "predict")


def _predict_any(model: Positional[Path]) -> None:
    """Ask a model everything it can answer about your own files.

    Examples:
        perceiver predict runs/digits --help                  what this model takes
        perceiver predict runs/digits --image scan.png
        perceiver predict runs/digits --text sieben --json
        perceiver predict deepmind/language-perceiver --text "a sentence with [MASK][MASK][MASK] bytes"
        perceiver predict deepmind/optical-flow-perceiver --frames earlier.png,later.png
        perceiver predict openai/clip-vit-base-patch32 --image photo.jpg --names cat dog

    Args:
        model: Model folder, folder of a run, id or folder of the Hugging Face Hub, or a checkpoint of DeepMind's.
    """
    raise InputError(f"{model}: expected a model")


_HINTS = {
    "Bytes": "Text; [MASK] in it is one byte to fill in.",
    "FramePair": "Two picture files: EARLIER,LATER.",
    "Image": "Picture file.",
    "Label": "Class, by number or name.",
    "LogMel": "Sound file, or a film with sound.",
    "Points": "Point cloud file.",
    "Subwords": "Text.",
    "Vectors": "File .npy of vectors [n, width].",
    "Video": "Film, animated picture, or a folder of pictures.",
    "Waveform": "Sound file, or a film with sound.",
}


def _predict_command(loaded: Any) -> Callable[..., None]:
    """A command with one option for each modality of the model."""
    from perceiver.answers import sources_of, takes_names

    kinds = sources_of(loaded)
    hints = {
        name: _HINTS["Bytes"] if kind == "Bytes" and loaded.config.inputs[name].special else _HINTS.get(kind, kind)
        for name, kind in kinds.items()
    }
    hints |= {
        name: "Text." for name, kind in kinds.items() if kind == "Bytes" and not loaded.config.inputs[name].special
    }
    fields: list[tuple[str, Any, Any]] = [
        (name, Annotated[str | None, tyro.conf.arg(help=hint)], None) for name, hint in hints.items()
    ]
    if takes_names(loaded):
        about = "What there may be in the picture, such as: cat dog."
        fields.append(("names", Annotated[tuple[str, ...], tyro.conf.arg(help=about)], ()))
    sources = dataclasses.make_dataclass("Sources", fields, frozen=True)
    sources.__doc__ = "What the model is to look at."

    def command(
        model: Positional[Path],
        inputs: Annotated[sources, tyro.conf.arg(name="")],  # type: ignore[valid-type]
        out: Path = Path("answers"),
        as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    ) -> None:
        """Ask a model everything it can answer about your own files.

        Examples:
            perceiver predict runs/digits --image scan.png
            perceiver predict runs/digits --text sieben --json
            perceiver predict openai/clip-vit-base-patch32 --image photo.jpg --names cat dog

        Several inputs at once are seen together, as one sample.

        Args:
            model: Model folder, folder of a run, id or folder of the Hugging Face Hub, or a checkpoint of DeepMind's.
            inputs: What the model is to look at.
            out: Folder for decoded pictures, sounds and answers.json.
            as_json: Print the answers as JSON and nothing else on standard output.
        """
        from perceiver.answers import predict

        given = {f.name: getattr(inputs, f.name) for f in dataclasses.fields(sources)}
        names = given.pop("names", ())
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            options = ", ".join(f"--{name}" for name in kinds)
            raise InputError(f"{model}: nothing to look at; give at least one of {options}")
        answers = predict(loaded, given, out, names)
        if as_json:
            print(json.dumps(answers, ensure_ascii=False))
        else:
            _show_answers(answers)

    return command


def _show_answers(answers: Mapping[str, Any]) -> None:
    table = Table(show_lines=True)
    for column in ("question", "answer"):
        table.add_column(column)
    for name, answer in answers.items():
        table.add_row(name, _escape(_spell(answer)))
    Console().print(table)


def _spell(answer: Any) -> str:
    if isinstance(answer, dict) and "top" in answer:
        return "\n".join(f"{entry['probability']:7.2%}  {entry['name']}" for entry in answer["top"])
    if isinstance(answer, dict) and "nearest" in answer:
        return "\n".join(f"{entry['cosine']:+.3f}  {entry['text']}" for entry in answer["nearest"])
    if isinstance(answer, dict):
        return "\n".join(f"{name}: {value}" for name, value in answer.items())
    return str(answer)


# --- convert ----------------------------------------------------------------------------------------------------


def _convert(words: list[str]) -> None:
    _parse(convert, words, "convert")


def convert(model: Positional[str], folder: Positional[Path], revision: str | None = None, hub: bool = False) -> None:
    """Write a model in another layout: published weights as a model folder, or a model for transformers.

    Examples:
        perceiver convert deepmind/language-perceiver models/language
        perceiver convert ~/downloads/imagenet_fourier_position_encoding.pystate models/imagenet
        perceiver convert models/language for-transformers --hub

    A model folder holds config.json, preprocessing.json, model.safetensors and their sha256. The Hub's layout is
    written only if a class of transformers computes the same; otherwise the error says where they differ.

    Args:
        model: Model folder, folder of a run, id or folder of the Hugging Face Hub, or a checkpoint of DeepMind's.
        folder: Folder to write.
        revision: Branch, tag or commit on the Hub.
        hub: Write the Hub's layout instead of a model folder.
    """
    from perceiver.pretrained import from_pretrained, write_hub

    loaded = from_pretrained(model, revision)
    written = write_hub(loaded, folder) if hub else loaded.save(folder)
    Console().print(f"{_escape(str(written))}: {type(loaded).__name__}, written and complete", highlight=False)


# --- inspect ----------------------------------------------------------------------------------------------------


def _inspect(words: list[str]) -> None:
    _parse(inspect, words, "inspect")


def inspect(paths: Positional[tuple[Path, ...]], batch: int = 1) -> None:
    """Show what a model is made of, and how one or several runs went.

    Examples:
        perceiver inspect runs/digits
        perceiver inspect runs/digits-0 runs/digits-1 runs/digits-2      mean ± standard deviation over runs

    Args:
        paths: Model folders or folders of runs.
        batch: Batch size that the choice of attention kernels is shown for.
    """
    from perceiver.inspecting import describe_model, describe_runs
    from perceiver.pretrained import from_pretrained
    from perceiver.saving import read_json

    if not paths:
        raise InputError("give at least one model folder or folder of a run")
    console = Console()
    for table in describe_model(from_pretrained(str(paths[0])), batch):
        console.print(table)
    reports = [read_json(path / "report.json") for path in paths if (path / "report.json").is_file()]
    if reports:
        console.print(describe_runs(reports))
