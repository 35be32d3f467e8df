"""Maps: offline, seamless, true to the density, legible."""

import itertools
import math
import socket
from types import SimpleNamespace

import cartopy.crs as ccrs
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from geoflow import maps, sphere

VIEWS = {
    "equal-earth": (0, 0),
    "robinson": (0, 180),
    "orthographic": (40, 170),
    "north-pole": (0, 30),
    "south-pole": (0, 0),
}


def vmf(lat, lon, kappa, resolution=1.0):
    """Log-density of a von Mises-Fisher distribution on a grid, and as a function of a place."""
    mode = sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))

    def log_prob(latlon):
        cosine = sphere.from_latlon(torch.as_tensor(latlon, dtype=torch.float64)) @ mode
        return (
            math.log(kappa / (2 * math.pi))
            - math.log1p(-math.exp(-2 * kappa))
            + kappa * (cosine - 1)
        )

    lats = 90 - resolution * (torch.arange(round(180 / resolution), dtype=torch.float64) + 0.5)
    lons = -180 + resolution * (torch.arange(round(360 / resolution), dtype=torch.float64) + 0.5)
    grid = torch.stack(torch.meshgrid(lats, lons, indexing="ij"), dim=-1)
    return SimpleNamespace(lat=lats, lon=lons, log_density=log_prob(grid)), log_prob


def value_at(ax, image, lat, lon):
    """What the map shows at a place: the pixel that holds it. The forward projection is cartopy's."""
    x, y = ax.projection.transform_point(lon, lat, ccrs.PlateCarree(globe=ax.projection.globe))
    left, right, bottom, top = image.get_extent()
    values = image.get_array()
    row, column = (
        (top - y) / (top - bottom) * values.shape[0],
        (x - left) / (right - left) * values.shape[1],
    )
    return values[min(int(row), values.shape[0] - 1), min(int(column), values.shape[1] - 1)]


def rendered(fig, dpi=150):
    """(H, W, 3) colours in [0, 255] of a figure."""
    fig.set_dpi(dpi)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_maps_need_no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a map opened a network connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for projection, center in VIEWS.items():
        ax = maps.world(projection, center)
        maps.draw_density(ax, vmf(60, 100, 20.0)[0])
        assert rendered(ax.figure, dpi=50).std() > 10


@pytest.mark.parametrize("unit", maps.UNITS)
@pytest.mark.parametrize("projection", VIEWS)
def test_pixels_show_the_density_at_their_place(projection, unit):
    density, log_prob = vmf(75, 178, 2.0)
    ax = maps.world(projection, VIEWS[projection])
    image = maps.draw_density(ax, density, unit)
    places = {
        "north-pole": [(89.99, 0), (60, 179.9), (60, -179.9), (70, -20)],
        "south-pole": [(-89.99, 0), (-60, 179.9), (-70, 60)],
    }
    for place in places.get(
        projection, [(30, 179.9), (30, -179.9), (10, 130), (70, -120), (88, 10)]
    ):
        nats_over_uniform = float(log_prob(place)) + math.log(4 * math.pi)
        # 1/510.06 per 10⁶ km²: the uniform density on a sphere of radius 6371 km
        expected = nats_over_uniform if unit == "nats" else math.exp(nats_over_uniform) / 510.0645
        # half a pixel of at most 0.5°, times the steepest slope κ, and interpolation
        assert value_at(ax, image, *place) == pytest.approx(
            expected, abs=0.03 * (1 if unit == "nats" else expected)
        )


def test_density_has_no_seam_at_the_antimeridian():
    density, log_prob = vmf(20, 180, 50.0)
    ax = maps.world("equal-earth")
    image = maps.draw_density(ax, density, "nats")
    lats = range(-60, 81, 10)
    west, east = (
        np.array([value_at(ax, image, lat, lon) for lat in lats]) for lon in (-179.9, 179.9)
    )
    assert west == pytest.approx(
        east, abs=1e-6
    )  # the mode is on the seam and the grid symmetric about it
    assert west[8] == pytest.approx(
        float(log_prob((20.0, 180.0))) + math.log(4 * math.pi), abs=0.05
    )


@pytest.mark.parametrize("pole", ["north-pole", "south-pole"])
def test_density_has_no_seam_at_the_poles(pole):
    sign = 1 if pole == "north-pole" else -1
    density, log_prob = vmf(80 * sign, 40, 100.0)
    ax = maps.world(pole)
    image = maps.draw_density(ax, density, "nats")
    for place in [(89.9 * sign, 40), (89.9 * sign, -140), (89.5 * sign, 130), (89.5 * sign, -50)]:
        assert value_at(ax, image, *place) == pytest.approx(
            float(log_prob(place)) + math.log(4 * math.pi), abs=0.06
        )


def test_density_does_not_depend_on_the_grid_that_samples_it():
    ax = maps.world("equal-earth")
    fields = [vmf(-30, 60, 5.0, resolution)[0] for resolution in (2.0, 1.0, 0.25)]
    shown = [
        np.asarray(maps.draw_density(ax, field, "nats", colorbar=False).get_array())
        for field in fields
    ]
    assert np.nanmax(np.abs(shown[0] - shown[1])) < 0.02
    assert np.nanmax(np.abs(shown[2] - shown[1])) < 0.02


@pytest.mark.parametrize(
    ("projection", "share"),
    [
        ("orthographic", math.pi / 4),  # a disc in a square
        ("equal-earth", 4 * math.pi / (4 * 2.7066299836 * 1.3173627592)),  # the Earth's area
        ("robinson", 0.8730),  # from its table of the lengths of parallels
    ],
)
def test_nothing_is_drawn_off_the_globe(projection, share):
    ax = maps.world(projection, (0, 130))
    values = np.ma.masked_invalid(np.asarray(maps.draw_density(ax, vmf(0, 0, 1.0)[0]).get_array()))
    assert values.count() / values.size == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("projection", ["equal-earth", "robinson", "orthographic"])
@pytest.mark.parametrize("place", [(80, -100), (85, 90), (-82, 60), (60, -150), (0, -170)])
def test_a_needle_is_drawn_once_and_on_the_globe(projection, place):
    density, _ = vmf(0, 0, 1.0)
    density.log_density = torch.full_like(density.log_density, -50.0)
    density.log_density[int(90 - place[0]), int(place[1] + 180)] = 8.0
    ax = maps.world(projection, (place[0] / 2, 0 if projection != "orthographic" else place[1]))
    image = maps.draw_density(ax, density, "nats", colorbar=False)
    values = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    row, column = np.nonzero(values > 5)
    pixels = np.stack(
        [
            left + (column + 0.5) * (right - left) / values.shape[1],
            top - (row + 0.5) * (top - bottom) / values.shape[0],
        ],
        axis=1,
    )
    drawn = next(c for c in ax.collections if c.get_array() is not None)
    found = np.concatenate([pixels, np.asarray(drawn.get_offsets())])
    plain = ccrs.PlateCarree(globe=ax.projection.globe)
    x, y = ax.projection.transform_point(place[1] + 0.5, place[0] - 0.5, plain)
    assert len(found) and np.hypot(*(found - [x, y]).T).max() < 3e5


@pytest.mark.parametrize("resolution", [1.0, 0.25])
def test_a_needle_is_visible_on_a_world_map(resolution):
    density, _ = vmf(0, -30, 1.0, resolution)
    density.log_density = torch.full_like(density.log_density, -50.0)
    empty = rendered(maps.density_figure(density, width=3.3), dpi=300)
    row, column = int(40 / resolution), int(185 / resolution)
    density.log_density[row, column] = -math.log(
        math.radians(resolution) ** 2 * math.cos(math.radians(50))
    )
    needle = rendered(maps.density_figure(density, width=3.3), dpi=300)
    bar = round(0.5 * 300)  # the colour bar and its labels differ too
    changed = (np.abs(needle - empty).sum(-1) > 150)[:-bar].sum()
    assert changed > 0.7 * math.pi * (1.5 * 300 / 72) ** 2  # a dot of 3 points


@pytest.mark.parametrize(
    ("projection", "center"), [("south-pole", None), ("orthographic", (-80, 0))]
)
@pytest.mark.parametrize("resolution", [0.25, 1.0])
def test_a_needle_beyond_the_edge_of_a_globe_or_a_cap_is_not_drawn(projection, center, resolution):
    density, _ = vmf(0, 0, 1.0, resolution)
    density.log_density = torch.full_like(density.log_density, -50.0)
    density.log_density[int((90 - 17) / resolution), int(185 / resolution)] = 12.0
    ax = maps.world(projection, center) if center else maps.world(projection)
    image = maps.draw_density(ax, density, "nats", colorbar=False)
    dots = next(c for c in ax.collections if c.get_array() is not None)
    if projection == "south-pole":
        assert len(dots.get_offsets()) == 0
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for x, y in np.asarray(dots.get_offsets()):
        assert left < x < right
        assert bottom < y < top
    assert np.nanmax(np.asarray(image.get_array())) < 12


PROJECTIONS = ["equal-earth", "robinson", "north-pole"]
NEEDLES = [(89.9, 10.0), (80.2, -179.9), (60.1, -179.9), (48.0, 2.0), (85.0, 100.0)]
FINE = itertools.product(PROJECTIONS, NEEDLES, [0.1])  # seconds each


@pytest.mark.parametrize(
    ("projection", "place", "resolution"),
    [
        *itertools.product(PROJECTIONS, NEEDLES, [1.0, 5.0]),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in FINE),
    ],
)
def test_a_needle_anywhere_has_the_darkest_colour(projection, place, resolution):
    """All of the probability in one cell of the grid: the map has its value, in a pixel or a dot, at its place."""
    if projection == "north-pole" and place[0] < 55:
        pytest.skip("beyond the edge of the cap")
    density, _ = vmf(0, 0, 1.0, resolution)
    density.log_density = torch.full_like(density.log_density, -50.0)
    row, column = int((90 - place[0]) / resolution), int((place[1] + 180) / resolution)
    density.log_density[row, column] = 12.0
    ax = maps.world(projection)
    image = maps.draw_density(ax, density, "nats", colorbar=False)
    dots = next(c for c in ax.collections if c.get_array() is not None)
    values, where = np.asarray(dots.get_array()), np.asarray(dots.get_offsets())
    peak = 12.0 - sphere.LOG_UNIFORM
    x, y = ax.projection.transform_point(
        float(density.lon[column]),
        float(density.lat[row]),
        ccrs.PlateCarree(globe=ax.projection.globe),
    )
    away = np.hypot(*(where[values > peak - 3] - [x, y]).T) if len(values) else np.array([])
    in_pixels = np.nanmax(np.asarray(image.get_array())) > peak - 3
    assert in_pixels or away.min() < 3e5 * max(resolution, 1)


def test_uniform_density_lets_the_map_show_through():
    density, _ = vmf(0, 0, 1.0)
    plain = maps.world(figsize=(3, 1.5))
    density.log_density = torch.full_like(density.log_density, sphere.LOG_UNIFORM)
    covered = maps.world(figsize=(3, 1.5))
    maps.draw_density(covered, density, colorbar=False)
    assert np.abs(rendered(plain.figure) - rendered(covered.figure)).mean() < 1


def test_colours_darken_from_low_to_high():
    rgba = maps.DENSITY_COLORS(np.linspace(0, 1, 256))
    over_sea = rgba[:, 3:] * rgba[:, :3] + (1 - rgba[:, 3:])
    luminance = over_sea @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) < 0.002).all()
    assert luminance[0] - luminance[-1] > 0.8


def test_trajectories_cross_the_antimeridian_without_streaks():
    path = torch.tensor([[[20.0, 170.0]], [[25.0, -165.0]]])
    ax = maps.world("equal-earth")
    pieces = np.array(maps.draw_trajectories(ax, path).get_segments())
    assert (
        np.linalg.norm(pieces[:, 1] - pieces[:, 0], axis=1).max() < 3e5
    )  # metres: 2° and some stretching
    assert pieces[..., 0].max() > 1.5e7
    assert pieces[..., 0].min() < -1.5e7
    # every end of a piece lies on the great circle through both states
    ends = ccrs.PlateCarree(globe=ax.projection.globe).transform_points(
        ax.projection, pieces[..., 0].ravel(), pieces[..., 1].ravel()
    )
    x = sphere.from_latlon(torch.tensor(ends[:, [1, 0]]))
    normal = torch.linalg.cross(*sphere.from_latlon(path[:, 0].double()))
    assert (x @ sphere.unit(normal)).abs().max() < 1e-6


def test_marks_beyond_the_edge_of_a_cap_are_left_out():
    ax = maps.world("south-pole")
    x = maps.draw_guesses(ax, [(-80, 0), (40, 0)]).get_xdata()
    assert np.isfinite(x).tolist() == [True, False]
    assert [text.get_text() for text in ax.texts] == ["1"]


def test_the_cross_at_the_true_place_is_small_on_small_maps():
    small, large = maps.MapFigure(figsize=(7, 3)), maps.MapFigure(figsize=(7, 3))
    third = maps.world(ax=small.add_axes((0, 0, 1 / 3, 1)))
    whole = maps.world(ax=large.add_axes((0, 0, 1, 1)))
    assert maps.draw_truth(third, (10, 20)).get_markersize() <= 11  # points, of 168
    assert maps.draw_truth(whole, (10, 20)).get_markersize() == 18


def test_notebooks_show_figures_without_pyplot():
    assert maps.density_figure(vmf(0, 0, 1.0)[0])._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [3.3, 7.0])
def test_figures_are_legible(width):
    density, _ = vmf(-80, 100, 30.0)
    image = np.zeros((32, 32, 3), np.uint8)
    fig = maps.density_figure(
        density,
        image,
        (-70, 90),
        [(-80, 100), (10, 20)],
        [0.8, 0.1],
        "ice",
        inset="south-pole",
        width=width,
    )
    fig.draw_without_rendering()
    words = [text for text in fig.findobj(Text) if text.get_text() and text.get_visible()]
    assert {
        "ice",
        "1",
        "2",
        "true place",
        "guesses: 80, 10 %",
        "probability per 10⁶ km²",
        "uniform",
    } <= {text.get_text() for text in words}
    assert min(float(text.get_fontsize()) for text in words) >= 7
    boxes = [
        text.get_window_extent()
        for text in words
        if text.get_text() in ("ice", "true place", "guesses: 80, 10 %", "uniform")
    ]
    assert all(
        box.x0 >= 0 and box.y0 >= 0 and box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1
        for box in boxes
    )
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_contact_sheet_shares_one_scale():
    panels = [
        {"density": vmf(0, 0, kappa)[0], "title": f"κ = {kappa}"} for kappa in (1.0, 100.0, 10.0)
    ]
    images = [image for ax in maps.contact_sheet(panels).axes for image in ax.images]
    assert len(images) == 3
    assert len({image.norm.vmax for image in images}) == 1
    assert images[0].norm.vmax == pytest.approx(
        100 / (2 * math.pi) * 4 * math.pi / 510.0645, rel=0.02
    )


def test_trajectories_figure_shows_noise_first_and_samples_last():
    generator = torch.Generator().manual_seed(0)
    x0, x1 = (sphere.uniform(50, generator) for _ in range(2))
    states = sphere.to_latlon(
        torch.stack([sphere.geodesic(x0, x1, t) for t in torch.linspace(0, 1, 9).tolist()])
    )
    titles = [
        ax.get_title()
        for ax in maps.trajectories_figure(states, truth=(10.0, 20.0), title="tile").axes
    ]
    assert [title for title in titles if title] == [
        "time 0, noise",
        "time 0.38",
        "time 0.62",
        "time 1, samples",
    ]


def test_states_at_equal_shares_of_the_way():
    """Points that stand still until time 0.8 and then move evenly are shown while they move."""
    longitude = torch.cat([torch.zeros(80), torch.linspace(0, 90, 21)])
    states = torch.stack([torch.zeros(101), longitude], -1)[:, None].expand(-1, 5, -1)
    assert maps.states_along(states, (0, 0.25, 0.5, 1)) == [0, 85, 90, 100]
    assert maps.states_along(states[:80], (0, 0.5, 1)) == [0, 40, 79], "nothing moves"
    assert maps.states_along(torch.zeros(1, 0, 2), (0, 1)) == [0, 0], "one state, no points"


def upside_down():
    density, _ = vmf(0, 0, 1.0)
    density.lat = density.lat.flip(0)
    return density


def with_value(value):
    density, _ = vmf(0, 0, 1.0)
    density.log_density[3, 4] = value
    return density


def cropped():
    density, _ = vmf(0, 0, 1.0)
    density.log_density = density.log_density[:, :100]
    return density


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maps.world("equal earth"), "unknown projection 'equal earth'.*did you mean 'equal-earth'"),
        (lambda: maps.world(center=(100, 0)), "latitude 100"),
        (lambda: maps.draw_density(maps.world(), vmf(0, 0, 1.0)[0], "per-area"), "unknown unit 'per-area'.*did you mean 'per_area'"),
        (lambda: maps.draw_density(maps.world(), upside_down()), "lat runs from -89.5 to 89.5; expected"),
        (lambda: maps.draw_density(maps.world(), with_value(math.nan)), "log_density holds nan; expected nats per steradian"),
        (lambda: maps.draw_density(maps.world(), with_value(math.inf)), "log_density holds inf"),
        (lambda: maps.draw_density(maps.world(), with_value(800.0)), "log_density holds 800"),
        (lambda: maps.density_figure(torch.zeros(180, 360)), "a Tensor is no density; expected a DensityMap"),
        *(
            (lambda peak=peak: maps.draw_density(maps.world(), vmf(0, 0, 1.0)[0], "nats", peak), f"peak {peak!r}; expected")
            for peak in (0, -1, math.nan, math.inf, 1000, "3", True)
        ),
        *(
            (lambda mass=mass: maps.density_figure(vmf(0, 0, 1.0)[0], guesses=[(1, 2)], mass=mass), "expected a probability for each of 1 guesses")
            for mass in ([0.5, 0.3], [], 0.5, [math.nan], [-0.1], [50])
        ),
        *(
            (lambda width=width: maps.density_figure(vmf(0, 0, 1.0)[0], width=width), f"width {width!r}; expected")
            for width in (0, -1, math.nan, 1000, "7", None)
        ),
        *(
            (lambda columns=columns: maps.contact_sheet([{"density": vmf(0, 0, 1.0)[0]}], columns), f"columns {columns!r}; expected a whole number")
            for columns in (0, -1, 1.5, None)
        ),
        (lambda: maps.contact_sheet([]), "no panels; expected at least one"),
        (lambda: maps.contact_sheet([{"title": "sea"}]), "a NoneType is no density"),
        (lambda: maps.contact_sheet([{"density": vmf(0, 0, 1.0)[0], "titel": "sea"}]), "unknown entry of a panel 'titel'.*did you mean 'title'"),
        (lambda: maps.trajectories_figure(torch.zeros(3, 0, 2)), "no trajectories"),
        *(
            (lambda times=times: maps.draw_trajectories(maps.world(), torch.rand(3, 4, 2), times), "in order")
            for times in ([1, 0.5, 0], [0, math.nan, 1], [0, 1, 0.5], [0, math.inf, math.inf])
        ),
        (lambda: maps.draw_density(maps.world(), cropped()), r"shape \(180, 100\)"),
        (lambda: maps.density_figure(vmf(0, 0, 1.0)[0], inset="southpole"), "unknown inset 'southpole'.*did you mean 'south-pole'"),
        (lambda: maps.draw_truth(maps.world(), (91.0, 0.0)), "latitude 91"),
        (lambda: maps.draw_trajectories(maps.world(), torch.zeros(5, 2, 3, 2)), r"shape \(5, 2, 3, 2\); expected \(T \+ 1, n, 2\)"),
        (lambda: maps.draw_trajectories(maps.world(), torch.zeros(5, 3, 2), times=[0, 1]), r"times have shape \(2,\); expected \(5,\)"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
