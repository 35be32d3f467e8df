"""Figures of notebook 06: errors and scores as curves, schedules, and samples on small maps.

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Places are
latitude and longitude in degrees, times run from 0 (noise) to 1 (data).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter, NullLocator

from geoflow import schedules
from geoflow.runtime import choose
from geoflow.viz import basemap, maps
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, PINK, RED, STYLE

COLORS = (BLUE, RED, GREEN, ORANGE, PINK, "black", "#56B4E9", GREY)
AXIS_SCALES = ("linear", "log", "log2", "symlog")


@dataclass(frozen=True)
class Panel:
    """One panel of `panels_figure`.

    >>> panel = Panel({"Euler": ([1, 2, 4], [4.0, 2.0, 1.0])}, "calls", "error (km)", "log2", "log")

    Args:
        curves: name → (x, y), or (x, y, standard errors of y), which become bars of ±2 errors.
            A name that occurs in several panels has the same colour in all. A curve of one point is
            drawn as a diamond.
        xlabel, ylabel: with units.
        x, y: how the axes are scaled, one of `AXIS_SCALES`; "symlog" is linear from 0 to 1.
        levels: name → height of a dotted line.
        options: of `Axes.set`, such as a title or limits.
    """

    curves: Mapping[str, tuple]
    xlabel: str
    ylabel: str
    x: str = "linear"
    y: str = "linear"
    levels: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def panels_figure(panels: Sequence[Panel], columns: int = 2, height: float = 2.9) -> MapFigure:
    """Panels in rows of `columns`, each with its legend to the right of it.

    >>> panel = Panel({"Euler": ([1, 2, 4], [4.0, 2.0, 1.0])}, "calls", "error (km)", "log2", "log")
    >>> figure = panels_figure([panel])

    Raises:
        ValueError: unknown scale of an axis.
    """
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        size = (10 if columns > 1 else 7, height * rows)
        figure = new_figure(*size)
        axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for ax, panel in zip(axes, panels, strict=False):
            _draw_panel(ax, panel, colors)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        _place_legends(axes[: len(panels)], panels, columns)
    return figure


def _draw_panel(ax: Axes, panel: Panel, colors: Mapping[str, str]) -> None:
    for name, (x, y, *errors) in panel.curves.items():
        style: dict[str, Any] = dict(color=colors[name], label=name, ms=4, lw=1.4)
        style["marker"] = "D" if len(x) == 1 else "o" if len(x) < 20 else ""
        if errors:
            ax.errorbar(x, y, [2 * e for e in errors[0]], capsize=2, elinewidth=0.8, **style)
        else:
            ax.plot(x, y, **style)
    for name, level in panel.levels.items():
        ax.axhline(level, color=GREY, ls=":", lw=1, label=name)
    ticks = sorted({float(at) for x, *_ in panel.curves.values() for at in x if 1 < len(x) < 20})
    for axis, scale in (("x", panel.x), ("y", panel.y)):
        choose("scale", scale, AXIS_SCALES)
        options = {"log2": {"base": 2}, "symlog": {"linthresh": 1}}.get(scale, {})
        getattr(ax, f"set_{axis}scale")(scale.removesuffix("2"), **options)
    if panel.x in ("log2", "symlog") and ticks:
        shown = [at for at in ticks if at >= 1 or at in (0, 0.5)]
        ax.set_xticks(shown, labels=[f"{at:g}" for at in shown], minor=False)
        ax.xaxis.set_minor_locator(NullLocator())
    if panel.y == "log":  # where it spans few powers of ten, ticks between them are labelled too
        ax.yaxis.set_major_formatter(LogFormatter())
        ax.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
    ax.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    ax.set(**panel.options)
    ax.grid(color="#e4e8eb", lw=0.6)
    ax.set_axisbelow(True)


def _place_legends(axes: Sequence[Axes], panels: Sequence[Panel], columns: int) -> None:
    """A legend right of each panel whose names are not all in the next one of its row."""
    names = [{*panel.curves, *panel.levels} for panel in panels]
    for number, ax in enumerate(axes):
        last = number + 1 == len(panels) or (number + 1) % columns == 0
        if last or not names[number] <= names[number + 1]:
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=8)


def schedules_figure(names: Sequence[str], steps: int = 16) -> MapFigure:
    """Schedules as curves, and the places of `steps` steps: on the time, and on the time left.

    >>> figure = schedules_figure(["linear", "mixed"])

    Args:
        names: of `geoflow.schedules.by_name`.
        steps: whose ends are drawn as dots; the last one, t = 1, has no time left and is left out.
    """
    share = torch.linspace(0, 1, 400, dtype=torch.float64)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 1.3 + 0.3 * len(names))
        curve, time, left = figure.subplots(1, 3, width_ratios=(1, 1.1, 1.1))
        for row, (name, color) in enumerate(zip(names, COLORS, strict=False)):
            schedule = schedules.by_name(name)
            curve.plot(share, schedule(share), color=color)
            t = schedules.time_grid(schedule, steps)[:-1]
            for ax, x in ((time, t), (left, 1 - t)):
                ax.plot(x, [-row] * len(x), "o", ms=4, color=color)
        curve.set(xlabel="share of the steps", ylabel="time t")
        time.set(xlabel="time t")
        left.set(xlabel="time left, 1 − t (logarithmic)", xscale="log")
        left.invert_xaxis()
        time.set_yticks([-row for row in range(len(names))], labels=names)
        left.set_yticks([])
        for ax in (time, left):
            ax.set_ylim(0.5 - len(names), 0.5)
        for text, color in zip(time.get_yticklabels(), COLORS, strict=False):
            text.set_color(color)
    return figure


def samples_figure(
    samples: Mapping[str, Any], view: str = "equal-earth", truth=None, columns: int = 3
) -> MapFigure:
    """Samples on small maps with a title each; a small ring marks the true place.

    >>> figure = samples_figure({"ω = 0": [(50.0, 10.0), (52.0, 12.0)]}, truth=(51, 10))

    Args:
        samples: title → places (n, 2).
        view: name of a map's projection, see `maps.world`.
        truth: latitude and longitude of the true place, or None.
        columns: maps in a row.
    """
    rows = -(-len(samples) // columns)
    with matplotlib.rc_context(STYLE):
        width = 10 / columns
        ratio = maps.EQUAL_EARTH_RATIO if view == "equal-earth" else 1.0
        size = (10, rows * (width * ratio + 0.35) + 0.3)
        figure = new_figure(*size)
        grid = figure.add_gridspec(rows, columns)
        for number, (title, latlon) in enumerate(samples.items()):
            ax = maps.world(view, ax=grid[number // columns, number % columns])
            dots = maps.draw_points(ax, latlon, color=BLUE, size=5, label="samples")
            marks: list[Any] = [dots]
            ax.set_title(title, pad=4)
            if truth is not None:
                ring: dict[str, Any] = dict(ms=9, mfc="none", mec=RED, mew=1.6, zorder=6)
                at = basemap.project(ax, basemap.latlon_of([truth])).T
                marks += ax.plot(*at, "o", label="true place", **ring)
        figure.legend(handles=marks, loc="outside lower center", ncols=2)
    return figure
