"""Figures of the notebooks 03 and 04: they show what they are given, and say what their axes are."""

import math

import numpy as np
import pytest
import torch
from drawn import checked_figures
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.viz import lessons_sphere as lessons

BORDERS = lessons.Borders(meridians=(-100.0, 20.0), heights=(-0.5, 0.0))


def points(*shape) -> torch.Tensor:
    return sphere.uniform(shape, torch.Generator().manual_seed(0))


def every_figure() -> dict[str, Figure]:
    """One figure of each function of the module that makes one."""
    share, line = torch.full((24,), 1 / 24), torch.linspace(0, 1, 5)
    return {
        "points_figure": lessons.points_figure(points(50), BORDERS),
        "geodesic_figure": lessons.geodesic_figure(*points(2)),
        "paths_figure": lessons.paths_figure(points(3, 9), views=("north pole", "antimeridian")),
        "moments_figure": lessons.moments_figure(points(2, 9), ["a", "b"], BORDERS),
        "density_figure": lessons.density_figure(torch.ones(18, 36), "density", 2.0, BORDERS),
        "degrees_figure": lessons.degrees_figure(torch.zeros(2, 2), torch.tensor([True, False])),
        "shares_figure": lessons.shares_figure(share, share, 100, 1 / 24),
        "curves_figure": lessons.curves_figure({"a": (line, line + 1)}, "step", "loss (nats)"),
        "waves_figure": lessons.waves_figure(line, {"S": line.expand(3, 5).T}, {"S": line}),
        "coasts_figure": lessons.coasts_figure({"the Earth": torch.ones(180, 360)}),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    for name, figure, flat in checked_figures(lessons, every_figure()):
        assert all(ax.get_xlabel() or ax.get_ylabel() for ax in flat[-1:]), name
        bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
        assert all(ax.get_ylabel() for ax in bars), name


def test_a_flat_map_shows_longitude_and_z_of_every_point():
    x = points(40)
    flat = lessons.points_figure(x).axes[-1]
    lon, z = flat.lines[0].get_data()
    lat = np.rad2deg(np.arcsin(np.asarray(z)))
    back = sphere.from_latlon(torch.from_numpy(np.stack([lat, lon], -1)))
    assert sphere.distance_km(back, x.double()).max() < 5


def test_equal_areas_of_the_sphere_are_equal_on_a_flat_map():
    """A cap and a belt of the same share of the sphere hold equal shares of the map's rectangle."""
    ax = lessons.equal_area_axes(Figure().subplots(), BORDERS)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x = sphere.fibonacci_grid(40_000)
    for bottom, top in ((0.5, 1.0), (-0.25, 0.25)):
        on_sphere = ((x[:, 2] > bottom) & (x[:, 2] < top)).double().mean()
        assert math.isclose(on_sphere, (top - bottom) / (high - low), abs_tol=1e-3)
    assert (left, right) == (-180, 180)
    assert len(ax.lines) == len(BORDERS.meridians) + len(BORDERS.heights)


def test_the_diagram_of_a_geodesic_has_its_points_and_its_velocity():
    """Its ends are where cartopy puts them, and an arrow's length is that of its velocity."""
    x0, x1 = sphere.from_latlon(torch.tensor([[25.0, 15.0], [25.0, 40.0]]))
    figure = lessons.geodesic_figure(x0, x1, times=(0.0,), length=0.5)
    ax = figure.axes[0]
    way = np.stack(ax.lines[0].get_data(), -1)
    assert np.abs(way[0]).max() < 10, "the middle of this view is x0"
    expected = ax.projection.transform_point(40, 25, lessons.basemap.LATLON)
    assert np.abs(way[-1] - expected).max() < 10
    (arrow,) = [text for text in ax.texts if text.arrow_patch is not None]
    length = np.linalg.norm(np.array(arrow.xy) - way[0])
    angle = float(sphere.distance(x0, x1))
    assert math.isclose(length, 0.5 * angle * lessons.basemap.RADIUS_M, rel_tol=1e-3), (
        "in the plane of the view"
    )


def test_a_density_on_a_globe_is_that_of_the_place():
    """A board with a field across the antimeridian: no seam, and each pixel has its field's value."""
    lon, z = torch.arange(-179.5, 180), (torch.arange(180) + 0.5) / 90 - 1
    values = (
        torch.cos(torch.deg2rad(lon))[None] * (1 - z[:, None] ** 2).sqrt()
    ).float()  # = x of the place
    figure = lessons.density_figure(values, "x", 1.0)
    for globe in figure.axes[:2]:
        (image,) = globe.images
        latlon, _ = lessons.basemap.pixels(globe.projection, globe.get_xlim(), globe.get_ylim())
        there = ~np.isnan(latlon[..., 0])
        place = sphere.from_latlon(torch.from_numpy(latlon[there]))
        error = np.abs(np.asarray(image.get_array())[there] - place[:, 0].numpy())
        far = np.abs(latlon[there][:, 0]) < 80  # near a pole the cells of equal area are coarse
        assert error[far].max() < 0.01
        assert error.max() < 0.15


def test_errors_of_shares_are_those_of_a_binomial():
    counted, draws = torch.tensor([0.25, 0.75]), 1200
    ax = lessons.shares_figure(counted, counted, draws, 0.5).axes[0]
    (bars,) = [c for c in ax.containers if hasattr(c, "has_yerr")]
    segments = bars.lines[2][0].get_segments()
    generator = torch.Generator().manual_seed(0)
    draws_of_share = (torch.rand(4000, draws, generator=generator) < 0.25).double().mean(1)
    assert math.isclose(np.ptp(segments[0][:, 1]) / 4, draws_of_share.std(), rel_tol=0.05)


def test_curves_are_those_given_in_order_and_named():
    x = [8, 16, 32]
    curves = {"a": (x, [3.0, 2.0, 1.0]), "b": (x, [1.0, 0.1, 0.01])}
    ax = lessons.curves_figure(curves, "x", "y", ("level", 5.0), log="xy").axes[0]
    assert [line.get_label() for line in ax.lines] == ["a", "b", "level"]
    for line, (name, (_, y)) in zip(ax.lines, curves.items(), strict=False):
        assert list(line.get_ydata()) == y, name
    assert len({to_rgb(line.get_color()) for line in ax.lines}) == 3
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_points_beyond_the_earth_are_marked():
    latlon = torch.tensor([[0.0, 0.0], [95.0, 10.0], [10.0, 190.0]])
    inside, beyond = lessons.degrees_figure(latlon, torch.tensor([False, True, True])).axes[0].lines
    assert list(zip(*inside.get_data(), strict=True)) == [(0, 0)]
    assert list(zip(*beyond.get_data(), strict=True)) == [(10, 95), (190, 10)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lessons.paths_figure(points(3, 9), views=("antemeridian",)), "antimeridian"),
        (lambda: lessons.curves_figure({}, "x", "y", log="x"), "log"),
    ],
)
def test_unknown_names_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
