"""The command `perceiver evaluate`: a trained model's figures, on its own test split or on another folder of data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from perceiver.cli_models import AS_IT_IS, Smaller
from perceiver.console import parse
from perceiver.errors import InputError
from perceiver.training.load import experiment_of, folder_of, load_module, tasks_of, types_of


def evaluate_words(words: list[str]) -> None:
    """Run the command line `perceiver evaluate …`."""
    parse(evaluate, words, "evaluate")


def evaluate(
    run: Positional[Path],
    smaller: Annotated[Smaller, tyro.conf.arg(name="")] = AS_IT_IS,
    data: str | None = None,
    root: Path | None = None,
    split: str = "test",
    predictions: Path | None = None,
    experiment: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Compute a trained model's figures again: on its own test split, or on another folder of a dataset's layout.

    Examples:
        perceiver evaluate runs/digits
        perceiver evaluate runs/digits --json
        perceiver evaluate runs/spoken_digits --data fsdd --root FOLDER --split all
        perceiver evaluate runs/digits --experiment my/digits.py
        perceiver evaluate runs/digits --weights int8
        perceiver evaluate runs/spoken_digits/without_theo

    The figures come from the experiment that trained the model: experiments/NAME.py below the current folder,
    with the options of the run, unless another file is given. With --data its training data need not be there.

    Args:
        run: Folder of the run, or the model folder in it; or the folder in it of a companion or of the pretraining.
        smaller: How much of the model is used.
        data: Name of the dataset, such as fsdd, where it is not the run's own test split.
        root: Folder that holds the dataset's folder; the variable PERCEIVER_DATA unless given.
        split: Which of its items: train, validation, test or all.
        predictions: Where the line of each item goes, as JSON; predictions-DATA-SPLIT.jsonl in the run unless given.
        experiment: The experiment's file, where it is not experiments/NAME.py.
        as_json: Print {"test": …} and nothing else on standard output.
    """
    from perceiver.pretrained import from_pretrained
    from perceiver.saving import read_json
    from perceiver.training.evaluation import scores as figures
    from perceiver.training.evaluation import write_lines

    folder, workdir, part = _origin(run)
    noted = read_json(workdir / "experiment.json") if workdir is not None else {}
    file = experiment or _own_experiment(run, noted)
    module = load_module(file)
    model = smaller.apply(from_pretrained(run, types=types_of(module)))
    if data is None:
        if root is not None or predictions is not None or split != "test":
            raise InputError("--root, --split and --predictions are about another dataset: name it with --data")
        options = {k: v for k, v in dict(noted.get("arguments", {})).items() if k != "smoke"}
        whole = experiment_of(module, file)(**options)
        parts = _parts(whole, whole.companions, whole.pretraining)
        if part not in parts:
            known = ", ".join(filter(None, parts)) or "no parts"
            raise InputError(f"{run}: the experiment {whole.name!r} has {known}, not {part!r}")
        _show(str(run), parts[part].test(model), _reported(workdir, part), as_json)
        return
    place = predictions or folder / f"predictions-{data}-{split}.jsonl"
    tasks = tasks_of(module, file)
    if data not in tasks:
        raise InputError(f"--data {data}: {file} asks its models about {', '.join(tasks)}")
    judged = tasks[data].judge(model, tasks[data].items(root, split))
    write_lines(judged, place)
    _show(f"{run} on {data}, {split}", figures(judged), {}, as_json)
    if not as_json:
        Console().print(f"{place}: a line for each item", highlight=False)


def _origin(run: Path) -> tuple[Path, Path | None, str]:
    """A trained folder, that of the run that it belongs to, if any, and which part of it: "" is the main one."""
    folder = run.parent if run.name == "model" else run
    for workdir, part in ((folder, ""), (folder.parent, folder.name)):
        if (workdir / "experiment.json").is_file():
            return folder, workdir, part
    return run, None, ""


def _parts(whole: Any, companions: Mapping[str, Any], pretraining: Any) -> dict[str, Any]:
    """What belongs to a run, such as experiments or reports, by the folder in that of the run: "" is the main one."""
    parts = {"": whole} | ({"pretraining": pretraining} if pretraining else {})
    return parts | {folder_of(name): own for name, own in companions.items()}


def _reported(workdir: Path | None, part: str) -> Mapping[str, Any]:
    """The test figures in the report of a run, of the whole or of a part; none where there is no report."""
    from perceiver.saving import read_json

    if workdir is None or not (workdir / "report.json").is_file():
        return {}
    report = read_json(workdir / "report.json")
    return _parts(report, report["companions"], report["pretraining"]).get(part, {}).get("test", {})


def _show(title: str, scores: Mapping[str, Any], reported: Mapping[str, Any], as_json: bool) -> None:
    from perceiver.training.figures import flat

    if as_json:
        print(json.dumps({"test": scores}))
        return
    before = flat(reported)
    table = Table(title=title)
    for column in ("figure", "now", "in the report") if before else ("figure", "now"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, value in flat(scores).items():
        cells = [name, f"{value:.6f}"]
        table.add_row(*cells, *([f"{before[name]:.6f}" if name in before else "–"] if before else []))
    Console().print(table)


def _own_experiment(run: Path, noted: Mapping[str, Any]) -> Path:
    name = noted.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{run}: no experiment.json says which experiment trained this; give --experiment FILE")
    path = Path("experiments") / f"{name}.py"
    if not path.is_file():
        raise InputError(f"{path}: not below the current folder; go to the project's folder or give --experiment FILE")
    return path
