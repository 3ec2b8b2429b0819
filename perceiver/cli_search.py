"""The commands about one space: embed and search."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional

from perceiver.console import described, escape, parse
from perceiver.errors import InputError
from perceiver.io.files import read_utf8
from perceiver.io.images import SUFFIXES as PICTURES

SOUNDS = (".wav", ".flac", ".ogg")
POINTS = (".las", ".laz", ".ply", ".pcd", ".bin", ".npz")
TEXTS = (".txt",)
SUFFIXES = {
    "Image": PICTURES,
    "Waveform": SOUNDS,
    "LogMel": SOUNDS,
    "Points": POINTS,
    "Bytes": TEXTS,
    "Subwords": TEXTS,
}
"""By kind of modality: the files of a folder that are embedded as it."""
AT_ONCE = 256
"""Files that are read before they are embedded."""
UNREADABLE = 20
"""Names of bad files that are listed."""


def embed_words(words: list[str]) -> None:
    """Run the command line `perceiver embed …`."""
    parse(embed, words, "embed")


def embed(
    folder: Positional[Path],
    model: str,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    batch: int = 32,
    record: bool = False,
) -> None:
    """Embed every file of a folder, and write an index to search in.

    Examples:
        perceiver embed ~/pictures --model openai/clip-vit-base-patch32 -o pictures.index
        perceiver embed recordings --model runs/digits_any -o recordings.index

    Pictures, sounds, point clouds and texts are embedded by the modality of the model that takes them; of a .txt file
    each line is an entry. Other files are passed over, and those that cannot be read are named and left out.

    Args:
        folder: Searched with all folders in it.
        model: Model folder, folder of a run, id or folder of the Hugging Face Hub.
        out: The index, a folder; an older index there is replaced.
        batch: How many go through the model together.
        record: Write beside the index which model made it, of which files; see perceiver verify.
    """
    from perceiver.embedding import digest_of, kinds_of
    from perceiver.pretrained import from_pretrained
    from perceiver.retrieval import Index

    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, there is none")
    loaded = from_pretrained(model)
    kinds = kinds_of(loaded)
    entries = list(_entries(folder, kinds.items()))
    if not entries:
        endings = sorted({suffix for kind in kinds.values() for suffix in SUFFIXES.get(kind, ())})
        raise InputError(f"{folder}: expected files that the model takes ({', '.join(endings)}), there are none")
    console = Console(stderr=True)
    vectors, bad = _embedded(loaded, entries, batch, console)
    for number, problem in list(bad.items())[:UNREADABLE]:
        console.print(f"left out: {escape(entries[number].name)}: {escape(problem)}", highlight=False, soft_wrap=True)
    if not vectors:
        raise InputError(f"{folder}: none of {len(entries)} entries could be read")
    kept = sorted(vectors)
    names, modalities = zip(*[(entries[i].name, entries[i].modality) for i in kept], strict=True)
    where = str(Path(model).resolve()) if Path(model).exists() else model
    index = Index(np.stack([vectors[i] for i in kept]), names, modalities, where, digest_of(loaded))
    written = index.save(out)
    if record:
        from perceiver.provenance import write_records

        write_records([written], loaded, {entries[i].name: entries[i].source for i in kept}, name=model)
    counts = ", ".join(f"{name} {modalities.count(name)}" for name in sorted(set(modalities)))
    left = f"; {len(bad)} left out" if bad else ""
    Console().print(f"{escape(str(written))}: {counts}{left}", highlight=False, soft_wrap=True)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One thing to embed. name: the file, or the text itself. source: what the model's `load` takes."""

    modality: str
    name: str
    source: Any


def _entries(folder: Path, kinds: Iterable[tuple[str, str]]) -> Iterator[Entry]:
    """What of a folder is embedded as which modality, in the order of the names."""
    takers: dict[str, str] = {}
    for modality, kind in kinds:
        for suffix in SUFFIXES.get(kind, ()):
            takers.setdefault(suffix, modality)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        taker = takers.get(path.suffix.lower())
        if taker is None:
            continue
        if path.suffix.lower() in TEXTS:
            yield from (Entry(taker, text, text) for text in _texts(path))
        else:
            yield Entry(taker, str(path), path)


def _texts(path: Path) -> list[str]:
    """The lines of a text file that are not empty, as things to embed.

    Raises:
        InputError: no such file, or not UTF-8.
    """
    return [line.strip() for line in read_utf8(path).splitlines() if line.strip()]


def _embedded(
    model: Any, entries: Sequence[Entry], batch: int, console: Console
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """By the number of an entry: its vector, or what is wrong with it."""
    from perceiver.embedding import embed

    vectors: dict[int, np.ndarray] = {}
    bad: dict[int, str] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("embedding", total=len(entries))
        for modality in dict.fromkeys(entry.modality for entry in entries):
            own = [number for number, entry in enumerate(entries) if entry.modality == modality]
            for start in range(0, len(own), AT_ONCE):
                part, unreadable = own[start : start + AT_ONCE], dict[int, str]()
                try:
                    found = embed(model, modality, [entries[i].source for i in part], batch, unreadable)
                except InputError:
                    if len(unreadable) < len(part):
                        raise
                    found = np.zeros((len(part), 0))  # none of them can be read
                bad |= {part[i]: problem for i, problem in unreadable.items()}
                vectors |= {number: found[i] for i, number in enumerate(part) if i not in unreadable}
                bar.advance(task, len(part))
    return vectors, bad


# --- search -----------------------------------------------------------------------------------------------------------


def search_words(words: list[str]) -> None:
    """Run the command line `perceiver search …`."""
    place = next((word for word in words if not word.startswith("-")), None)
    if place is None:
        parse(_search_any, words, "search")
        return
    from perceiver.embedding import digest_of, kinds_of
    from perceiver.pretrained import from_pretrained
    from perceiver.retrieval import Index

    index = Index.load(place)
    model = from_pretrained(index.model)
    if digest_of(model) != index.digest:
        raise InputError(
            f"{place}: made by another model than {index.model} is now; embed the folder again, or bring the model back"
        )
    parse(_search_command(index, model, kinds_of(model)), words, "search", described(_search_any))


def _search_any(index: Positional[Path]) -> None:
    """Find what is nearest in meaning to a text, a picture or a sound.

    Examples:
        perceiver search pictures.index --text "a red bicycle"
        perceiver search pictures.index --image like_this.jpg --count 20
        perceiver search recordings.index --audio word.wav --among text --json

    Args:
        index: Folder that `perceiver embed` wrote.
    """
    raise InputError(f"{index}: expected an index")


def _search_command(index: Any, model: Any, kinds: dict[str, str]) -> Callable[..., None]:
    """A command with one option for each modality that can be asked with."""
    fields: list[tuple[str, Any, Any]] = [
        (name, Annotated[str | None, tyro.conf.arg(help="Text." if SUFFIXES.get(kind) == TEXTS else "File.")], None)
        for name, kind in kinds.items()
        if kind in SUFFIXES
    ]
    sources = dataclasses.make_dataclass("Sources", fields, frozen=True)
    sources.__doc__ = "What to look for; one of them."

    def command(
        place: Annotated[Positional[Path], tyro.conf.arg(metavar="INDEX")],
        query: Annotated[sources, tyro.conf.arg(name="")],  # type: ignore[valid-type]
        count: int = 12,
        among: tuple[str, ...] = (),
        out: Path = Path("found.png"),
        as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    ) -> None:
        """See _search_any.

        Args:
            place: Folder that `perceiver embed` wrote.
            query: What to look for; one of them.
            count: How many to find.
            among: Only entries of these modalities.
            out: Picture of what was found.
            as_json: Print what was found as JSON and nothing else on standard output; no picture is drawn.
        """
        from perceiver.embedding import embed

        given = {name: source for name, source in vars(query).items() if source is not None}
        if len(given) != 1:
            options = ", ".join(f"--{name}" for name, *_ in fields)
            raise InputError(f"expected one thing to look for, by one of {options}; got {len(given)}")
        ((modality, source),) = given.items()
        chosen = index.only(among) if among else index
        cosines, numbers = chosen.search(embed(model, modality, [source]), count)
        found = [
            {"cosine": round(float(cosine), 4), "name": chosen.names[i], "modality": chosen.modalities[i]}
            for cosine, i in zip(cosines[0], numbers[0], strict=True)
        ]
        if as_json:
            print(json.dumps({"query": {modality: source}, "found": found}, ensure_ascii=False))
            return
        table = Table()
        for column in ("cosine", "modality", "name"):
            table.add_column(column, justify="right" if column == "cosine" else "left")
        for entry in found:
            table.add_row(f"{entry['cosine']:+.3f}", str(entry["modality"]), escape(str(entry["name"])))
        Console().print(table)
        _draw([(f"{modality}: looked for", modality, source), *_captions(found)], kinds, out)
        Console().print(f"drawn: {escape(str(out))}", highlight=False, soft_wrap=True)

    return command


def _captions(found: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(f"{entry['cosine']:+.3f}", entry["modality"], entry["name"]) for entry in found]


def _draw(tiles: Sequence[tuple[str, str, str]], kinds: dict[str, str], out: Path) -> None:
    """A contact sheet. tiles: caption, modality, and the file or text."""
    from perceiver import viz
    from perceiver.io import read_audio, read_image, read_points

    readers: dict[tuple[str, ...], Callable[[str], Any]] = {
        PICTURES: lambda name: read_image(name, channels=3),
        SOUNDS: lambda name: read_audio(name)[0],
        POINTS: lambda name: read_points(name).xyz,
        TEXTS: lambda text: text,
    }
    drawn: list[tuple[str, Any]] = []
    for caption, modality, source in tiles:
        try:
            drawn.append((caption, readers[SUFFIXES[kinds[modality]]](source)))
        except InputError:  # moved since it was embedded
            drawn.append((caption, source))
    viz.contact_sheet(drawn, out)
