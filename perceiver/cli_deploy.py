"""The commands that bring a model to where it is used: export and serve."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from perceiver.console import escape, parse
from perceiver.errors import InputError


def export_words(words: list[str]) -> None:
    """Run the command line `perceiver export …`."""
    parse(export_model, words, "export")


def export_model(model: Positional[Path], out: Path | None = None, onnx: bool = False) -> None:
    """Write a model as programs that run without this package, and compare and time them here.

    Examples:
        perceiver export runs/policy
        perceiver export runs/policy --out models/policy --onnx
        python launch/run_exported.py models/policy observation.npz

    program.jax is for CPUs, CUDA and TPUs and any batch size, model.onnx for ONNX runtimes; program.json says what they
    take and give. A policy gives actions, any other Perceiver its answers. docs/robots.md says more.

    Args:
        model: Model folder, or folder of a run.
        out: Folder to write; the model's own unless given.
        onnx: Also write model.onnx; takes a minute.
    """
    from perceiver.export import export

    source = saved(model)
    rows = export(source, out, onnx=onnx)
    table = Table(title="One sample on this machine, from arrays to answers")
    for title in ("program", "bytes", "difference", "p50 ms", "p99 ms"):
        table.add_column(title, justify="left" if title == "program" else "right")
    for row in rows:
        apart = "" if row is rows[0] else f"{row.difference:.1e}"
        table.add_row(row.what, f"{row.size:,}", apart, f"{1e3 * row.p50:.2f}", f"{1e3 * row.p99:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{escape(str(out or source))}: written and complete", highlight=False, soft_wrap=True)


def saved(model: Path) -> Path:
    """The model folder that a path means.

    Raises:
        InputError: there is none.
    """
    from perceiver.pretrained import own_folder

    folder = own_folder(model.expanduser())
    if folder is None:
        raise InputError(f"{model}: expected a model folder, or the folder of a run")
    return folder
