"""Maps: densities, points and trajectories on the Earth, drawn offline and without seams. The only file that imports cartopy.

Every figure is a matplotlib `Figure` outside of pyplot's global list: end a notebook cell with it to see it once, or call
its `savefig`. A density is anything with the fields of `geoflow.likelihood.DensityMap`:

================  ======  ====================================================
``lat``           (H,)    latitudes of the cell centres, from north to south
``lon``           (W,)    longitudes of the cell centres, ascending
``log_density``   (H, W)  nats per steradian
================  ======  ====================================================

The land outline is Natural Earth's, from `data/land-110m.geojson`.
"""

import io
import math
from functools import lru_cache
from typing import Any

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import shapely
import torch
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import Colormap, ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from geoflow import runtime, sphere
from geoflow.runtime import choose

PROJECTIONS = ("equal-earth", "robinson", "orthographic", "north-pole", "south-pole")
CAP_DEGREES = 40.0  # what the polar projections show around their pole

UNIFORM_PER_AREA = 1e6 / sphere.EARTH_AREA_KM2  # probability per 10⁶ km² when nothing is known
UNITS = {"per_area": "probability per 10⁶ km²", "nats": "nats over uniform"}

SEA, LAND, COAST, GRATICULE = "#eef3f7", "#dedad2", "#5a5a5a", "#b8c0c6"
TRUTH = "#00e5ff"
HALO = [withStroke(linewidth=2.2, foreground="white")]

_ARM = np.array([[0.1, 0.4], [0.1, 1], [-0.1, 1], [-0.1, 0.4], [0.1, 0.4]])
_RETICLE = Path.make_compound_path(
    *(Path(arm, closed=True) for arm in (_ARM, -_ARM, _ARM[:, ::-1], -_ARM[:, ::-1]))
)

_RADIUS_M = 1000 * sphere.EARTH_RADIUS_KM
_GLOBE = ccrs.Globe(semimajor_axis=_RADIUS_M, semiminor_axis=_RADIUS_M, ellipse=None)
_LATLON = ccrs.PlateCarree(globe=_GLOBE)
_PIXELS = 300_000  # of a map: 0.47° at the equator of a world map
_SCREEN_DPI = 130
_DEGREES_PER_PIECE = 2.0  # lines are drawn in pieces this short, so that they follow geodesics


def _colors(name: str, start: float, stop: float, fade: float = 0.0) -> Colormap:
    """A part of a matplotlib colour map; its first share `fade` comes in from transparent, and what lies below is not drawn."""
    rgba = matplotlib.colormaps[name](np.linspace(start, stop, 256))
    rgba[:, 3] = np.clip(np.linspace(0, 1, 256) / fade, 0, 1) if fade else 1
    return ListedColormap(rgba, name=f"geoflow_{name}").with_extremes(
        under=(0, 0, 0, 0), bad=(0, 0, 0, 0)
    )


DENSITY_COLORS = _colors(
    "magma_r", 0.06, 0.96, fade=0.12
)  # pale yellow to near black: sequential, colour-blind-safe, prints in grey
TIME_COLORS = _colors("GnBu", 0.3, 1.0)


# The map itself


class MapFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot and whatever its backend."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=_SCREEN_DPI)
        return png.getvalue()


def world(
    projection: str = "equal-earth",
    center: tuple[float, float] = (0.0, 0.0),
    ax=None,
    figsize=(7.0, 3.5),
) -> GeoAxes:
    """An empty map of the Earth: sea, land, coastlines, thin 30° graticule.

    Args:
        projection: "equal-earth", "robinson", "orthographic", or "north-pole" and "south-pole" (40° caps, equal-area).
        center: latitude and longitude in degrees of the middle of the map. The latitude counts for "orthographic" only;
            on a polar cap the longitude points down in the north and up in the south.
        ax: where to draw: a figure or subfigure, a gridspec cell, or plain axes, which the map replaces. None: a new figure.
        figsize: inches, of the new figure.

    Returns:
        The cartopy axes; `ax.figure` is the figure.

    Raises:
        ValueError: unknown projection, or a centre that is no place.
    """
    choose("projection", projection, PROJECTIONS)
    lat, lon = _latlon(center)[0]
    crs = {
        "equal-earth": lambda: ccrs.EqualEarth(lon, globe=_GLOBE),
        "robinson": lambda: ccrs.Robinson(lon, globe=_GLOBE),
        "orthographic": lambda: ccrs.Orthographic(lon, lat, globe=_GLOBE),
        "north-pole": lambda: ccrs.LambertAzimuthalEqualArea(lon, 90, globe=_GLOBE),
        "south-pole": lambda: ccrs.LambertAzimuthalEqualArea(lon, -90, globe=_GLOBE),
    }[projection]()
    ax = _geo_axes(MapFigure(figsize=figsize, layout="constrained") if ax is None else ax, crs)
    if projection.endswith("pole"):
        radius = 2 * _RADIUS_M * math.sin(math.radians(CAP_DEGREES) / 2)
        ax.set(xlim=(-radius, radius), ylim=(-radius, radius))
        turn = np.linspace(0, 2 * math.pi, 181)
        ax.set_boundary(Path(radius * np.stack([np.cos(turn), np.sin(turn)], axis=1), closed=True))
    else:
        ax.set_global()
    ax.set_facecolor(SEA)
    ax.spines["geo"].set(edgecolor=COAST, linewidth=0.5)
    ax.add_geometries([_land()], _LATLON, facecolor=LAND, edgecolor="none", zorder=0.5)
    ax.add_collection(
        _lines(ax, *_graticule(), colors=GRATICULE, linewidths=0.3, zorder=0.8), autolim=False
    )
    ax.add_collection(
        _lines(ax, *_coast(), colors=COAST, linewidths=0.4, capstyle="round", zorder=2),
        autolim=False,
    )
    return ax


def _geo_axes(place, crs: ccrs.Projection) -> GeoAxes:
    if isinstance(place, SubplotSpec):
        return place.get_gridspec().figure.add_subplot(place, projection=crs)
    if isinstance(place, Axes):
        figure, slot = place.figure, place.get_subplotspec()
        place.remove()
        if slot is None:
            return figure.add_axes(place.get_position(original=True), projection=crs)
        return figure.add_subplot(slot, projection=crs)
    return place.add_subplot(projection=crs)


@lru_cache(maxsize=1)
def _land() -> shapely.Geometry:
    return shapely.from_geojson((runtime.DATA / "land-110m.geojson").read_text())


@lru_cache(maxsize=1)
def _coast() -> tuple[np.ndarray, np.ndarray]:
    """Start and end points, (n, 2) latitude and longitude, of the coast: the land's outline without the edge of the plane."""
    inside = shapely.box(-179.99, -89.99, 179.99, 90)
    lines = shapely.get_parts(shapely.line_merge(_land().boundary.intersection(inside)))
    points = [shapely.get_coordinates(line)[:, ::-1] for line in lines]
    return np.concatenate([p[:-1] for p in points]), np.concatenate([p[1:] for p in points])


@lru_cache(maxsize=1)
def _graticule() -> tuple[np.ndarray, np.ndarray]:
    """The same for parallels and meridians every 30°; the meridians end at 75°, where they would crowd."""
    lon, lat = np.arange(-180, 181, 2.0), np.arange(-75, 76, 2.5)
    lines = [np.stack([np.full_like(lon, phi), lon], axis=1) for phi in (-60, -30, 0, 30, 60)]
    lines += [
        np.stack([lat, np.full_like(lat, meridian)], axis=1) for meridian in range(-180, 180, 30)
    ]
    return np.concatenate([line[:-1] for line in lines]), np.concatenate(
        [line[1:] for line in lines]
    )


def _latlon(latlon) -> np.ndarray:
    """(n, 2) checked latitudes and longitudes in [-180, 180), from whatever holds them."""
    places = sphere.from_latlon(torch.as_tensor(latlon, dtype=torch.float64).detach().cpu())
    return sphere.to_latlon(places).reshape(-1, 2).numpy()


def _project(ax: GeoAxes, latlon: np.ndarray) -> np.ndarray:
    """(n, 2) map coordinates; NaN for places that the map does not show."""
    xy = ax.projection.transform_points(_LATLON, latlon[:, 1], latlon[:, 0])[:, :2]
    return np.where(np.isfinite(xy), xy, np.nan)


def _visible(ax: GeoAxes, latlon) -> np.ndarray:
    """(n, 2) map coordinates of checked places, NaN beyond the edge of a polar cap too: for marks, which are not clipped at the edge."""
    xy = _project(ax, _latlon(latlon))
    if isinstance(ax.projection, ccrs.LambertAzimuthalEqualArea):
        xy[np.linalg.norm(xy, axis=1) > ax.get_xlim()[1]] = np.nan
    return xy


def _lines(
    ax: GeoAxes, start: np.ndarray, end: np.ndarray, values: np.ndarray | None = None, **style
) -> LineCollection:
    """Short straight pieces from start to end, without those that leave the map or jump across its edge."""
    pieces = np.stack([_project(ax, start), _project(ax, end)], axis=1)
    length = np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1)
    kept = length < 0.1 * np.ptp(ax.projection.x_limits)  # false for NaN
    return LineCollection(pieces[kept], array=None if values is None else values[kept], **style)


# Densities


def draw_density(
    ax: GeoAxes,
    density,
    unit: str = "per_area",
    cmap: Colormap = DENSITY_COLORS,
    peak: float | None = None,
    colorbar: bool = True,
) -> AxesImage:
    """Draw a density on a map, on a logarithmic colour scale from the uniform density to the peak.

    Below the uniform density, 1/510 per 10⁶ km², the map shows through. The density is interpolated (bilinearly, across
    the antimeridian and the poles) at the centre of every pixel of the map, so there is no seam and no cell is skipped.
    A peak too narrow to be seen is drawn as a dot of 3 points in its colour.

    Args:
        ax: axes of `world`.
        density: a `DensityMap`, or anything with its `lat`, `lon` and `log_density`.
        unit: "per_area" (probability per 10⁶ km²) or "nats" (log-density minus that of the uniform distribution).
        cmap: a sequential colour map.
        peak: upper end of the colours in nats over uniform; None: the density's maximum, and at least log 10, so that
            a density that knows nothing looks like it.
        colorbar: add a colour bar below the map.

    Returns:
        The image; its array holds the values in the chosen unit, NaN outside of the map.

    Raises:
        ValueError: unknown unit, NaN, or a grid that does not cover the Earth from north to south and west to east.
    """
    choose("unit", unit, UNITS)
    nats, first_lon = _grid(density)
    peak = peak_of(density) if peak is None else peak
    over_uniform = _at_pixels(ax, np.exp(nats), first_lon)
    if unit == "per_area":
        values, norm = (
            UNIFORM_PER_AREA * over_uniform,
            LogNorm(UNIFORM_PER_AREA, UNIFORM_PER_AREA * math.exp(peak)),
        )
    else:
        with np.errstate(divide="ignore"):
            values, norm = np.log(over_uniform), Normalize(0, peak)
    image = ax.imshow(
        values, extent=(*ax.get_xlim(), *ax.get_ylim()), origin="upper", transform=ax.projection, norm=norm, cmap=cmap,
        interpolation="antialiased", interpolation_stage="rgba", zorder=1,
    )  # fmt: skip
    row, column = _needles(over_uniform)
    x0, x1, y0, y1 = image.get_extent()
    x, y = (
        x0 + (column + 0.5) * (x1 - x0) / values.shape[1],
        y1 - (row + 0.5) * (y1 - y0) / values.shape[0],
    )
    ax.scatter(x, y, s=7, c=values[row, column], cmap=cmap, norm=norm, linewidths=0, zorder=1.5)
    if colorbar:
        name_scale(
            ax.figure.colorbar(
                image, ax=ax, orientation="horizontal", shrink=0.6, aspect=40, pad=0.03
            ),
            unit,
        )
    return image


def name_scale(bar, unit: str = "per_area") -> None:
    """Name the unit on a colour bar of `draw_density` and mark where the uniform density lies."""
    bar.set_label(UNITS[unit], labelpad=1)
    bar.ax.set_facecolor(SEA)
    bar.ax.tick_params(length=2, pad=1)
    bar.outline.set_linewidth(0.5)
    bar.minorticks_off()
    low, high = bar.vmin, bar.vmax
    if unit == "per_area":
        steps = (1,) if high > 100 * low else (1, 2, 5)
        ticks = np.array(
            [
                step * 10.0**power
                for power in range(-3, math.ceil(math.log10(high)))
                for step in steps
            ]
        )
    else:
        step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if high <= 8 * s or s == 50)
        ticks = np.arange(step, high + step, step)
    place = bar.norm(ticks)
    ticks = ticks[(place > 0.2) & (place <= 1)]  # the left end is the label "uniform"
    bar.set_ticks([low, *ticks], labels=["uniform", *(f"{tick:g}" for tick in ticks)])


def peak_of(*densities) -> float:
    """Upper end, in nats over uniform, of a colour scale for these densities together."""
    return max(math.log(10), *(float(_grid(density)[0].max()) for density in densities))


def _grid(density) -> tuple[np.ndarray, float]:
    """Checked (H, W) nats over uniform and the longitude of the first column."""
    fields = density.lat, density.lon, density.log_density
    lat, lon, log_density = (
        torch.as_tensor(field).detach().cpu().double().numpy() for field in fields
    )
    nats = log_density - sphere.LOG_UNIFORM
    if lat.ndim != 1 or lon.ndim != 1 or nats.shape != (lat.size, lon.size):
        raise ValueError(
            f"log_density has shape {nats.shape}, lat {lat.shape}, lon {lon.shape}; expected (H, W), (H,), (W,)"
        )
    if np.isnan(nats).any():
        raise ValueError("log_density holds NaN; expected nats per steradian")
    rows, columns = 180 / lat.size, 360 / lon.size
    if not np.allclose(lat, 90 - (np.arange(lat.size) + 0.5) * rows, atol=0.01 * rows):
        expected = f"{lat.size} cell centres from {90 - rows / 2:g} to {rows / 2 - 90:g}"
        raise ValueError(f"lat runs from {lat[0]:g} to {lat[-1]:g}; expected {expected}")
    if not np.allclose(np.diff(lon), columns, atol=0.01 * columns):
        raise ValueError(
            f"lon runs from {lon[0]:g} to {lon[-1]:g}; expected {lon.size} cell centres, {columns:g}° apart"
        )
    return nats, lon[0]


def _at_pixels(ax: GeoAxes, values: np.ndarray, first_lon: float) -> np.ndarray:
    """A field on a global grid, interpolated at the pixels of the map, top row first; NaN where there is no Earth."""
    latlon, pixel_m = _pixels(ax.projection, ax.get_xlim(), ax.get_ylim())
    field = torch.as_tensor(values)[None, None]
    finest = (
        math.pi * _RADIUS_M / (2 * pixel_m)
    )  # rows; a finer grid is averaged, so that no cell falls between pixels
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
    sampled = torch.nn.functional.grid_sample(
        field, torch.as_tensor(grid)[None], align_corners=True
    )[0, 0].numpy()
    return np.where(np.isfinite(latlon[..., 0]), sampled, np.nan)


def _needles(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, highest last, of pixels ten times above all those on the square around them: peaks that would be overlooked."""
    radius = 3
    padded = torch.nn.functional.pad(torch.as_tensor(np.nan_to_num(field))[None], (radius,) * 4)
    along_rows = torch.nn.functional.max_pool2d(padded, (1, 2 * radius + 1), 1)[0].numpy()
    along_columns = torch.nn.functional.max_pool2d(padded, (2 * radius + 1, 1), 1)[0].numpy()
    sides = (
        along_rows[: -2 * radius],
        along_rows[2 * radius :],
        along_columns[:, : -2 * radius],
        along_columns[:, 2 * radius :],
    )
    row, column = np.nonzero(field > 10 * np.maximum(np.max(sides, axis=0), 1.0))
    order = field[row, column].argsort()
    return row[order], column[order]


@lru_cache(maxsize=8)
def _pixels(
    crs: ccrs.Projection, xlim: tuple[float, float], ylim: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Latitude and longitude (h, w, 2) of the pixel centres of a map, NaN off the Earth, and the side of a pixel in metres."""
    width, height = xlim[1] - xlim[0], ylim[1] - ylim[0]
    side = math.sqrt(width * height / _PIXELS)
    w, h = round(width / side), round(height / side)
    x, y = xlim[0] + (np.arange(w) + 0.5) * width / w, ylim[1] - (np.arange(h) + 0.5) * height / h
    lonlat = _LATLON.transform_points(crs, *np.meshgrid(x, y))[..., :2]
    return np.where(np.isfinite(lonlat).all(-1, keepdims=True), lonlat, np.nan)[..., ::-1], side


# Places and paths


def draw_truth(ax: GeoAxes, latlon) -> Line2D:
    """Mark the true place, or places (..., 2), with a reticle that stands out on light and dark and leaves its middle free."""
    x, y = _visible(ax, latlon).T
    return ax.plot(
        x, y, linestyle="none", marker=_RETICLE, markersize=18, markerfacecolor=TRUTH, markeredgecolor="black", markeredgewidth=0.6,
        path_effects=HALO, clip_on=False, zorder=6, label="true place",
    )[0]  # fmt: skip


def draw_guesses(ax: GeoAxes, latlon, mass=None) -> Line2D:
    """Mark the k best guesses with rings, numbered from 1, that leave what they surround visible.

    Args:
        ax: axes of `world`.
        latlon: (k, 2) degrees, best first.
        mass: (k,) probability of each guess, for the legend.
    """
    xy = _visible(ax, latlon)
    label = (
        "guesses, best first"
        if mass is None
        else f"guesses: {', '.join(f'{100 * float(m):.0f}' for m in mass)} %"
    )
    rings = ax.plot(
        *xy.T, linestyle="none", marker="o", markersize=7, markerfacecolor="none", markeredgecolor="black", markeredgewidth=1.0,
        path_effects=HALO, clip_on=False, zorder=5, label=label,
    )[0]  # fmt: skip
    for number, (place, (dx, dy)) in enumerate(zip(xy, _label_sides(ax, xy), strict=True), start=1):
        if np.isfinite(place).all():
            ax.annotate(
                f"{number}", place, (6 * dx, 6 * dy), textcoords="offset points", annotation_clip=False, zorder=7,
                ha="left" if dx > 0 else "right", va="center", fontsize=7, fontweight="bold", path_effects=HALO,
            )  # fmt: skip
    return rings


def _label_sides(ax: GeoAxes, xy: np.ndarray) -> np.ndarray:
    """For each place the diagonal (±1, ±1) that leads away from a near neighbour, else towards the middle of the map."""
    inwards = -xy
    if len(xy) > 1:
        apart = np.nan_to_num(np.linalg.norm(xy[:, None] - xy[None], axis=-1), nan=np.inf)
        np.fill_diagonal(apart, np.inf)
        near = apart.min(1, keepdims=True) < 0.1 * np.ptp(ax.get_xlim())
        inwards = np.where(near, xy - xy[apart.argmin(1)], inwards)
    return np.where(inwards >= 0, 1, -1)


def draw_points(
    ax: GeoAxes,
    latlon,
    color="black",
    size: float = 2.0,
    alpha: float = 0.6,
    label: str | None = None,
) -> PathCollection:
    """Draw many places (..., 2) as dots of `size` points² each. `color` is one colour for all of them."""
    return ax.scatter(
        *_project(ax, _latlon(latlon)).T,
        s=size,
        color=color,
        alpha=alpha,
        linewidths=0,
        label=label,
        zorder=3,
    )


def draw_trajectories(ax: GeoAxes, trajectories, times=None) -> LineCollection:
    """Draw the paths of points from noise (grey dots) to where they end (dark dots), coloured by time.

    The pieces between two states follow the geodesic; what crosses the edge of the map comes in again on the other side.

    Args:
        ax: axes of `world`.
        trajectories: (T + 1, n, 2) latitude and longitude in degrees, the first state being noise.
        times: (T + 1,) times of the states, from 0 to 1; None: equally spaced.

    Raises:
        ValueError: another shape, or a latitude or longitude that is none.
    """
    x, times = _states(trajectories, times)
    step = float(sphere.distance(x[:-1], x[1:]).max()) if x.shape[1] else 0.0
    pieces = max(1, math.ceil(math.degrees(step) / _DEGREES_PER_PIECE))
    part = torch.linspace(0, 1, pieces + 1, dtype=x.dtype)[:, None, None]
    path = sphere.to_latlon(sphere.geodesic(x[:-1], x[1:], part))  # (pieces + 1, T, n, 2)
    start, end = path[:-1].reshape(-1, 2).numpy(), path[1:].reshape(-1, 2).numpy()
    moment = times[:-1] + np.diff(times) * (np.arange(pieces)[:, None] + 0.5) / pieces
    moment = np.repeat(moment.ravel(), x.shape[1])
    lines = _lines(
        ax, start, end, moment, cmap=TIME_COLORS, norm=Normalize(0, 1), linewidths=0.7, zorder=3
    )
    ax.add_collection(lines, autolim=False)
    first, last = sphere.to_latlon(x[0]), sphere.to_latlon(x[-1])
    ax.scatter(
        *_project(ax, first.numpy()).T,
        s=4,
        color="#8a8a8a",
        linewidths=0,
        zorder=3.5,
        label="noise",
    )
    ax.scatter(
        *_project(ax, last.numpy()).T,
        s=7,
        color=TIME_COLORS(1.0),
        edgecolors="white",
        linewidths=0.3,
        zorder=4,
        label="samples",
    )
    return lines


def _states(trajectories, times) -> tuple[torch.Tensor, np.ndarray]:
    """(T + 1, n, 3) unit vectors and (T + 1,) times."""
    latlon = torch.as_tensor(trajectories, dtype=torch.float64).detach().cpu()
    if latlon.ndim != 3 or len(latlon) < 2:
        raise ValueError(
            f"trajectories have shape {tuple(latlon.shape)}; expected (T + 1, n, 2), one image at a time"
        )
    times = np.linspace(0, 1, len(latlon)) if times is None else np.asarray(times, dtype=float)
    if times.shape != (len(latlon),):
        raise ValueError(
            f"times have shape {times.shape}; expected ({len(latlon)},), one for each state"
        )
    return sphere.from_latlon(latlon), times


# Finished figures


def density_figure(
    density, image=None, truth=None, guesses=None, mass=None, title: str | None = None, inset: str | None = None,
    unit: str = "per_area", width: float = 7.0,
) -> MapFigure:  # fmt: skip
    """The figure for one image: the image, the density on an Equal Earth map, true place and guesses, colour bar, legend.

    Args:
        density: as in `draw_density`, as `unit`.
        image: what `imshow` takes: a PIL image or an array (H, W, 3).
        truth: latitude and longitude of the true place.
        guesses: (k, 2) places, best first.
        mass: (k,) probability of each guess.
        title: a line above.
        inset: "south-pole" or "north-pole": a cap beside the map, for what Equal Earth flattens.
        width: inches; 3.3 fits a column, 7 a page. Fonts stay at 7 points.

    Raises:
        ValueError: as `draw_density`, or an unknown inset.
    """
    panel = {
        "density": density,
        "image": image,
        "truth": truth,
        "guesses": guesses,
        "mass": mass,
        "title": title,
        "inset": inset,
    }
    return contact_sheet([panel], columns=1, unit=unit, width=width)


def contact_sheet(
    panels: list[dict], columns: int = 2, unit: str = "per_area", width: float = 7.0
) -> MapFigure:
    """Several densities on one colour scale.

    Args:
        panels: for each density what `density_figure` takes: its `density` and any of `image`, `truth`, `guesses`, `title`,
            `inset`.
        columns: panels beside each other.
        unit, width: as in `density_figure`.
    """
    peak = peak_of(*(panel["density"] for panel in panels))
    rows = math.ceil(len(panels) / columns)
    cell = width / columns
    gap = 0.02 * cell
    side = (
        0.17 * cell
        if any(panel.get("image") is not None or panel.get("inset") for panel in panels)
        else 0.0
    )
    map_width = cell - side - (3 if side else 2) * gap
    map_height = 0.487 * map_width  # the shape of Equal Earth
    head = 0.22 if any(panel.get("title") for panel in panels) else 0.06
    foot = 0.48
    height = foot + rows * (map_height + head)
    with matplotlib.rc_context(_STYLE):
        fig = MapFigure(figsize=(width, height))

        def place(x, y, w, h):
            return fig.add_axes((x / width, y / height, w / width, h / height))

        marks = {}
        for number, panel in enumerate(panels):
            x, y = (
                number % columns * cell + gap,
                foot + (rows - 1 - number // columns) * (map_height + head),
            )
            ax = world(ax=place(x + cell - 2 * gap - map_width, y, map_width, map_height))
            ax.set_title(panel.get("title") or "", pad=3)
            shown = [ax]
            if panel.get("image") is not None:
                _show_image(place(x, y + map_height - side, side, side), panel["image"])
            if panel.get("inset"):
                choose("inset", panel["inset"], ("north-pole", "south-pole"))
                shown.append(world(panel["inset"], ax=place(x, y, side, side)))
            for ax in shown:
                picture = draw_density(ax, panel["density"], unit, peak=peak, colorbar=False)
                if panel.get("truth") is not None:
                    marks["truth"] = draw_truth(ax, panel["truth"])
                if panel.get("guesses") is not None:
                    marks["guesses"] = draw_guesses(
                        ax, panel["guesses"], panel.get("mass") if len(panels) == 1 else None
                    )
        left, right = (0.48 if marks else 0.2) * width, (0.98 if marks else 0.8) * width
        name_scale(
            fig.colorbar(
                picture, cax=place(left, foot - 0.14, right - left, 0.08), orientation="horizontal"
            ),
            unit,
        )
        fig.legend(handles=list(marks.values()), loc="lower left", **_LEGEND)
    return fig


_STYLE: dict[Any, Any] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "axes.labelsize": 7,
}
_LEGEND = {
    "frameon": False,
    "borderpad": 0.6,
    "labelspacing": 0.8,
    "handletextpad": 0.3,
    "markerscale": 0.7,
}


def _show_image(ax: Axes, image) -> None:
    ax.imshow(np.asarray(image), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(edgecolor=COAST, linewidth=0.5)


def trajectories_figure(
    trajectories, times=None, image=None, truth=None, title: str | None = None
) -> MapFigure:
    """How noise becomes an answer: paths of some points on a globe turned towards the answer, and all points at four times.

    Args:
        trajectories: (T + 1, n, 2) degrees, the first state being noise: one image of `Geolocator.trajectories`.
        times: (T + 1,) times of the states; None: equally spaced.
        image: the image that the points should find, a PIL image or an array (H, W, 3).
        truth: its true place, latitude and longitude.
        title: a line above.

    Raises:
        ValueError: as `draw_trajectories`.
    """
    x, times = _states(trajectories, times)
    latlon = sphere.to_latlon(x)
    most_neighbours = (x[-1] @ x[-1].T > math.cos(math.radians(15))).sum(1).argmax()
    lat, lon = latlon[-1, most_neighbours].tolist() if truth is None else _latlon(truth)[0]
    width, globe, small = 7.0, 2.55, 2.05
    foot, top = 0.4, 0.25 if title else 0.08
    height = foot + globe + top
    with matplotlib.rc_context(_STYLE):
        fig = MapFigure(figsize=(width, height))

        def place(x, y, w, h):
            return fig.add_axes((x / width, y / height, w / width, h / height))

        ax = world("orthographic", (lat, lon), ax=place(0.1, foot, globe, globe))
        chosen = np.linspace(0, x.shape[1] - 1, min(80, x.shape[1])).astype(int)
        lines = draw_trajectories(ax, latlon[:, chosen], times)
        handles = ax.get_legend_handles_labels()[0]
        if truth is not None:
            handles.append(draw_truth(ax, truth))
        bar = fig.colorbar(
            lines,
            cax=place(0.1 + 0.15 * globe, foot - 0.12, 0.7 * globe, 0.07),
            orientation="horizontal",
        )
        bar.set_label("time", labelpad=1)
        bar.ax.tick_params(length=2, pad=1)
        bar.outline.set_linewidth(0.5)
        if image is not None:
            _show_image(place(0.05, foot + globe - 0.45, 0.45, 0.45), image)
        for number, moment in enumerate((0, 0.5, 0.8, 1)):
            state = int(np.abs(times - moment).argmin())
            row, column = divmod(number, 2)
            corner = width - (2 - column) * (small + 0.08), foot + (1 - row) * (globe / 2 + 0.06)
            ax = world(ax=place(*corner, small, 0.487 * small))
            draw_points(ax, latlon[state], color=TIME_COLORS(0.4 + 0.6 * times[state]), size=2.0)
            ax.set_title(
                f"time {times[state]:.2g}"
                + {0: ", noise", len(times) - 1: ", samples"}.get(state, ""),
                pad=2,
                fontsize=7,
            )
            if truth is not None:
                draw_truth(ax, truth)
        fig.legend(handles=handles, loc="lower right", ncols=3, **_LEGEND)
        if title:
            fig.text(0.5, 1 - 0.05 / height, title, ha="center", va="top", fontsize=8)
    return fig
