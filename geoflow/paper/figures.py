"""The paper's figures, drawn from numbers: each `figure_…` takes what a result file of `geoflow.reproduce` holds, and computes nothing.

`numbers_…` are the same as a small Markdown table, printed numbers beside ours where the paper has some.
"""

import base64
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from PIL import Image
from torch import Tensor

from geoflow import likelihood, sphere
from geoflow.data import earth_events, tiles
from geoflow.paper import point_sets, tables
from geoflow.viz import maps

BLUE, ORANGE, RED, GREEN, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#7f8c99",
)  # Okabe & Ito, 2008
TITLES = {
    "riemannian": "Riemannian flow, S²", "flow": "flow matching, R³", "diffusion": "diffusion, R³", "vmf": "von Mises–Fisher",
    "vmf-mixture": "mixture of three vMF", "uniform": "uniform",
}  # fmt: skip
SOLVERS = {"euler": ("Euler", "o-"), "rk4": ("RK4", "s--")}
STYLE: dict[Any, Any] = {
    "font.size": 7, "axes.titlesize": 8, "legend.fontsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.labelsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


# Numbers in files


def packed(values: Tensor, step: float) -> dict:
    """Many numbers as a few characters: multiples of `step`, 16 bits each, compressed.

    Raises:
        ValueError: NaN, or a number of more than 32,767 steps.
    """
    whole = (values.double() / step).round()
    if not bool((whole.abs() <= 32767).all()):
        raise ValueError(
            f"values up to {values.abs().max().item()} in steps of {step}; expected finite ones of at most {32767 * step:g}"
        )
    content = zlib.compress(whole.numpy().astype("<i2").tobytes(), 9)
    return {"shape": list(values.shape), "step": step, "zlib": base64.b64encode(content).decode()}


def unpacked(file: dict) -> Tensor:
    """What was `packed`: float64."""
    whole = np.frombuffer(zlib.decompress(base64.b64decode(file["zlib"])), "<i2").reshape(
        file["shape"]
    )
    return torch.from_numpy(whole.astype(np.float64)) * file["step"]


def save(figure, file: Path, dpi: int = 120) -> None:
    """Write a figure as a small PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    partial = file.with_name(file.name + ".partial")
    Image.open(buffer).convert("RGB").save(partial, "PNG", optimize=True)
    partial.replace(file)


@dataclass(frozen=True)
class Raster:
    """A density map as `geoflow.maps` draws it."""

    lat: Tensor
    lon: Tensor
    log_density: Tensor


def packed_map(density: likelihood.DensityMap) -> dict:
    """A density map as numbers for a file: `nats_over_uniform`, packed, `integral` and `half_area_km2`."""
    over_uniform = (density.log_density - sphere.LOG_UNIFORM).clamp(
        min=-3
    )  # maps show what is above uniform
    return {
        "nats_over_uniform": packed(over_uniform, 0.02),
        "integral": density.integral,
        "half_area_km2": density.region_area_km2(0.5),
    }


def raster(density: dict) -> Raster:
    """The map that was `packed_map`."""
    values = unpacked(density["nats_over_uniform"])
    rows, columns = values.shape
    lat, lon = (
        90 - (torch.arange(rows) + 0.5) * 180 / rows,
        (torch.arange(columns) + 0.5) * 360 / columns - 180,
    )
    return Raster(lat, lon, values + sphere.LOG_UNIFORM)


def markdown_table(head: list[str], rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _figure(width: float, height: float) -> maps.MapFigure:
    return maps.MapFigure(figsize=(width, height), layout="constrained")


def _thumbnail(ax, latlon) -> None:
    ax.imshow(np.asarray(tiles.tile(*latlon)), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, edgecolor=maps.COAST, linewidth=0.5)


# Figure 1


def figure_1(values: dict) -> maps.MapFigure:
    """For each image the ways of random points to where it could be, and the log-density; true place and answer marked."""
    images = values["images"]
    densities = [raster(image["density"]) for image in images]
    peak = maps.peak_of(*densities)
    with matplotlib.rc_context(STYLE):
        fig = maps.MapFigure(figsize=(7, 4.4))
        cell, globe, flat = 1 / len(images), 0.48, 0.27
        for i, (image, density) in enumerate(zip(images, densities, strict=True)):
            answer = torch.tensor([image["answer"]])
            ax = maps.world(
                "orthographic",
                tuple(image["latlon"]),
                ax=fig.add_axes((i * cell + 0.02, 0.43, cell - 0.04, globe)),
            )
            lines = maps.draw_trajectories(
                ax, _on_earth(unpacked(image["trajectories"]))[:, :80], image["times"]
            )
            truth = maps.draw_truth(ax, image["latlon"])
            ax.set_title(image["name"])
            if image["tile"]:
                _thumbnail(fig.add_axes((i * cell + 0.01, 0.8, 0.07, 0.11)), image["latlon"])
            ax = maps.world(ax=fig.add_axes((i * cell + 0.01, 0.14, cell - 0.02, flat)))
            picture = maps.draw_density(ax, density, "nats", peak=peak, colorbar=False)
            maps.draw_truth(ax, image["latlon"])
            rings = maps.draw_guesses(ax, answer)
            ax.set_title(f"answer {image['km']:,.0f} km off", fontsize=7, pad=2)
        rings.set_label("answer")
        bar = fig.colorbar(
            lines, cax=fig.add_axes((0.3, 0.09, 0.25, 0.016)), orientation="horizontal"
        )
        bar.set_label("time", labelpad=1)
        maps.name_scale(
            fig.colorbar(
                picture, cax=fig.add_axes((0.65, 0.09, 0.3, 0.016)), orientation="horizontal"
            ),
            "nats",
        )
        fig.legend(handles=[truth, rings], loc="lower left", markerscale=0.6, labelspacing=1.0)
    return fig


def _on_earth(latlon: Tensor) -> Tensor:
    """Rounded degrees → degrees of places."""
    return torch.stack([latlon[..., 0].clamp(-90, 90), latlon[..., 1]], -1)


def numbers_1(values: dict) -> str:
    rows = [
        [
            image["name"],
            f"{image['km']:,.0f}",
            f"{image['density']['half_area_km2']:,.0f}",
            f"{image['density']['integral']:.3f}",
        ]
        for image in values["images"]
    ]
    return markdown_table(
        ["image", "answer off by km", "half of the probability on km²", "integral of the density"],
        rows,
    )


# Figure 2


def figure_2(values: dict) -> maps.MapFigure:
    """The ways from noise to one place, as the globe is seen from space; in R³ they leave the Earth."""
    with matplotlib.rc_context(STYLE):
        fig = maps.MapFigure(figsize=(7, 3))
        view = _view(20.0, values["place"][1] - 50)
        for i, (method, x) in enumerate(values["paths"].items()):
            ax = fig.add_axes((i / 3, 0.18, 1 / 3, 0.75))
            seen = (unpacked(x) @ view.T).numpy()  # (T, n, 3): right, up, towards us
            ax.add_patch(
                Circle((0, 0), 1, facecolor=maps.SEA, edgecolor=maps.COAST, lw=0.5, zorder=0)
            )
            for line in _graticule(view):
                ax.plot(*line, color=maps.GRATICULE, lw=0.3, zorder=1)
            pieces = np.stack([seen[:-1, :, :2], seen[1:, :, :2]], 2).reshape(-1, 2, 2)
            behind = (np.linalg.norm(pieces[:, 0], axis=1) < 1) & (seen[:-1, :, 2].reshape(-1) < 0)
            times = np.repeat(np.asarray(values["times"])[:-1], seen.shape[1])
            for part, alpha in ((behind, 0.25), (~behind, 1.0)):
                lines = LineCollection(
                    pieces[part],
                    array=times[part],
                    cmap=maps.TIME_COLORS,
                    lw=0.7,
                    alpha=alpha,
                    zorder=2,
                )
                lines.set_clim(0, 1)
                ax.add_collection(lines)
            ax.scatter(*seen[0, :, :2].T, s=5, color=GREY, lw=0, zorder=3)
            ax.plot(*seen[-1, 0, :2], "o", ms=5, mfc=maps.TRUTH, mec="black", mew=0.6, zorder=4)
            ax.set(
                title=TITLES[method],
                xlim=(-2.9, 2.9),
                ylim=(-2.8, 2.8),
                xticks=[],
                yticks=[],
                aspect="equal",
            )
            ax.spines[["left", "bottom"]].set_visible(False)
        bar = fig.colorbar(
            lines, cax=fig.add_axes((0.35, 0.14, 0.3, 0.025)), orientation="horizontal"
        )
        bar.set_label("time: 0 noise (grey dots), 1 data", labelpad=1)
    return fig


def _view(lat: float, lon: float) -> Tensor:
    """Rows: right, up, towards the viewer above a place."""
    towards = sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))
    right = sphere.unit(
        torch.linalg.cross(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), towards)
    )
    return torch.stack([right, torch.linalg.cross(towards, right), towards])


def _graticule(view: Tensor) -> list[np.ndarray]:
    """Visible parts of parallels and meridians: (2, k) each."""
    turn = torch.linspace(-180, 180, 181, dtype=torch.float64)
    lines = [
        torch.stack([torch.full_like(turn, lat), turn], -1)
        for lat in (-60.0, -30.0, 0.0, 30.0, 60.0)
    ]
    lines += [
        torch.stack([turn / 2, torch.full_like(turn, lon)], -1)
        for lon in torch.arange(-180.0, 180, 30).tolist()
    ]
    seen = [(sphere.from_latlon(line) @ view.T).T for line in lines]
    return [torch.where(line[2] > 0, line[:2], torch.nan).numpy() for line in seen]


def numbers_2(values: dict) -> str:
    rows = []
    for method, x in values["paths"].items():
        radius = unpacked(x).norm(dim=-1)
        rows.append([TITLES[method], f"{float(radius[0].min()):.2f} to {float(radius[0].max()):.2f}",
                     f"{float(radius.min()):.2f} to {float(radius.max()):.2f}"])  # fmt: skip
    return markdown_table(
        ["", "noise: distance from the Earth's centre, radii", "on the way"], rows
    )


# Figure 4


def figure_4(values: dict) -> maps.MapFigure:
    """κ(t), 0 for data and 1 for noise."""
    with matplotlib.rc_context(STYLE):
        fig = _figure(5.2, 2.5)
        ax = fig.subplots()
        for (name, kappa), (color, style, label) in zip(
            values["kappa"].items(), _CURVES_4.values(), strict=True
        ):
            ax.plot(values["t"], kappa, style, color=color, label=label)
        ax.set(xlabel="t (0 data, 1 noise)", ylabel="κ(t)", xlim=(0, 1), ylim=(0, 1))
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return fig


_CURVES_4 = {
    "skewed-sigmoid": (BLUE, "-", "skewed sigmoid (code: −7, 3)"),
    "sigmoid": (ORANGE, "-", "sigmoid (−3, 3)"),
    "linear": (GREY, "-", "linear"),
    "as printed": (RED, ":", "skewed as printed (α −3, β 7)"),
}


def numbers_4(values: dict) -> str:
    t = np.asarray(values["t"])
    at = [int(np.abs(t - moment).argmin()) for moment in (0.1, 0.3, 0.5, 0.7, 0.9)]
    rows = [
        [_CURVES_4[name][2], *(f"{kappa[i]:.4f}" for i in at)]
        for name, kappa in values["kappa"].items()
    ]
    return markdown_table(["κ at t =", *(f"{t[i]:.1f}" for i in at)], rows)


# Figures 5 and 7


def figure_5(values: dict) -> maps.MapFigure:
    """GeoScore and accuracies against evaluations of the network (as many as Euler steps); crosses: printed, of other data."""
    printed = tables.figures()["fig5"]
    with matplotlib.rc_context(STYLE):
        fig = _figure(7, 2.6)
        left, right = fig.subplots(1, 2)
        for solver, (label, style) in SOLVERS.items():
            curve = values[solver]
            n = [int(count) for count in curve]
            left.plot(
                n, [s["geoscore"] for s in curve.values()], style, ms=3.5, color=BLUE, label=label
            )
            for level, color in (("country", BLUE), ("region", GREEN), ("city", ORANGE)):
                right.plot(n, [100 * s[level] for s in curve.values()], style, ms=3.5, color=color)
        left.plot(
            *zip(*printed["geoscore"].items(), strict=True),
            "x",
            color=RED,
            ms=5,
            label="printed, OSV-5M",
        )
        for level, color in (("country", BLUE), ("city", ORANGE)):
            right.plot(*zip(*printed[level].items(), strict=True), "x", color=color, ms=5)
        left.set(ylabel="GeoScore", ylim=(0, 5000))
        right.set(ylabel="accuracy (%)", ylim=(0, 100))
        left.legend(loc="lower right")
        lines = [
            Line2D([], [], color=color, label=level)
            for level, color in (("country", BLUE), ("region", GREEN), ("city", ORANGE))
        ]
        right.legend(
            handles=[
                *lines,
                Line2D([], [], color="black", marker="x", ls="", ms=5, label="printed, OSV-5M"),
            ],
            loc="upper left",
        )
        ticks = [4**k for k in range(5)]
        for ax in (left, right):
            ax.set_xscale("log", base=2)
            ax.set(
                xlabel="evaluations of the network (Euler: steps)", xticks=ticks, xticklabels=ticks
            )
    return fig


def numbers_5(values: dict) -> str:
    printed = tables.figures()["fig5"]
    rows = []
    for n, score in values["euler"].items():
        higher = values["rk4"].get(n)
        rows.append([n, printed["geoscore"].get(int(n), ""), f"{score['geoscore']:.0f}", f"{higher['geoscore']:.0f}" if higher else "",
                     printed["country"].get(int(n), ""), *(f"{100 * score[level]:.1f}" for level in ("country", "region")),
                     printed["city"].get(int(n), ""), f"{100 * score['city']:.1f}"])  # fmt: skip
    head = [
        "evaluations",
        "GeoScore, printed (OSV-5M)",
        "Euler",
        "RK4",
        "country %, printed",
        "Euler",
        "region %, Euler",
        "city %, printed",
    ]
    return markdown_table([*head, "Euler"], rows)


def figure_7(values: dict) -> maps.MapFigure:
    """GeoScore, and F1 of precision and recall, against the guidance; crosses: by the paper's table A, of other data."""
    printed = tables.figures()["fig7"]
    with matplotlib.rc_context(STYLE):
        fig = _figure(7, 2.4)
        left, right = fig.subplots(1, 2)
        for solver, (label, style) in SOLVERS.items():
            omega = [float(name) for name in values[solver]]
            left.plot(
                omega,
                [s["geoscore"] for s in values[solver].values()],
                style,
                ms=3.5,
                color=BLUE,
                label=f"{label}, same steps",
            )
            right.plot(omega, [s["f1"] for s in values[solver].values()], style, ms=3.5, color=BLUE)
        left.plot(
            *zip(*printed["geoscore"].items(), strict=True),
            "x",
            color=RED,
            ms=5,
            label="table A, OSV-5M",
        )
        right.plot(
            list(printed["recall"]),
            [_printed_f1(omega) for omega in printed["recall"]],
            "x",
            color=RED,
            ms=5,
        )
        left.set(xlabel="guidance ω", ylabel="GeoScore")
        right.set(xlabel="guidance ω", ylabel="F1 of precision and recall", ylim=(None, 1))
        left.legend(loc="best")
    return fig


def _printed_f1(omega) -> float:
    printed = tables.figures()["fig7"]
    p, r = printed["precision"][omega], printed["recall"][omega]
    return 2 * p * r / (p + r)


def numbers_7(values: dict) -> str:
    printed = tables.figures()["fig7"]["geoscore"]
    rows = []
    for name, euler in values["euler"].items():
        omega, rk4 = float(name), values["rk4"][name]
        known = omega in printed
        rows.append([name, f"{printed[omega]:.0f}" if known else "", f"{euler['geoscore']:.0f}", f"{rk4['geoscore']:.0f}",
                     f"{_printed_f1(omega):.3f}" if known else "", f"{euler['f1']:.3f}", f"{rk4['f1']:.3f}"])  # fmt: skip
    return markdown_table(
        ["ω", "GeoScore, table A (OSV-5M)", "Euler", "RK4", "F1, table A", "Euler", "RK4"], rows
    )


# Figure 6


def figure_6(values: dict) -> maps.MapFigure:
    """Images of high, medium and low localizability with their bits (and the official code's number), and all images' bits."""
    with matplotlib.rc_context(STYLE):
        fig = _figure(7, 3.2)
        left, right = fig.subfigures(1, 2, width_ratios=(3, 2), squeeze=False)[0]
        cells = left.add_gridspec(3, 3)
        for row, (kind, images) in enumerate(values["shown"].items()):
            for column, image in enumerate(images):
                if values["tile"]:
                    ax = left.add_subplot(cells[row, column])
                    _thumbnail(ax, image["latlon"])
                else:
                    ax = maps.world(ax=cells[row, column])
                    maps.draw_truth(ax, image["latlon"])
                ax.set_title(
                    f"{image['bits']:.1f} bits ({image['bits'] / (4 * math.pi):.2f})",
                    fontsize=7,
                    pad=2,
                )
                if column == 0:
                    ax.text(
                        -0.12,
                        0.5,
                        kind,
                        transform=ax.transAxes,
                        rotation=90,
                        ha="right",
                        va="center",
                        fontsize=8,
                    )
        ax = right.subplots()
        ax.hist(values["bits"], bins=24, color=BLUE)
        ax.axvline(sphere.LOG_UNIFORM / math.log(2), color=GREY, ls=":", lw=0.8)
        ax.set(xlabel="localizability (bits; dotted: uniform)", ylabel="images")
    return fig


def numbers_6(values: dict) -> str:
    def area(bits: float) -> str:
        return f"{sphere.EARTH_RADIUS_KM**2 * 2.0**-bits:,.0f}"

    rows = [
        [
            name,
            f"{4 * math.pi * number:.1f}",
            f"{number:.2f}",
            area(4 * math.pi * number),
            "printed",
        ]
        for name, number in tables.figures()["fig6"].items()
    ]
    for kind, images in values["shown"].items():
        for image in images:
            rows.append([f"{kind}: image {image['image']}", f"{image['bits']:.1f}", f"{image['bits'] / (4 * math.pi):.2f}",
                         area(image["bits"]), "ours"])  # fmt: skip
    return markdown_table(
        ["", "bits", "bits / 4π, the official code's number", "effective area km²", ""], rows
    )


# Figure A


def figure_a(values: dict[str, dict]) -> maps.MapFigure:
    """What each method answers to one ambiguous image, on one colour scale."""
    panels = [
        {
            "density": raster(one["density"]), "truth": one["latlon"], "guesses": torch.tensor([one["answer"]]), "title": TITLES[method],
            **({"image": tiles.tile(*one["latlon"])} if one["tile"] else {}),
        }
        for method, one in values.items()
    ]  # fmt: skip
    return maps.contact_sheet(panels)


def numbers_a(values: dict[str, dict]) -> str:
    rows = [
        [
            TITLES[method],
            f"{one['km']:,.0f}",
            f"{one['density']['half_area_km2']:,.0f}",
            f"{one['density']['integral']:.3f}",
        ]
        for method, one in values.items()
    ]
    return markdown_table(
        ["method", "answer off by km", "half of the probability on km²", "integral"], rows
    )


# Earth events


def figure_events(runs: list[dict], densities: dict[str, dict]) -> maps.MapFigure:
    """Densities of events, from uniform to each one's peak, and below published and our test NLL, mean and deviation over splits.

    runs: of `geoflow.point_sets`, without `distinct`.
    """
    published = point_sets.published()
    rows = [*published, *point_sets.DENSITIES.values()]
    with matplotlib.rc_context(STYLE):
        fig = _figure(9, 4.2)
        grid = fig.add_gridspec(2, len(earth_events.SOURCES), height_ratios=(1, 2))
        for column, events in enumerate(earth_events.SOURCES):
            if events in densities:
                above = maps.world(ax=grid[0, column])
                maps.draw_density(above, raster(densities[events]), colorbar=False)
                above.set_title(events)
            ax = fig.add_subplot(grid[1, column])
            for row, method in enumerate(published):
                mean, deviation = published[method][events]
                ax.errorbar(mean, row, xerr=deviation, fmt="o", ms=4, capsize=2, color=GREY)
            for row, name in enumerate(point_sets.DENSITIES, len(published)):
                if values := [run["nll"][name]["test"] for run in runs if run["events"] == events]:
                    mean, deviation = point_sets.mean_and_deviation(values)
                    ax.errorbar(mean, row, xerr=deviation, fmt="s", ms=4, capsize=2, color=BLUE)
            ax.set(
                xlabel=f"{events}: test NLL (nats)",
                yticks=range(len(rows)),
                yticklabels=rows,
                ylim=(len(rows) - 0.5, -0.5),
            )
            ax.tick_params(labelleft=column == 0)
            ax.axvline(-sphere.LOG_UNIFORM, color=GREY, lw=0.8, ls=":")
            ax.grid(axis="x", color="#e4e8ea")
    return fig
