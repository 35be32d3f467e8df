"""HEALPix (Górski et al., 2005): 12 · 4^level cells of exactly equal area, each split into four.

Numbers are "nested": cell i has the children 4i … 4i + 3 on the next level. The formulas are
those of the paper's section 5.
"""

import math

import torch
from torch import Tensor


def centers(cells: Tensor, level: int | Tensor) -> Tensor:
    """Centres of cells: (..., 3) float64 unit vectors.

    >>> centers(torch.arange(12), 0).sum(0).abs().max() < 1e-12  # twelve cells around the Earth
    tensor(True)

    Args:
        cells: (...) int64 nested numbers in [0, 12 · 4^level).
        level: number of subdivisions, of all or of each; a cell's area is 4π / (12 · 4^level).
    """
    face, column, row = on_lattice(cells, level)
    u, v = ((k.double() + 0.5) / 2**level for k in (column, row))
    z, r, lon = from_plane(*to_plane(face, u, v))
    return torch.stack([r * torch.cos(lon), r * torch.sin(lon), z], dim=-1)


def on_lattice(cells: Tensor, level: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Face in [0, 12) of each cell, and its column and row in [0, 2^level) there."""
    face, within = cells // 4**level, cells % 4**level
    return face, _every_other_bit(within, level), _every_other_bit(within >> 1, level)


def to_plane(face: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Position u, v in [0, 1] on a face → east, in eighths of a turn, and north in [−2, 2]."""
    north = u + v - face // 4  # northern, equatorial, southern faces
    middle = 2 * (face % 4) + torch.where(face // 4 == 1, 0, 1)
    return middle + (u - v) / (2 - north.abs()).clamp(max=1), north


def from_plane(east: Tensor, north: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Height above the equator's plane, distance from the axis, and longitude in radians."""
    cap = 2 - north.abs()
    z = torch.where(cap < 1, north.sign() * (1 - cap**2 / 3), north * 2 / 3)
    r = torch.where(cap < 1, cap * torch.sqrt((2 - cap**2 / 3) / 3), torch.sqrt(1 - z**2))
    return z, r, east * (math.pi / 4)


def cells(x: Tensor, level: int | Tensor) -> Tensor:
    """Nested numbers (...) of the cells that hold points (..., 3): the inverse of `centers`."""
    side = 2**level
    a, b, z = x.double().unbind(-1)
    quarter = (torch.atan2(b, a) / (math.pi / 2)).remainder(4).remainder(4)  # 4 itself is 0
    belt, cap = _in_belt(quarter, z, side), _in_cap(quarter, z, torch.hypot(a, b), side)
    face, ix, iy = (torch.where(z.abs() > 2 / 3, c, e) for c, e in zip(cap, belt, strict=True))
    bits = (((ix >> k & 1) << 2 * k) | ((iy >> k & 1) << 2 * k + 1) for k in _bits(level))
    return face * side**2 + sum(bits, torch.zeros_like(face))


def _in_belt(quarter, z: Tensor, side: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Face and position on it, for points between the polar caps."""
    up, down = side * (0.5 + quarter), side * z * 0.75
    jp, jm = (up - down).floor().long(), (up + down).floor().long()
    fp, fm = jp // side, jm // side
    face = torch.where(fp == fm, fp % 4 + 4, torch.where(fp < fm, fp % 4, fm % 4 + 8))
    return face, jm % side, side - jp % side - 1


def _in_cap(quarter, z: Tensor, r: Tensor, side: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Face and position on it, for points of the polar caps."""
    sector = quarter.floor().long().clamp(max=3)
    part = quarter - sector
    ring = side * torch.sqrt(3 * r * r / (1 + z.abs()))  # 1 − |z|, without its cancellation
    jp = (part * ring).floor().long().clamp(max=side - 1)
    jm = ((1 - part) * ring).floor().long().clamp(max=side - 1)
    north = z >= 0
    face = torch.where(north, sector, sector + 8)
    return face, torch.where(north, side - jm - 1, jp), torch.where(north, side - jp - 1, jm)


def _every_other_bit(n: Tensor, level: int | Tensor) -> Tensor:
    return sum((((n >> (2 * k)) & 1) << k for k in _bits(level)), torch.zeros_like(n))


def _bits(level: int | Tensor) -> range:
    return range(int(torch.as_tensor(level).max()))
