"""Empty maps: land, coast, and where they are drawn."""

import numpy as np
import pytest
import shapely
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.viz import basemap


def test_land_share_of_the_sphere():
    lat, lon = sphere.to_latlon(sphere.fibonacci_grid(50_000).double()).T.numpy()
    assert shapely.contains_xy(basemap.land(), lon, lat).mean() == pytest.approx(0.2914, abs=0.005)


@pytest.mark.parametrize(
    ("lat", "lon", "land"),
    [
        (48.8, 2.3, True), (-85, 100, True), (-86, 179.9, True), (-86, -179.9, True), (67, 179.5, True), (67, -179.5, True),
        (-3, -60, True), (0, 0, False), (89, 0, False), (42, 51, False), (0, -179.9, False), (-60, 60, False),
    ],
)  # fmt: skip
def test_land_outline_knows_land_from_sea(lat, lon, land):
    assert shapely.contains_xy(basemap.land(), lon, lat) == land


def test_coast_has_no_edge_along_the_antimeridian_or_the_pole():
    start, end = basemap.coast()
    along_edge = (
        (np.abs(start[:, 1]) > 179.9)
        & (np.abs(end[:, 1]) > 179.9)
        & (np.abs(end[:, 0] - start[:, 0]) > 0.5)
    )
    assert not along_edge.any()
    assert start[:, 0].min() > -89


def test_world_draws_where_it_is_told():
    fig = Figure()
    grid = fig.add_gridspec(1, 2)
    assert basemap.world(ax=grid[0]).get_subplotspec() == grid[0]
    plain = fig.add_subplot(grid[1])
    assert basemap.world("south-pole", ax=plain).get_subplotspec() == grid[1]
    assert plain not in fig.axes
    assert len(fig.axes) == 2
    assert basemap.world(ax=Figure()).figure is not fig
