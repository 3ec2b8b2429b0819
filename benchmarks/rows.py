"""Rows: one for each case and peer, as JSON; and files of them, which later runs complete."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import statistics
from benchmarks.cases import Case
from benchmarks.measure import Figures
from benchmarks.process import Outcome

Row = dict[str, Any]


def rows_of(name: str, case: Case, figures: Sequence[Figures]) -> list[Row]:
    """A row for every side but ours, from the figures of one case."""
    mine = [own for own in figures if own.side.name == "ours"]
    best = fastest(mine)
    rows = []
    for peer in figures:
        if peer.side.name != "ours":
            rows.append(_row(name, case, mine, best, peer))
    return rows


def fastest(variants: Sequence[Figures]) -> Figures:
    """The variant that counts; the first where none was measured."""
    measured = [own for own in variants if own.outcome is Outcome.MEASURED and own.turns]
    return min(measured, key=lambda own: statistics.seconds(own.turns)) if measured else variants[0]


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
        row["our_variants"] = {own.variant.name.lower(): _side("", own) for own in mine}
        row["our_variant"] = best.variant.name.lower()
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
        "versions": own.built["versions"],
    }
    if own.built["notes"]:
        found["notes"] = own.built["notes"]
    return {prefix + key: value for key, value in found.items()}


def read(path: Path) -> dict[str, Any]:
    """A file of rows; an empty one where there is none."""
    if not path.is_file():
        return {"machine": {}, "rows": []}
    return json.loads(path.read_text(encoding="utf-8"))


def merged(old: Sequence[Row], new: Sequence[Row], order: Sequence[str]) -> list[Row]:
    """Old rows, with those replaced whose case and peer were measured anew; in the order of the cases."""
    rows = {(row["case"], row["peer"]): row for row in [*old, *new]}
    known = {name: number for number, name in enumerate(order)}
    return sorted(rows.values(), key=lambda row: (known.get(row["case"], len(known)), row["case"], row["peer"]))


def write(path: Path, machine: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write {"machine": …, "rows": […]}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": dict(machine), "rows": list(rows)}, indent=1) + "\n", encoding="utf-8")
