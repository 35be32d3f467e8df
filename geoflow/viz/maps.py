"""Maps: densities, places and trajectories on the Earth, drawn offline and without seams.

Every figure is a matplotlib `Figure` outside of pyplot's global list: end a notebook cell with it
to see it once, or call its `savefig`. A density is a `geoflow.density.Raster`, such as a
`DensityMap`, or anything with the same fields. A `ValueError` names bad input: an unknown name, a
wrong shape, NaN, a place out of range, a grid that does not cover the Earth in order.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from geoflow import runtime, sphere
from geoflow.runtime import choose
from geoflow.viz import basemap
from geoflow.viz.basemap import COAST, GRATICULE, SEA, MapFigure, world  # noqa: F401

UNIFORM_PER_AREA = 1e6 / sphere.EARTH_AREA_KM2  # probability per 10⁶ km² when nothing is known
MOST = 700.0  # nats; the exponential of more is infinite
UNITS = {"per_area": "probability per 10⁶ km²", "nats": "nats over uniform"}
TRUTH = "#00e5ff"
HALO = [withStroke(linewidth=2.2, foreground="white")]
EQUAL_EARTH_RATIO = 0.487  # height of an Equal Earth map over its width

WIDEST = 50  # inches
PANEL = ("density", "image", "truth", "guesses", "mass", "title", "inset")

_ARM = np.array([[0.1, 0.4], [0.1, 1], [-0.1, 1], [-0.1, 0.4], [0.1, 0.4]])
_CROSS = Path.make_compound_path(
    *(Path(arm, closed=True) for arm in (_ARM, -_ARM, _ARM[:, ::-1], -_ARM[:, ::-1]))
)
_SMALL = ("font.size", "legend.fontsize", "xtick.labelsize", "axes.labelsize")
_FONTS: dict[Any, Any] = {**dict.fromkeys(_SMALL, 7), "axes.titlesize": 8}
_LEGEND = dict(frameon=False, borderpad=0.6, labelspacing=0.8, handletextpad=0.3, markerscale=0.7)


def _colors(name: str, start: float, stop: float, fade: float = 0.0) -> Colormap:
    """Part of a matplotlib colour map, transparent below; opacity grows over the share `fade`."""
    rgba = matplotlib.colormaps[name](np.linspace(start, stop, 256))
    rgba[:, 3] = np.clip(np.linspace(0, 1, 256) / fade, 0, 1) if fade else 1
    clear = (0, 0, 0, 0)
    return ListedColormap(rgba, name=f"geoflow_{name}").with_extremes(under=clear, bad=clear)


# From pale yellow to near black: sequential, safe for colour-blind readers, and in grey prints.
DENSITY_COLORS = _colors("magma_r", 0.06, 0.96, fade=0.12)
TIME_COLORS = _colors("GnBu", 0.3, 1.0)


# Densities


def draw_density(
    ax: GeoAxes, density, unit: str = "per_area", peak: float | None = None, colorbar: bool = True
) -> AxesImage:
    """Draw a density on a map, in logarithmic colours from the uniform density to the peak.

    Below the uniform density, 1/510 per 10⁶ km², the map shows through. The density is
    interpolated (bilinearly, across the antimeridian and the poles) at the centre of every pixel
    of the map, so there is no seam. A peak too narrow to be seen is drawn as a dot of 3 points.
    The array of the image holds the values in the chosen unit, and NaN outside of the map.

    >>> from geoflow import Geolocator
    >>> density = Geolocator(None, "uniform").density(resolution=4)
    >>> ax = world("orthographic", center=(24, 6))
    >>> image = draw_density(ax, density, unit="nats", peak=peak_of(density))
    >>> mark, rings = draw_truth(ax, (24, 6)), draw_guesses(ax, [(20, 10), (30, 0)])

    Args:
        ax, density: axes of `world`, and a raster, see the module.
        unit: "per_area" (probability per 10⁶ km²) or "nats" (log-density over the uniform one).
        peak: upper end of the colours in nats over uniform. None: the density's maximum, but at
            least log 10, so that a nearly uniform density looks uniform.
        colorbar: add a colour bar below the map.
    """
    choose("unit", unit, UNITS)
    nats, first_lon = _grid(density)
    peak = peak_of(density) if peak is None else runtime.number(f"peak {peak!r}", peak)
    if not 0 < peak < MOST:
        raise ValueError(f"peak {peak:g}; expected nats over uniform, from 0 to {MOST:g}")
    over_uniform = _at_pixels(ax, np.exp(nats), first_lon)
    xy, dots = _narrow_peaks(ax, over_uniform, np.exp(nats), first_lon)
    if unit == "per_area":
        values, dots = UNIFORM_PER_AREA * over_uniform, UNIFORM_PER_AREA * dots
        norm = LogNorm(UNIFORM_PER_AREA, UNIFORM_PER_AREA * math.exp(peak))
    else:
        with np.errstate(divide="ignore"):
            values, dots, norm = np.log(over_uniform), np.log(dots), Normalize(0, peak)
    extent = (*ax.get_xlim(), *ax.get_ylim())
    colors: dict[str, Any] = dict(cmap=DENSITY_COLORS, norm=norm)
    image = ax.imshow(
        values, **colors, extent=extent, origin="upper", transform=ax.projection, zorder=1,
        interpolation="antialiased", interpolation_stage="rgba",
    )  # fmt: skip
    ax.scatter(*xy.T, s=7, c=dots, **colors, linewidths=0, zorder=1.5, clip_on=False)
    if colorbar:
        below: dict[str, Any] = dict(orientation="horizontal", shrink=0.6, aspect=40, pad=0.03)
        name_scale(ax.figure.colorbar(image, ax=ax, **below), unit)
    return image


def name_scale(bar, unit: str = "per_area") -> None:
    """Name the unit on a colour bar of `draw_density` and mark the uniform density on it."""
    bar.set_label(UNITS[unit], labelpad=1)
    bar.ax.set_facecolor(SEA)
    _thin(bar)
    bar.minorticks_off()
    low, high = bar.vmin, bar.vmax
    if unit == "per_area":
        powers = range(-3, math.ceil(math.log10(high)))
        steps = (1,) if high > 100 * low else (1, 2, 5)
        ticks = np.array([step * 10.0**power for power in powers for step in steps])
    else:
        step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if high <= 8 * s or s == 50)
        ticks = np.arange(step, high + step, step)
    place = bar.norm(ticks)
    ticks = ticks[(place > 0.2) & (place <= 1)]  # the left end has the label "uniform"
    bar.set_ticks([low, *ticks], labels=["uniform", *(f"{tick:g}" for tick in ticks)])


def _thin(bar) -> None:
    bar.ax.tick_params(length=2, pad=1)
    bar.outline.set_linewidth(0.5)


def peak_of(*densities) -> float:
    """The upper end of a colour scale that several densities share, in nats over uniform."""
    return max(math.log(10), *(float(_grid(density)[0].max()) for density in densities))


def _grid(density) -> tuple[np.ndarray, float]:
    """The checked density in nats over uniform (H, W), and the longitude of its first column."""
    names = "lat", "lon", "log_density"
    if not all(hasattr(density, name) for name in names):
        raise ValueError(f"a {type(density).__name__} is no density; expected a DensityMap")
    fields = (getattr(density, name) for name in names)
    lat, lon, values = (torch.as_tensor(field).detach().cpu().double().numpy() for field in fields)
    if lat.ndim != 1 or lon.ndim != 1 or values.shape != (lat.size, lon.size):
        shapes = f"log_density has shape {values.shape}, lat {lat.shape}, lon {lon.shape}"
        raise ValueError(f"{shapes}; expected (H, W), (H,), (W,)")
    if not (values < MOST).all():
        raise ValueError(f"log_density holds {values.max():g}; expected nats per steradian")
    rows, columns = 180 / lat.size, 360 / lon.size
    if not np.allclose(lat, 90 - (np.arange(lat.size) + 0.5) * rows, atol=0.01 * rows):
        expected = f"{lat.size} cell centres from {90 - rows / 2:g} to {rows / 2 - 90:g}"
        raise ValueError(f"lat runs from {lat[0]:g} to {lat[-1]:g}; expected {expected}")
    if not np.allclose(np.diff(lon), columns, atol=0.01 * columns):
        expected = f"{lon.size} cell centres, {columns:g}° apart"
        raise ValueError(f"lon runs from {lon[0]:g} to {lon[-1]:g}; expected {expected}")
    return values - sphere.LOG_UNIFORM, lon[0]


def _at_pixels(ax: GeoAxes, values: np.ndarray, first_lon: float) -> np.ndarray:
    """A field on a global grid, interpolated at the pixels of the map; NaN where there is no Earth.

    A grid that is finer than the pixels is averaged first, so that no cell falls between them.
    """
    latlon, pixel_m = basemap.pixels(ax.projection, ax.get_xlim(), ax.get_ylim())
    field = torch.as_tensor(values)[None, None]
    finest = math.pi * basemap.RADIUS_M / (2 * pixel_m)  # rows
    factor = math.ceil(values.shape[0] / finest)
    rows, columns = (round(n / factor) for n in values.shape)
    field = torch.nn.functional.adaptive_avg_pool2d(field, (rows, columns))
    first_lon += 180 / columns - 180 / values.shape[1]
    beyond_poles = field.roll(columns // 2, dims=3)
    field = torch.cat([beyond_poles[:, :, :1], field, beyond_poles[:, :, -1:]], dim=2)
    field = torch.cat([field[..., -1:], field, field[..., :1]], dim=3)
    row = (90 - latlon[..., 0]) * rows / 180 + 0.5
    column = ((latlon[..., 1] - first_lon) * columns / 360) % columns + 1
    grid = np.stack([2 * column / (columns + 1) - 1, 2 * row / (rows + 1) - 1], axis=-1)
    where = torch.as_tensor(grid)[None]
    sampled = torch.nn.functional.grid_sample(field, where, align_corners=True)[0, 0].numpy()
    return np.where(np.isfinite(latlon[..., 0]), sampled, np.nan)


def _narrow_peaks(
    ax: GeoAxes, shown: np.ndarray, field: np.ndarray, first_lon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Map coordinates (n, 2) and values, highest last, of peaks that a reader would overlook.

    These are pixels of the map that are ten times above all pixels on the sides of the square
    around them, and local maxima of the grid that lie between pixels, ten times above these.
    """
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    scale = np.array([x1 - x0, y0 - y1]) / shown.shape[::-1]
    far = 3  # pixels from the peak to the sides
    pool, pad = torch.nn.functional.max_pool2d, torch.nn.functional.pad
    padded = pad(torch.as_tensor(np.nan_to_num(shown))[None], (far,) * 4)
    across, down = pool(padded, (1, 2 * far + 1), 1)[0], pool(padded, (2 * far + 1, 1), 1)[0]
    sides = across[: -2 * far], across[2 * far :], down[:, : -2 * far], down[:, 2 * far :]
    row, column = np.nonzero(shown > 10 * torch.stack(sides).amax(0).clamp(min=1).numpy())
    xy = np.stack([column + 0.5, row + 0.5], 1) * scale + [x0, y1]

    grid = pad(torch.as_tensor(field)[None, None], (1, 1, 0, 0), mode="circular")
    highest = pool(pad(grid, (0, 0, 1, 1)), 3, 1)[0, 0].numpy()
    highest[[0, -1]] = field[[0, -1]].max(1, keepdims=True)  # a pole is one place
    lat, lon = np.nonzero((field == highest) & (field > 10))
    centers = np.stack([lat, lon], 1) + 0.5
    centers = centers * [-180 / len(field), 360 / field.shape[1]] + [90, first_lon]
    lost = basemap.project(ax, centers - [0, 180 / field.shape[1]])
    near = np.floor(np.nan_to_num((lost - [x0, y1]) / scale, nan=-1)).astype(int)
    size = np.array(shown.shape)[::-1]
    inside, near = ((near >= 0) & (near < size)).all(1), near.clip(0, size - 1)
    inside &= np.isfinite(shown[near[:, 1], near[:, 0]])
    around = pool(padded, 2 * far + 1, 1)[0].numpy()[near[:, 1], near[:, 0]]
    kept = inside & (field[lat, lon] > 10 * np.maximum(around, 1))
    xy = np.concatenate([xy, lost[kept]])
    values = np.concatenate([shown[row, column], field[lat, lon][kept]])
    return xy[values.argsort()], np.sort(values)


# Places and paths


def _mark(ax: GeoAxes, xy: np.ndarray, **style) -> Line2D:
    """Marks at map coordinates (n, 2), not cut at the map's edge, visible on light and dark."""
    style |= dict(linestyle="none", markeredgecolor="black", path_effects=HALO, clip_on=False)
    return ax.plot(*xy.T, **style)[0]


def draw_truth(ax: GeoAxes, latlon) -> Line2D:
    """Mark the true place, or places (..., 2), with a cross; on a small map it hides little.

    >>> cross = draw_truth(world(), (24.0, 6.0))
    """
    inches = ax.bbox.width / ax.figure.dpi
    size = min(18.0, max(11.0, 4 * inches))
    style: dict[str, Any] = dict(marker=_CROSS, markersize=size, markerfacecolor=TRUTH)
    xy = basemap.visible(ax, latlon)
    return _mark(ax, xy, **style, markeredgewidth=0.5, zorder=6, label="true place")


def draw_guesses(ax: GeoAxes, latlon, mass=None) -> Line2D:
    """Mark the best guesses (k, 2) with numbered rings; the legend shows their `mass` (k,)."""
    xy, label = basemap.visible(ax, latlon), "guesses, best first"
    if mass is not None:
        mass = torch.as_tensor(mass, dtype=torch.float64).tolist()
        if np.shape(mass) != (len(xy),) or not all(0 <= m < 1.001 for m in mass):
            raise ValueError(f"mass {mass}; expected a probability for each of {len(xy)} guesses")
        label = f"guesses: {', '.join(f'{100 * m:.0f}' for m in mass)} %"
    style: dict[str, Any] = dict(marker="o", markersize=7, markerfacecolor="none")
    rings = _mark(ax, xy, **style, markeredgewidth=1.0, zorder=5, label=label)
    text: dict[str, Any] = dict(fontsize=7, fontweight="bold", path_effects=HALO, zorder=7)
    for number, (place, (dx, dy)) in enumerate(zip(xy, _label_sides(ax, xy), strict=True), start=1):
        if np.isfinite(place).all():
            ax.annotate(
                f"{number}", place, (6 * dx, 6 * dy), textcoords="offset points", **text,
                annotation_clip=False, ha="left" if dx > 0 else "right", va="center",
            )  # fmt: skip
    return rings


def _label_sides(ax: GeoAxes, xy: np.ndarray) -> np.ndarray:
    """The diagonal (±1, ±1) of each label: away from a near neighbour, or else inwards."""
    inwards = -xy
    if len(xy) > 1:
        apart = np.nan_to_num(np.linalg.norm(xy[:, None] - xy[None], axis=-1), nan=np.inf)
        np.fill_diagonal(apart, np.inf)
        near = apart.min(1, keepdims=True) < 0.1 * np.ptp(ax.get_xlim())
        inwards = np.where(near, xy - xy[apart.argmin(1)], inwards)
    return np.where(inwards >= 0, 1, -1)


def draw_points(
    ax: GeoAxes, latlon, color="black", size: float = 2.0, alpha: float | None = 0.6,
    label: str | None = None, **style,
) -> PathCollection:  # fmt: skip
    """Draw places (..., 2) as dots of one colour; `size`: their area in points². Rest as `scatter`.

    >>> dots = draw_points(world(), [(48.9, 2.4), (35.7, 139.7)], color="red")
    """
    xy = basemap.project(ax, basemap.latlon_of(latlon))
    style = {"linewidths": 0, "zorder": 3, **style}
    return ax.scatter(*xy.T, s=size, color=color, alpha=alpha, label=label, **style)


def draw_trajectories(ax: GeoAxes, trajectories, times=None) -> LineCollection:
    """Draw paths of points from noise (grey dots) to their ends (dark dots), coloured by time.

    The pieces between two states follow the geodesic. A path that crosses the edge of the map goes
    on at the opposite edge.

    >>> from geoflow import sphere
    >>> paths = sphere.to_latlon(sphere.uniform((5, 20)))
    >>> lines = draw_trajectories(world("orthographic"), paths)

    Args:
        ax, trajectories: axes of `world`, and (T + 1, n, 2) degrees, the first state being noise.
        times: (T + 1,) times of the states, from 0 to 1; None: equally spaced.
    """
    latlon, times = checked(trajectories, times)
    x = sphere.from_latlon(latlon)
    step = float(sphere.distance(x[:-1], x[1:]).max()) if x.shape[1] else 0.0
    count = max(1, math.ceil(math.degrees(step) / 2))  # pieces between states, of 2° at most
    part = torch.linspace(0, 1, count + 1, dtype=x.dtype)[:, None, None]
    path = sphere.to_latlon(sphere.geodesic(x[:-1], x[1:], part))  # (count + 1, T, n, 2)
    start, end = path[:-1].reshape(-1, 2).numpy(), path[1:].reshape(-1, 2).numpy()
    moment = times[:-1] + np.diff(times) * (np.arange(count)[:, None] + 0.5) / count
    moment = np.repeat(moment.ravel(), x.shape[1])
    style: dict[str, Any] = dict(cmap=TIME_COLORS, norm=Normalize(0, 1), linewidths=0.7, zorder=3)
    drawn = basemap.lines(ax, start, end, moment, **style)
    ax.add_collection(drawn, autolim=False)
    draw_points(ax, latlon[0], "#8a8a8a", 4, None, "noise", zorder=3.5)
    edge: dict[str, Any] = dict(edgecolors="white", linewidths=0.3)
    draw_points(ax, latlon[-1], TIME_COLORS(1.0), 7, None, "samples", **edge, zorder=4)
    return drawn


def checked(trajectories, times=None, least: int = 2) -> tuple[torch.Tensor, np.ndarray]:
    """Checked trajectories (T + 1, n, 2) of at least `least` states, degrees; times (T + 1,)."""
    latlon = torch.as_tensor(trajectories, dtype=torch.float64).detach().cpu()
    if latlon.ndim != 3 or latlon.shape[-1] != 2 or len(latlon) < least:
        expected = "expected (T + 1, n, 2), latitude and longitude, one image at a time"
        raise ValueError(f"trajectories have shape {tuple(latlon.shape)}; {expected}")
    times = np.linspace(0, 1, len(latlon)) if times is None else np.asarray(times, dtype=float)
    if times.shape != (len(latlon),) or not (
        np.isfinite(times).all() and sorted(times) == [*times]
    ):
        expected = f"expected ({len(latlon)},), one finite time for each state, in order"
        raise ValueError(f"times have shape {times.shape}; {expected}")
    return latlon, times


# Finished figures


class _Sheet:
    """A figure whose axes are placed in inches: x, y of the lower left corner, width, height."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = MapFigure(figsize=(width, height))

    def place(self, x: float, y: float, w: float, h: float) -> Axes:
        box = (x / self.width, y / self.height, w / self.width, h / self.height)
        return self.figure.add_axes(box)

    def image(self, image, x: float, y: float, side: float) -> None:
        ax = self.place(x, y, side, side)
        ax.imshow(np.asarray(image), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(edgecolor=COAST, linewidth=0.5)

    def colorbar(self, shown, x: float, y: float, w: float, h: float):
        return self.figure.colorbar(shown, cax=self.place(x, y, w, h), orientation="horizontal")


def density_figure(
    density, image=None, truth=None, guesses=None, mass=None, title: str | None = None,
    inset: str | None = None, unit: str = "per_area", width: float = 7.0,
) -> MapFigure:  # fmt: skip
    """The figure for one image: the image, its density, true place and guesses, with a legend.

    >>> from geoflow import Geolocator
    >>> from geoflow.data import tiles
    >>> geo, image = Geolocator.from_pretrained("tiles-vmf"), tiles.tile(24, 6)
    >>> figure = density_figure(geo.density(image, resolution=4), image, truth=(24, 6))

    Args:
        density, unit: as in `draw_density`.
        image: what `imshow` takes: a PIL image or an array (H, W, 3).
        truth: latitude and longitude of the true place.
        guesses, mass: (k, 2) places, best first, and (k,) their probabilities.
        title: a line above the map.
        width: inches, such as 3.3 for a column and 7 for a page. Fonts stay at 7 points.
        inset: "south-pole" or "north-pole": also a map of that cap, which Equal Earth distorts.
    """
    panel = dict(density=density, image=image, truth=truth, guesses=guesses, mass=mass)
    return contact_sheet([{**panel, "title": title, "inset": inset}], 1, unit, width)


def contact_sheet(
    panels: list[dict], columns: int = 2, unit: str = "per_area", width: float = 7.0
) -> MapFigure:
    """Several densities with one colour scale, in a grid of `columns`.

    `panels` are dicts of arguments of `density_figure`; each needs a `density`.

    >>> from geoflow import Geolocator
    >>> density = Geolocator(None, "uniform").density(resolution=4)
    >>> figure = contact_sheet([{"density": density, "title": "nothing is known"}], columns=1)
    """
    columns = runtime.whole(f"columns {columns!r}", columns)
    if not 0 < runtime.number(f"width {width!r}", width) <= WIDEST:
        raise ValueError(f"width {width}; expected inches, from 0 to {WIDEST}")
    if not panels:
        raise ValueError("no panels; expected at least one")
    for name in {name: None for panel in panels for name in panel}:
        choose("entry of a panel", name, PANEL)
    peak = peak_of(*(panel.get("density") for panel in panels))
    rows, cell = math.ceil(len(panels) / columns), width / columns
    beside = any(panel.get("image") is not None or panel.get("inset") for panel in panels)
    gap, side = 0.02 * cell, 0.17 * cell if beside else 0.0
    map_width = cell - side - (3 if side else 2) * gap
    map_height = EQUAL_EARTH_RATIO * map_width
    head, foot = 0.22 if any(panel.get("title") for panel in panels) else 0.06, 0.48
    with matplotlib.rc_context(_FONTS):
        sheet = _Sheet(width, foot + rows * (map_height + head))
        marks: dict[str, Line2D] = {}
        for number, panel in enumerate(panels):
            x = number % columns * cell + gap
            y = foot + (rows - 1 - number // columns) * (map_height + head)
            left = x + cell - 2 * gap - map_width
            ax = world(ax=sheet.place(left, y, map_width, map_height))
            ax.set_title(panel.get("title") or "", pad=3)
            shown = [ax]
            if panel.get("image") is not None:
                sheet.image(panel["image"], x, y + map_height - side, side)
            if panel.get("inset"):
                choose("inset", panel["inset"], ("north-pole", "south-pole"))
                shown.append(world(panel["inset"], ax=sheet.place(x, y, side, side)))
            for ax in shown:
                picture = draw_density(ax, panel["density"], unit, peak=peak, colorbar=False)
                if panel.get("truth") is not None:
                    marks["truth"] = draw_truth(ax, panel["truth"])
                if panel.get("guesses") is not None:
                    mass = panel.get("mass") if len(panels) == 1 else None
                    marks["guesses"] = draw_guesses(ax, panel["guesses"], mass)
        left, right = (0.48 if marks else 0.2) * width, (0.98 if marks else 0.8) * width
        name_scale(sheet.colorbar(picture, left, foot - 0.14, right - left, 0.08), unit)
        sheet.figure.legend(handles=list(marks.values()), loc="lower left", **_LEGEND)
    return sheet.figure


def states_along(latlon: torch.Tensor, shares: Sequence[float]) -> list[int]:
    """The states of trajectories (T + 1, n, 2) at which points have come some shares of their way.

    The way is measured along the paths, as the mean over the points. In figures it replaces the
    time, since steps may leave out a large part of the time, and points move all the time.

    >>> states_along(torch.tensor([[[0.0, 0.0]], [[0.0, 10.0]], [[0.0, 40.0]]]), (0, 0.3, 1))
    [0, 1, 2]
    """
    x = sphere.from_latlon(latlon.double())
    way = torch.cat([torch.zeros(1), sphere.distance(x[1:], x[:-1]).mean(1).cumsum(0)])
    if not way[-1]:  # nothing moves
        return [round(share * (len(way) - 1)) for share in shares]
    return [int((way / way[-1] - share).abs().argmin()) for share in shares]


def trajectories_figure(
    trajectories, times=None, image=None, truth=None, title: str | None = None
) -> MapFigure:
    """How noise becomes an answer: paths on a globe that faces the answer, and four of its states.

    `trajectories` and `times` as in `draw_trajectories`, the rest as in `density_figure`.

    >>> from geoflow import Geolocator
    >>> from geoflow.data import tiles
    >>> geo, image = Geolocator.from_pretrained("tiles"), tiles.tile(24, 6)
    >>> ways = geo.trajectories(image, n=20, steps=4, seed=0)[:, 0]
    >>> figure = trajectories_figure(ways, image=image, truth=(24, 6))
    """
    latlon, times = checked(trajectories, times)
    if not latlon.shape[1]:
        raise ValueError("no trajectories; expected at least one")
    end = sphere.from_latlon(latlon)[-1]
    most_neighbours = (end @ end.T > math.cos(math.radians(15))).sum(1).argmax()
    center = latlon[-1, most_neighbours].tolist() if truth is None else basemap.latlon_of(truth)[0]
    width, globe, small, foot = 7.0, 2.55, 2.05, 0.4
    with matplotlib.rc_context(_FONTS):
        sheet = _Sheet(width, foot + globe + (0.25 if title else 0.08))
        ax = world("orthographic", tuple(center), ax=sheet.place(0.1, foot, globe, globe))
        chosen = np.linspace(0, len(end) - 1, min(80, len(end))).astype(int)
        paths = draw_trajectories(ax, latlon[:, chosen], times)
        handles = ax.get_legend_handles_labels()[0]
        if truth is not None:
            handles.append(draw_truth(ax, truth))
        bar = sheet.colorbar(paths, 0.1 + 0.15 * globe, foot - 0.12, 0.7 * globe, 0.07)
        bar.set_label("time", labelpad=1)
        _thin(bar)
        if image is not None:
            sheet.image(image, 0.05, foot + globe - 0.45, 0.45)
        words = {0: ", noise", len(times) - 1: ", samples"}
        for number, state in enumerate(states_along(latlon, (0, 1 / 3, 2 / 3, 1))):
            row, column = divmod(number, 2)
            corner = width - (2 - column) * (small + 0.08), foot + (1 - row) * (globe / 2 + 0.06)
            ax = world(ax=sheet.place(*corner, small, EQUAL_EARTH_RATIO * small))
            draw_points(ax, latlon[state], TIME_COLORS(0.4 + 0.6 * times[state]))
            ax.set_title(f"time {times[state]:.2g}{words.get(state, '')}", pad=2, fontsize=7)
            if truth is not None:
                draw_truth(ax, truth)
        sheet.figure.legend(handles=handles, loc="lower right", ncols=3, **_LEGEND)
        if title:
            top = 1 - 0.05 / sheet.height
            sheet.figure.text(0.5, top, title, ha="center", va="top", fontsize=8)
    return sheet.figure
