"""Figures of notebook 14: they show what they are given, and say what their axes are."""

import numpy as np
import torch
from drawn import check_every_figure
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.viz import lessons_maps as lessons
from geoflow.viz.lessons_sphere import Borders


def points(*shape) -> torch.Tensor:
    return sphere.uniform(shape, torch.Generator().manual_seed(0))


CURVES = {"flow map": ([1, 2], [3.0, 4.0]), "euler": ([1, 4], [1.0, 2.0])}


def quality() -> Figure:
    both = {"GeoScore": CURVES, "energy score (km)": CURVES}
    return lessons.quality_figure(both, dict.fromkeys(both, 5.0), "title")


def every_figure() -> dict[str, Figure]:
    """One figure of each function of the module that makes one."""
    x, group = points(30), torch.arange(30) % 2
    ends = {"flow": x, "map": -x}
    return {
        "groups_figure": lessons.groups_figure({"noise": (x, group), "end": (-x, group)}, x[:2]),
        "jumps_figure": lessons.jumps_figure(points(5, 3), x[:3], x[3:6], Borders((0.0,), (0.0,))),
        "quality_figure": quality(),
        "basins_figure": lessons.basins_figure(x, ends, torch.arange(30.0), x[0], 20.0),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    figures = every_figure()
    check_every_figure(lessons, figures)
    for name, figure in figures.items():
        bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
        assert all(ax.get_xlabel() for ax in bars), name


def test_every_solver_has_its_line_and_the_flow_a_level():
    left, right = quality().axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("GeoScore", "energy score (km)")
    assert left.get_xlabel() == "calls of the network for one sample"
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines) == ["flow map", "euler", "the flow, many calls"]
    assert lines["euler"].get_xdata().tolist() == [1, 4]
    assert lines["flow map"].get_color() == lessons.SOLVERS["flow map"][0]
    assert set(np.asarray(lines["the flow, many calls"].get_ydata())) == {5.0}


def test_points_have_the_colour_of_their_group():
    x, group = points(30), torch.arange(30) % 2
    (ax,) = lessons.groups_figure({"noise": (x, group)}).axes
    dots = [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]
    assert [len(drawn.get_offsets()) for drawn in dots] == [15, 15]
    assert [to_rgb(drawn.get_facecolor()[0][:3]) for drawn in dots] == [
        to_rgb(color) for color in lessons.GROUPS[:2]
    ]


def test_a_jump_leads_from_the_start_to_its_end():
    ways = sphere.from_latlon(torch.tensor([[[0.0, 0.0]], [[10.0, 10.0]]]))
    (legend,) = lessons.jumps_figure(ways, ways[1], ways[0]).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [
        "noise",
        "end of the flow (grey way)",
        "one step of Euler's method",
        "one jump of the flow map",
    ]
