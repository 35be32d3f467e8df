"""Figures of the notebooks 00 (quickstart) and 05 (training: images to places).

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Tiles are
(n, 3, H, W) of uint8, places latitudes and longitudes in degrees, distances kilometres.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
import torch
from torch import Tensor

from geoflow.viz import basemap, maps
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, RED, STYLE
from geoflow.viz.charts import losses_figure as losses_figure
from geoflow.viz.diagrams import pipeline_figure as pipeline_figure

ERRORS = {"below 500 km": BLUE, "500 to 2,500 km": ORANGE, "above 2,500 km": RED}
LIMITS = (500.0, 2500.0)  # km, between the classes of `ERRORS`
GROUPS = 5  # number of groups of tiles with similar promises
FULL = 5000.0  # the largest GeoScore


def place_name(latlon) -> str:
    """A place in whole degrees.

    >>> place_name((12.3, -50.5))
    '12°N 50°W'
    """
    lat, lon = (float(degrees) for degrees in latlon)
    return f"{abs(lat):.0f}°{'NS'[lat < 0]} {abs(lon):.0f}°{'EW'[lon < 0]}"


def tiles_figure(
    rows: Sequence[Tensor],
    titles: Sequence[Sequence[str]],
    names: Sequence[str] = (),
    width: float = 9.0,
) -> MapFigure:
    """Rows of tiles, each with a title above it; `names` stand at the left of the rows.

    The figure is so many inches wide.

    >>> figure = tiles_figure([torch.zeros(2, 3, 8, 8, dtype=torch.uint8)], [["a", "b"]])
    """
    with matplotlib.rc_context(STYLE):
        columns = max(len(row) for row in rows)
        lines = max(title.count("\n") + 1 for above in titles for title in above)
        figure = new_figure(width, (width / columns + 0.17 * lines) * len(rows))
        axes = figure.subplots(len(rows), columns, squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for i, (row, above) in enumerate(zip(rows, titles, strict=True)):
            for ax, image, title in zip(axes[i], row, above, strict=False):
                ax.axis("on")
                ax.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set(visible=True, color=GREY, linewidth=0.6)
                ax.set_title(title, fontsize=8, pad=2)
            if names:
                axes[i, 0].set_ylabel(names[i])
    return figure


def moments_figure(
    trajectories, times, moments: Sequence[float], truth=None, columns: int = 3
) -> MapFigure:
    """Where all points are at the states nearest to some moments: one map for each.

    `trajectories` (T + 1, n, 2) and `times` are as in `maps.draw_trajectories`.

    >>> figure = moments_figure(torch.zeros(3, 5, 2), [0.0, 0.5, 1.0], moments=[0.0, 1.0])
    """
    latlon, times = maps.checked(trajectories, times)
    with matplotlib.rc_context(STYLE):
        rows = -(-len(moments) // columns)
        figure = new_figure(3.2 * columns, 1.85 * rows + 0.3)
        grid = figure.add_gridspec(rows, columns)
        for number, moment in enumerate(moments):
            state = int(np.abs(times - moment).argmin())
            ax = basemap.world(ax=grid[divmod(number, columns)])
            dots = maps.draw_points(ax, latlon[state], BLUE, 4, 0.7, "points")
            marks = [dots] if truth is None else [dots, maps.draw_truth(ax, truth)]
            ax.set_title(f"time {times[state]:.2f}")
        figure.legend(handles=marks, loc="outside lower center", ncols=2, markerscale=0.8)
    return figure


def splits_figure(training, held_out) -> MapFigure:
    """Centres of training tiles and of held-out tiles, (n, 2) each, on one map.

    >>> figure = splits_figure([(10.0, 20.0)], [(50.0, 30.0)])
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 4.2)
        ax = basemap.world(ax=figure.add_gridspec(1, 1)[0, 0])
        maps.draw_points(ax, training, BLUE, 2.5, 0.8, "training tiles")
        maps.draw_points(ax, held_out, ORANGE, 2.5, 0.9, "held-out tiles")
        figure.legend(loc="outside lower center", ncols=2, markerscale=4)
    return figure


def neighbours_figure(places: dict[str, Tensor], truths: dict, columns: int = 3) -> MapFigure:
    """For each named tile a map of some places (n, 2), with a cross at its true place.

    >>> figure = neighbours_figure({"a": torch.zeros(4, 2)}, {"a": (10.0, 20.0)})
    """
    with matplotlib.rc_context(STYLE):
        rows = -(-len(places) // columns)
        figure = new_figure(3.2 * columns, 1.85 * rows + 0.3)
        grid = figure.add_gridspec(rows, columns)
        for number, (name, latlon) in enumerate(places.items()):
            ax = basemap.world(ax=grid[divmod(number, columns)])
            dots = maps.draw_points(ax, latlon, RED, 6, 0.7, "places of the most similar tiles")
            cross = maps.draw_truth(ax, truths[name])
            ax.set_title(name)
        figure.legend(handles=[dots, cross], loc="outside lower center", ncols=2, markerscale=0.8)
    return figure


def errors_figure(km: dict[str, Tensor]) -> MapFigure:
    """Histograms of distances between answers and truth, (n,) for each name, on a log axis.

    >>> figure = errors_figure({"seen": torch.tensor([20.0, 900.0])})
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6, 3)
        ax = figure.subplots()
        bins = np.geomspace(3, 2.1e4, 30).tolist()
        for (name, errors), color in zip(km.items(), (BLUE, ORANGE, GREEN), strict=False):
            label = f"{name}: median {errors.median():,.0f} km"
            ax.hist(
                errors.clamp(min=3).numpy(), bins, histtype="step", color=color, lw=1.6, label=label
            )
        ax.set(xscale="log", xlabel="distance between answer and truth (km)", ylabel="tiles")
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def error_map_figure(latlon: Tensor, km: Tensor) -> MapFigure:
    """The true places (n, 2) of tiles, coloured by the distance of the answer (n,).

    >>> figure = error_map_figure(torch.zeros(2, 2), torch.tensor([20.0, 900.0]))
    """
    kind = torch.bucketize(km, torch.tensor(LIMITS, dtype=km.dtype), right=True)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.5, 4.2)
        ax = basemap.world(ax=figure.add_gridspec(1, 1)[0, 0])
        for number, (name, color) in enumerate(ERRORS.items()):
            there = kind == number
            label = f"{name}: {there.double().mean():.0%}"
            maps.draw_points(ax, latlon[there], color, 9, 0.9, label)
        figure.legend(loc="outside lower center", ncols=3, markerscale=1.6)
    return figure


def promises_figure(promised: dict[str, Tensor], obtained: dict[str, Tensor]) -> MapFigure:
    """Obtained against promised GeoScore of five groups of tiles with similar promises.

    Bars are two standard errors of a group's mean. On the diagonal a model keeps its word.

    >>> scores = {"seen": torch.linspace(0, 5000, 50)}
    >>> figure = promises_figure(scores, scores)
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.6, 4)
        ax = figure.subplots()
        ax.plot([0, FULL], [0, FULL], color=GREY, lw=1, ls=":", label="promise kept")
        for (name, promise), color in zip(promised.items(), (BLUE, ORANGE), strict=False):
            groups = [group for group in promise.argsort().tensor_split(GROUPS) if len(group) > 1]
            x = [promise[group].mean().item() for group in groups]
            y = [obtained[name][group].mean().item() for group in groups]
            bars = [2 * obtained[name][group].std().item() / len(group) ** 0.5 for group in groups]
            ax.errorbar(x, y, bars, fmt="o-", ms=4, lw=1, capsize=2, color=color, label=name)
        ax.set(xlim=(0, FULL), ylim=(0, FULL), aspect="equal")
        ax.set(xlabel="promised GeoScore", ylabel="obtained GeoScore (± 2 standard errors)")
        ax.legend(loc="upper left")
    return figure
