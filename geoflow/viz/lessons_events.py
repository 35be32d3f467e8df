"""Figures of notebook 10: events on maps, how far each is from a known one, what kernels do.

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Sets of
events are dicts by name, at most four, which keep their colour from figure to figure.
"""

import matplotlib
import torch
from matplotlib.axes import Axes
from torch import Tensor

from geoflow import sphere
from geoflow.viz import maps
from geoflow.viz.basemap import MapFigure, new_figure, world
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, RED, STYLE

COLORS = (RED, ORANGE, BLUE, GREEN)
LEAST_KM = 0.01  # where "exactly there" is drawn on a logarithmic axis


def events_figure(sets: dict[str, Tensor], most: int) -> MapFigure:
    """A map of each set of events, latitude and longitude (n, 2); at most so many dots each.

    >>> figure = events_figure({"flood": torch.zeros(5, 2)}, most=100)
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 4.6)
        grid, named = figure.add_gridspec(2, 2), zip(sets.items(), COLORS, strict=False)
        for number, ((name, latlon), color) in enumerate(named):
            ax = world(ax=grid[divmod(number, 2)])
            maps.draw_points(ax, latlon[:: -(-len(latlon) // most)], color=color, size=2)
            ax.set_title(f"{name}: {len(latlon):,} events")
    return figure


def distances_figure(nearest_km: dict[str, Tensor], marked_km: float) -> MapFigure:
    """The share of test events within r km of a training event, against r.

    >>> figure = distances_figure({"a": torch.tensor([0.0, 3.0, 40.0])}, marked_km=2.0)

    Args:
        nearest_km: name → the distance of each test event to the nearest training event, (n,).
        marked_km: where a dotted line stands.
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = _flat_figure()
        for (name, km), color in zip(nearest_km.items(), COLORS, strict=False):
            sorted_km = torch.cat([torch.tensor([LEAST_KM]), km.clamp(min=LEAST_KM).sort().values])
            share = torch.arange(len(sorted_km)) / len(km)
            ax.step(sorted_km, 100 * share, where="post", color=color, label=name)
        ax.axvline(marked_km, color=GREY, ls=":", lw=1, label=f"{marked_km:g} km")
        ax.set(xscale="log", xlabel=f"r, kilometres ({LEAST_KM:g}: exactly the same place)")
        ax.set(ylabel="test events within r of\na training event (%)", ylim=(0, 102))
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def weights_figure(weights: dict[str, Tensor], widths_km: tuple[float, ...]) -> MapFigure:
    """Bars of the weights of the floor and of the kernels of each width, a panel for each set.

    >>> figure = weights_figure({"a": torch.tensor([0.1, 0.9])}, (0.064,))
    """
    names = ["floor", *(f"{width:.2g}" if width < 100 else f"{width:.0f}" for width in widths_km)]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 4.6)
        columns = min(2, len(weights))
        axes = figure.subplots(-(-len(weights) // 2), columns, sharey=True, squeeze=False).flat
        for ax, (name, weight), color in zip(axes, weights.items(), COLORS, strict=False):
            ax.bar(range(len(names)), (100 * weight).tolist(), color=color)
            ax.set(title=name, xlabel="width of the kernels (km)", ylabel="weight (%)")
            ax.set_xticks(range(len(names)), labels=names, rotation=90, fontsize=7)
    return figure


def bottomless_figure(width_km: list[float], nll: dict[str, list[float]]) -> MapFigure:
    """Test NLL of each set against the smallest width that kernels may have.

    >>> figure = bottomless_figure([1.0, 0.1], {"flood": [1.2, -3.0]})
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = _flat_figure()
        for (name, values), color in zip(nll.items(), COLORS, strict=False):
            ax.plot(width_km, values, "o-", ms=4, color=color, label=name)
        uniform = -sphere.LOG_UNIFORM
        ax.axhline(uniform, color=GREY, ls=":", lw=1, label=f"uniform, {uniform:.2f}")
        ax.set(xscale="log", xlabel="smallest allowed width of a kernel (km)")
        ax.set(ylabel="NLL of the test events (nats)")
        ax.invert_xaxis()
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _flat_figure() -> tuple[MapFigure, Axes]:
    figure = new_figure(7, 3)
    return figure, figure.subplots()
