"""Figures of the notebook 07: densities of flows, their tests, maps, regions and localizability.

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Points are
unit vectors (..., 3), times run from 0 (noise) to 1 (data).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from geoflow import sphere
from geoflow.viz import basemap, lessons_training, maps
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, RED, STYLE

REGION_COLORS = ("#c6dbef", "#6baed6", "#08519c")  # from the largest region to the smallest
CIRCLE_COLORS = LinearSegmentedColormap.from_list("areas", [BLUE, "#4a4a4a", RED])
CELL_COLORS = "viridis_r"
NEIGHBOURHOOD = 2.2e6  # metres from the middle to the edge of the close view of `cells_figure`


def circles_figure(circles: Tensor, area: Tensor, titles: Sequence[str], center=(25.0, 10.0)):
    """Circles (T, C, P, 3) at T moments on globes, coloured by their areas (T, C).

    Areas are relative to those at the start.

    >>> turn = torch.linspace(0, 6.28, 9)
    >>> circle = torch.stack([turn.cos(), turn.sin(), 0 * turn], -1)[None, None]
    >>> figure = circles_figure(circle, torch.ones(1, 1), ["t = 0"])
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.9 * len(titles) + 0.9, 3.0)
        grid = figure.add_gridspec(1, len(titles))
        most = max(2.0, float(torch.maximum(area, 1 / area).max()))
        norm = LogNorm(1 / most, most)
        for column, title in enumerate(titles):
            ax = basemap.world("orthographic", center=center, ax=grid[0, column])
            latlon = sphere.to_latlon(circles[column]).double().numpy()
            start, end = latlon[:, :-1].reshape(-1, 2), latlon[:, 1:].reshape(-1, 2)
            values = np.repeat(area[column].double().numpy(), latlon.shape[1] - 1)
            style: dict[str, Any] = dict(cmap=CIRCLE_COLORS, norm=norm, linewidths=1.8, zorder=3)
            ax.add_collection(basemap.lines(ax, start, end, values, **style), autolim=False)
            ax.set_title(title)
        bar = figure.colorbar(
            ScalarMappable(norm, CIRCLE_COLORS),
            ax=figure.axes,
            shrink=0.8,
            label="area / area at t = 0",
        )
        ticks = [tick for tick in (0.01, 0.1, 0.3, 1, 3, 10, 100) if 1 / most <= tick <= most]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()
    return figure


def orders_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], steps) -> MapFigure:
    """Errors of solvers against their steps, one panel for each problem.

    >>> figure = orders_figure({"a drift": {"euler": [0.2, 0.1]}}, (4, 8))

    Args:
        panels: title → solver → errors in nats, one for each of `steps`.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.2 * len(panels), 3.1)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, curves) in zip(axes, panels.items(), strict=True):
            for (solver, error), color in zip(curves.items(), (RED, GREEN, BLUE), strict=False):
                slope = math.log2(error[-2] / error[-1])
                label = f"{solver}, last slope {slope:.1f}"
                ax.loglog(steps, error, "o-", ms=4, color=color, label=label)
            ax.set_xscale("log", base=2)
            ax.set_xticks(steps, labels=[f"{n}" for n in steps])
            ax.set(title=title, xlabel="steps of the solver")
            ax.legend(fontsize=8)
        axes[0].set_ylabel("error of log p (nats)")
    return figure


def agreement_figure(x: Tensor, y: Tensor, xlabel: str, ylabel: str, title: str = "") -> MapFigure:
    """Dots (n,) against (n,), with the diagonal on which both are equal.

    >>> figure = agreement_figure(torch.arange(3), torch.arange(3), "one (km)", "other (km)")
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(4.4, 3.4)
        ax = figure.subplots()
        middle = float(x.double().mean())
        ax.axline((middle, middle), slope=1, color=GREY, lw=0.9, label="equal")
        ax.plot(x.numpy(), y.numpy(), ".", color=BLUE, ms=5)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        ax.legend(fontsize=8)
    return figure


def cells_figure(x: Tensor, side: Tensor, center) -> MapFigure:
    """Centres (M, 3) of the cells of an adaptive grid, coloured by their sides (M,) in degrees.

    Left the world, right the neighbourhood of `center`, latitude and longitude in degrees.

    >>> figure = cells_figure(sphere.fibonacci_grid(50), torch.full((50,), 7.3), (10.0, 50.0))
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.6, 3.1)
        grid = figure.add_gridspec(1, 2, width_ratios=(1.8, 1))
        wide = basemap.world(ax=grid[0, 0])
        near = basemap.world("orthographic", center=center, ax=grid[0, 1])
        near.set(xlim=(-NEIGHBOURHOOD, NEIGHBOURHOOD), ylim=(-NEIGHBOURHOOD, NEIGHBOURHOOD))
        near.set_title(f"{2 * NEIGHBOURHOOD / 1e3:,.0f} km around the true place")
        colors = matplotlib.colormaps[CELL_COLORS]
        sides = sorted(set(side.tolist()), reverse=True)
        for k, length in enumerate(sides):
            color = colors(0.05 + 0.95 * k / max(1, len(sides) - 1))
            places = sphere.to_latlon(x[side == length])
            for ax, size in ((wide, 2.0), (near, 5.0)):
                maps.draw_points(ax, places, color, size, 1, f"{length:.2g}°")
        handles = wide.get_legend_handles_labels()[0]
        figure.legend(
            handles=handles, title="side of a cell", loc="outside lower center",
            ncols=min(len(sides), 11), markerscale=3, fontsize=8,
        )  # fmt: skip
    return figure


def tiles_figure(images: Tensor, titles: Sequence[str], columns: int = 8) -> MapFigure:
    """Images (n, 3, H, W) uint8 in rows of `columns`, each with a title.

    >>> figure = tiles_figure(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), ["a", "b"])
    """
    above = [titles[start : start + columns] for start in range(0, len(titles), columns)]
    return lessons_training.tiles_figure(images.split(columns), above, width=1.15 * columns)


def disc_median_km(bits: Tensor) -> Tensor:
    """Half of a uniform disc of area R² 2^−bits lies nearer to its centre than this.

    With 10 bits, and for the uniform distribution, which has −3.65 bits:

    >>> disc_median_km(torch.tensor([10.0, -3.6515])).round()
    tensor([   79., 10008.], dtype=torch.float64)
    """
    area = torch.exp2(-bits.double()).clamp(max=4 * math.pi)
    return sphere.EARTH_RADIUS_KM * (1 - area / (4 * math.pi)).acos()


def trust_figure(groups: Mapping[str, tuple[Tensor, Tensor]]) -> MapFigure:
    """Localizability in bits against the error of the answer in km, for named groups of images.

    The grey line is `disc_median_km`.

    >>> figure = trust_figure({"seen": (torch.tensor([1.0, 9.0]), torch.tensor([900.0, 9.0]))})
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7, 3.6)
        ax = figure.subplots()
        for (name, (bits, km)), color in zip(groups.items(), (BLUE, ORANGE, GREEN), strict=False):
            ax.plot(
                bits.numpy(), km.clamp(min=1).numpy(), ".", ms=5, mew=0, color=color, label=name
            )
        everything = torch.cat([bits for bits, _ in groups.values()]).double()
        line = torch.linspace(float(everything.min()), float(everything.max()), 80)
        ax.plot(line, disc_median_km(line), color=GREY, lw=1.2, label="median of a uniform disc")
        ax.set(yscale="log", xlabel="localizability (bits)", ylabel="error of the answer (km)")
        ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, markerscale=2)
    return figure


def cover_figure(cover: Sequence[float], bits: Tensor, km: Tensor) -> MapFigure:
    """What clouds do: bits (C, n) and errors in km (C, n) of the same n tiles under each cover.

    >>> figure = cover_figure((0.0, 0.5), torch.zeros(2, 9), torch.ones(2, 9))
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.4, 2.9)
        left, right = figure.subplots(1, 2)
        share = [100 * c for c in cover]
        error = bits.double().std(1) / math.sqrt(bits.shape[1])
        left.errorbar(share, bits.mean(1).tolist(), error.tolist(), fmt="o-", color=BLUE, capsize=3)
        left.set(ylabel="mean localizability (bits)", title="mean ± one standard error")
        parts = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        low, middle, high = torch.quantile(km.double(), parts, dim=1).tolist()
        right.fill_between(share, low, high, color=ORANGE, alpha=0.25, label="middle half")
        right.plot(share, middle, "o-", color=RED, label="median")
        right.set(ylabel="error of the answer (km)", yscale="log", title="over the tiles")
        right.legend(fontsize=8)
        for ax in (left, right):
            ax.set(xlabel="share of the tile under clouds (%)", xticks=share)
    return figure


def regions_figure(panels: Sequence[dict], levels: Sequence[float] = (0.5, 0.9, 0.95)):
    """Highest-density regions of several densities on globes that face their true places.

    >>> from geoflow import Geolocator
    >>> panel = {"density": Geolocator(None, "land").density(resolution=20.0), "truth": (24.0, 6.0)}
    >>> figure = regions_figure([{**panel, "title": "land"}])

    Args:
        panels: dicts with a `density`, its `truth` (latitude and longitude in degrees), a `title`.
        levels: three probabilities, smallest first.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.5 * len(panels), 3.9)
        grid = figure.add_gridspec(1, len(panels))
        for column, panel in enumerate(panels):
            density = panel["density"]
            ax = basemap.world("orthographic", center=panel["truth"], ax=grid[0, column])
            thresholds = [density.region_threshold(level) for level in reversed(levels)]
            latlon, _ = basemap.pixels(ax.projection, ax.get_xlim(), ax.get_ylim())
            ax.imshow(
                _region_colors(density, latlon, thresholds), origin="upper", zorder=1,
                extent=(*ax.get_xlim(), *ax.get_ylim()), transform=ax.projection,
            )  # fmt: skip
            cross = maps.draw_truth(ax, panel["truth"])
            ax.set_title(panel["title"])
        shown: list[Patch | Line2D] = [
            Patch(color=color, label=f"region of {level:.0%}")
            for color, level in zip(reversed(REGION_COLORS), levels, strict=True)
        ]
        style: dict[str, Any] = {"fontsize": 8, "handlelength": 1.2, "columnspacing": 1.2}
        columns = 4 if len(panels) > 1 else 2
        figure.legend(handles=[*shown, cross], loc="outside lower center", ncols=columns, **style)
    return figure


def _region_colors(density, latlon: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Colours (h, w, 4) of the regions above thresholds, lowest first, at places (h, w, 2).

    The density of a place is that of the pixel of the raster in which it lies; where there is no
    Earth, or below the lowest threshold, the map shows through.
    """
    values = torch.as_tensor(density.log_density).numpy()
    rows, columns = values.shape
    there = np.isfinite(latlon[..., 0])
    lat, lon = np.nan_to_num(latlon).transpose(2, 0, 1)
    row = ((90 - lat) / 180 * rows).astype(int).clip(0, rows - 1)
    column = ((lon + 180) / 360 * columns).astype(int) % columns
    number = np.searchsorted(np.array(thresholds), values[row, column], side="right")
    palette = np.array([(0, 0, 0, 0), *map(matplotlib.colors.to_rgba, REGION_COLORS)])
    return palette[np.where(there, number, 0)]


def promises_figure(ranks: Mapping[str, Tensor]) -> MapFigure:
    """How often regions of each probability hold the truth, for named groups of images.

    >>> figure = promises_figure({"seen": torch.rand(100, dtype=torch.float64)})

    Args:
        ranks: name → `metrics.hpd_rank` of each image (n,). The band is two standard errors wide
            to each side of an exact model's share.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.5, 3.6)
        ax = figure.subplots()
        level = torch.linspace(0, 1, 101, dtype=torch.float64)
        fewest = min(len(rank) for rank in ranks.values())
        error = 2 * (level * (1 - level) / fewest).sqrt()
        ax.fill_between(
            100 * level, 100 * (level - error), 100 * (level + error), color=GREY, alpha=0.25, lw=0,
            label=f"promise kept, ± 2 standard\nerrors of {fewest} images",
        )  # fmt: skip
        for (name, rank), color in zip(ranks.items(), (BLUE, ORANGE, GREEN), strict=False):
            share = (rank[:, None] < level).double().mean(0)
            ax.plot(100 * level, 100 * share, color=color, label=name)
        ax.set(xlabel="promised: probability of the region (%)", xlim=(0, 100), ylim=(0, 100))
        ax.set(ylabel="kept: truths inside (%)", aspect="equal")
        figure.legend(loc="outside right upper", fontsize=8)
    return figure
