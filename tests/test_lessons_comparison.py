"""Figures of notebook 08: they show what they are given, and say what their axes are."""

import numpy as np
import pytest
import torch
from drawn import check_every_figure
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from geoflow.density import Raster, raster_axes
from geoflow.viz import lessons_comparison as lessons

LINE = torch.linspace(0, 1, 5)
DIFFERENCES = {"vmf": {"nll": [1.0, 0.1], "energy_km": [5.0, 4.0]}, "retrieval": {"nll": [0, 0.1]}}


SCORES = {"test-nll": -4.0, "test-energy_km": 2600.0}
TRAINED = [
    {"components": k, "steps": n, "minutes": n / 500 + k, "scores": SCORES}
    for k, n in ((0, 500), (0, 1000), (3, 500), (3, 1000), (8, 500))
]


def every_figure() -> dict[str, Figure]:
    """One figure of each function of the module that makes one."""
    groups = {"riemannian": torch.rand(4, 2), "vmf": torch.rand(4, 2)}
    shells = torch.rand(2, 5)
    return {
        "noising_figure": lessons.noising_figure({"flow": torch.randn(2, 9, 3)}, [0.0, 1.0]),
        "approach_figure": lessons.approach_figure(LINE + 0.1, {"flow": LINE + 1}, 500),
        "losses_figure": lessons.losses_figure({("flow", "linear"): [3.0, 2.0, 1.0]}, window=2),
        "shells_figure": lessons.shells_figure(LINE, {"flow": shells}, {"flow": shells[:, 0]}),
        "ahead_figure": lessons.ahead_figure(DIFFERENCES, "seen regions"),
        "groups_figure": lessons.groups_figure({"km": groups, "nats": groups}, log=("km",)),
        "gained_figure": lessons.gained_figure(1 - LINE, {"clear": LINE}, LINE),
        "radii_figure": lessons.radii_figure({"flow": LINE}, {"flow": torch.rand(5, 3)}),
        "budgets_figure": lessons.budgets_figure(TRAINED, 500),
        "solvers_figure": lessons.solvers_figure({"euler": ([2, 4], [9.0, 3.0])}),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    figures = every_figure()
    check_every_figure(lessons, figures)
    for name, figure in figures.items():
        named = [bool(ax.get_xlabel() or ax.get_ylabel()) for ax in figure.axes]
        assert all(named) or name == "noising_figure", name


def test_a_row_of_clouds_carries_the_methods_name():
    axes = every_figure()["noising_figure"].axes
    assert [ax.get_title() for ax in axes] == ["t = 0", "t = 1"]
    assert axes[0].get_ylabel() == lessons.TITLES["flow"]


def test_curves_go_through_all_budgets_and_bars_through_equal_ones():
    left, right = every_figure()["budgets_figure"].axes[:2]
    assert [line.get_xdata().tolist() for line in left.lines] == [[1, 2], [4, 5], []]
    assert right.lines[1].get_xdata().tolist() == [3, 8]
    assert right.get_xlabel() == "components, 500 steps each"


def test_losses_are_means_over_the_window():
    assert every_figure()["losses_figure"].axes[0].lines[0].get_ydata().tolist() == [2.5, 1.5]


def test_a_difference_within_two_errors_is_an_open_circle():
    axes = every_figure()["ahead_figure"].axes
    assert [ax.get_title() for ax in axes] == [lessons.SCORES[s] for s in ("nll", "energy_km")]
    faces = [[to_hex(dot[0].get_mfc()) for dot in ax.containers] for ax in axes]
    assert faces[1] == ["#ffffff"]
    assert [face == "#ffffff" for face in faces[0]] == [False, True]
    bar = axes[0].containers[0][2][0].get_segments()[0]
    np.testing.assert_allclose(bar[:, 0], [0.8, 1.2])


def test_panels_named_as_logarithmic_are():
    scales = [ax.get_yscale() for ax in every_figure()["groups_figure"].axes]
    assert scales == ["log", "linear"]


def test_half_of_a_peaked_raster_lies_on_its_peak():
    lat, lon = raster_axes(10.0)
    values = torch.full((18, 36), -20.0)
    values[8, 5] = 0.0
    pixel = 6371**2 * np.deg2rad(10) * (np.sin(np.deg2rad(10)) - 0)
    assert lessons.half_area_km2(Raster(lat, lon, values)) == pytest.approx(pixel, rel=0.01)
