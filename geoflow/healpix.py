"""HEALPix (Górski et al., 2005): 12 · 4^level cells of exactly equal area, each split into four.

Numbers are "nested": cell i has the children 4i … 4i + 3 on the next level. The formulas are those
of the paper's section 5, on whole tensors.
"""

import math

import torch
from torch import Tensor


def centers(cells: Tensor, level: int) -> Tensor:
    """Centres of cells.

    >>> centers(torch.arange(12), 0).sum(0).abs().max() < 1e-12  # twelve cells around the Earth
    tensor(True)

    Args:
        cells: (...) int64 nested numbers in [0, 12 · 4^level).
        level: number of subdivisions; the area of a cell is 4π / (12 · 4^level).

    Returns:
        (..., 3) float64 unit vectors.
    """
    side = 2**level
    face, within = cells // side**2, cells % side**2
    ix, iy = _every_other_bit(within, level), _every_other_bit(within >> 1, level)
    row = face // 4  # northern, equatorial, southern faces
    ring = (row + 2) * side - ix - iy - 1
    north, south = ring < side, ring > 3 * side
    in_ring = torch.where(north, ring, torch.where(south, 4 * side - ring, side))  # per quarter
    cap = in_ring.double() ** 2 / (3 * side**2)
    belt = (2 * side - ring).double() * 2 / (3 * side)
    z = torch.where(north, 1 - cap, torch.where(south, cap - 1, belt))
    r = torch.sqrt(torch.where(north | south, cap * (2 - cap), 1 - z * z))
    shift = torch.where(north | south, 0, (ring - side) % 2)
    first = 2 * (face % 4) + torch.where(row == 1, 0, 1)  # in eighths of a turn
    position = first * in_ring + ix - iy + 1 + shift  # twice the number in the ring, from 1
    lon = (position.double() - (shift + 1)) * (math.pi / 4) / in_ring.double()
    return torch.stack([r * torch.cos(lon), r * torch.sin(lon), z], dim=-1)


def cells(x: Tensor, level: int) -> Tensor:
    """Nested numbers of the cells that hold points: the inverse of `centers`.

    Args:
        x: (..., 3) unit vectors.
        level: number of subdivisions.

    Returns:
        (...) int64.
    """
    side = 2**level
    a, b, z = x.double().unbind(-1)
    quarter = torch.remainder(torch.atan2(b, a) / (math.pi / 2), 4.0)
    quarter = torch.where(quarter >= 4, 0.0, quarter)
    belt, cap = _in_belt(quarter, z, side), _in_cap(quarter, z, torch.hypot(a, b), side)
    is_cap = z.abs() > 2 / 3
    face, ix, iy = (torch.where(is_cap, c, e) for c, e in zip(cap, belt, strict=True))
    bits = (((ix >> k & 1) << 2 * k) | ((iy >> k & 1) << 2 * k + 1) for k in range(level))
    return face * side**2 + sum(bits, torch.zeros_like(face))


def _in_belt(quarter: Tensor, z: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Face and position on it, for points between the polar caps."""
    up, down = side * (0.5 + quarter), side * z * 0.75
    jp, jm = (up - down).floor().long(), (up + down).floor().long()
    fp, fm = jp // side, jm // side
    face = torch.where(fp == fm, fp % 4 + 4, torch.where(fp < fm, fp % 4, fm % 4 + 8))
    return face, jm % side, side - jp % side - 1


def _in_cap(quarter: Tensor, z: Tensor, r: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Face and position on it, for points of the polar caps."""
    sector = quarter.floor().long().clamp(max=3)
    part = quarter - sector
    ring = side * torch.sqrt(3 * r * r / (1 + z.abs()))  # 1 − |z|, without its cancellation
    jp = (part * ring).floor().long().clamp(max=side - 1)
    jm = ((1 - part) * ring).floor().long().clamp(max=side - 1)
    north = z >= 0
    face = torch.where(north, sector, sector + 8)
    return face, torch.where(north, side - jm - 1, jp), torch.where(north, side - jp - 1, jm)


def _every_other_bit(n: Tensor, count: int) -> Tensor:
    return sum((((n >> (2 * k)) & 1) << k for k in range(count)), torch.zeros_like(n))
