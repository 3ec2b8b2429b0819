"""Rows as Markdown tables, put between two markers of a file."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import Outcome
from benchmarks.rows import Row
from perceiver.errors import InputError

GROUPS = {
    "forward/": "Forward pass",
    "decode/": "Decoding a whole clip",
    "train/": "Training step",
    "contrastive": "Contrastive training step",
    "policy": "Control policy",
    "scaling/inputs": "More inputs",
    "scaling/outputs": "More outputs",
}
UNTOLD = (Outcome.LACKS.value, Outcome.LEFT_OUT.value)
"""Statuses that the notes tell of, not the tables."""
HEADER = (
    "| case | peer | time, ours / peer | ours | peer | memory, ours / peer | ours | peer | of matmul peak, ours, peer "
    "| of bandwidth, ours, peer |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def insert(path: Path, text: str, name: str = "benchmarks") -> None:
    """Replace what is between the markers of that name in a file; a new file is made of the markers and the text.

    Raises:
        InputError: a file without the markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, after = "# Performance\n\n", "\n"
    if path.is_file():
        whole = path.read_text(encoding="utf-8")
        if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
            raise InputError(f"{path}: expected one line {begin} and one {end} below it")
        before, rest = whole.split(begin)
        after = rest.split(end)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def markdown(machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The machine, the comparison with each case's best peer, all rows, and what there is to say about them."""
    parts = [_machine(machine), _best(rows)]
    for prefix, title in GROUPS.items():
        chosen = [row for row in rows if row["case"].startswith(prefix) and row["status"] not in UNTOLD]
        if chosen:
            lines = "\n".join(_line(row) for row in chosen)
            parts.append(f"### {title}\n\n{HEADER}\n{lines}")
            parts += _latency(chosen) if prefix == "policy" else []
    return "\n\n".join([*parts, *_notes(rows)])


def _machine(machine: Mapping[str, Any]) -> str:
    measured = ""
    if "matmul_flops_per_second" in machine:
        measured = (
            f" At best {machine['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s in float32 matrix products "
            f"({machine['matmul_flops_bfloat16_per_second'] / 1e9:.0f} in bfloat16) and "
            f"{machine['bandwidth_bytes_per_second'] / 1e9:.1f} GB/s."
        )
    return (
        f"{machine['processor']}, {machine['threads']} threads, {machine['memory_bytes'] / 2**30:.0f} GiB, "
        f"{machine['system']}, Python {machine['python']}, {datetime.date.today()}.{measured}"
    )


def _best(rows: Sequence[Row]) -> str:
    """Of each case the peer that is fastest, and the one that takes least memory."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        measured = [row for row in rows if row["case"] == case and "time_ratio" in row]
        if measured:
            fast = max(measured, key=lambda row: row["time_ratio"])
            lean = max(measured, key=lambda row: row["memory_ratio"])
            lines.append(f"| {case} | {_ratio(fast)} | {fast['peer']} | {lean['memory_ratio']:.2f} | {lean['peer']} |")
    head = "| case | time, ours / the fastest peer | which | memory, ours / the leanest peer | which |"
    return "\n".join([head, "|---|--:|---|--:|---|", *lines])


def _ratio(row: Row) -> str:
    return f"{row['time_ratio']:.2f} ± {row['spread']:.2f}"


def _line(row: Row) -> str:
    if "time_ratio" not in row:
        seconds, memory = "–", "–"
        if "seconds" in row:
            seconds, memory = _seconds(row["seconds"]), _bytes(row["memory_bytes"])
        status = row["status"] if row["status"] != "measured" else f"ours: {row['our_status']}"
        return f"| {row['case']} | {row['peer']} | {status} | {seconds} | – | – | {memory} | – | – | – |"
    peak = _pair(row, "fraction_of_matmul_peak")
    bandwidth = _pair(row, "fraction_of_bandwidth")
    time = f"{_ratio(row)} | {_seconds(row['seconds'])} | {_seconds(row['peer_seconds'])}"
    memory = f"{row['memory_ratio']:.2f} | {_bytes(row['memory_bytes'])} | {_bytes(row['peer_memory_bytes'])}"
    return f"| {row['case']} | {row['peer']} | {time} | {memory} | {peak} | {bandwidth} |"


def _pair(row: Row, name: str) -> str:
    if name not in row:
        return "–"
    return f"{row[name] * 100:.0f} %, {row[f'peer_{name}'] * 100:.0f} %"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _bytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def _latency(rows: Sequence[Row]) -> list[str]:
    lines = [
        f"- {row['peer']}: ours {_percentiles(row['latency'])}; theirs {_percentiles(row['peer_latency'])}"
        for row in rows
        if "latency" in row and "peer_latency" in row
    ]
    return (
        ["Latency of single calls, half and 99 of 100 of which are faster than:\n\n" + "\n".join(lines)]
        if lines
        else []
    )


def _percentiles(found: Mapping[str, float]) -> str:
    return f"{found['p50'] * 1000:.2f} and {found['p99'] * 1000:.2f} ms ({found['calls']} calls)"


def _notes(rows: Sequence[Row]) -> list[str]:
    """What the sides said about themselves, once for every peer and saying, with the cases that it belongs to."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for note in row.get("peer_notes", []):
            said.setdefault((row["peer"], note), []).append(row["case"])
        if row["status"] != "measured":
            problem = row.get("peer_problem", "").splitlines()
            said.setdefault((row["peer"], f"{row['status']}: {problem[0] if problem else ''}"), []).append(row["case"])
        if "variant" in row:
            said.setdefault(("ours", f"remat: {_variants(row)}"), []).append(row["case"])
    lines = [f"- {peer}, {_cases(cases)}: {note}" for (peer, note), cases in said.items()]
    return ["### Notes\n\n" + "\n".join(lines)] if lines else []


def _cases(cases: Sequence[str]) -> str:
    names = list(dict.fromkeys(cases))
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} more"


def _variants(row: Row) -> str:
    parts = [
        f"{'off' if name == 'plain' else 'on'} {_seconds(own['seconds'])}, {_bytes(own['memory_bytes'])}"
        for name, own in row["variants"].items()
        if "seconds" in own
    ]
    return "; ".join(parts)
