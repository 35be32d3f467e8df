"""Empty maps of the Earth: projections, sea, land and coast, and places in map coordinates.

The land is Natural Earth's, from `data/land-110m.geojson`. An unknown projection, or a place that
is not on the Earth, raises a `ValueError`.
"""

import io
import math
from functools import lru_cache

import cartopy.crs as ccrs
import numpy as np
import shapely
import torch
from cartopy.mpl.geoaxes import GeoAxes
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.path import Path

from geoflow import runtime, sphere
from geoflow.runtime import choose

SEA, LAND, COAST, GRATICULE = "#eef3f7", "#dedad2", "#5a5a5a", "#b8c0c6"
RADIUS_M = 1000 * sphere.EARTH_RADIUS_KM


GLOBE = ccrs.Globe(semimajor_axis=RADIUS_M, semiminor_axis=RADIUS_M, ellipse=None)
LATLON = ccrs.PlateCarree(globe=GLOBE)
PROJECTIONS = {
    "equal-earth": lambda lat, lon: ccrs.EqualEarth(lon, globe=GLOBE),
    "robinson": lambda lat, lon: ccrs.Robinson(lon, globe=GLOBE),
    "orthographic": lambda lat, lon: ccrs.Orthographic(lon, lat, globe=GLOBE),
    "north-pole": lambda lat, lon: ccrs.LambertAzimuthalEqualArea(lon, 90, globe=GLOBE),
    "south-pole": lambda lat, lon: ccrs.LambertAzimuthalEqualArea(lon, -90, globe=GLOBE),
}

Segments = tuple[np.ndarray, np.ndarray]  # starts and ends of lines: (n, 2) degrees each


class MapFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot and with any backend."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", dpi=130)
        return png.getvalue()

    def savefig(self, fname, **options) -> None:
        """As of `Figure`. Maps take their shape when they are drawn, so the layout needs two."""
        self.draw_without_rendering()
        super().savefig(fname, **options)


def new_figure(width: float, height: float) -> MapFigure:
    """An empty figure of so many inches, whose parts make room for each other.

    >>> new_figure(7, 3).get_size_inches().tolist()
    [7.0, 3.0]
    """
    return MapFigure(figsize=(width, height), layout="constrained")


def world(
    projection: str = "equal-earth", center=(0.0, 0.0), ax=None, figsize=(7.0, 3.5)
) -> GeoAxes:
    """An empty map of the Earth in cartopy axes: sea, land, coastlines and thin lines every 30°.

    >>> ax = world("orthographic", center=(45, 10))
    >>> type(ax.figure).__name__
    'MapFigure'

    Args:
        projection: "equal-earth", "robinson", "orthographic", or "north-pole" and "south-pole",
            equal-area caps of 40° around a pole.
        center: latitude and longitude in degrees of the middle of the map. Only "orthographic"
            uses the latitude; on a cap the longitude points down (north) or up (south).
        ax: a figure or subfigure, a gridspec cell, or axes to replace; None makes a new figure.
        figsize: of the new figure, inches.
    """
    choose("projection", projection, PROJECTIONS)
    crs = PROJECTIONS[projection](*latlon_of(center)[0])
    ax = _geo_axes(MapFigure(figsize=figsize, layout="constrained") if ax is None else ax, crs)
    if projection.endswith("pole"):
        radius = 2 * RADIUS_M * math.sin(math.radians(40) / 2)  # 40° around the pole
        ax.set(xlim=(-radius, radius), ylim=(-radius, radius))
        turn = np.linspace(0, 2 * math.pi, 181)
        ax.set_boundary(Path(radius * np.stack([np.cos(turn), np.sin(turn)], axis=1), closed=True))
    else:
        ax.set_global()
    ax.set_facecolor(SEA)
    ax.spines["geo"].set(edgecolor=COAST, linewidth=0.5)
    ax.add_geometries([land()], LATLON, facecolor=LAND, edgecolor="none", zorder=0.5)
    grid = lines(ax, *_graticule(), colors=GRATICULE, linewidths=0.3, zorder=0.8)
    shore = lines(ax, *coast(), colors=COAST, linewidths=0.4, capstyle="round", zorder=2)
    ax.add_collection(grid, autolim=False)
    ax.add_collection(shore, autolim=False)
    return ax


def _geo_axes(place, crs: ccrs.Projection) -> GeoAxes:
    """Axes of a projection in a figure or gridspec cell, or in the place of other axes."""
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
def land() -> shapely.MultiPolygon:
    """The land of the Earth in longitudes and latitudes."""
    file = runtime.DATA / "land-110m.geojson"
    return shapely.from_geojson(file.read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def coast() -> Segments:
    """The outline of the land without the edges at the antimeridian and the pole."""
    inside = shapely.box(-179.99, -89.99, 179.99, 90)
    parts = shapely.get_parts(shapely.line_merge(land().boundary.intersection(inside)))
    return _segments([shapely.get_coordinates(part)[:, ::-1] for part in parts])


@lru_cache(maxsize=1)
def _graticule() -> Segments:
    """Parallels and meridians every 30°; the meridians end at 75°, where they would crowd."""
    lon, lat = np.arange(-180, 181, 2.0), np.arange(-75, 76, 2.5)
    parallels = [np.stack([np.full_like(lon, at), lon], axis=1) for at in (-60, -30, 0, 30, 60)]
    meridians = [np.stack([lat, np.full_like(lat, at)], axis=1) for at in range(-180, 180, 30)]
    return _segments(parallels + meridians)


def _segments(paths: list[np.ndarray]) -> Segments:
    return np.concatenate([p[:-1] for p in paths]), np.concatenate([p[1:] for p in paths])


def lines(ax: GeoAxes, start, end, values: np.ndarray | None = None, **style) -> LineCollection:
    """Lines between places (n, 2), coloured by values (n,), but none across the map's edge."""
    pieces = np.stack([project(ax, start), project(ax, end)], axis=1)
    length = np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1)
    kept = length < 0.1 * np.ptp(ax.projection.x_limits)  # false for NaN
    return LineCollection(pieces[kept], array=None if values is None else values[kept], **style)


def latlon_of(places) -> np.ndarray:
    """Checked (n, 2) latitudes and longitudes, the latter in [-180, 180), of a tensor or a list."""
    x = sphere.from_latlon(torch.as_tensor(places, dtype=torch.float64).detach().cpu())
    return sphere.to_latlon(x).reshape(-1, 2).numpy()


def project(ax: GeoAxes, latlon: np.ndarray) -> np.ndarray:
    """Map coordinates (n, 2) of places; NaN for places that the map does not show."""
    xy = ax.projection.transform_points(LATLON, latlon[:, 1], latlon[:, 0])[:, :2]
    return np.where(np.isfinite(xy), xy, np.nan)


def visible(ax: GeoAxes, places) -> np.ndarray:
    """Map coordinates (n, 2) of marks; NaN beyond the edge of a polar cap, which clips no marks."""
    xy = project(ax, latlon_of(places))
    if isinstance(ax.projection, ccrs.LambertAzimuthalEqualArea):
        xy[np.linalg.norm(xy, axis=1) > ax.get_xlim()[1]] = np.nan
    return xy


@lru_cache(maxsize=8)
def pixels(crs: ccrs.Projection, xlim, ylim) -> tuple[np.ndarray, float]:
    """Places (h, w, 2) of pixels, top row first, NaN off the Earth; and the side of one in m."""
    from scipy import ndimage

    width, height = xlim[1] - xlim[0], ylim[1] - ylim[0]
    side = math.sqrt(width * height / 300_000)  # 0.47° at the equator of a world map
    w, h = round(width / side), round(height / side)
    x = xlim[0] + (np.arange(w) + 0.5) * width / w
    y = ylim[1] - (np.arange(h) + 0.5) * height / h
    xy = np.stack(np.meshgrid(x, y), -1)
    lonlat = LATLON.transform_points(crs, *np.moveaxis(xy, -1, 0))[..., :2]
    back = crs.transform_points(LATLON, *np.moveaxis(lonlat, -1, 0))[..., :2]
    there = (np.abs(back - xy) < 0.01 * side).all(-1)  # Equal Earth goes on beyond 180°
    there = ndimage.binary_dilation(there, np.ones((3, 3)))[..., None]  # whole pixels at its edge
    return np.where(there & np.isfinite(lonlat), lonlat, np.nan)[..., ::-1], side
