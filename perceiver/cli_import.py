"""The command that makes a dataset of recordings: import."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from perceiver.console import escape, parse
from perceiver.errors import InputError


def import_words(words: list[str]) -> None:
    """Run the command line `perceiver import …`."""
    parse(import_recordings, words, "import")


def import_recordings(bags: Positional[tuple[Path, ...]], mapping: Path | None = None, out: Path | None = None) -> None:
    """Make a LeRobotDataset v3 folder of recordings of ROS, without ROS; or show the topics that they have.

    Examples:
        perceiver import bags/monday                                          its topics
        perceiver import bags/* --mapping mapping.json --out datasets/crates

    Recordings are folders of rosbag2, .mcap files, or .bag files of ROS 1. The mapping says which topic becomes which
    of LeRobot's keys, and at which rate; docs/robots.md has one.

    Args:
        bags: Recordings.
        mapping: JSON file of an Import.
        out: Folder to write, which may not exist yet.
    """
    from perceiver.control.bags import import_bags, read_import, topics_of

    if not bags:
        raise InputError("give at least one recording")
    console = Console(highlight=False, soft_wrap=True)
    if mapping is None or out is None:
        if mapping is not None or out is not None:
            raise InputError("--mapping and --out: expected both or neither")
        for bag in bags:
            table = Table(title=escape(str(bag)))
            for title in ("topic", "messages", "type"):
                table.add_column(title, justify="right" if title == "messages" else "left")
            for topic, (kind, count) in topics_of(bag).items():
                table.add_row(topic, f"{count:,}", kind)
            console.print(table)
        return
    written = import_bags(bags, out, read_import(mapping))
    console.print(f"{escape(str(out))}: {written.episodes} episodes, {written.frames} frames")
