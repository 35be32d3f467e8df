"""Figures of the notebook 07: they show what they are given, and say what their axes are."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn import checked_figures
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.density import density_map
from geoflow.viz import basemap
from geoflow.viz import lessons_likelihood as lessons


def points(*shape) -> torch.Tensor:
    return sphere.uniform(shape, torch.Generator().manual_seed(0))


def circle(radius: float) -> torch.Tensor:
    """A circle around the North Pole: (1, 1, 61, 3)."""
    turn = torch.linspace(0, 2 * math.pi, 61)
    level = torch.full_like(turn, math.cos(radius))
    around = math.sin(radius) * torch.stack([turn.cos(), turn.sin()])
    return torch.stack([*around, level], -1)[None, None]


@pytest.fixture(scope="module")
def cap():
    """The map of a density that is constant on the northern half of the Earth, and small beyond."""

    def log_prob(x):
        return torch.where(x[:, 2] > 0, 0.999, 0.001).log() - math.log(2 * math.pi)

    north = points(4000)
    return density_map(log_prob, torch.where(north[:, 2:] < 0, -north, north), 3.0)


def every_figure(cap) -> dict[str, Figure]:
    """One figure of each function of the module that makes one."""
    x, images = points(30), torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    bits, km = torch.linspace(-2, 9, 12), torch.linspace(3000, 20, 12)
    return {
        "circles_figure": lessons.circles_figure(circle(0.3), torch.full((1, 1), 0.2), ["t = 1"]),
        "orders_figure": lessons.orders_figure({"a": {"euler": [0.2, 0.1]}}, (4, 8)),
        "agreement_figure": lessons.agreement_figure(km, km, "one (km)", "other (km)"),
        "cells_figure": lessons.cells_figure(x, torch.tensor([7.3, 3.7]).repeat(15), (10, 50)),
        "tiles_figure": lessons.tiles_figure(images, ["a", "b", "c"], columns=2),
        "trust_figure": lessons.trust_figure({"seen": (bits, km), "held-out": (bits, km)}),
        "cover_figure": lessons.cover_figure((0.0, 0.5), bits.expand(2, 12), km.expand(2, 12)),
        "regions_figure": lessons.regions_figure(
            [{"density": cap, "truth": (10.0, 0.0), "title": "half"}]
        ),
        "promises_figure": lessons.promises_figure({"seen": torch.rand(99).double()}),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named(cap):
    for name, figure, flat in checked_figures(lessons, every_figure(cap)):
        named = all(ax.get_xlabel() or ax.get_ylabel() for ax in flat)
        assert named or name == "tiles_figure", name


def test_a_circle_has_the_colour_of_its_area_and_closes():
    figure = lessons.circles_figure(circle(0.3), torch.full((1, 1), 0.2), ["t = 1"], (80, 0))
    drawn = figure.axes[0].collections[-1]
    assert len(drawn.get_segments()) == 60
    assert np.allclose(drawn.get_array(), 0.2)
    assert drawn.norm.vmin * drawn.norm.vmax == pytest.approx(1), "1 is the middle of the colours"


def test_the_order_of_a_solver_is_read_off_its_last_errors():
    figure = lessons.orders_figure({"a": {"rk4": [1.0, 16.0, 1.0]}}, (4, 8, 16))
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text() == "rk4, last slope 4.0"


def test_half_of_a_disc_is_nearer_than_its_median():
    bits = torch.tensor([-3.0, 0.0, 4.0])
    half = lessons.disc_median_km(bits) / sphere.EARTH_RADIUS_KM
    inside = 2 * math.pi * (1 - half.cos())
    assert torch.allclose(2 * inside, torch.exp2(-bits.double()))


def test_regions_have_the_colours_of_their_places(cap):
    """A density that is 0.999 in the north: above a threshold between its two values is the north."""
    latlon = np.array([[[45.0, 10.0], [-45.0, 10.0], [np.nan, np.nan]]])
    colors = lessons._region_colors(cap, latlon, [math.log(0.5 / (2 * math.pi))])
    assert colors[0, 0] == pytest.approx(to_rgba(lessons.REGION_COLORS[0]))
    assert colors[0, 1:, 3].tolist() == [0, 0]


def test_the_smallest_region_has_the_darkest_colour():
    """A raster whose density grows to the north, with a threshold in each band of 45°."""
    rows = torch.arange(180.0, 0, -1)[:, None].expand(180, 360)
    raster = SimpleNamespace(log_density=rows)
    latlon = np.array([[[89.0, 0.0], [44.0, 100.0], [-1.0, -100.0], [-89.0, 0.0]]])
    colors = lessons._region_colors(raster, latlon, [45.5, 90.5, 135.5])
    dark = [*map(to_rgba, reversed(lessons.REGION_COLORS)), (0, 0, 0, 0)]
    assert np.allclose(colors[0], dark)


def test_uniform_ranks_keep_every_promise():
    rank = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    (line,) = lessons.promises_figure({"seen": rank}).axes[0].lines
    assert np.allclose(*line.get_data(), atol=0.11)


def test_clouds_are_shown_in_per_cent_with_the_error_of_the_mean():
    bits = torch.stack([torch.tensor([1.0, 3.0]).repeat(50), torch.zeros(100)])
    left, right = lessons.cover_figure((0.0, 0.6), bits, torch.ones(2, 100)).axes
    (bars,) = left.containers
    assert [tuple(point) for point in np.transpose(bars.lines[0].get_data())] == [(0, 2), (60, 0)]
    assert np.ptp(bars.lines[2][0].get_segments()[0][:, 1]) / 2 == pytest.approx(
        bits[0].double().std().item() / 10
    )
    assert right.get_yscale() == "log"


def test_the_colours_of_cells_are_named_from_coarse_to_fine():
    figure = lessons.cells_figure(points(30), torch.tensor([3.7, 7.3]).repeat(15), (10, 50))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["7.3°", "3.7°"]
    assert isinstance(figure, basemap.MapFigure)
