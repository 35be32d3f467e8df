"""Figures of the notebooks 03 (flow matching on the sphere) and 04 (the velocity network).

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Points are
unit vectors (..., 3), times run from 0 (noise) to 1 (data). `Borders` are grey lines of reference:
meridians in degrees and heights z = sin(latitude).
"""

from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from torch import Tensor

from geoflow import sphere
from geoflow.runtime import choose
from geoflow.viz import basemap, maps
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, PALE, PINK, RED, STYLE
from geoflow.viz.diagrams import network_figure as network_figure
from geoflow.viz.lessons import camera

CYCLE = (RED, GREEN, BLUE, ORANGE, PINK)
VIEWS: dict[str, dict[str, Any]] = {  # the arguments of `basemap.world`
    "Africa": dict(projection="orthographic", center=(25.0, 15.0)),
    "antimeridian": dict(projection="orthographic", center=(15.0, 180.0)),
    "north pole": dict(projection="orthographic", center=(90.0, 180.0)),
}


class Borders(NamedTuple):
    """Lines of reference: meridians in degrees, heights z in [−1, 1].

    >>> Borders(meridians=(0.0, 90.0)).heights
    ()
    """

    meridians: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()


NONE = Borders()


def _globe(place, view: str) -> GeoAxes:
    choose("view", view, VIEWS)
    ax = basemap.world(**VIEWS[view], ax=place)
    ax.set_title(f"view: {view}", pad=4)
    return ax


def mark_borders(ax: GeoAxes, borders: Borders) -> None:
    """Borders on a globe: meridians from pole to pole, and whole parallels."""
    lat, lon = np.linspace(-90, 90, 91), np.linspace(-180, 180, 181)
    paths = [np.stack([lat, np.full_like(lat, at)], axis=1) for at in borders.meridians]
    degrees = np.rad2deg(np.arcsin(borders.heights))
    paths += [np.stack([np.full_like(lon, at), lon], axis=1) for at in degrees]
    for path in paths:
        drawn = basemap.lines(ax, path[:-1], path[1:], colors=GREY, linewidths=0.6, zorder=2.5)
        ax.add_collection(drawn, autolim=False)


def equal_area_axes(ax: Axes, borders: Borders = NONE, title: str = "") -> Axes:
    """Axes of longitude against z = sin(latitude), on which areas are right (Lambert, 1772).

    >>> ax = equal_area_axes(MapFigure().subplots(), Borders(heights=(0.0,)))
    >>> ax.get_xlabel()
    'longitude (degrees)'
    """
    style: dict[str, Any] = dict(color=GREY, lw=0.4, alpha=0.7, zorder=0)
    for meridian in borders.meridians:
        ax.axvline(meridian, **style)
    for height in borders.heights:
        ax.axhline(height, **style)
    ax.set(xlim=(-180, 180), ylim=(-1, 1), xticks=(-180, -90, 0, 90, 180), yticks=(-1, 0, 1))
    ax.set(xlabel="longitude (degrees)", ylabel="z = sin(latitude)", title=title)
    return ax


def _dots(ax: Axes, x: Tensor, color: str = BLUE) -> None:
    ax.plot(sphere.to_latlon(x)[:, 1], x[:, 2], ".", ms=2, mew=0, color=color)


def points_figure(x: Tensor, borders: Borders = NONE) -> MapFigure:
    """Points (n, 3) on globes seen from the antimeridian and from a pole, and on a flat map.

    >>> figure = points_figure(sphere.uniform(100))
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 3.0)
        grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.7))
        for column, view in enumerate(("antimeridian", "north pole")):
            ax = _globe(grid[0, column], view)
            mark_borders(ax, borders)
            maps.draw_points(ax, sphere.to_latlon(x), color=BLUE, size=3)
        ax = equal_area_axes(figure.add_subplot(grid[2]), borders, f"{len(x):,} points")
        _dots(ax, x)
    return figure


def _flat(x: Tensor, center) -> np.ndarray:
    """Vectors (..., 3) as an orthographic map sees them, in metres: linear, for arrows too."""
    return (basemap.RADIUS_M * x.double() @ camera(*center)[:2].T).numpy()


def geodesic_figure(
    x0: Tensor, x1: Tensor, times=(0.0, 0.5, 1.0), length: float = 0.4
) -> MapFigure:
    """One geodesic from x0 to x1 (3,), with its points and velocities at `times`.

    The arrows are the velocities times `length`; they touch the sphere and leave it.

    >>> ends = sphere.from_latlon(torch.tensor([[15.0, -55.0], [40.0, 60.0]]))
    >>> figure = geodesic_figure(*ends)
    """
    center = VIEWS["Africa"]["center"]
    part = torch.linspace(0, 1, 61)
    way = sphere.geodesic(x0.expand(61, 3), x1.expand(61, 3), part)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6, 4.2)
        ax = basemap.world("orthographic", center, ax=figure)
        ax.plot(*_flat(way, center).T, color=BLUE, lw=2, zorder=4)
        for t in times:
            x = sphere.geodesic(x0, x1, t)
            v = sphere.geodesic_velocity(x0, x1, t)
            start, tip = _flat(x, center), _flat(x + length * v, center)
            arrow = dict(arrowstyle="-|>", color=RED, lw=1.6, shrinkA=0, shrinkB=0)
            ax.annotate("", tip, start, arrowprops=arrow, zorder=5, annotation_clip=False)
            ax.plot(*start, "o", ms=6, color=BLUE, zorder=6)
            name = {0.0: "$x_0$ (noise)", 1.0: "$x_1$ (data)"}.get(t, f"$x_t$, t = {t:g}")
            ax.annotate(
                name, start, (-6, -20), textcoords="offset points", path_effects=maps.HALO, zorder=7
            )
        ax.set_title(f"blue: the geodesic; red: its velocity, times {length:g}", pad=6)
    return figure


def paths_figure(
    states: Tensor, times=None, views=("Africa",), borders: Borders = NONE
) -> MapFigure:
    """Paths (T + 1, n, 3) on globes, coloured by time, with a colour bar.

    Grey dots are noise, dark dots are the ends.

    >>> figure = paths_figure(sphere.uniform((3, 20)), views=("antimeridian", "north pole"))
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.6 * len(views) + 0.8, 3.6)
        grid = figure.add_gridspec(1, len(views))
        shown = []
        for column, view in enumerate(views):
            ax = _globe(grid[0, column], view)
            mark_borders(ax, borders)
            maps.draw_trajectories(ax, sphere.to_latlon(states), times).set_linewidth(1.1)
            shown.append(ax)
        colors = ScalarMappable(Normalize(0, 1), maps.TIME_COLORS)
        figure.colorbar(colors, ax=shown, shrink=0.7, label="time t (0 noise, 1 data)")
        dots = shown[0].get_legend_handles_labels()[0]
        place: dict[str, Any] = dict(
            loc="upper left", bbox_to_anchor=(-0.1, 1.02), fontsize=8, markerscale=2
        )
        shown[0].legend(dots, ["start (noise)", "end (data)"], **place)
    return figure


def moments_figure(
    states: Tensor, titles: list[str], borders: Borders = NONE, view: str = ""
) -> MapFigure:
    """Moments of a cloud (k, n, 3), one panel each: on flat maps, or on globes of a `view`.

    >>> figure = moments_figure(sphere.uniform((2, 50)), ["t = 0", "t = 1"])
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.7 * len(titles), 2.9 if view else 2.3)
        grid = figure.add_gridspec(1, len(titles))
        for number, (x, title) in enumerate(zip(states, titles, strict=True)):
            cell = grid[0, number]
            if view:
                ax: Axes = _globe(cell, view)
                mark_borders(ax, borders)
                maps.draw_points(ax, sphere.to_latlon(x), color=BLUE, size=5, alpha=0.9)
                ax.set_title(title)
            else:
                ax = equal_area_axes(figure.add_subplot(cell), borders, title)
                _dots(ax, x)
                ax.set_xticks((-180, 0, 180))
                if number:
                    ax.set_ylabel("")
    return figure


def _at_pixels(ax: GeoAxes, values: np.ndarray) -> np.ndarray:
    """Values (rows, columns) of equal steps in z and longitude at the pixels of a globe."""
    latlon, _ = basemap.pixels(ax.projection, ax.get_xlim(), ax.get_ylim())
    rows, columns = values.shape
    z = (np.sin(np.deg2rad(latlon[..., 0])) + 1) / 2 * rows - 0.5
    column = (latlon[..., 1] + 180) / 360 * columns - 0.5
    off = np.isnan(z)
    z, column = np.nan_to_num(z).clip(0, rows - 1), np.nan_to_num(column)
    low, left = np.floor(z).astype(int), np.floor(column).astype(int)
    up, right = np.minimum(low + 1, rows - 1), (left + 1) % columns
    dz, dc = z - low, column - left
    bottom = (1 - dc) * values[low, left % columns] + dc * values[low, right]
    top = (1 - dc) * values[up, left % columns] + dc * values[up, right]
    return np.where(off, np.nan, (1 - dz) * bottom + dz * top)


def density_figure(values: Tensor, label: str, vmax: float, borders: Borders = NONE) -> MapFigure:
    """A density (rows, columns) on two globes and a flat map, on one colour scale from 0 to vmax.

    Rows are equal steps of z from −1 to 1, columns equal steps of longitude from −180°.

    >>> figure = density_figure(torch.ones(18, 36), "density", vmax=2)
    """
    style: dict[str, Any] = dict(cmap="BuPu", vmin=0, vmax=vmax)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 3.0)
        grid = figure.add_gridspec(1, 3, width_ratios=(1, 1, 1.7))
        for column, view in enumerate(("antimeridian", "north pole")):
            ax = _globe(grid[0, column], view)
            extent = (*ax.get_xlim(), *ax.get_ylim())
            ax.imshow(
                _at_pixels(ax, values.numpy()), extent=extent, origin="upper", zorder=1, **style
            )
            mark_borders(ax, borders)
        ax = equal_area_axes(figure.add_subplot(grid[2]), borders, "the whole sphere, equal areas")
        extent = (-180, 180, -1, 1)
        image = ax.imshow(values, origin="lower", extent=extent, aspect="auto", **style)
        figure.colorbar(image, label=label)
    return figure


def degrees_figure(latlon: Tensor, outside: Tensor) -> MapFigure:
    """Points (n, 2) of a plane in degrees, red where they are `outside` (n,) of the Earth's edge.

    >>> figure = degrees_figure(torch.tensor([[0.0, 190.0]]), torch.tensor([True]))
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7, 3.4)
        ax = figure.subplots()
        for name, chosen, color in (("on Earth", ~outside, BLUE), ("not on Earth", outside, RED)):
            ax.plot(*latlon[chosen].T.flip(0), ".", ms=3, mew=0, color=color, label=name)
        ax.add_patch(Rectangle((-180, -90), 360, 180, fill=False, ec=GREY))
        ax.set(xlim=(-220, 220), ylim=(-115, 115), xticks=(-180, -90, 0, 90, 180))
        ax.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)", yticks=(-90, 0, 90))
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, markerscale=3)
    return figure


def shares_figure(predicted: Tensor, counted: Tensor, draws: int, even: float) -> MapFigure:
    """Probabilities of fields (k,) by a density, and shares of `draws` samples with ±2 errors.

    >>> share = torch.tensor([0.5, 0.5])
    >>> figure = shares_figure(share, share, draws=100, even=0.5)
    """
    error = 2 * (counted * (1 - counted) / draws).sqrt()
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8, 2.8)
        ax = figure.subplots()
        at = np.arange(len(predicted))
        ax.bar(at, predicted, color=PALE, label="integral of the density over the field")
        label = f"share of {draws:,} samples (± 2 standard errors)"
        ax.errorbar(at, counted, error, fmt="o", ms=4, color=RED, label=label)
        ax.axhline(even, color=GREY, lw=0.8, ls=":", label=f"the data: {even:.3f}")
        ax.set(xlabel="number of the field, from south to north", ylabel="probability")
        ax.set_ylim(0, 1.7 * even)
        ax.legend(ncols=3, fontsize=8)
    return figure


def curves_figure(
    curves: dict[str, tuple[Any, Any]], xlabel: str, ylabel: str, level=None, log: str = "y",
) -> MapFigure:  # fmt: skip
    """Named curves (x, y), in the colours of `CYCLE`.

    >>> figure = curves_figure({"a": ([1, 2], [3, 4])}, "step", "loss", level=("nothing", 5.0))

    Args:
        curves: name → (x, y), at most five.
        xlabel, ylabel: with units.
        level: name and height of a dotted line.
        log: logarithmic axes: "", "y", or "xy" with base 2 for x and a mark at every point.
    """
    choose("log", log, ("", "y", "xy"))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7, 3.4)
        ax = figure.subplots()
        for (name, (x, y)), color in zip(curves.items(), CYCLE, strict=False):
            ax.plot(x, y, color=color, label=name, marker="o" if log == "xy" else "", ms=4)
        if level is not None:
            ax.axhline(level[1], color=GREY, ls=":", lw=1, label=level[0])
        ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        if log == "xy":
            ax.set_xscale("log", base=2)
            ax.set_xticks(x, labels=[f"{value:g}" for value in x])
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8)
    return figure


def waves_figure(
    moments: Tensor, pictures: dict[str, Tensor], curves: dict[str, Tensor]
) -> MapFigure:
    """Embeddings of times: channels against time, and similarities to one time.

    >>> t = torch.linspace(0, 1, 5)
    >>> figure = waves_figure(t, {"S = 1": t.expand(3, 5).T}, {"S = 1": t})

    Args:
        moments: (T,) times.
        pictures: title → (T, channels) values, drawn from −2 to 2.
        curves: name → (T,) cosine similarities.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 3)
        *axes, last = figure.subplots(1, len(pictures) + 1)
        for ax, (title, waves) in zip(axes, pictures.items(), strict=True):
            extent = (0, 1, waves.shape[1], 0)
            style: dict[str, Any] = dict(cmap="RdBu_r", vmin=-2, vmax=2, interpolation="nearest")
            image = ax.imshow(waves.T, aspect="auto", extent=extent, **style)
            ax.set(title=title, xlabel="time t")
        axes[0].set_ylabel("channel (cosines), fastest first")
        figure.colorbar(image, ax=axes, label="value of the channel")
        for (name, curve), color in zip(curves.items(), (BLUE, GREEN, GREY), strict=False):
            last.plot(moments, curve, color=color, label=name, lw=1)
        last.set(xlabel="time t", ylabel="cosine similarity to t = 0.5", ylim=(-0.1, 1.45))
        last.set_yticks((0, 0.5, 1))
        last.legend(loc="upper left", fontsize=8)
    return figure


def coasts_figure(pictures: dict[str, Tensor], window=(28.0, 62.0, -15.0, 45.0)) -> MapFigure:
    """Pictures (180, 360) of the probability of land, and below each the `window` in large.

    >>> figure = coasts_figure({"the Earth": torch.ones(180, 360)})

    Args:
        pictures: title → probabilities at the centres of cells of 1°, north first.
        window: latitudes from, to, longitudes from, to, degrees.
    """
    south, north, west, east = window
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.9 * len(pictures), 3.7)
        axes = figure.subplots(2, len(pictures), squeeze=False)
        for (top, bottom), (title, picture) in zip(axes.T, pictures.items(), strict=True):
            for ax in (top, bottom):
                style: dict[str, Any] = dict(cmap="BuPu", vmin=0, vmax=1, interpolation="nearest")
                image = ax.imshow(picture, extent=(-180, 180, -90, 90), **style)
            top.set(title=title, xticks=(-180, 0, 180), yticks=(-90, 0, 90))
            top.plot(
                (west, east, east, west, west), (south, south, north, north, south), "k", lw=0.8
            )
            bottom.set(xlim=(west, east), ylim=(south, north), xlabel="longitude (degrees)")
        for ax in axes[:, 0]:
            ax.set_ylabel("latitude (degrees)")
        figure.colorbar(image, ax=axes, shrink=0.6, label="probability of land")
    return figure
