"""Pictures: training curves, rows of images, and where latents look."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(width: float, height: float) -> "Figure":
    """A matplotlib figure that needs no display."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


LOGARITHMIC = ("loss", "gradient_norm")
"""Metrics that are drawn on a logarithmic scale where they are positive throughout."""


def curves(lines: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw every metric of a run's log over the steps, training and validation of one name together.

    What is called NAME/PART is drawn with the others of that name. Steps that are not finite are drawn where there are
    any.
    """
    names = sorted({name for line in lines for name in line} - {"step", "group", "compilations", "compile_seconds"})
    if all(line.get("finite", 1.0) == 1.0 for line in lines):
        names = [name for name in names if name != "finite"]
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.partition("/")[0], []).append(name)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    fig = figure(4.2 * columns, 2.8 * rows)
    for place, (title_of, drawn) in enumerate(panels.items()):
        axes = fig.add_subplot(rows, columns, place + 1)
        for name in drawn:
            _curve(axes, lines, name, among=len(drawn) > 1)
        axes.set_title(title_of.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if title_of in LOGARITHMIC and all(float(line[name]) > 0 for line in lines for name in drawn if name in line):
            axes.set_yscale("log")
        axes.legend(fontsize=8 if len(drawn) < 5 else 5)
    fig.suptitle(title)
    fig.savefig(path, dpi=110)


def _curve(axes: Any, lines: Sequence[Mapping[str, Any]], name: str, among: bool) -> None:
    """among: other parts of the same name are drawn too."""
    part = name.partition("/")[2] or ("all" if among else "")
    for group in ("train", "validation", "latents"):
        points = [(line["step"], float(line[name])) for line in lines if line["group"] == group and name in line]
        if points:
            steps, values = zip(*points, strict=True)
            axes.plot(steps, values, label=part or group, marker="." if group != "train" or len(steps) == 1 else "")


def image_rows(rows: Mapping[str, np.ndarray], path: Path, titles: Sequence[str] = (), title: str = "") -> None:
    """Draw rows of images, each [n, h, w, c] in [0, 1], with a row's name at its left and titles above columns."""
    count = max(len(images) for images in rows.values())
    tall, wide = next(iter(rows.values())).shape[1:3]
    width = max(0.9, min(1.6 * wide / tall, 9.0 / count)) if wide > tall else 0.9
    fig = figure(max(width * count + 1.4, 4.5), (width * tall / wide + 0.1) * len(rows) + 0.7)
    for down, (name, images) in enumerate(rows.items()):
        for across, image in enumerate(images):
            axes = fig.add_subplot(len(rows), count, down * count + across + 1)
            _show(axes, image)
            if across == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
            if down == 0 and across < len(titles):
                axes.set_title(titles[across], fontsize=8)
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=130)


def attention_over_image(
    images: np.ndarray, weights: np.ndarray, shown: Sequence[int], path: Path, titles: Sequence[str]
) -> None:
    """Draw where latents look.

    images: [n, h, w, c] in [0, 1]. weights: [n, latents, h, w]. shown: numbers of the latents to draw singly.
    One row per image: the image, the mean over all latents, then the single ones.
    """
    columns = len(shown) + 2
    fig = figure(0.9 * columns + 0.6, 1.0 * len(images) + 0.8)
    heads = ["input", "all latents", *[f"latent {number}" for number in shown]]
    for row, image in enumerate(images):
        for column, head in enumerate(heads):
            axes = fig.add_subplot(len(images), columns, row * columns + column + 1)
            if column == 0:
                _show(axes, image)
                axes.set_ylabel(titles[row], rotation=0, ha="right", va="center", fontsize=9)
            else:
                seen = weights[row].mean(axis=0) if column == 1 else weights[row, shown[column - 2]]
                axes.imshow(seen, cmap="magma")
                axes.set_xticks([])
                axes.set_yticks([])
            if row == 0:
                axes.set_title(head, fontsize=8)
    fig.suptitle("Where the latents look (brighter: more weight; each picture on its own scale)", fontsize=10)
    fig.savefig(path, dpi=130)


def classified_points(
    points: np.ndarray,
    rows: Mapping[str, np.ndarray],
    names: Sequence[str],
    path: Path,
    title: str = "",
    *,
    above: bool = False,
) -> None:
    """Draw point clouds, coloured by class, one row for each labelling.

    points: [k, n, 3] metres. rows: labels [k, n] by row name, -1 for points to leave out. names: of the classes.
    above: seen from above, where the rows stand beside each other; else from the side, below each other.
    """
    count = len(points)
    if above:
        upward, label, size, edge = 1, "y, m", 0.5, 0.0
        fig = figure(5.0 * len(rows), 4.6 * count + 0.9)
        grid = fig.subplots(count, len(rows), squeeze=False).T
    else:
        upward, label, size, edge = 2, "height, m", 4.0, None
        fig = figure(2.6 * count + 1.2, 1.9 * len(rows) + 0.9)
        grid = fig.subplots(len(rows), count, squeeze=False)
    marks: list[Any] = []
    for down, (row, labels) in enumerate(rows.items()):
        for across in range(count):
            axes = grid[down, across]
            for number in range(len(names)):
                chosen = points[across][labels[across] == number]
                mark = axes.scatter(chosen[:, 0], chosen[:, upward], s=size, linewidths=edge, color=f"C{number}")
                marks.append(mark)
            axes.set_aspect("equal")
            axes.tick_params(labelsize=7)
            if across == 0:
                axes.set_ylabel(f"{row}\n{label}", fontsize=8)
            if above or down == len(rows) - 1:
                axes.set_xlabel("x, m", fontsize=8)
    scale = 6.0 / size**0.5  # marks of 6 points, whatever their area in the plot
    fig.legend(marks[: len(names)], names, loc="outside lower center", ncols=len(names), fontsize=8, markerscale=scale)
    fig.suptitle(title, fontsize=10)
    fig.savefig(path, dpi=110)


def contact_sheet(tiles: Sequence[tuple[str, Any]], path: Path, columns: int = 5) -> None:
    """Draw things of several kinds beside each other.

    tiles: a caption, and a picture uint8 [h, w, c], a sound [n], points [n, 3] (seen from above) or a text.
    """
    rows = -(-len(tiles) // columns)
    fig = figure(1.9 * columns, 2.0 * rows + 0.2)
    for place, (caption, thing) in enumerate(tiles):
        axes = fig.add_subplot(rows, columns, place + 1)
        if isinstance(thing, str):
            lines = "\n".join(textwrap.wrap(thing, 20)[:7]).replace("$", r"\$")
            axes.text(0.5, 0.5, lines, ha="center", va="center", fontsize=8, transform=axes.transAxes)
        elif thing.ndim == 1:
            axes.plot(thing, linewidth=0.4)
        elif thing.ndim == 3:
            _show(axes, thing / 255.0)
        else:
            axes.scatter(thing[:, 0], thing[:, 1], s=0.3, linewidths=0)
            axes.set_aspect("equal")
        axes.set_title(caption, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    fig.savefig(path, dpi=110)


def _show(axes: Any, image: np.ndarray) -> None:
    grey = image.shape[-1] == 1
    axes.imshow(np.clip(image[..., 0] if grey else image, 0.0, 1.0), cmap="gray_r" if grey else None, vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
