"""The commands that bring a model to where it is used: export and serve."""

import asyncio
import signal
from pathlib import Path
from typing import Any

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


# --- serve ------------------------------------------------------------------------------------------------------


def serve_words(words: list[str]) -> None:
    """Run the command line `perceiver serve …`."""
    parse(serve, words, "serve")


def serve(
    model: Positional[Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    rename: tuple[str, ...] = (),
    clients: int = 16,
    waiting: int = 16,
    frame_mb: int = 64,
) -> None:
    """Answer robots over the network, by openpi's protocol: its clients work as they are.

    Examples:
        perceiver serve runs/policy
        perceiver serve runs/policy --rename observation/state=observation.state prompt=task
        perceiver serve runs/policy --host 0.0.0.0 --token-file token.txt
        curl http://127.0.0.1:8000/healthz

    Each client has a history of its own. SIGTERM or Ctrl-C stops the server once what it computes is answered.

    Args:
        model: Model folder, or folder of a run, of a policy.
        host: Where to listen; 0.0.0.0 for every network of this machine.
        port: Port; 0 for any that is free.
        token_file: File with a token that clients have to send (openpi's api_key).
        rename: Keys of the clients' observations as KEY=LEROBOTS_KEY.
        clients: How many may be connected.
        waiting: How many observations may wait for an answer; more are refused.
        frame_mb: Size of an observation at most, MiB.
    """
    from perceiver.control.policy import Policy
    from perceiver.control.server import LOOPBACK, Limits, Server
    from perceiver.errors import require

    require("websockets", "serve")  # before the model is compiled
    limits, names = Limits(clients, waiting, frame_mb * 2**20), _renamed(rename)
    token = None if token_file is None else _token(token_file)
    policy, told = Policy(saved(model)), {"model": model.name}
    server = Server(policy, host=host, port=port, token=token, limits=limits, rename=names, metadata=told)
    console = Console(highlight=False, soft_wrap=True)
    if host not in (LOOPBACK, "localhost", "::1") and token is None:
        console.print("[yellow]anyone who reaches this address can ask this policy; --token-file names a token[/]")
    asyncio.run(_until_stopped(server, console))
    console.print(f"stopped after {server.latency.count} answers{_spelt(server.latency.summary())}")


async def _until_stopped(server: Any, console: Console) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    await server.run(lambda: console.print(f"serving ws://{server.host}:{server.port}"))


def _renamed(pairs: tuple[str, ...]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for pair, (key, _, name) in zip(pairs, split, strict=True):
        if not key or not name:
            raise InputError(f"--rename {pair}: expected KEY=LEROBOTS_KEY")
    return {key: name for key, _, name in split}


def _token(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a file with a token: {error}") from None


def _spelt(summary: dict[str, float]) -> str:
    if not summary["count"]:
        return ""
    return ": " + ", ".join(
        f"{name.removesuffix('_ms')} {summary[name]:.2f} ms" for name in ("p50_ms", "p99_ms", "max_ms")
    )


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
