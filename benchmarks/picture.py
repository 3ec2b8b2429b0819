"""Rows as a picture: ratios of time and memory by case, and how both grow with the number of inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.cases import CASES, InputScaling, OutputScaling
from benchmarks.rows import Row
from benchmarks.sides import PEERS

COLOURS = dict(zip(["ours", *PEERS], ["black", "#1f77b4", "#17becf", "#d62728", "#9467bd", "#2ca02c"], strict=True))


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write a picture file of the kind that its ending names."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row["case"] for row in rows if "time_ratio" in row))
    figure = pyplot.figure(figsize=(13, 4.5 + 0.32 * len(cases)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[max(0.32 * len(cases), 1.5), 4])
    upper, lower = parts
    time, memory = upper.subplots(1, 2, sharey=True)
    _ratios(time, rows, cases, "time_ratio", "time, ours / peer (left of 1: ours is faster)")
    _ratios(memory, rows, cases, "memory_ratio", "peak memory, ours / peer (left of 1: ours takes less)")
    upper.legend(*time.get_legend_handles_labels(), loc="outside upper center", ncols=len(PEERS), fontsize=9)
    grown = lower.subplots(1, 3)
    _growth(grown[0], rows, InputScaling, "points", "seconds", "seconds by input points")
    _growth(grown[1], rows, InputScaling, "points", "memory_bytes", "GiB by input points", 2**30)
    _growth(grown[2], rows, OutputScaling, "queries", "seconds", "seconds by output queries")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _ratios(axes: Any, rows: Sequence[Row], cases: Sequence[str], field: str, title: str) -> None:
    """A mark for each peer of each case, with quartiles where there are any."""
    for name in PEERS:
        own = [row for row in rows if row["peer"] == name and field in row]
        if not own:
            continue
        values = [row[field] for row in own]
        places = [cases.index(row["case"]) for row in own]
        error = None
        if field == "time_ratio":
            low, high = zip(*(row["ratio_quartiles"] for row in own), strict=True)
            error = [
                [v - a for v, a in zip(values, low, strict=True)],
                [b - v for v, b in zip(values, high, strict=True)],
            ]
        axes.errorbar(values, places, xerr=error, fmt="o", color=COLOURS[name], label=name, markersize=5, capsize=2)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(cases)), cases)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "235" else "")
    axes.tick_params(axis="x", which="both", labelsize=7)
    axes.set_title(title, fontsize=10)


def _growth(axes: Any, rows: Sequence[Row], kind: type, size: str, field: str, title: str, unit: float = 1.0) -> None:
    """A line for each side."""
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        case = CASES.get(row["case"])
        if isinstance(case, kind):
            for name, prefix in (("ours", ""), (row["peer"], "peer_")):
                if prefix + field in row:
                    lines.setdefault(name, {})[getattr(case, size)] = row[prefix + field] / unit
    for name, line in lines.items():
        places = sorted(line)
        axes.plot(places, [line[place] for place in places], "o-", color=COLOURS[name], label=name, markersize=4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.set_title(title, fontsize=10)
    if lines:
        axes.legend(fontsize=8)
