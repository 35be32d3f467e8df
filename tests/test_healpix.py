"""The equal-area grid: cells hold their centres, nest, have equal areas, and are numbered as everywhere."""

import math

import pytest
import torch
from small import points

from geoflow import healpix, sphere


@pytest.mark.parametrize("level", [0, 1, 2, 3, 6])
def test_cells_hold_their_centres(level):
    cells = torch.arange(12 * 4**level)
    centers = healpix.centers(cells, level)
    assert torch.equal(healpix.cells(centers, level), cells)
    assert torch.allclose(
        torch.linalg.vector_norm(centers, dim=-1),
        torch.ones(len(cells), dtype=torch.float64),
        atol=1e-15,
    )
    assert centers.mean(0).abs().max() < 1e-14


@pytest.mark.parametrize("level", [9, 14, 20])
def test_cells_hold_their_centres_at_fine_levels(level, generator):
    cells = torch.randint(12 * 4**level, (5000,), generator=generator)
    assert torch.equal(healpix.cells(healpix.centers(cells, level), level), cells)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_cells_have_equal_areas(level, generator):
    n, cells = 480_000, 12 * 4**level
    counts = torch.bincount(
        healpix.cells(sphere.uniform(n, generator), level), minlength=cells
    ).double()
    chi2 = float(((counts - n / cells) ** 2 / (n / cells)).sum())
    assert chi2 < cells + 4 * math.sqrt(2 * cells)
    assert len(counts) == cells


def test_cells_nest():
    x = points(20_000)
    for level in range(1, 12):
        assert torch.equal(healpix.cells(x, level) // 4, healpix.cells(x, level - 1))


def test_cells_are_compact():
    x = points(50_000)
    for level in (0, 3, 6):
        to_center = sphere.distance(x, healpix.centers(healpix.cells(x, level), level))
        assert (
            to_center.max() < 1.05 / 2**level
        )  # the corners of the twelve faces are 48° (0.84 rad) away


def test_edges_and_poles_lie_in_cells():
    turns = torch.arange(-8, 9, dtype=torch.float64) * math.pi / 4
    z = torch.tensor([-1, -2 / 3, 0, 2 / 3, 1], dtype=torch.float64)
    z = torch.cat([z, z.clamp(-0.99, 0.99) + 1e-16, z.clamp(-0.99, 0.99) - 1e-16])
    r = (1 - z**2).clamp(min=0).sqrt()
    x = torch.stack(
        torch.broadcast_tensors(r * turns.cos()[:, None], r * turns.sin()[:, None], z), -1
    )
    for points_ in (
        x,
        x.float(),
        torch.tensor(
            [[0.0, 0, 1], [0, 0, -1], [-0.0, -0.0, 1], [1, -0.0, 0], [-1, -0.0, 0], [1, -1e-30, 0]]
        ),
    ):
        for level in (0, 1, 5, 9):
            cells = healpix.cells(points_, level)
            assert cells.min() >= 0
            assert cells.max() < 12 * 4**level
            near = sphere.distance(points_.double(), healpix.centers(cells, level))
            assert near.max() < 1.05 / 2**level


def test_numbers_are_those_of_the_standard():
    """Górski et al., 2005, figure 3 and equations 2-9: face centres; in a face x counts north-east and y north-west."""
    faces = sphere.to_latlon(healpix.centers(torch.arange(12), 0))
    polar = math.degrees(math.asin(2 / 3))
    expected = (
        [(polar, lon) for lon in (45, 135, -135, -45)]
        + [(0, lon) for lon in (0, 90, -180, -90)]
        + [(-polar, lon) for lon in (45, 135, -135, -45)]
    )
    assert torch.allclose(faces, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    quarters = sphere.to_latlon(healpix.centers(torch.arange(4), 1))
    z = torch.tensor([1 / 3, 2 / 3, 2 / 3, 11 / 12], dtype=torch.float64)
    expected = torch.stack(
        [torch.rad2deg(torch.asin(z)), torch.tensor([45, 67.5, 22.5, 45], dtype=torch.float64)], -1
    )
    assert torch.allclose(quarters, expected, rtol=0, atol=1e-12)
