"""Figures of notebook 08: three ways to noise, their losses and shells, and who is ahead where.

Every function returns a `MapFigure`, which a notebook shows when a cell ends with it. Methods are
named as in `geoflow.methods`, and keep their colour from figure to figure. Times run from 0 (noise)
to 1 (data).
"""

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from geoflow import sphere
from geoflow.density import Raster
from geoflow.gis.rasters import pixel_areas
from geoflow.viz.basemap import MapFigure, new_figure
from geoflow.viz.charts import BLUE, GREEN, GREY, METHODS, ORANGE, PINK, RED, STYLE

TITLES = METHODS | {  # mixtures of several sizes, which are compared here
    "vmf": "one vMF",
    "vmf-mixture": "mixture of 3 vMF",
    "vmf-mixture-8": "mixture of 8 vMF",
    "vmf-mixture-16": "mixture of 16 vMF",
}
COLORS = {"riemannian": BLUE, "flow": ORANGE, "diffusion": GREEN, "vmf-mixture-16": PINK} | {
    "vmf-mixture": RED
}
SCORES = {
    "nll": "log-density (nats)",
    "energy_km": "energy score (km)",
    "geoscore": "GeoScore, answer of 24",
    "single_geoscore": "GeoScore, one sample",
}
LIMIT = 2.4  # half width of the pictures of R³, Earth radii


def color_of(method: str) -> str:
    return COLORS.get(method, GREY)


def noising_figure(states: dict[str, Tensor], moments: list[float]) -> MapFigure:
    """Points of each method at some moments, a row for each method, seen along the x axis.

    >>> figure = noising_figure({"flow": torch.randn(2, 50, 3)}, [0.0, 1.0])

    Args:
        states: method → (moments, n, 3); the circle is the Earth.
        moments: times.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 1.8 * len(states))
        axes = figure.subplots(len(states), len(moments), squeeze=False)
        for row, (method, points) in zip(axes, states.items(), strict=True):
            for ax, x in zip(row, points, strict=True):
                _draw_cloud(ax, x, color_of(method))
            row[0].set_ylabel(TITLES[method])
        for ax, t in zip(axes[0], moments, strict=True):
            ax.set_title(f"t = {t:g}")
    return figure


def _draw_cloud(ax: Axes, x: Tensor, color: str) -> None:
    behind = x[:, 0] < 0
    ax.add_patch(Circle((0, 0), 1, color="#e3eaee", zorder=0))
    ax.scatter(*x[behind, 1:].T, s=3, color=GREY, alpha=0.5, lw=0)
    ax.scatter(*x[~behind, 1:].T, s=4, color=color, alpha=0.8, lw=0)
    ax.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), xticks=[], yticks=[], aspect="equal")
    ax.spines[["left", "bottom"]].set_visible(False)


def approach_figure(left: Tensor, km: dict[str, Tensor], marked_km: float) -> MapFigure:
    """Median distance from the truth of each method's points, against the time that is left.

    >>> left = torch.tensor([1.0, 0.1])
    >>> figure = approach_figure(left, {"flow": torch.tensor([9000.0, 300.0])}, marked_km=500)
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = _flat_figure()
        for method, distance in km.items():
            ax.plot(left, distance, color=color_of(method), label=TITLES[method])
        ax.axhline(marked_km, color=GREY, ls=":", lw=1, label=f"{marked_km:g} km")
        ax.set(xscale="log", yscale="log", xlabel="time that is left, 1 − t")
        ax.set(ylabel="median distance\nfrom the truth (km)")
        ax.invert_xaxis()
        _legend(ax)
    return figure


def losses_figure(losses: dict[tuple[str, str], list[float]], window: int) -> MapFigure:
    """Losses of trainings, means over `window` steps: (method, schedule) → loss of every step.

    >>> figure = losses_figure({("flow", "linear"): [2.0, 1.0, 0.9]}, window=2)
    """
    schedules = list(dict.fromkeys(schedule for _, schedule in losses))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.8, 2.7)
        axes = figure.subplots(1, len(schedules), sharey=True, squeeze=False)[0]
        for (method, schedule), values in losses.items():
            smooth = torch.tensor(values).unfold(0, window, 1).mean(-1)
            ax = axes[schedules.index(schedule)]
            ax.plot(smooth, color=color_of(method), label=TITLES[method])
        for ax, schedule in zip(axes, schedules, strict=True):
            ax.set(title=f"training times: {schedule}", xlabel="step", yscale="log")
        axes[0].set_ylabel(f"loss, mean of {window} steps\n(squared Earth radii)")
        _legend(axes[-1])
    return figure


def shells_figure(radius: Tensor, share: dict[str, Tensor], own: dict[str, Tensor]) -> MapFigure:
    """The density of the radius on rays of some samples, a panel for each method in R³.

    >>> radius, own = torch.tensor([0.9, 1.0, 1.1]), torch.tensor([1.0])
    >>> figure = shells_figure(radius, {"flow": torch.tensor([[0.0, 9.0, 0.0]])}, {"flow": own})

    Args:
        radius: (m,) Earth radii.
        share: method → (n, m), the density of the radius on each sample's ray.
        own: method → (n,), the radius of each sample, drawn as a triangle.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.4, 2.7)
        axes = figure.subplots(1, len(share), squeeze=False)[0]
        for ax, (method, curves) in zip(axes, share.items(), strict=True):
            for curve, r in zip(curves, own[method], strict=True):
                (line,) = ax.plot(radius, curve, lw=1)
                ax.plot(float(r), 0, "^", ms=5, color=line.get_color(), clip_on=False)
            ax.set(title=TITLES[method], xlabel="radius r (Earth radii); ▲: the sample's own")
            ax.set_ylim(0, None)
        axes[0].set_ylabel("density of the radius\n(per Earth radius)")
    return figure


def budgets_figure(rows: list[dict], steps: int) -> MapFigure:
    """NLL and energy score: against minutes of training, and against components of a mixture.

    >>> scores = {"test-nll": -4.0, "test-energy_km": 2600.0}
    >>> row = {"components": 3, "steps": 500, "minutes": 1.0, "scores": scores}
    >>> figure = budgets_figure([row, row | {"components": 0}], steps=500)

    Args:
        rows: trainings, as in `data/results/curves.json`, shorter ones first; those of the flow
            have no components.
        steps: of the trainings on the right.
    """
    names = {0: "riemannian", 3: "vmf-mixture", 16: "vmf-mixture-16"}
    labels = {"test-nll": "NLL over uniform (nats)", "test-energy_km": "energy score (km)"}
    equal = sorted((r for r in rows if r["steps"] == steps), key=lambda r: r["components"])
    flows = [row for row in equal if not row["components"]]
    mixtures = [row for row in equal if row["components"]]
    counts = [row["components"] for row in mixtures]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 5.6)
        for (left, right), (kind, label) in zip(
            figure.subplots(2, 2, sharey="row"), labels.items(), strict=True
        ):
            for k, method in names.items():
                curve = [r for r in rows if r["components"] == k]
                minutes, values = [r["minutes"] for r in curve], [r["scores"][kind] for r in curve]
                left.plot(minutes, values, "o-", color=color_of(method), label=TITLES[method])
            for row in flows:
                right.axhline(row["scores"][kind], color=BLUE, label=TITLES["riemannian"])
            values = [row["scores"][kind] for row in mixtures]
            right.plot(counts, values, "s-", color=GREY, label="mixtures of vMF")
            left.set(xlabel="processor minutes of training", ylabel=label, xscale="log")
            right.set(xlabel=f"components, {steps:,} steps each", xscale="log")
            right.set_xticks(counts, [str(k) for k in counts])
            right.minorticks_off()
        for ax in figure.axes[:2]:
            ax.legend(fontsize=8)
    return figure


def ahead_figure(differences: dict[str, dict[str, list[float]]], title: str) -> MapFigure:
    """How far the Riemannian flow is ahead of each method: dots, with bars of two standard errors.

    >>> figure = ahead_figure({"vmf": {"nll": [0.5, 0.1]}}, "all tiles")

    Args:
        differences: method → score of `SCORES` → [mean, standard error], as `geoflow compare`
            writes them; a positive mean says that the flow is better.
        title: of the figure.
    """
    shown = [score for score in SCORES if any(score in row for row in differences.values())]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9.4, 0.7 + 0.36 * len(differences))
        figure.suptitle(title, fontsize=9)
        axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        names = [TITLES[method] for method in differences]
        for ax, score in zip(axes, shown, strict=True):
            for row, (method, scores) in enumerate(differences.items()):
                if score in scores:
                    mean, error = scores[score]
                    clear = abs(mean) > 2 * error
                    style = {"fmt": "o", "ms": 5, "capsize": 3, "mfc": None if clear else "white"}
                    ax.errorbar(mean, row, xerr=2 * error, color=color_of(method), **style)
                    text = f"{mean:+.2f}" if score == "nll" else f"{round(mean):+d}"
                    ax.text(mean, row - 0.2, text, ha="center", va="bottom", fontsize=7)
            ax.axvline(0, color="black", lw=0.8)
            ax.set(title=SCORES[score], yticks=range(len(names)), yticklabels=names)
            ax.set(ylim=(len(names) - 0.5, -0.8), xlabel="flow ahead by →")
            ax.grid(axis="x", color="#e4e8ea")
    return figure


def groups_figure(panels: dict[str, dict[str, Tensor]], log: tuple[str, ...] = ()) -> MapFigure:
    """Numbers of some methods for four groups of tiles, a panel for each kind of number.

    >>> figure = groups_figure({"error (km)": {"flow": torch.ones(4, 2)}})

    Args:
        panels: label with unit → method → (4, 2), value and standard error of each group.
        log: the labels of panels with a logarithmic axis.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.1 * len(panels) + 1.2, 2.9)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (label, methods) in zip(axes, panels.items(), strict=True):
            for shift, (method, groups) in enumerate(methods.items()):
                place = torch.arange(4) + 0.08 * (shift - (len(methods) - 1) / 2)
                style = {"fmt": "o-", "ms": 5, "capsize": 3, "color": color_of(method)}
                ax.errorbar(place, groups[:, 0], yerr=groups[:, 1], label=TITLES[method], **style)
            ax.set(ylabel=label, xlabel="quarter of the tiles")
            if label in log:
                ax.set_yscale("log")
                ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.yaxis.set_minor_formatter(NullFormatter())
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            ax.set_xticks(range(4), labels=["1\nambiguous", "2", "3", "4\nclear"])
        _legend(axes[-1])
    return figure


def gained_figure(left: Tensor, gained: dict[str, Tensor], shares: Tensor) -> MapFigure:
    """What the log-density gains until each time, and where training draws its times.

    >>> left = torch.tensor([1.0, 0.0])
    >>> figure = gained_figure(left, {"clear": torch.tensor([0.0, 4.0])}, torch.tensor([0.0, 1.0]))

    Args:
        left: (m,) times that are left, 1 − t, falling; the last one may be zero.
        gained: name of a group → (m,) nats.
        shares: (m,) share of the training times before each time.
    """
    at = left.clamp(min=1e-3)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(8.4, 2.9)
        first, second = figure.subplots(1, 2)
        greys = ("#c6d3e1", "#8fb3d3", "#4a8bbf", BLUE)
        for (name, nats), color in zip(gained.items(), greys, strict=False):
            first.plot(at, nats, "o-", ms=3, color=color, label=name)
        second.plot(at, 100 * shares, color=GREY)
        first.set(ylabel="log-density gained so far (nats)")
        second.set(ylabel="training times so far (%)")
        for ax in (first, second):
            ax.set(xscale="log", xlabel="time that is left, 1 − t")
            ax.invert_xaxis()
        first.legend()
    return figure


def radii_figure(times: dict[str, Tensor], norms: dict[str, Tensor]) -> MapFigure:
    """Distance from the centre of the Earth of points on their way: method → (steps + 1, n).

    >>> figure = radii_figure({"flow": torch.tensor([0.0, 1.0])}, {"flow": torch.ones(2, 5)})
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(7.4, 2.6)
        axes = figure.subplots(1, len(norms), sharey=True, squeeze=False)[0]
        for ax, (method, radii) in zip(axes, norms.items(), strict=True):
            ax.plot(times[method], radii, color=color_of(method), lw=0.5, alpha=0.6)
            ax.axhline(1, color="black", lw=0.8, ls=":")
            ax.set(title=TITLES[method], xlabel="time t")
        axes[0].set_ylabel("|x|, Earth radii")
    return figure


def solvers_figure(errors: dict[str, tuple[list[int], list[float]]]) -> MapFigure:
    """Error of each solver against the evaluations of the network: solver → (evaluations, km).

    >>> figure = solvers_figure({"rk4": ([16, 32], [4.0, 1.0])})
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = _flat_figure()
        for solver, (evaluations, km) in errors.items():
            ax.plot(evaluations, km, "o-", ms=4, label=solver)
        ax.set(xscale="log", yscale="log", xlabel="evaluations of the network")
        ax.set(ylabel="median distance to\na fine solution (km)")
        _legend(ax)
    return figure


def half_area_km2(raster: Raster) -> float:
    """The smallest area, in pixels of a raster, that holds half of its probability.

    >>> from geoflow.density import raster_axes
    >>> uniform = half_area_km2(Raster(*raster_axes(10.0), torch.zeros(18, 36)))
    >>> abs(uniform / 255.03e6 - 1) < 0.01  # of 510.06 million
    True
    """
    rows, columns = raster.log_density.shape
    area = pixel_areas(rows).repeat_interleave(columns)
    mass = area * (raster.log_density.flatten() - raster.log_density.max()).exp()
    order = raster.log_density.flatten().argsort(descending=True)
    held = mass[order].cumsum(0) / mass.sum()
    count = int((held < 0.5).sum()) + 1
    return float(area[order][:count].sum()) * sphere.EARTH_RADIUS_KM**2


def _flat_figure() -> tuple[MapFigure, Axes]:
    figure = new_figure(7, 2.9)
    return figure, figure.subplots()


def _legend(ax: Axes) -> None:
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
