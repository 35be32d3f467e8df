"""Outlines of sets of grid cells, as polygons that a geographic information system reads."""

import numpy as np
import shapely
import torch
from shapely.geometry.polygon import orient
from torch import Tensor

from geoflow.gis import healpix

DECIMALS = 6  # decimals of degrees: 0.1 m
LONGEST = 0.05  # longest straight line of an outline, in eighths of a turn
BENDS = 16  # straight lines in the side of a cell that touches a pole
CORNER = 2.0**-30  # part of a face that is cut off at a pole, which has no longitude


def region(cells: Tensor, levels: Tensor, probability: float, mass: float, area_km2: float) -> dict:
    """A GeoJSON Feature of the cells of a highest-density region, and what it says about them."""
    words = (
        f"The smallest region that holds {100 * probability:g}% of the probability, as cells of "
        "the density map's grid: those of highest density. mass: the probability that they hold; "
        "area_km2: their area on a sphere of radius 6371 km."
    )
    about = {"probability": probability, "mass": round(mass, 4), "area_km2": area_km2}
    shape = {"type": "MultiPolygon", "coordinates": multipolygon(cells, levels)}
    return {"type": "Feature", "properties": {**about, "description": words}, "geometry": shape}


def multipolygon(cells: Tensor, levels: Tensor) -> list:
    """Coordinates of a GeoJSON MultiPolygon: the outline of a set of HEALPix cells.

    Cells are squares on the faces of HEALPix, where their union is exact. The faces are joined in
    its plane, where their borders are straight lines. As RFC 7946 asks, polygons are cut at the
    antimeridian, and exterior rings run anticlockwise, holes clockwise. A region around a pole
    reaches latitude ±90.

    >>> south, level = torch.arange(8, 12), torch.zeros(4, dtype=torch.int64)
    >>> [[ring]] = multipolygon(south, level)  # four of the twelve faces
    >>> min(lat for _, lat in ring), max(lat for _, lat in ring)
    (-90.0, 0.0)

    Args:
        cells, levels: (M,) nested numbers and numbers of subdivisions.
    """
    finest = int(levels.max())
    size = 2.0 ** (finest - levels.double())
    faces, *at = healpix.on_lattice(cells, levels)
    corners = torch.stack(at, -1) * size[:, None]
    pieces = []
    for face in faces.unique().tolist():
        here = faces == face
        corner = corners[here].numpy()
        squares = shapely.union_all(_squares(face, corner, size[here].numpy(), 2.0**finest))
        pieces += _unfolded(squares, face, 2.0**finest)
    joined = shapely.segmentize(shapely.union_all(pieces), LONGEST)
    degrees = shapely.set_precision(shapely.transform(joined, _degrees), 10.0**-DECIMALS)
    degrees = shapely.simplify(degrees, 0)  # points in the middle of a straight line
    parts = shapely.get_parts(shapely.get_parts(degrees))
    return [_rings(polygon) for polygon in parts[shapely.get_dimensions(parts) == 2]]


def _squares(face: int, corner: np.ndarray, size: np.ndarray, side: float) -> list:
    """Cells (m) as polygons on their face, with the more points in a side the nearer to a pole."""
    middle = (corner + size[:, None] / 2).sum(1)
    to_pole = {0: 2 * side - middle, 1: np.full_like(size, 2 * side), 2: middle}[face // 4]
    nearest = np.maximum(to_pole - size, size)  # of the corners
    bends = np.where(nearest < side, np.ceil(np.log2(BENDS * size / nearest)), 0)
    found = []
    for bend in np.unique(bends.clip(0)):
        some = bends.clip(0) == bend
        part = np.arange(2**bend) / 2**bend
        zero, one = np.zeros_like(part), np.ones_like(part)
        ring = np.stack([np.r_[part, one, 1 - part, zero], np.r_[zero, part, one, 1 - part]], 1)
        found += list(shapely.polygons(corner[some, None] + size[some, None, None] * ring))
    if face // 4 != 1:
        pole, cut = (side, -side * CORNER) if face < 4 else (0.0, side * CORNER)
        tip = shapely.Polygon([(pole, pole), (pole + cut, pole), (pole, pole + cut)])
        found = [square.difference(tip) if square.intersects(tip) else square for square in found]
    return found


def _unfolded(region, face: int, side: float) -> list:
    """A region on a face → on the plane of HEALPix, cut at longitude ±180°."""

    def project(points: np.ndarray) -> np.ndarray:
        uv = torch.from_numpy(points / side).unbind(-1)
        return torch.stack(healpix.to_plane(torch.tensor(face), *uv), -1).numpy()

    region = shapely.transform(region, project)
    west, beyond = (region.intersection(shapely.box(x, -2, x + 8, 2)) for x in (-4, 4))
    return [west, shapely.transform(beyond, lambda points: points - [8, 0])]


def _degrees(points: np.ndarray) -> np.ndarray:
    """The plane of HEALPix → longitude and latitude; the same point always becomes the same."""
    points, number = np.unique(points, axis=0, return_inverse=True)
    z, r, lon = healpix.from_plane(*torch.from_numpy(points).unbind(-1))
    return torch.rad2deg(torch.stack([lon, torch.atan2(z, r)], -1)).numpy()[number]


def _rings(polygon) -> list:
    """Exterior and holes of a polygon as lists of [longitude, latitude]."""
    polygon = orient(polygon)
    rings = [polygon.exterior, *polygon.interiors]
    return [np.round(ring.coords, DECIMALS).tolist() for ring in rings]
