"""Figures of notebook 09 (evaluation): what scores see, and what they hide.

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Places are
unit vectors (..., 3).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import torch
from torch import Tensor

from geoflow import sphere
from geoflow.scores import metrics
from geoflow.viz import basemap, maps
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, ORANGE, PINK, RED, STYLE

CYCLE = (BLUE, ORANGE, GREEN, RED, PINK, GREY)


class Panel(NamedTuple):
    """One set of axes of `panels_figure`: named curves over the common x.

    >>> panel = Panel("error (km)", {"answer": [30.0, 20.0]})
    """

    ylabel: str
    curves: Mapping[str, Any]  # name → values; one curve without a legend may have the name ""
    title: str = ""
    ylim: tuple[float | None, float | None] = (None, None)


def panels_figure(
    x, panels: Sequence[Panel], xlabel: str, mark: tuple[str, float] | None = None,
    log: bool = True, points: Mapping[str, tuple[float, float]] | None = None,
) -> MapFigure:  # fmt: skip
    """Curves over the same x, in one row of panels.

    >>> panels = [Panel("cost", {"a": [3.0, 1.0], "b": [2.0, 2.0]}), Panel("gain", {"": [1, 2]})]
    >>> figure = panels_figure([1, 10], panels, "size", mark=("here", 3.0))

    Args:
        x, xlabel: common values and their name with its unit.
        panels: what is drawn; curves of one name have one colour in all panels.
        mark: name and place of a dotted vertical line.
        log: whether x has a logarithmic axis.
        points: squares (x, y) in the last panel, by the name of their curve.
    """
    names = dict.fromkeys(name for panel in panels for name in panel.curves)
    colors = dict(zip(names, CYCLE, strict=False))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(min(10, 3.2 * len(panels) + 2), 2.8)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, panel in zip(axes, panels, strict=True):
            for name, y in panel.curves.items():
                ax.plot(x, y, "o-", ms=3, lw=1.3, color=colors[name], label=name or None)
            ax.set(xlabel=xlabel, ylabel=panel.ylabel, title=panel.title, ylim=panel.ylim)
            ax.set_xscale("log" if log else "linear")
            if mark is not None:
                ax.axvline(mark[1], color=GREY, lw=1, ls=":", label=mark[0])
        for name, place in (points or {}).items():
            axes[-1].plot(*place, "s", ms=6, mfc="none", color=colors[name])
        handles = {
            label: handle
            for ax in axes
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        if handles:
            where: Any = dict(loc="outside upper center", ncols=4, fontsize=8)
            figure.legend(handles.values(), handles.keys(), **where)
    return figure


def answers_figure(errors: Mapping[str, Tensor]) -> MapFigure:
    """The GeoScore against the error, and the share of images below each error, by answer.

    >>> figure = answers_figure({"an answer": torch.tensor([30.0, 400.0, 9000.0])})

    Args:
        errors: name → errors of the images in km, (n,); at most six answers.
    """
    km = torch.logspace(0, math.log10(20_000), 200)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 3.1)
        left, right = figure.subplots(1, 2)
        left.plot(km, metrics.geoscore(km), color=BLUE)
        left.set(ylabel="GeoScore", ylim=(0, 5100), title="what an error is worth")
        for (name, error), color in zip(errors.items(), CYCLE, strict=False):
            share = (torch.arange(len(error)) + 1) / len(error)
            right.plot(error.sort().values, share, color=color, lw=1.4, label=name)
        right.set(ylabel="share of tiles below the error", ylim=(0, 1))
        right.set_title("how often the error is smaller")
        for ax in (left, right):
            ax.set(xscale="log", xlabel="error (km)", xlim=(10, 20_100))
            for radius in metrics.RADII_KM[1:]:
                ax.axvline(radius, color=GREY, lw=0.5, ls=":")
        right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    return figure


def answer_map_figure(samples: Tensor, answers: Mapping[str, Tensor], truth: Tensor) -> MapFigure:
    """Samples (n, 3) of one image on a map, with the true place (3,), and rings at answers (3,).

    >>> x = sphere.uniform(30)
    >>> figure = answer_map_figure(x, {"the first": x[0]}, x[1])
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7, 3.9)
        ax = basemap.world(ax=figure)
        maps.draw_truth(ax, sphere.to_latlon(truth))
        label = f"{len(samples)} samples"
        maps.draw_points(ax, sphere.to_latlon(samples), BLUE, 9, 0.8, label, zorder=7)
        for (name, x), color in zip(answers.items(), (ORANGE, "black", RED), strict=False):
            style: dict[str, Any] = dict(linewidths=2, edgecolors=color, zorder=8)
            maps.draw_points(ax, sphere.to_latlon(x), "none", 90, 1, name, **style)
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _rings(x: Tensor, reach: Tensor) -> Tensor:
    """Circles of radius `reach` (n,) in radians around places (n, 3): (n, 60, 2) degrees."""
    turn = torch.linspace(0, 2 * math.pi, 60, dtype=x.dtype)[:, None]
    circles = []
    for center, radius in zip(x, reach, strict=True):
        east, north = sphere.tangent_basis(center)
        way = radius * (turn.cos() * east + turn.sin() * north)
        circles.append(sphere.to_latlon(sphere.exp(center.expand(60, 3), way)))
    return torch.stack(circles)


def balls_figure(cases: Mapping[str, tuple[Tensor, Tensor]], k: int = 3) -> MapFigure:
    """Pairs of sets near 0° N 0° E: true places with the balls of `prdc`, and samples.

    >>> x, y = sphere.from_latlon(10 * torch.randn(2, 20, 2).double())
    >>> figure = balls_figure({"two draws": (x, y)})

    Args:
        cases: title → true places (n, 3) and samples (m, 3); scores are written below the title.
        k: the balls reach to the k-th neighbour.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 3.7)
        axes = figure.subplots(1, len(cases), squeeze=False)[0]
        for ax, (name, (true, fake)) in zip(axes, cases.items(), strict=True):
            reach = sphere.distance(true[:, None], true[None]).sort(1).values[:, k]
            for ring in _rings(true, reach):
                ax.fill(*ring.flip(-1).T, color=BLUE, alpha=0.08, lw=0)
            for x, color, label in (
                (true, BLUE, "true places, with their balls"),
                (fake, ORANGE, "samples"),
            ):
                ax.scatter(*sphere.to_latlon(x).flip(-1).T, s=9, color=color, label=label)
            ax.set(xlim=(-36, 36), ylim=(-30, 30), aspect="equal")
            ax.set(xlabel="longitude (degrees)", ylabel="latitude (degrees)")
            scores = [f"{key} {value:.2f}" for key, value in metrics.prdc(true, fake, k).items()]
            ax.set_title("\n".join((name, ", ".join(scores[:2]), ", ".join(scores[2:]))))
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2)
    return figure


def calibration_figure(ranks: Mapping[str, Tensor], images: int, samples: int) -> MapFigure:
    """How often regions hold the truth, against how often they promise to.

    With n samples the share of the truths that less than k samples exceed in density is k/(n + 1)
    for a calibrated model. The curves have a point at each of these levels.

    >>> figure = calibration_figure({"calibrated": torch.rand(500)}, images=500, samples=19)

    Args:
        ranks: name → `metrics.hpd_rank` of the images, (n,).
        images: number of images of the band of chance, two standard errors wide on each side.
        samples: number of samples behind each rank.
    """
    level = torch.linspace(0, 1, 101)
    chance = 2 * (level * (1 - level) / images).sqrt()
    exact = torch.arange(1, samples + 1) / (samples + 1)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.4, 3.7)
        ax = figure.subplots()
        band: Any = dict(color=GREY, alpha=0.45, lw=0)
        label = f"calibrated, ± 2 standard errors\nof {images:,} tiles"
        ax.fill_between(level, level - chance, level + chance, label=label, **band)
        for (name, rank), color in zip(ranks.items(), CYCLE, strict=False):
            inside = [(rank < at).double().mean().item() for at in exact]
            ax.plot(exact, inside, "o-", ms=3, lw=1.2, color=color, label=name)
        ax.set(xlabel="probability that the region promises", ylabel="share of truths inside")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=8)
    return figure
