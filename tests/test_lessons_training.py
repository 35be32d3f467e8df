"""Figures of the notebooks 00 and 05: they show what they are given, and say what their axes are."""

import numpy as np
import torch
from drawn import checked_figures
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.viz import lessons_training as lessons


def places(*shape) -> torch.Tensor:
    return sphere.to_latlon(sphere.uniform(shape, torch.Generator().manual_seed(0)))


def every_figure() -> dict[str, Figure]:
    """One figure of each function of the module that makes one."""
    images, km = torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([20.0, 700.0, 9000.0])
    scores = {"seen": torch.linspace(0, 5000, 50), "held-out": torch.linspace(0, 2000, 50)}
    return {
        "tiles_figure": lessons.tiles_figure([images], [["a", "b", "c"]], ["row"]),
        "moments_figure": lessons.moments_figure(
            places(5, 9), [0, 0.1, 0.4, 0.8, 1.0], [0.0, 0.5, 1.0], (10.0, 20.0)
        ),
        "splits_figure": lessons.splits_figure(places(9), places(5)),
        "neighbours_figure": lessons.neighbours_figure({"a": places(9)}, {"a": (10.0, 20.0)}),
        "errors_figure": lessons.errors_figure({"seen": km}),
        "error_map_figure": lessons.error_map_figure(places(3), km),
        "promises_figure": lessons.promises_figure(scores, scores),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    for name, figure, flat in checked_figures(lessons, every_figure()):
        named = [ax for ax in flat if ax.get_xlabel() and ax.get_ylabel()]
        assert len(named) == (0 if name == "tiles_figure" else len(flat)), name


def test_a_moment_shows_the_state_nearest_to_it():
    ways, times = places(4, 7), [0.0, 0.3, 0.9, 1.0]
    figure = lessons.moments_figure(ways, times, moments=[0.0, 0.8])
    assert [ax.get_title() for ax in figure.axes] == ["time 0.00", "time 0.90"]
    dots = np.asarray(figure.axes[1].collections[-1].get_offsets())
    expected = lessons.basemap.project(figure.axes[1], ways[2].double().numpy())
    assert np.allclose(dots, expected)


def test_rows_of_different_lengths_leave_no_empty_frames():
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    figure = lessons.tiles_figure([images, images[:2]], [["a", "b", "c"], ["d", "e"]])
    assert [ax.axison for ax in figure.axes] == [True] * 5 + [False]


def test_classes_of_errors_have_the_right_shares():
    km = torch.tensor([1.0, 499.0, 500.0, 2500.0])
    (ax,) = lessons.error_map_figure(places(4), km).axes
    labels = [text for text in ax.get_legend_handles_labels()[1] if "km" in text]
    assert labels == ["below 500 km: 50%", "500 to 2,500 km: 25%", "above 2,500 km: 25%"]


def test_a_promise_that_is_kept_lies_on_the_diagonal():
    scores = {"seen": torch.linspace(0, 5000, 50)}
    (ax,) = lessons.promises_figure(scores, scores).axes
    x, y = ax.containers[0].lines[0].get_data()
    assert len(x) == lessons.GROUPS
    assert np.allclose(np.asarray(x, float), np.asarray(y, float))


def test_a_place_has_its_name():
    assert lessons.place_name((-0.6, 179.6)) == "1°S 180°E"
