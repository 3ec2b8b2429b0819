"""The commands about a model that exists: predict, convert, inspect."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from perceiver.console import escape, parse
from perceiver.errors import InputError


@dataclasses.dataclass(frozen=True)
class Smaller:
    """How much of a model is used.

    Attributes:
        weights: Store weights in fewer bits, in memory and in what is written.
        compute: What to compute in.
        latents: Use the first so many latents, of a model that was trained with a choice.
        depth: Use the first so many self-attends of each tower, likewise.
    """

    weights: Literal["float32", "bfloat16", "int8"] | None = None
    compute: Literal["float32", "bfloat16"] | None = None
    latents: int | None = None
    depth: int | None = None

    def apply(self, model: Any) -> Any:
        """The model as it is asked for."""
        from perceiver.model import Compute
        from perceiver.quantised import Weights
        from perceiver.smaller import quantise, reduced

        if self.latents is not None or self.depth is not None:
            model = reduced(model, self.latents, self.depth)
        if self.weights is not None or self.compute is not None:
            weights = model.config.weights if self.weights is None else Weights(self.weights)
            model = quantise(model, weights, None if self.compute is None else Compute(self.compute))
        return model


AS_IT_IS = Smaller()

# --- predict ----------------------------------------------------------------------------------------------------


def predict_words(words: list[str]) -> None:
    """Run the command line `perceiver predict …`."""
    model = next((word for word in words if not word.startswith("-")), None)
    if model is None:
        parse(_predict_any, words, "predict")
        return
    from perceiver.pretrained import from_pretrained

    loaded = from_pretrained(model)
    parse(_predict_command(loaded), words, "predict")


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
    "Levels": "Picture file.",
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
        smaller: Annotated[Smaller, tyro.conf.arg(name="")] = AS_IT_IS,
        size: tuple[int, ...] = (),
        out: Path = Path("answers"),
        record: bool = False,
        as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    ) -> None:
        """Ask a model everything it can answer about your own files.

        Examples:
            perceiver predict runs/digits --image scan.png
            perceiver predict runs/digits --text sieben --json
            perceiver predict runs/digits --image scan.png --size 32 32
            perceiver predict openai/clip-vit-base-patch32 --image photo.jpg --names cat dog

        Several inputs at once are seen together, as one sample.

        Args:
            model: Model folder, folder of a run, id or folder of the Hugging Face Hub, or a checkpoint of DeepMind's.
            inputs: What the model is to look at.
            smaller: How much of the model is used.
            size: Cells along each axis, such as 32 32, at which pictures and other fields are decoded, in place of
                those that the model was trained at.
            out: Folder for decoded pictures, sounds and answers.json.
            record: Write beside each of these files which model made it, of what; see perceiver verify.
            as_json: Print the answers as JSON and nothing else on standard output.
        """
        from perceiver.answers import predict

        given = {f.name: getattr(inputs, f.name) for f in dataclasses.fields(sources)}
        names = given.pop("names", ())
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            options = ", ".join(f"--{name}" for name in kinds)
            raise InputError(f"{model}: nothing to look at; give at least one of {options}")
        asked = smaller.apply(loaded)
        answers = predict(asked, given, out, names, size)
        if record:
            _record(asked, str(model), given, out, answers)
        if as_json:
            print(json.dumps(answers, ensure_ascii=False))
        else:
            _show_answers(answers)

    return command


def _record(asked: Any, name: str, given: Mapping[str, str], out: Path, answers: Mapping[str, Any]) -> None:
    """Write the records of what was written."""
    from perceiver.provenance import write_records

    told = [answer for answer in answers.values() if isinstance(answer, Mapping)]
    files = [Path(answer[kind]) for answer in told for kind in ("file", "picture") if kind in answer]
    inputs = {what: Path(source) if Path(source).exists() else source for what, source in given.items()}
    write_records([out / "answers.json", *files], asked, inputs, name=name)


def _show_answers(answers: Mapping[str, Any]) -> None:
    table = Table(show_lines=True)
    for column in ("question", "answer"):
        table.add_column(column)
    for name, answer in answers.items():
        table.add_row(name, escape(_spell(answer)))
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


def convert_words(words: list[str]) -> None:
    """Run the command line `perceiver convert …`."""
    parse(convert, words, "convert")


def convert(
    model: Positional[str],
    folder: Positional[Path],
    smaller: Annotated[Smaller, tyro.conf.arg(name="")] = AS_IT_IS,
    revision: str | None = None,
    hub: bool = False,
) -> None:
    """Write a model in another layout: published weights as a model folder, or a model for transformers.

    Examples:
        perceiver convert deepmind/language-perceiver models/language
        perceiver convert ~/downloads/imagenet_fourier_position_encoding.pystate models/imagenet
        perceiver convert models/language for-transformers --hub
        perceiver convert models/language models/language-int8 --weights int8

    A model folder holds config.json, preprocessing.json, model.safetensors and their sha256. The Hub's layout is
    written only if a class of transformers computes the same; otherwise the error says where they differ.

    Args:
        model: Model folder, folder of a run, id or folder of the Hugging Face Hub, or a checkpoint of DeepMind's.
        folder: Folder to write.
        smaller: How much of the model is written.
        revision: Branch, tag or commit on the Hub.
        hub: Write the Hub's layout instead of a model folder.
    """
    from perceiver.pretrained import from_pretrained, write_hub

    loaded = smaller.apply(from_pretrained(model, revision))
    written = write_hub(loaded, folder) if hub else loaded.save(folder)
    Console().print(f"{escape(str(written))}: {type(loaded).__name__}, written and complete", highlight=False)


# --- inspect ----------------------------------------------------------------------------------------------------


def inspect_words(words: list[str]) -> None:
    """Run the command line `perceiver inspect …`."""
    parse(inspect, words, "inspect")


def inspect(paths: Positional[tuple[Path, ...]], batch: int = 1) -> None:
    """Show what a model is made of, and how one or several runs went or are going.

    Examples:
        perceiver inspect runs/digits
        perceiver inspect runs/digits-0 runs/digits-1 runs/digits-2      mean ± standard deviation over runs

    Of a run, also one at work, the newest figures are listed and all of them drawn into curves.png in its folder: loss
    and gradients, where the time goes, FLOP/s and memory, and what goes on in the latents. docs/training.md explains
    each.

    Args:
        paths: Model folders or folders of runs.
        batch: Batch size that the choice of attention kernels is shown for.
    """
    from perceiver import viz
    from perceiver.inspecting import describe_model, describe_progress, describe_runs
    from perceiver.pretrained import from_pretrained
    from perceiver.saving import read_json
    from perceiver.training.metrics import NAME, read_log

    if not paths:
        raise InputError("give at least one model folder or folder of a run")
    console = Console()
    logs = {path: read_log(path) for path in paths if (path / NAME).is_file()}
    if paths[0] not in logs or (paths[0] / "model").is_dir():  # a run has a model from its first validation on
        for table in describe_model(from_pretrained(str(paths[0])), batch):
            console.print(table)
    reports = [read_json(path / "report.json") for path in paths if (path / "report.json").is_file()]
    if reports:
        console.print(describe_runs(reports))
    for path, lines in logs.items():
        if lines:
            console.print(describe_progress(lines, str(path)))
            viz.curves(lines, path / "curves.png", path.name)
            console.print(f"drawn: {escape(str(path / 'curves.png'))}", highlight=False, soft_wrap=True)
