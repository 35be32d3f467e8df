"""The mass of grid cells on a raster of latitudes and longitudes, and interpolated values."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from geoflow import sphere
from geoflow.gis import healpix

AT_ONCE = 1 << 18  # most pixels, or parts of cells, that are in memory at once


def pixel_areas(rows: int) -> Tensor:
    """Areas of the pixels of each row of a world raster on the unit sphere: (H,)."""
    edges = torch.linspace(math.pi / 2, -math.pi / 2, rows + 1, dtype=torch.float64).sin()
    return -edges.diff() * math.pi / rows


def mean_log_density(
    x: Tensor,
    log_density: Tensor,
    mass: Tensor,
    cells: Tensor,
    levels: Tensor,
    lat: Tensor,
    lon: Tensor,
) -> Tensor:
    """Mass of HEALPix cells → log of the mean density of pixels (H, 2H), nats per steradian.

    The mass of each cell is divided among the pixels that it overlaps, by area, so that the pixels
    add up to the same integral. In cells that are larger than a pixel it is divided by area times
    the interpolated density.

    Args:
        x, log_density, mass: (M, 3) centres of the cells, (M,) densities there, (M,) probabilities.
        cells, levels: (M,) nested numbers and numbers of subdivisions.
        lat, lon: (H,), (2H,) centres of the pixels, degrees, from 90° N and 180° W.
    """
    rows, log_density = len(lat), log_density.clamp(min=-700)  # −∞ has no slope
    smooth = interpolate(x, log_density, lat, lon).flatten()
    found = torch.zeros_like(smooth)
    for large, cell, pixel, weight in _overlaps(cells, levels, rows):
        if large:
            weight = weight * (smooth[pixel] - log_density[cell]).clamp(-50, 50).exp()
        total = torch.zeros_like(mass).index_add_(0, cell, weight)
        found.index_add_(0, pixel, mass[cell] * weight / total[cell])
    density = found.reshape(rows, -1) / pixel_areas(rows)[:, None]
    return density.clamp(min=torch.finfo(density.dtype).tiny).log()


def interpolate(x: Tensor, values: Tensor, lat: Tensor, lon: Tensor, neighbors: int = 8) -> Tensor:
    """Values at scattered points (M, 3) → raster (H, W), smooth across antimeridian and poles.

    Modified Shepard interpolation: a plane is fitted to the neighbours of each point. A pixel takes
    the mean of the four nearest planes, weighted by inverse squared distance and kept within the
    values at their points.
    """
    from scipy.spatial import KDTree

    tree = KDTree(x.numpy())
    _, near = tree.query(x.numpy(), k=neighbors + 1)
    offset = x[near[:, 1:]] - x[:, None]  # (M, k, 3)
    rise = values[near[:, 1:]] - values[:, None]
    slope = torch.linalg.lstsq(offset, rise[..., None], driver="gelsd").solution[..., 0]  # (M, 3)

    pixels = torch.stack(torch.meshgrid(lat.double(), lon.double(), indexing="ij"), -1)
    found = []
    for grid in sphere.from_latlon(pixels).reshape(-1, 1, 3).split(AT_ONCE):
        distance, near = tree.query(grid[:, 0].numpy(), k=4)
        weight = 1 / (torch.from_numpy(distance) ** 2 + 1e-12)
        planes = values[near] + ((grid - x[near]) * slope[near]).sum(-1)
        blend = (weight * planes).sum(-1) / weight.sum(-1)
        low, high = torch.aminmax(values[near], dim=-1)
        found.append(torch.minimum(torch.maximum(blend, low), high))
    return torch.cat(found).reshape(len(lat), len(lon))


def _overlaps(
    cells: Tensor, levels: Tensor, rows: int
) -> Iterator[tuple[bool, Tensor, Tensor, Tensor]]:
    """Overlaps of cells with pixels, of some thousand whole cells at a time.

    Cells are taken in parts no higher than half a pixel, which are placed as rectangles.

    Yields:
        Whether these cells are larger than a pixel; then for each overlap the index of the cell,
        the number of the pixel, and the area.
    """
    finest = max(7, math.ceil(math.log2(2 * rows / math.sqrt(3 * math.pi))))
    for level in levels.unique().tolist():
        depth = max(0, finest - level)
        for some in (levels == level).nonzero()[:, 0].split(max(1, AT_ONCE >> 2 * depth)):
            parts = (cells[some, None] * 4**depth + torch.arange(4**depth)).flatten()
            part, pixel, area = _rectangles(parts, level + depth, rows)
            yield 2**level < rows / math.sqrt(3 * math.pi), some[part >> 2 * depth], pixel, area


def _rectangles(cells: Tensor, level: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Overlaps of cells of one level with pixels: index of the cell, number of the pixel, area.

    In place of each cell there is a rectangle between two longitudes and two latitudes around its
    centre, as wide as the cell and half as high. These rectangles have the cells' area and cover
    the sphere without gaps.
    """
    face, *at = healpix.on_lattice(cells, level)
    east, north = healpix.to_plane(face, *((k.double() + 0.5) / 2**level for k in at))
    z, _, lon = healpix.from_plane(east, north)
    cap, pixel = (2 - north.abs()).clamp(max=1), math.pi / rows
    top, bottom = (z + way * cap / (3 * 2**level) for way in (1, -1))
    west, east = (lon + math.pi + way * math.pi / (4 * 2**level * cap) for way in (-1, 1))
    first, last = (
        ((math.pi / 2 - edge.clamp(-1, 1).asin()) / pixel).long().clamp(max=rows - 1)
        for edge in (top, bottom)
    )
    left, right = ((edge / pixel).floor().long() for edge in (west, east))
    broad = right - left + 1
    count = broad * (last - first + 1)
    cell = torch.arange(len(cells)).repeat_interleave(count)
    number = torch.arange(len(cell)) - (count.cumsum(0) - count)[cell]
    row, column = first[cell] + number // broad[cell], left[cell] + number % broad[cell]
    edges = torch.linspace(math.pi / 2, -math.pi / 2, rows + 1, dtype=torch.float64).sin()
    high = torch.minimum(edges[row], top[cell]) - torch.maximum(edges[row + 1], bottom[cell])
    meridian = column.double() * pixel
    wide = torch.minimum(meridian + pixel, east[cell]) - torch.maximum(meridian, west[cell])
    area = high.clamp(min=0) * wide.clamp(min=0)
    return cell, row * 2 * rows + column % (2 * rows), area
