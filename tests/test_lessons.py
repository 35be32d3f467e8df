"""Figures of the lessons: what is behind the globe is hidden, and drawn crossings are those of the lines."""

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure

from geoflow import sphere
from geoflow.viz import lessons


def axes():
    return Figure().subplots()


def test_a_camera_is_a_rotation_with_north_up():
    for lat, lon in ((0, 0), (55, 10), (-80, -170)):
        right, up, eye = lessons.camera(lat, lon)
        frame = torch.stack([right, up, eye])
        torch.testing.assert_close(frame @ frame.T, torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(torch.linalg.cross(right, up), eye)
        assert right[2].abs() < 1e-12  # the horizon's right is along a parallel
        assert up[2] > 0


def test_the_nearer_half_of_the_globe_is_seen_inside_its_disc():
    globe = lessons.Globe(axes(), 40.0, 20.0)
    middle = sphere.from_latlon(torch.tensor([40.0, 20.0], dtype=torch.float64))
    x = sphere.uniform(2000, torch.Generator().manual_seed(0)).double()
    shown = globe.seen(x)
    visible = shown.isfinite().all(-1)
    near = sphere.distance(x, middle) < torch.pi / 2
    assert torch.equal(visible, near)
    # the distance from the middle of the picture is the sine of the angle from its place
    torch.testing.assert_close(
        shown[visible].norm(dim=-1), torch.sin(sphere.distance(x, middle))[visible]
    )


def test_north_is_up_and_east_is_right():
    globe = lessons.Globe(axes(), 40.0, 20.0)
    north, east = sphere.from_latlon(torch.tensor([[41.0, 20.0], [40.0, 21.0]]).double())
    assert globe.seen(north)[1] > abs(globe.seen(north)[0])
    assert globe.seen(east)[0] > abs(globe.seen(east)[1])


def test_a_globe_above_a_pole_is_refused():
    with pytest.raises(ValueError, match=r"latitude 90.*expected a place off a pole"):
        lessons.Globe(axes(), 90, 0)


def test_an_outline_is_filled_only_when_all_of_it_is_visible():
    globe = lessons.Globe(axes(), 0.0, 0.0)
    square = torch.tensor([[5.0, -5.0], [5.0, 5.0], [-5.0, 5.0], [-5.0, -5.0]]).double()
    before = len(globe.ax.patches)
    assert globe.fill(sphere.from_latlon(square))
    assert not globe.fill(sphere.from_latlon(square + torch.tensor([0.0, 90.0])))
    assert len(globe.ax.patches) == before + 1


@pytest.mark.parametrize("lines", [lessons.coastlines(), lessons.graticule()])
def test_lines_on_the_globe_are_short_pieces_of_unit_vectors(lines):
    start, end, gap = lines.reshape(-1, 3, 3).unbind(1)
    assert gap.isnan().all()
    torch.testing.assert_close(start.norm(dim=-1), torch.ones(len(start)).double())
    assert sphere.distance_km(start, end).max() < 2000


def test_arrows_have_the_length_that_the_eye_sees():
    globe = lessons.Globe(axes(), 0.0, 0.0)
    x = sphere.from_latlon(torch.tensor([[0.0, 0.0]]).double())
    globe.arrows(x, torch.tensor([[0.0, 0.3, 0.4]]).double())
    arrows = globe.ax.collections[-1]
    assert (arrows.U.item(), arrows.V.item()) == pytest.approx((0.3, 0.4))


def test_exp_and_log_end_at_the_second_place():
    globe = lessons.Globe(axes(), 20.0, 20.0)
    x, y = sphere.from_latlon(torch.tensor([[10.0, -10.0], [40.0, 50.0]]))
    lessons.draw_exp_and_log(globe, x, y, ("a", "b"))
    geodesic = globe.ax.lines[-2].get_xydata()
    assert geodesic[0] == pytest.approx(globe.seen(x).numpy(), abs=1e-6)
    assert geodesic[-1] == pytest.approx(globe.seen(y).numpy(), abs=1e-6)
    assert {text.get_text() for text in globe.ax.texts} >= {"a", "log(b)", "geodesic"}


def test_the_walk_in_its_plane_ends_where_cosine_and_sine_say():
    ax = axes()
    lessons.draw_exp_in_its_plane(ax, 1.0)
    walked = ax.lines[1].get_xydata()
    x, y = torch.tensor([[1.0, 0.0, 0.0], [0.5403023, 0.841471, 0.0]])
    assert walked[-1] == pytest.approx(sphere.exp(x, sphere.log(x, y))[:2].numpy(), abs=1e-6)


def test_a_flat_map_has_units():
    ax = axes()
    lessons.draw_flat_land(ax, (-15, 82), (-30, 180))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("longitude (°)", "latitude (°)")
    assert len(ax.patches) > 100


def test_crossing_paths_are_found_where_they_cross():
    a = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    b = torch.tensor([[1.25, -1.0], [1.25, 3.0]])
    assert lessons.crossing(a, b) == pytest.approx((1.25, 0.25))
    assert lessons.crossing(a, b + 5) is None
    assert lessons.crossing(a, a + torch.tensor([0.0, 1.0])) is None  # parallel


def test_chords_of_a_circle_cross_when_their_ends_alternate():
    generator = torch.Generator().manual_seed(0)
    ends = 2 * torch.pi * torch.rand(2, 12, generator=generator)
    paths = torch.stack([ends.cos(), ends.sin()], -1)
    between = {
        (i, j)
        for i in range(12)
        for j in range(i + 1, 12)
        if sum(ends[:, i].min() < end < ends[:, i].max() for end in ends[:, j]) == 1
    }
    assert set(lessons.crossings(paths)) == between


def test_a_crossing_in_the_plane_has_two_times():
    t = torch.linspace(0, 1, 101)[:, None]
    first = torch.cat([2 * t, 0 * t], -1)
    second = torch.cat([0 * t + 0.5, 1 - 2 * t + 0.5], -1)
    paths = torch.stack([first, second], 1)
    ax = Figure().add_subplot(projection="3d")
    times = lessons.draw_crossing_in_time(ax, paths, lessons.crossing(first, second))
    assert times == pytest.approx((0.25, 0.75))
    assert ax.get_zlabel() == "t"


def test_panels_of_the_plane_show_the_same_piece_and_the_first_is_labelled():
    first, second = lessons.frames(Figure(), ["a", "b"])
    assert first.get_xlim() == second.get_xlim() == first.get_ylim()
    assert (first.get_xlabel(), second.get_xlabel()) == ("x₁", "")
    lessons.scatter(second, torch.rand(5, 2))
    lessons.arrows(second, torch.rand(5, 2), torch.rand(5, 2))
    shown = lessons.image(second, torch.arange(4.0).reshape(2, 2), 4.0)
    assert shown.get_extent() == [-4, 4, -4, 4]
    assert shown.origin == "lower"


def test_style_holds_for_later_figures():
    with matplotlib.rc_context():
        lessons.use_style()
        assert matplotlib.rcParams["legend.frameon"] is False
