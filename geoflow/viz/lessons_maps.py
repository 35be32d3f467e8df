"""Figures of notebook 14 (one evaluation: flow maps).

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Points are
unit vectors (..., 3).
"""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.colors import Colormap, Normalize
from torch import Tensor

from geoflow import sphere
from geoflow.viz import basemap, maps
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, PINK, RED, STYLE
from geoflow.viz.lessons_sphere import NONE, VIEWS, Borders, mark_borders

GROUPS = (BLUE, RED, GREEN, ORANGE)
SOLVERS = {  # colour and mark of each way to sample
    "flow map": (RED, "o"),
    "euler": (BLUE, "s"),
    "midpoint": (GREEN, "^"),
    "heun": (PINK, "v"),
    "rk4": (ORANGE, "D"),
    "ab3": (GREY, "P"),
}


def groups_figure(
    panels: Mapping[str, tuple[Tensor, Tensor]], marks: Tensor | None = None
) -> MapFigure:
    """World maps side by side: title → points (n, 3), and the group (n,) that colours each.

    >>> x, group = sphere.uniform(30), torch.zeros(30, dtype=torch.long)
    >>> figure = groups_figure({"noise": (x, group)}, marks=x[:2])

    Args:
        panels: at most four groups, 0 to 3.
        marks: (k, 2 or 3) places to mark, each in the colour of its number as a group.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.5 * len(panels), 2.2)
        grid = figure.add_gridspec(1, len(panels))
        for column, (title, (x, group)) in enumerate(panels.items()):
            ax = basemap.world(ax=grid[0, column])
            ax.set_title(title, pad=4)
            for number, color in enumerate(GROUPS):
                if bool((group == number).any()):
                    places = sphere.to_latlon(x[group == number])
                    maps.draw_points(ax, places, color, size=7, alpha=0.9, zorder=7)
            for number, place in enumerate(marks if marks is not None else ()):
                _mark(ax, place, GROUPS[number])
    return figure


def _mark(ax, place: Tensor, color: str) -> None:
    xy = basemap.project(ax, basemap.latlon_of(sphere.to_latlon(place)))
    for edge, width in (("black", 2.4), (color, 1.2)):  # hollow, so that it hides no point
        ax.plot(*xy.T, "*", ms=17, mfc="none", mec=edge, mew=width, zorder=6)


def jumps_figure(
    ways: Tensor, euler: Tensor, jumped: Tensor, borders: Borders = NONE, view: str = "Africa"
) -> MapFigure:
    """Trajectories (states, n, 3) on a globe, and where two single steps from the start lead.

    >>> ways = sphere.uniform((5, 3))
    >>> figure = jumps_figure(ways, ways[1], ways[-1])

    Args:
        ways: states from noise to data.
        euler: (n, 3) ends of one step of Euler's method.
        jumped: (n, 3) ends of one jump.
    """
    part = torch.linspace(0, 1, 40)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.6, 4.2)
        ax = basemap.world(**VIEWS[view], ax=figure)
        mark_borders(ax, borders)
        for i in range(ways.shape[1]):
            for way, color, width, dashes in (
                (ways[:, i], GREY, 1.6, "-"),
                (_line(ways[0, i], euler[i], part), BLUE, 0.9, "--"),
                (_line(ways[0, i], jumped[i], part), RED, 0.9, "--"),
            ):
                ax.plot(*_seen(ax, way), color=color, lw=width, ls=dashes, zorder=4)
        for x, color, mark, label in (
            (ways[0], "white", "o", "noise"),
            (ways[-1], GREY, "o", "end of the flow (grey way)"),
            (euler, BLUE, "s", "one step of Euler's method"),
            (jumped, RED, "X", "one jump of the flow map"),
        ):
            look: dict[str, Any] = dict(ls="", ms=6, mec="black", mew=0.6, zorder=6)
            ax.plot(*_seen(ax, x), mark, color=color, label=label, **look)
        figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _line(x: Tensor, y: Tensor, part: Tensor) -> Tensor:
    return sphere.geodesic(x.expand(len(part), 3), y.expand(len(part), 3), part)


def _seen(ax, x: Tensor) -> np.ndarray:
    """Map coordinates (2, n) of points, NaN behind the globe."""
    return basemap.project(ax, basemap.latlon_of(sphere.to_latlon(x))).T


def quality_figure(
    curves: Mapping[str, Mapping[str, tuple[list, list]]],
    levels: Mapping[str, float],
    title: str = "",
) -> MapFigure:
    """Scores against calls of the network: one panel for each score, one line for each solver.

    >>> figure = quality_figure({"GeoScore": {"euler": ([1, 2], [3.0, 4.0])}}, {"GeoScore": 5.0})

    Args:
        curves: label of the score → name in `SOLVERS` → (calls, scores).
        levels: label of the score → its value for the flow, solved with many calls.
        title: above the figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 3.6)
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for ax, (label, lines) in zip(axes, curves.items(), strict=True):
            for name, (calls, scores) in lines.items():
                color, mark = SOLVERS[name]
                first = name == "flow map"
                style: dict[str, Any] = dict(lw=2.6 if first else 1.2, ms=8 if first else 5)
                zorder = 4 if first else 3
                ax.plot(calls, scores, mark + "-", color=color, label=name, zorder=zorder, **style)
            ax.axhline(levels[label], color="black", ls=":", lw=1, label="the flow, many calls")
            ax.set_xscale("log", base=2)
            ticks = sorted({call for calls, _ in lines.values() for call in calls})
            ticks = [tick for tick in ticks if tick & (tick - 1) == 0]
            ax.set_xticks(ticks, labels=[f"{tick}" for tick in ticks])
            ax.set(xlabel="calls of the network for one sample", ylabel=label)
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8)
        figure.suptitle(title, fontsize=10)
    return figure


def basins_figure(
    start: Tensor, ends: Mapping[str, Tensor], off_km: Tensor, place: Tensor, most_km: float
) -> MapFigure:
    """Starting points on world maps: coloured by where they end, and by how far off a jump is.

    >>> x = sphere.uniform(40)
    >>> figure = basins_figure(x, {"flow": x, "map": x}, torch.zeros(40), x[0], 1000.0)

    Args:
        start: (n, 3) noise.
        ends: title → (n, 3) where it ends; its longitude is the colour.
        off_km: (n,) distances between the two ends.
        place: (3,) the true place, marked by a star.
        most_km: the end of the scale of `off_km`.
    """
    round_trip, grey = matplotlib.colormaps["hsv"], matplotlib.colormaps["magma_r"]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10.5, 2.9)
        grid = figure.add_gridspec(1, len(ends) + 1)
        shown = []
        for column, (title, x) in enumerate(ends.items()):
            lon = sphere.to_latlon(x)[:, 1]
            ax = _colored(grid[0, column], start, lon, round_trip, Normalize(-180, 180))
            ax.set_title(title, pad=4)
            _mark(ax, place, "white")
            shown.append(ax)
        scale = Normalize(0, most_km)
        ax = _colored(grid[0, len(ends)], start, off_km, grey, scale)
        ax.set_title("how far apart the two ends are", pad=4)
        bars = (
            (shown, round_trip, Normalize(-180, 180), "longitude of the end (degrees)"),
            ([ax], grey, scale, "distance (km)"),
        )
        for where, colors, norm, label in bars:
            mappable = matplotlib.cm.ScalarMappable(norm, colors)
            bar: dict[str, Any] = dict(orientation="horizontal", shrink=0.6, aspect=30, pad=0.03)
            figure.colorbar(mappable, ax=where, label=label, **bar)
    return figure


def _colored(cell, x: Tensor, values: Tensor, colors: Colormap, norm: Normalize):
    ax = basemap.world(ax=cell)
    xy = basemap.project(ax, basemap.latlon_of(sphere.to_latlon(x)))
    ax.scatter(*xy.T, c=colors(norm(values.numpy())), s=7, linewidths=0, zorder=3)
    return ax
