"""The paper's figures, drawn from the numbers in result files; nothing is computed here.

Each `figure_…` takes what a result file of `geoflow reproduce` holds. `numbers_…` are the same as a
small Markdown table, with printed numbers beside ours where the paper has some.
"""

import math
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from torch import Tensor

from geoflow import sphere
from geoflow.data import earth_events, tiles
from geoflow.paper import point_sets
from geoflow.paper.results import packed_map as packed_map
from geoflow.paper.results import raster, unpacked
from geoflow.paper.tables import markdown_table, read_yaml
from geoflow.viz import maps
from geoflow.viz.charts import BLUE, GREEN, GREY, METHODS, ORANGE, RED

CURVES = {
    "skewed-sigmoid": (BLUE, "-", "skewed sigmoid (code: −7, 3)"),
    "sigmoid": (ORANGE, "-", "sigmoid (−3, 3)"),
    "linear": (GREY, "-", "linear"),
    "as printed": (RED, ":", "skewed as printed (α −3, β 7)"),
}
STYLE: dict[Any, Any] = {f"axes.spines.{side}": False for side in ("top", "right")}
STYLE |= {f"{what}.labelsize": 7 for what in ("xtick", "ytick", "axes")}
STYLE |= {"font.size": 7, "axes.titlesize": 8, "legend.fontsize": 7, "legend.frameon": False}
styled = matplotlib.rc_context(STYLE)


def _thumbnail(ax, latlon) -> None:
    ax.imshow(np.asarray(tiles.tile(*latlon)), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, edgecolor=maps.COAST, linewidth=0.5)


def _bar(fig, drawn, place: tuple[float, float, float, float]):
    """A horizontal colour bar at a place of a figure, in shares of its width and height."""
    return fig.colorbar(drawn, cax=fig.add_axes(place), orientation="horizontal")


def _answers(first: str, answers: dict[str, dict], last: str) -> str:
    """A table of answers: how far off, how wide the density, and its integral."""
    rows = []
    for name, answer in answers.items():
        density = answer["density"]
        area, integral = f"{density['half_area_km2']:,.0f}", f"{density['integral']:.3f}"
        rows.append([name, f"{answer['km']:,.0f}", area, integral])
    return markdown_table([first, "answer off by km", "half of the probability on km²", last], rows)


@styled
def figure_1(values: dict) -> maps.MapFigure:
    """Ways of random points to where each image could be; log-density, true place and answer."""
    images = values["images"]
    densities = [raster(image["density"]) for image in images]
    peak = maps.peak_of(*densities)
    fig = maps.MapFigure(figsize=(7, 4.4))
    cell = 1 / len(images)
    for i, (image, density) in enumerate(zip(images, densities, strict=True)):
        latlon = image["latlon"]
        globe = fig.add_axes((i * cell + 0.02, 0.43, cell - 0.04, 0.48))
        ax = maps.world("orthographic", tuple(latlon), ax=globe)
        degrees = unpacked(image["trajectories"])[:, :80]
        degrees[..., 0].clamp_(-90, 90)  # Rounding may have gone beyond a pole.
        lines = maps.draw_trajectories(ax, degrees, image["times"])
        truth = maps.draw_truth(ax, latlon)
        ax.set_title(image["name"])
        if image["tile"]:
            _thumbnail(fig.add_axes((i * cell + 0.01, 0.8, 0.07, 0.11)), latlon)
        ax = maps.world(ax=fig.add_axes((i * cell + 0.01, 0.14, cell - 0.02, 0.27)))
        picture = maps.draw_density(ax, density, "nats", peak=peak, colorbar=False)
        maps.draw_truth(ax, latlon)
        rings = maps.draw_guesses(ax, torch.tensor([image["answer"]]))
        ax.set_title(f"answer {image['km']:,.0f} km off", fontsize=7, pad=2)
    rings.set_label("answer")
    _bar(fig, lines, (0.3, 0.09, 0.25, 0.016)).set_label("time", labelpad=1)
    maps.name_scale(_bar(fig, picture, (0.65, 0.09, 0.3, 0.016)), "nats")
    fig.legend(handles=[truth, rings], loc="lower left", markerscale=0.6, labelspacing=1.0)
    return fig


def numbers_1(values: dict) -> str:
    images = {image["name"]: image for image in values["images"]}
    return _answers("image", images, "integral of the density")


@styled
def figure_2(values: dict) -> maps.MapFigure:
    """The ways from noise to one place on the globe seen from space; in R³ they leave the Earth."""
    fig = maps.MapFigure(figsize=(7, 3))
    lon = values["place"][1] - 50
    corners = torch.tensor([[0, lon + 90], [70, lon + 180], [20, lon]], dtype=torch.float64)
    view = sphere.from_latlon(corners)  # directions right, up and towards the viewer
    for i, (method, states) in enumerate(values["paths"].items()):
        ax = fig.add_axes((i / 3, 0.18, 1 / 3, 0.75))
        _draw_globe(ax, view)
        seen = (unpacked(states) @ view.T).numpy()
        lines = _draw_ways(ax, seen, np.asarray(values["times"]))
        ax.scatter(*seen[0, :, :2].T, s=5, color=GREY, lw=0, zorder=3)
        ax.plot(*seen[-1, 0, :2], "o", ms=5, mfc=maps.TRUTH, mec="black", mew=0.6, zorder=4)
        ax.set(title=METHODS[method], aspect="equal", xticks=[], yticks=[])
        ax.set(xlim=(-2.9, 2.9), ylim=(-2.8, 2.8))
        ax.spines[["left", "bottom"]].set_visible(False)
    bar = _bar(fig, lines, (0.35, 0.14, 0.3, 0.025))
    bar.set_label("time: 0 noise (grey dots), 1 data", labelpad=1)
    return fig


def _draw_globe(ax, view: Tensor) -> None:
    """The disc of the Earth with the visible parts of parallels and meridians."""
    ax.add_patch(Circle((0, 0), 1, facecolor=maps.SEA, edgecolor=maps.COAST, lw=0.5, zorder=0))
    turn = torch.linspace(-180, 180, 181, dtype=torch.float64)
    lines = [(torch.full_like(turn, lat), turn) for lat in (-60.0, -30.0, 0.0, 30.0, 60.0)]
    lines += [(turn / 2, torch.full_like(turn, lon)) for lon in range(-180, 180, 30)]
    for line in lines:
        right, up, towards = (sphere.from_latlon(torch.stack(line, -1)) @ view.T).T
        up = torch.where(towards > 0, up, torch.nan)
        ax.plot(right.numpy(), up.numpy(), color=maps.GRATICULE, lw=0.3, zorder=1)


def _draw_ways(ax, seen: np.ndarray, times: np.ndarray) -> LineCollection:
    """Ways (T, n, 3) of points, coloured by time and paler behind the Earth."""
    pieces = np.stack([seen[:-1, :, :2], seen[1:, :, :2]], 2).reshape(-1, 2, 2)
    behind = (np.linalg.norm(pieces[:, 0], axis=1) < 1) & (seen[:-1, :, 2].reshape(-1) < 0)
    moments = np.repeat(times[:-1], seen.shape[1])
    for part, alpha in ((behind, 0.25), (~behind, 1.0)):
        lines = LineCollection(pieces[part], array=moments[part], alpha=alpha, lw=0.7, zorder=2)
        lines.set(cmap=maps.TIME_COLORS, clim=(0, 1))
        ax.add_collection(lines)
    return lines


def numbers_2(values: dict) -> str:
    rows = []
    for method, states in values["paths"].items():
        radius = unpacked(states).norm(dim=-1)
        spans = (f"{float(r.min()):.2f} to {float(r.max()):.2f}" for r in (radius[0], radius))
        rows.append([METHODS[method], *spans])
    head = ["", "noise: distance from the Earth's centre, radii", "on the way"]
    return markdown_table(head, rows)


@styled
def figure_4(values: dict) -> maps.MapFigure:
    """κ(t), 0 for data and 1 for noise."""
    fig = maps.MapFigure(figsize=(5.2, 2.5), layout="constrained")
    ax = fig.subplots()
    for name, kappa in values["kappa"].items():
        color, style, label = CURVES[name]
        ax.plot(values["t"], kappa, style, color=color, label=label)
    ax.set(xlabel="t (0 data, 1 noise)", ylabel="κ(t)", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return fig


def numbers_4(values: dict) -> str:
    t = np.asarray(values["t"])
    at = [int(np.abs(t - moment).argmin()) for moment in (0.1, 0.3, 0.5, 0.7, 0.9)]
    curves = values["kappa"].items()
    rows = [[CURVES[name][2], *(f"{kappa[i]:.4f}" for i in at)] for name, kappa in curves]
    return markdown_table(["κ at t =", *(f"{t[i]:.1f}" for i in at)], rows)


def _curves(ax, values, score: str, color: str, printed: dict, label="", suffix="") -> None:
    """One score of both solvers against what it is listed by, and printed numbers as crosses."""
    factor = 1 if score in ("geoscore", "f1") else 100
    for solver, name, style in (("euler", "Euler", "o-"), ("rk4", "RK4", "s--")):
        x = [float(key) for key in values[solver]]
        y = [factor * scores[score] for scores in values[solver].values()]
        ax.plot(x, y, style, ms=3.5, color=color, label=name + suffix)
    crosses = RED if label else color
    ax.plot(list(printed), list(printed.values()), "x", color=crosses, ms=5, label=label or None)


@styled
def figure_5(values: dict) -> maps.MapFigure:
    """GeoScore and accuracies against evaluations; crosses are printed numbers, of other data."""
    numbers = read_yaml("figures")["fig5"]
    fig = maps.MapFigure(figsize=(8, 2.6), layout="constrained")
    left, right = fig.subplots(1, 2)
    _curves(left, values, "geoscore", BLUE, numbers["geoscore"], "the paper, OSV-5M")
    handles = []
    for level, color in {"country": BLUE, "region": GREEN, "city": ORANGE}.items():
        _curves(right, values, level, color, numbers.get(level, {}))
        handles.append(Line2D([], [], color=color, label=level))
    handles.append(
        Line2D([], [], color="black", marker="x", ls="", ms=5, label="the paper, OSV-5M")
    )
    left.set(ylabel="GeoScore", ylim=(0, 5000))
    right.set(ylabel="accuracy (%)", ylim=(0, 100))
    left.legend(loc="lower right")
    right.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ticks = [4**k for k in range(5)]
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set(xlabel="evaluations of the network (Euler: steps)", xticks=ticks, xticklabels=ticks)
    return fig


def numbers_5(values: dict) -> str:
    numbers = read_yaml("figures")["fig5"]
    rows = []
    for n, euler in values["euler"].items():
        printed = {name: numbers[name].get(int(n), "") for name in numbers}
        rk4 = _score(values["rk4"][n]) if n in values["rk4"] else ""
        ours = {name: f"{100 * euler[name]:.1f}" for name in ("country", "region", "city")}
        row = [n, printed["geoscore"], _score(euler), rk4, printed["country"]]
        rows.append([*row, ours["country"], ours["region"], printed["city"], ours["city"]])
    head = ["evaluations", "GeoScore (paper, OSV-5M)"]
    head += ["GeoScore (ours, Euler)", "GeoScore (ours, RK4)"]
    head += ["country % (paper, OSV-5M)", "country % (ours, Euler)", "region % (ours, Euler)"]
    head += ["city % (paper, OSV-5M)", "city % (ours, Euler)"]
    return f"{markdown_table(head, rows)}\n\n{seen_5(values)}"


def _score(scores: dict) -> str:
    """A GeoScore with its standard error, if it is known."""
    error = f" ± {scores['geoscore_error']:.0f}" if "geoscore_error" in scores else ""
    return f"{scores['geoscore']:.0f}{error}"


def seen_5(values: dict) -> str:
    """From how many evaluations on each solver's GeoScore is within 1 % of its last, in words."""
    enough = {}
    for solver, curve in values.items():
        scores = {int(n): one["geoscore"] for n, one in curve.items()}
        last = scores[most := max(scores)]
        far = [n for n, score in scores.items() if abs(score - last) > 0.01 * last]
        enough[solver] = min(n for n in scores if n > max(far, default=0))
    printed = read_yaml("figures")["fig5"]["geoscore"]
    return (
        f"From {enough['euler']} evaluations on, Euler's GeoScore is within 1 % of that at {most}; "
        f"RK4's from {enough['rk4']} on. The paper prints {printed[16]:,} at 16 Euler steps and "
        f"{printed[256]:,} at 256."
    )


@styled
def figure_7(values: dict) -> maps.MapFigure:
    """GeoScore and F1 against the guidance; crosses are the paper's table A, of other data."""
    fig = maps.MapFigure(figsize=(7, 2.4), layout="constrained")
    left, right = fig.subplots(1, 2)
    for ax, score, numbers in zip((left, right), ("geoscore", "f1"), _printed_7(), strict=True):
        _curves(ax, values, score, BLUE, numbers, "the paper, OSV-5M", suffix=", same steps")
    left.set(xlabel="guidance ω", ylabel="GeoScore")
    right.set(xlabel="guidance ω", ylabel="F1 of precision and recall", ylim=(None, 1))
    left.legend(loc="best")
    return fig


def _printed_7() -> tuple[dict[float, float], dict[float, float]]:
    """Printed GeoScore and F1 by guidance."""
    numbers = read_yaml("figures")["fig7"]
    pairs = {omega: (p, numbers["recall"][omega]) for omega, p in numbers["precision"].items()}
    return numbers["geoscore"], {omega: 2 * p * r / (p + r) for omega, (p, r) in pairs.items()}


def numbers_7(values: dict) -> str:
    printed_geoscore, printed_f1 = _printed_7()
    rows = []
    for name, euler in values["euler"].items():
        omega, rk4 = float(name), values["rk4"][name]
        geoscore = f"{printed_geoscore[omega]:.0f}" if omega in printed_geoscore else ""
        f1 = f"{printed_f1[omega]:.3f}" if omega in printed_f1 else ""
        row = [name, geoscore, _score(euler), _score(rk4)]
        rows.append([*row, f1, f"{euler['f1']:.3f}", f"{rk4['f1']:.3f}"])
    head = ["ω"]
    for score in ("GeoScore", "F1"):
        whose = "paper's table A, OSV-5M", "ours, Euler", "ours, RK4"
        head += [f"{score} ({name})" for name in whose]
    return f"{markdown_table(head, rows)}\n\n{seen_7(values)}"


def seen_7(values: dict) -> str:
    """Where GeoScores are highest, how far they fall, whether F1 falls as printed: in words."""
    names, said, falls = {"euler": "Euler", "rk4": "RK4"}, [], []
    for solver, name in names.items():
        scores = {omega: one["geoscore"] for omega, one in values[solver].items()}
        best, last = max(scores, key=scores.__getitem__), list(scores)[-1]
        share = 100 * (1 - scores[last] / scores[best])
        said.append(f"{name}'s highest GeoScore, {scores[best]:,.0f}, is at ω = {best}.")
        said.append(f"At ω = {last} it is {scores[last]:,.0f}, {share:.0f} % less.")
        f1 = [values[solver][omega]["f1"] for omega in ("0", "2", last)]
        falls += [f1[0] - f1[1], f1[0] - f1[2]]
        changes = f"{_change(f1[0], f1[1])} from ω = 0 to 2, and {_change(f1[0], f1[2])} to {last}"
        said.append(f"Its F1 {changes}.")
    printed = _printed_7()[1]
    seen = "is seen" if min(falls) >= printed[0] - printed[2] else "is not reproduced"
    f1 = [one["f1"] for solver in names for one in values[solver].values()]
    said.append(
        f"The paper's F1 {_change(printed[0], printed[2])} from ω = 0 to 2. So the paper's fall of "
        f"F1 {seen} here, where all F1 lie between {min(f1):.3f} and {max(f1):.3f}."
    )
    return " ".join(said)


def _change(before: float, after: float) -> str:
    return f"{'falls' if after <= before else 'rises'} by {abs(before - after):.3f}"


@styled
def figure_6(values: dict) -> maps.MapFigure:
    """Images of high, medium and low localizability with bits (and bits / 4π), and all bits."""
    fig = maps.MapFigure(figsize=(7, 3.2), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=(3, 2), squeeze=False)[0]
    cells = left.add_gridspec(3, 3)
    beside = dict[str, Any](rotation=90, ha="right", va="center", fontsize=8)
    for row, (kind, images) in enumerate(values["shown"].items()):
        for column, image in enumerate(images):
            if values["tile"]:
                ax = left.add_subplot(cells[row, column])
                _thumbnail(ax, image["latlon"])
            else:
                ax = maps.world(ax=cells[row, column])
                maps.draw_truth(ax, image["latlon"])
            title = f"{image['bits']:.1f} bits ({image['bits'] / (4 * math.pi):.2f})"
            ax.set_title(title, fontsize=7, pad=2)
            if column == 0:
                ax.text(-0.12, 0.5, kind, transform=ax.transAxes, **beside)
    ax = right.subplots()
    ax.hist(values["bits"], bins=24, color=BLUE)
    ax.axvline(sphere.LOG_UNIFORM / math.log(2), color=GREY, ls=":", lw=0.8)
    ax.set(xlabel="localizability (bits; dotted: uniform)", ylabel="images")
    return fig


def numbers_6(values: dict) -> str:
    bits = {name: (4 * math.pi * n, "paper") for name, n in read_yaml("figures")["fig6"].items()}
    for kind, images in values["shown"].items():
        bits |= {f"{kind}: image {image['image']}": (image["bits"], "ours") for image in images}
    rows = []
    for name, (value, source) in bits.items():
        area = sphere.EARTH_RADIUS_KM**2 * 2.0**-value
        official = f"{value / (4 * math.pi):.2f}"
        rows.append([name, f"{value:.1f}", official, f"{area:,.0f}", source])
    head = ["", "bits", "bits / 4π, the official code's number", "effective area km²", "whose"]
    return markdown_table(head, rows)


def figure_a(values: dict[str, dict]) -> maps.MapFigure:
    """What each method answers to one ambiguous image, on one colour scale."""
    panels = []
    for method, one in values.items():
        image = tiles.tile(*one["latlon"]) if one["tile"] else None
        drawn = {"density": raster(one["density"]), "image": image, "title": METHODS[method]}
        panels.append(drawn | {"truth": one["latlon"], "guesses": torch.tensor([one["answer"]])})
    return maps.contact_sheet(panels)


def numbers_a(values: dict[str, dict]) -> str:
    return _answers("method", {METHODS[name]: one for name, one in values.items()}, "integral")


@styled
def figure_events(runs: list[dict], densities: dict[str, dict]) -> maps.MapFigure:
    """Densities of events, packed, and below them published and our test NLL over splits."""
    published = read_yaml("earth-events")
    rows = [*published, *point_sets.DENSITIES.values()]
    fig = maps.MapFigure(figsize=(9, 4.2), layout="constrained")
    grid = fig.add_gridspec(2, len(earth_events.SOURCES), height_ratios=(1, 2))
    rasters = {events: raster(packed) for events, packed in densities.items()}
    above, peak = [], maps.peak_of(*rasters.values()) if rasters else None
    for column, events in enumerate(earth_events.SOURCES):
        if events in rasters:
            above.append(maps.world(ax=grid[0, column]))
            drawn = maps.draw_density(above[-1], rasters[events], peak=peak, colorbar=False)
            above[-1].set_title(f"{events}: density of our flow")
        ax = fig.add_subplot(grid[1, column])
        bars = [(*published[method][events], "o", GREY) for method in published]
        ours = (point_sets.mean_and_deviation(runs, events, name) for name in point_sets.DENSITIES)
        bars += [(*scores, "s", BLUE) for scores in ours]
        for row, (mean, deviation, marker, color) in enumerate(bars):
            ax.errorbar(mean, row, xerr=deviation, fmt=marker, color=color, ms=4, capsize=2)
        ax.set(xlabel=f"{events}: test NLL (nats)", yticks=range(len(rows)), yticklabels=rows)
        ax.set(ylim=(len(rows) - 0.5, -0.5))
        ax.tick_params(labelleft=column == 0)
        ax.axvline(-sphere.LOG_UNIFORM, color=GREY, lw=0.8, ls=":")
        ax.grid(axis="x", color="#e4e8ea")
    if above:
        maps.name_scale(fig.colorbar(drawn, ax=above, aspect=12, pad=0.01))
    fig.supxlabel("dots: mean over splits, with deviation; dotted line: uniform, 2.53", fontsize=7)
    return fig
