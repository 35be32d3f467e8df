"""Figures of notebook 10: they show what they are given, and say what their axes are."""

import numpy as np
import torch
from drawn import checked_figures
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.viz import lessons_events as lessons

WIDTHS = (0.064, 8.0, 2097.0)


def every_figure() -> dict[str, Figure]:
    """One figure of each function of the module that makes one."""
    latlon = sphere.to_latlon(sphere.uniform(50, torch.Generator().manual_seed(0)))
    return {
        "events_figure": lessons.events_figure({"a": latlon, "b": latlon}, most=20),
        "distances_figure": lessons.distances_figure({"a": torch.tensor([0.0, 3.0, 40.0])}, 2.0),
        "weights_figure": lessons.weights_figure({"a": torch.full((4,), 0.25)}, WIDTHS),
        "bottomless_figure": lessons.bottomless_figure([10.0, 1.0], {"a": [1.0, -1.0]}),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    for name, figure, flat in checked_figures(lessons, every_figure()):
        assert all(ax.get_xlabel() or ax.get_ylabel() for ax in flat), name


def test_at_most_so_many_events_are_drawn():
    dots = [len(ax.collections[-1].get_offsets()) for ax in every_figure()["events_figure"].axes]
    assert dots == [17, 17]


def test_the_share_within_a_distance_starts_with_the_exact_repeats():
    km, percent = every_figure()["distances_figure"].axes[0].lines[0].get_data()
    assert km[0] == km[1] == lessons.LEAST_KM
    assert percent[1] > 33
    assert percent[-1] == 100


def test_each_width_has_a_bar_of_its_weight():
    ax = every_figure()["weights_figure"].axes[0]
    assert [patch.get_height() for patch in ax.patches] == [25.0] * 4
    assert [label.get_text() for label in ax.get_xticklabels()] == ["floor", "0.064", "8", "2097"]


def test_narrower_kernels_stand_further_right():
    ax = every_figure()["bottomless_figure"].axes[0]
    assert np.diff(ax.get_xlim()) < 0
