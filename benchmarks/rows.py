"""Rows: one for each case and peer, as JSON; and files of them, which later runs complete."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import statistics
from benchmarks.cases import Case, Forward, Training
from benchmarks.cost import Cost
from benchmarks.measure import Figures
from benchmarks.process import Outcome
from benchmarks.sides import Side
from perceiver.errors import InputError

Row = dict[str, Any]
NOT_RUN = (Outcome.ABSENT.value, Outcome.LEFT_OUT.value)
"""Statuses that say nothing about a peer, so that they never take the place of figures."""


def rows_of(name: str, case: Case, figures: Sequence[Figures], larger: Sequence[str] = ()) -> list[Row]:
    """A row for every side but ours, from the figures of one case. larger: peers whose models are not ours."""
    mine = [own for own in figures if own.side.name == "ours"]
    best = fastest(mine)
    rows = []
    for peer in figures:
        if peer.side.name == "ours":
            continue
        odd = disagreement(best, peer) if isinstance(case, Forward | Training) and peer.side.name not in larger else ""
        if odd:
            peer.outcome, peer.text = Outcome.ERROR, odd
        rows.append(_row(name, case, mine, best, peer))
    return rows


def fastest(variants: Sequence[Figures]) -> Figures:
    """The variant that counts; the first where none was measured."""
    measured = [own for own in variants if own.outcome is Outcome.MEASURED and own.turns]
    return min(measured, key=lambda own: statistics.seconds(own.turns)) if measured else variants[0]


def disagreement(ours: Figures, theirs: Figures) -> str:
    """Why two sides cannot have computed the same thing; empty where nothing speaks against it."""
    if not ours.outcome is theirs.outcome is Outcome.MEASURED:
        return ""
    if ours.built["parameters"] != theirs.built["parameters"]:
        return f"another model: {theirs.built['parameters']:,} parameters, ours has {ours.built['parameters']:,}"
    if numbers(ours) != numbers(theirs):
        return f"other answers: {theirs.built['shapes']}, ours are {ours.built['shapes']}"
    return ""


def numbers(own: Figures) -> int:
    """How many numbers the answers are made of."""
    return sum(math.prod(shape) for shape in own.built["shapes"].values())


def _row(name: str, case: Case, mine: Sequence[Figures], best: Figures, peer: Figures) -> Row:
    row: Row = {"case": name, "peer": peer.side.name, "batch": case.batch}
    row |= {"status": peer.outcome.value, "our_status": best.outcome.value}
    row |= _side("", best) | _side("peer_", peer)
    if best.outcome is Outcome.MEASURED is peer.outcome:
        ratio = statistics.ratio(best.turns, peer.turns)
        row |= {
            "time_ratio": ratio.value,
            "spread": ratio.spread,
            "ratio_quartiles": [ratio.low, ratio.high],
            "rounds": ratio.rounds,
            "memory_ratio": best.memory["peak_bytes"] / peer.memory["peak_bytes"],
        }
    if len(mine) > 1:
        row["variant"] = best.variant.name.lower()
        row["variants"] = {own.variant.name.lower(): _side("", own) for own in mine}
    return row


def _side(prefix: str, own: Figures) -> Row:
    """One side's own figures."""
    if own.outcome is not Outcome.MEASURED:
        return {f"{prefix}problem": own.text}
    found = {
        "seconds": statistics.seconds(own.turns),
        "latency": statistics.latency(own.turns),
        "memory_bytes": own.memory["peak_bytes"],
        "process_peak_bytes": own.memory["process_peak_bytes"],
        "first_call_peak_bytes": own.built["first_call_peak_bytes"],
        "first_call_seconds": own.built["first_call_seconds"],
        "parameters": own.built["parameters"],
        "shapes": own.built["shapes"],
        "versions": own.versions,
    }
    if own.built["notes"]:
        found["notes"] = own.built["notes"]
    return {prefix + key: value for key, value in found.items()}


def add_cost(rows: Sequence[Row], cost: Cost, machine: Mapping[str, Any]) -> None:
    """Put in the theoretical cost, and how much of the machine's peaks each side's time makes of it."""
    for row in rows:
        row |= {"flops": cost.flops, "bytes": cost.bytes}
        for prefix in ("", "peer_"):
            seconds = row.get(f"{prefix}seconds")
            if seconds and "matmul_flops_per_second" in machine:
                flops, moved = cost.flops / seconds, cost.bytes / seconds
                row[f"{prefix}fraction_of_matmul_peak"] = flops / machine["matmul_flops_per_second"]
                row[f"{prefix}fraction_of_bandwidth"] = moved / machine["bandwidth_bytes_per_second"]


def read(path: Path) -> dict[str, Any]:
    """A file of rows; an empty one where there is none.

    Raises:
        InputError: a file of something else.
    """
    if not path.is_file():
        return {"machine": {}, "rows": []}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: expected JSON with rows, got: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise InputError(f'{path}: expected {{"machine": …, "rows": […]}}')
    return found


def check_machine(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Figures of two machines do not belong into one file.

    Raises:
        InputError: the file's machine is another one, or ran other threads.
    """
    for field in ("processor", "threads"):
        if old and old.get(field) != new[field]:
            raise InputError(
                f"{path}: its rows come from another machine ({field} {old.get(field)!r}, here {new[field]!r}); "
                "write to another file"
            )


def merged(old: Sequence[Row], new: Sequence[Row], order: Sequence[str], peers: Sequence[str]) -> list[Row]:
    """Old rows, with those replaced whose case and peer were run anew, in the order of cases and peers."""
    rows = {(row["case"], row["peer"]): row for row in old}
    for row in new:
        if row["status"] not in NOT_RUN or (row["case"], row["peer"]) not in rows:
            rows[row["case"], row["peer"]] = row

    def place(row: Row) -> tuple[int, int]:
        case, peer = row["case"], row["peer"]
        return (
            order.index(case) if case in order else len(order),
            peers.index(peer) if peer in peers else len(peers),
        )

    return sorted(rows.values(), key=place)


def write(path: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write {"machine": …, "rows": […]}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": dict(machine), "rows": list(rows)}, indent=1) + "\n", encoding="utf-8")


def unmeasured(side: Side, outcome: Outcome, text: str) -> Figures:
    """Figures of a side that is not run."""
    return Figures(side, side.variants[0], outcome, text)
