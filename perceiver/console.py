"""What every command of the command line does: read its words, and say what is wrong in one line."""

import inspect as introspection
import sys
from collections.abc import Callable

import tyro
from rich.console import Console


def fail(message: str, code: int = 2) -> None:
    """End the program with one clear line on standard error."""
    Console(stderr=True).print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def parse(command: Callable[..., None], words: list[str], name: str, description: str | None = None) -> None:
    """Run a command with the words of the command line; its docstring is the help."""
    markers = (tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff)
    if description is None:  # all of the docstring but the arguments, which become the options' help
        description = described(command)
    tyro.cli(command, args=words, prog=f"perceiver {name}", description=description, config=markers)


def described(command: Callable[..., object]) -> str:
    """What a command's docstring says before its arguments."""
    return (introspection.getdoc(command) or "").split("\nArgs:")[0].strip()


def escape(text: str) -> str:
    """Text whose brackets rich takes as they are."""
    return text.replace("[", r"\[")
