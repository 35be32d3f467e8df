"""Figures of notebook 06: they show what they are given, and say what their axes are."""

import numpy as np
import pytest
import torch
from drawn import checked_figures
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer

from geoflow import schedules
from geoflow.viz import lessons_steps as lessons
from geoflow.viz.basemap import MapFigure
from geoflow.viz.lessons_steps import Panel

WEIGHTS = (0, 0.25, 0.5, 1, 2, 5, 10)


def every_figure() -> dict[str, MapFigure]:
    """One figure of each function of the module that makes one."""
    panel = Panel({"a": ([1, 2, 4], [4.0, 2.0, 1.0])}, "steps", "error (km)", "log2", "log")
    return {
        "panels_figure": lessons.panels_figure([panel, panel, panel]),
        "schedules_figure": lessons.schedules_figure(["linear", "mixed"]),
        "samples_figure": lessons.samples_figure({"a": [(0.0, 0.0)], "b": [(1.0, 2.0)]}),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    for name, figure, flat in checked_figures(lessons, every_figure()):
        assert all(ax.get_xlabel() for ax in flat), name


def test_a_curve_has_one_colour_in_all_panels_and_bars_of_two_errors():
    first = Panel({"a": ([1, 2], [3.0, 4.0]), "b": ([1, 2], [1.0, 1.0])}, "x", "y")
    second = Panel({"b": ([1, 2], [1.0, 2.0], [0.5, 0.25])}, "x", "y", levels={"uniform": 0.0})
    left, right = lessons.panels_figure([first, second]).axes[:2]
    colors = {line.get_label(): to_rgb(line.get_color()) for line in left.lines}
    assert len({*colors.values()}) == 2
    (bars,) = [c for c in right.containers if isinstance(c, ErrorbarContainer)]
    assert to_rgb(bars.lines[0].get_color()) == colors["b"]
    lengths = [np.ptp(segment[:, 1]) for segment in bars.lines[2][0].get_segments()]
    assert lengths == pytest.approx([2.0, 1.0])
    assert [line.get_label() for line in right.lines if line.get_linestyle() == ":"] == ["uniform"]


def test_every_row_has_a_legend_for_its_curves():
    shared = Panel({"a": ([1, 2], [1.0, 2.0])}, "x", "y")
    axes = lessons.panels_figure([shared] * 4).axes
    assert [ax.get_legend() is not None for ax in axes] == [False, True, False, True]
    other = Panel({"b": ([1, 2], [1.0, 2.0])}, "x", "y")
    axes = lessons.panels_figure([shared, other]).axes
    assert all(ax.get_legend() is not None for ax in axes)


def test_weights_of_guidance_are_named_on_their_axis():
    panel = Panel({"a": (WEIGHTS, [1.0] * 7), "alone": ([3], [1.0])}, "ω", "score", "symlog")
    ax = lessons.panels_figure([panel]).axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "0.5", "1", "2", "5", "10"]
    curve, alone = ax.lines
    assert np.allclose(np.asarray(curve.get_xdata()), WEIGHTS)
    assert alone.get_marker() == "D"


def test_steps_are_where_their_schedule_puts_them():
    names = ["linear", "log", "mixed"]
    curves, time, left = lessons.schedules_figure(names, steps=8).axes
    for i, name in enumerate(names):
        schedule = schedules.by_name(name)
        t = schedules.time_grid(schedule, 8)[:-1].numpy()
        assert np.allclose(time.lines[i].get_xdata(), t)
        assert np.allclose(left.lines[i].get_xdata(), 1 - t)
        share, values = curves.lines[i].get_data()
        assert np.allclose(values, schedule(torch.as_tensor(share)))
    assert [text.get_text() for text in time.get_yticklabels()] == names


def test_a_ring_marks_the_true_place_and_hides_nothing():
    ax = lessons.samples_figure({"a": [(10.0, 20.0)]}, truth=(10, 20)).axes[0]
    dots = ax.collections[-1].get_offsets()
    (ring,) = [line for line in ax.lines if line.get_marker() == "o"]
    assert np.allclose(np.stack(ring.get_data(), -1), dots)
    assert ring.get_markerfacecolor() == "none"


def test_unknown_scales_are_refused():
    panel = Panel({"a": ([1, 2], [1.0, 2.0])}, "x", "y", x="logarithmic")
    with pytest.raises(ValueError, match="symlog"):
        lessons.panels_figure([panel])
