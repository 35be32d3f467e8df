"""Figures of notebook 09: they show what they are given, and say what their axes are."""

import math

import numpy as np
import torch
from drawn import check_every_figure
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.scores import metrics
from geoflow.viz import lessons_scores as lessons


def near_zero(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return sphere.from_latlon(8 * torch.randn(n, 2, generator=generator).double())


def every_figure() -> dict[str, Figure]:
    x, y = near_zero(20, 0), near_zero(20, 1)
    panels = [lessons.Panel("km", {"a": [1, 2], "b": [2, 1]}), lessons.Panel("nats", {"a": [3, 4]})]
    points = {"a": (10, 3.5)}
    return {
        "panels_figure": lessons.panels_figure([1, 10], panels, "s", ("here", 3), points=points),
        "answers_figure": lessons.answers_figure({"a": torch.tensor([30.0, 400.0])}),
        "answer_map_figure": lessons.answer_map_figure(x, {"a": x[0]}, x[1]),
        "balls_figure": lessons.balls_figure({"two draws": (x, y)}),
        "calibration_figure": lessons.calibration_figure({"a": torch.rand(50)}, 50, samples=19),
    }


def test_every_figure_is_drawn_and_every_flat_axis_is_named():
    figures = every_figure()
    check_every_figure(lessons, figures)
    for name, figure in figures.items():
        flat = [ax for ax in figure.axes if not hasattr(ax, "projection")]
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in flat), name
        assert figure.legends or any(ax.get_legend() for ax in figure.axes), name


def test_a_curve_has_one_colour_in_all_panels_and_one_line_in_the_legend():
    figure = every_figure()["panels_figure"]
    colors = {}
    for ax in figure.axes:
        for line in ax.lines:
            colors.setdefault(line.get_label(), set()).add(line.get_color())
    assert len(colors["a"]) == 1
    assert colors["a"] != colors["b"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b", "here"]
    (square,) = [line for line in figure.axes[-1].lines if line.get_marker() == "s"]
    assert (*square.get_xdata(), *square.get_ydata()) == (10, 3.5)


def test_errors_are_shown_as_shares():
    left, right = lessons.answers_figure({"a": torch.tensor([400.0, 30.0])}).axes
    (curve,) = [line for line in right.lines if line.get_label() == "a"]
    assert list(zip(*curve.get_data(), strict=True)) == [(30, 0.5), (400, 1)]
    km, score = left.lines[0].get_data()
    np.testing.assert_allclose(score, 5000 * np.exp(-np.asarray(km) / 1492.7), rtol=1e-5)


def test_balls_reach_to_the_third_neighbour_and_scores_are_those_of_prdc():
    x, y = near_zero(20, 0), near_zero(20, 1)
    (ax,) = lessons.balls_figure({"two draws": (x, y)}).axes
    ring = torch.from_numpy(ax.patches[0].get_xy()).flip(-1)
    reach = sphere.distance(sphere.from_latlon(ring), x[0])
    third = sphere.distance(x[0], x).sort().values[3]
    assert (reach - third).abs().max() < 1e-6
    assert all(f"{key} {value:.2f}" in ax.get_title() for key, value in metrics.prdc(x, y).items())


def test_ranks_of_a_calibrated_model_lie_on_the_diagonal_and_the_band_is_that_of_a_binomial():
    """The truth and 19 samples are draws of one density: each is as likely to be the k-th."""
    n = 20_000
    values = torch.randn(n, 20, generator=torch.Generator().manual_seed(0))
    ranks = metrics.hpd_rank(values[:, :19], values[:, 19])
    (ax,) = lessons.calibration_figure({"calibrated": ranks}, 400, samples=19).axes
    (curve,) = [line for line in ax.lines if line.get_label() == "calibrated"]
    np.testing.assert_allclose(curve.get_xdata(), np.arange(1, 20) / 20, rtol=1e-6)
    np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata(), atol=4 * math.sqrt(0.25 / n))
    corners = ax.collections[0].get_paths()[0].vertices
    at_half = corners[np.isclose(corners[:, 0], 0.5)]
    assert math.isclose(np.ptp(at_half[:, 1]), 4 * math.sqrt(0.25 / 400), rel_tol=1e-3)


def test_an_answer_is_where_it_belongs_on_the_map():
    x = near_zero(5, 0)
    ax = lessons.answer_map_figure(x, {"a": x[0]}, x[1]).axes[0]
    (dot,) = [dots for dots in ax.collections if dots.get_label() == "a"]
    lat, lon = sphere.to_latlon(x[0]).tolist()
    expected = ax.projection.transform_point(lon, lat, lessons.basemap.LATLON)
    np.testing.assert_allclose(dot.get_offsets()[0], expected, atol=1)
