"""Diagrams of boxes and arrows: the velocity network, and the stages of a training."""

import functools
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import PALE, STYLE

DARK = "#444444"
POINT, IMAGE = "#cfe3f2", "#fbe3b5"  # what is computed for each point, and for each image


def box(
    ax: Axes, x: float, y: float, text: str, color: str, width: float = 2.3, height: float = 0.52
) -> None:
    """Draw a box with a text, centred at (x, y)."""
    corner = x - width / 2, y - height / 2
    style: dict[str, Any] = dict(boxstyle="round,pad=0.04", fc=color, ec=DARK, lw=0.7)
    ax.add_patch(FancyBboxPatch(corner, width, height, **style))
    ax.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(ax: Axes, start, end, text: str = "", side: float = 0.12) -> None:
    """Draw an arrow, with a text above it if it is horizontal, and otherwise beside its middle."""
    style = dict(arrowstyle="-|>", color=DARK, lw=0.9, shrinkA=0, shrinkB=0)
    ax.annotate("", end, start, arrowprops=style)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    font: dict[str, Any] = dict(fontsize=7, color=DARK)
    if start[1] == end[1]:
        ax.text(x, y + 0.12, text, ha="center", va="bottom", **font)
    else:
        ax.text(x + side, y, text, ha="left" if side > 0 else "right", va="center", **font)


def _draw_network(ax: Axes) -> None:
    """Left half of the diagram: from x, t and cond to the velocity."""
    steps = ["Linear 3 → d", "block 1", "block 2", "…", "block L", "LayerNorm, scale, shift"]
    steps += ["Linear d → 3", "remove the part along x"]
    for level, text in enumerate(steps):
        box(ax, 0, level, text, POINT)
        shape = "(B, N, d)" if 0 < level < 7 else "(B, N, 3)"
        arrow(ax, (0, level - 0.7), (0, level - 0.3), shape)
    arrow(ax, (0, 7.3), (0, 7.7), "(B, N, 3)")
    ax.text(0, 7.9, "velocity v", ha="center", weight="bold")
    ax.text(0, -0.95, "points x", ha="center", weight="bold")
    for x, name, text, shape in (
        (3.4, "image: cond", "Linear C → d", "(B, C)"),
        (6.0, "time t", "waves, MLP → d", "(B, 1)"),
    ):
        box(ax, x, 0, text, IMAGE, 2.0)
        arrow(ax, (x, -0.7), (x, -0.3), shape)
        ax.text(x, -0.95, name, ha="center", weight="bold")
        arrow(ax, (x, 0.3), (4.7 + (x - 4.7) / 3, 1.2), "(B, 1, d)" if x > 4 else "", 0.35)
    box(ax, 4.7, 1.5, "sum, SiLU: c", IMAGE, 2.0)
    ax.plot((3.7, 2.3), (1.5, 1.5), color=DARK, lw=0.9)
    ax.plot((2.3, 2.3), (1, 5), color=DARK, lw=0.9)
    ax.text(
        2.4, 3.4, "c (B, 1, d)\nthe same for all\nN points of an image", fontsize=7, va="center"
    )
    for level in (1, 2, 4, 5):
        arrow(ax, (2.3, level), (1.22, level))
    ax.set(xlim=(-1.5, 7.2), ylim=(-1.2, 8.2), title="the network")


def _draw_block(ax: Axes) -> None:
    """Right half of the diagram: one block."""
    steps = [
        "LayerNorm",
        "times 1 + γ, plus μ",
        "Linear d → 4d",
        "GELU",
        "Linear 4d → d",
        "times σ",
    ]
    for level, text in enumerate(steps):
        box(ax, 0, level, text, POINT)
        shape = "(B, N, 4d)" if level in (3, 4) else "(B, N, d)"
        arrow(ax, (0, level - 0.7), (0, level - 0.3), shape)
    arrow(ax, (0, 5.3), (0, 5.75))
    ax.text(0, 6.0, "+", ha="center", va="center", fontsize=12, weight="bold")
    arrow(ax, (0, 6.25), (0, 6.7), "(B, N, d)")
    ax.text(0, 6.9, "new h", ha="center", weight="bold")
    ax.text(0, -0.95, "h", ha="center", weight="bold")
    ax.plot((0, -1.7, -1.7), (-0.6, -0.6, 6), color=DARK, lw=0.9)
    arrow(ax, (-1.7, 6), (-0.2, 6))
    ax.text(-1.8, 3, "the old h is kept", rotation=90, ha="right", va="center", fontsize=7)
    box(ax, 3.6, 3, "Linear d → 3d", IMAGE, 1.9)
    ax.text(3.6, -0.95, "c", ha="center", weight="bold")
    arrow(ax, (3.6, -0.6), (3.6, 2.7), "(B, 1, d)")
    arrow(ax, (2.6, 2.9), (1.22, 1), "γ, μ\n(B, 1, d)", 0.15)
    arrow(ax, (2.6, 3.1), (1.22, 5), "σ\n(B, 1, d)", 0.15)
    ax.set(xlim=(-2.3, 5), ylim=(-1.2, 8.2), title="one block")


def network_figure() -> MapFigure:
    """The velocity network and one of its blocks, with the shapes along the arrows.

    >>> figure = network_figure()
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 5.6)
        left, right = figure.subplots(1, 2, width_ratios=(8.7, 7.3))
        _draw_network(left)
        _draw_block(right)
        for ax in (left, right):
            ax.set_axis_off()
        right.text(2.2, 7.7, "blue: once per point", fontsize=8, bbox=dict(fc=POINT, ec="none"))
        right.text(2.2, 7.1, "orange: once per image", fontsize=8, bbox=dict(fc=IMAGE, ec="none"))
    return figure


def pipeline_figure(cells: int, width: int) -> MapFigure:
    """The two stages of the training, and the answer to one image, as a diagram.

    `cells` is the number of geocells of the first stage, `width` that of an embedding.

    >>> figure = pipeline_figure(1000, 256)
    """
    orange, blue, grey = "#f5d9a8", PALE, "#e4e4e4"
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9, 4.2)
        ax = figure.subplots()
        stage = functools.partial(box, ax, height=0.84)
        ax.set(xlim=(-0.3, 14.6), ylim=(0.2, 7.0))
        ax.axis("off")
        rows = {6.2: "stage 1", 3.9: "stage 2", 1.3: "answer"}
        for y, name in rows.items():
            ax.text(-0.2, y, name, ha="left", va="center", fontweight="bold")
            stage(2.4, y, "tile\n3 × 32 × 32", grey, width=1.7)
            arrow(ax, (3.4, y), (4.2, y))
            stage(5.4, y, "encoder" if y > 5 else "encoder (frozen)", orange)
            arrow(ax, (6.7, y), (8.1, y), f"{width} numbers")
        stage(9.4, 6.2, "linear layer", orange)
        arrow(ax, (10.7, 6.2), (12.0, 6.2), f"{cells:,} scores")
        stage(13.2, 6.2, "loss: which cell\nis the true one?", "#f0c4bb")
        stage(9.4, 3.9, "velocity network", blue)
        stage(9.4, 2.75, "point on the way, time", grey, width=2.9)
        arrow(ax, (9.4, 3.2), (9.4, 3.45))
        arrow(ax, (10.7, 3.9), (12.0, 3.9), "velocity")
        stage(13.2, 3.9, "loss: squared\ndistance to target", "#f0c4bb")
        stage(9.4, 1.3, "flow, from noise", blue)
        arrow(ax, (10.7, 1.3), (12.0, 1.3), "solver")
        stage(13.2, 1.3, "places,\ndensity map", "#cfe3cf")
    return figure
