"""Earth tiles: no seams, the right places, disjoint splits, a cache that is whole or not there."""

import dataclasses
import errno
import functools
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from pyproj import Geod
from scipy.stats import kstest

from geoflow import healpix, sphere
from geoflow.data import tiles


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tiles"


def folders(cache):
    return [path for path in cache.iterdir() if path.is_dir()]


def at(lat, lon):
    return sphere.from_latlon(torch.tensor([[lat, lon]], dtype=torch.float64)).float()


# Pictures


@pytest.fixture
def smooth_earth(monkeypatch):
    """A raster that shows the coordinates themselves: colour = 127 + 100 x."""
    rows, columns = 900, 1800
    lat = 90 - (torch.arange(rows, dtype=torch.float64) + 0.5) * 180 / rows
    lon = -180 + (torch.arange(columns, dtype=torch.float64) + 0.5) * 360 / columns
    x = sphere.from_latlon(torch.stack(torch.meshgrid(lat, lon, indexing="ij"), -1))
    raster = (127 + 100 * x).permute(2, 0, 1)
    tiles._padded_raster.cache_clear()
    monkeypatch.setattr(tiles, "blue_marble", lambda: raster)
    yield
    tiles._padded_raster.cache_clear()


@pytest.mark.parametrize(
    "place",
    [
        (0, 0),
        (40, -75),
        (10, 180),
        (-33, -179.9),
        (65, 179),
        (90, 0),
        (-90, 0),
        (89.5, 120),
        (-89.9, -60),
        (88.7, 180),
    ],
)
def test_pixels_show_their_place_without_seams(place, smooth_earth):
    x = at(*place)
    shown = tiles.render(x)[0].double()
    expected = 127 + 100 * sphere.project(tiles.footprint(x))[0].permute(2, 0, 1).double()
    assert (shown - expected).abs().max() < 0.75  # half a grey level of rounding, and interpolation


def test_real_tiles_are_continuous_across_the_antimeridian():
    for lat in (65.0, -17.0, -80.0):
        east, west = (tiles.render(at(lat, lon))[0].double() for lon in (179.999, -179.999))
        assert east.std() > 1
        assert (east - west).abs().mean() < 0.5


def test_footprint_is_a_square_north_up():
    x = at(10.0, 20.0).double()
    corners = sphere.project(tiles.footprint(x))[0]
    lat, lon = sphere.to_latlon(corners).unbind(-1)
    assert (lat[0] > lat[-1]).all()
    assert (lon[:, 0] < lon[:, -1]).all()
    half = 150 * 31 / 32  # pixel centres
    middle = (corners[:, 15] + corners[:, 16]) / 2
    assert float(sphere.distance_km(sphere.project(middle[0]), x[0])) == pytest.approx(
        6371 * np.arctan(half / 6371), rel=1e-4
    )
    assert float(sphere.distance_km(corners[0, 0], x[0])) == pytest.approx(
        6371 * np.arctan(half * 2**0.5 / 6371), rel=1e-4
    )
    assert torch.allclose(sphere.project(corners.mean((0, 1))), x[0], atol=1e-6)


def view(n=1, **given):
    """North-up views, but for what is given."""
    return dataclasses.replace(
        tiles.north_up(n), **{name: torch.tensor([value] * n) for name, value in given.items()}
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_heading_turns_the_tile(turns):
    """With east above, north lies to the left: the tile is turned against the clock."""
    x = at(12, 50.5)
    turned = tiles.render(x, view(heading=turns * np.pi / 2))[0]
    expected = tiles.render(x)[0].rot90(turns, (1, 2))
    assert (turned.int() - expected.int()).abs().max() <= 1  # a grey level of rounding


@pytest.mark.parametrize("heading", [0.0, 45.0, 200.0])
def test_what_lies_above_is_in_the_direction_of_the_heading(heading):
    x = at(48, 11).double()
    edge = tiles.footprint(x, view(heading=np.deg2rad(heading)))[0, 0, 15:17].mean(0)
    lat, lon = sphere.to_latlon(sphere.project(edge)).tolist()
    bearing = Geod(ellps="sphere").inv(11, 48, lon, lat)[0] % 360  # an independent geodesic
    assert bearing == pytest.approx(heading, abs=1e-3)


@pytest.mark.parametrize("side_km", [200.0, 400.0])
def test_a_side_is_a_width_on_the_tangent_plane(side_km):
    x = at(-20, 140).double()
    corners = tiles.footprint(x, view(side_km=side_km))[0]
    width = torch.linalg.vector_norm(corners[0, -1] - corners[0, 0]) * 6371 * 32 / 31
    assert float(width) == pytest.approx(side_km, rel=1e-6)


def test_light_is_linear_and_clipped():
    x, plain = at(12, 50.5), tiles.render(at(12, 50.5))[0].double()
    light = dataclasses.replace(
        tiles.north_up(1), gain=torch.tensor([[0.5, 1.0, 4.0]]), offset=torch.tensor([10.0])
    )
    shown = tiles.render(x, light)[0].double()
    expected = torch.tensor([0.5, 1.0, 4.0])[:, None, None] * plain + 10
    assert (shown - expected.clamp(0, 255)).abs()[:2].max() <= 1
    assert (shown - expected.clamp(0, 255)).abs()[2].max() <= 3  # rounded before and after · 4
    assert shown.max() == 255


@pytest.mark.parametrize("cover", [0.1, 0.3, 0.6])
def test_clouds_hide_their_share(cover):
    views = tiles.any_views(4000, torch.Generator().manual_seed(0))
    views = dataclasses.replace(views, cover=torch.full((4000,), cover))
    opacity = tiles.opacity(views)
    assert opacity.shape == (4000, 1, 32, 32)
    assert (opacity.min(), opacity.max()) == (0, 1)
    assert float(opacity.mean()) == pytest.approx(cover, abs=0.03)


def test_clouds_are_white_and_hide_what_lies_below():
    n = 50
    views = tiles.any_views(n, torch.Generator().manual_seed(0))
    x = sphere.uniform(n, torch.Generator().manual_seed(1))
    shown, clear = (
        tiles.render(x, dataclasses.replace(views, cover=cover)).double()
        for cover in (views.cover, torch.zeros(n))
    )
    share = tiles.opacity(views).double()
    assert (shown - (1 - share) * clear - share * 235).abs().max() <= 1  # two roundings
    assert torch.equal(shown[(share == 0).expand_as(shown)], clear[(share == 0).expand_as(shown)])
    whole = tiles.render(x, dataclasses.replace(views, cover=torch.ones(n)))
    assert (whole == 235).all()


def test_a_seed_moves_the_clouds():
    first, again, other = (
        np.asarray(tiles.tile(12, 50.5, cover=0.5, seed=seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert (first != other).any(-1).mean() > 0.3


def test_any_views_have_their_distributions():
    n = 20_000
    views = tiles.any_views(n, torch.Generator().manual_seed(0))
    assert len(views) == n
    for values, low, high in ((views.heading, 0, 2 * np.pi), (views.side_km.log2(), *np.log2([200, 400]))):  # fmt: skip
        assert kstest(values.numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    log_gain = views.gain.log()
    assert log_gain.std(0).tolist() == pytest.approx([(0.25**2 + 0.1**2) ** 0.5] * 3, rel=0.02)
    assert float(torch.corrcoef(log_gain.T)[0, 1]) == pytest.approx(0.0625 / 0.0725, abs=0.01)
    assert kstest(views.offset.numpy(), "norm", (0, 12)).pvalue > 1e-3
    assert kstest(views.cover.numpy(), "uniform", (0, tiles.MOST_CLOUDS)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heading": float("nan")}, "heading nan; expected degrees"),
        ({"heading": float("inf")}, "heading inf"),
        ({"side_km": 0}, "side_km = 0; expected 10 to 5000"),
        ({"side_km": 1e5}, "side_km = 100000"),
        ({"side_km": float("nan")}, "side_km = nan"),
        ({"cover": 1.1}, "cover = 1.1; expected 0 to 1"),
        ({"cover": float("nan")}, "cover = nan"),
    ],
)
def test_a_tile_with_an_impossible_view(options, message):
    with pytest.raises(ValueError, match=message):
        tiles.tile(24, 6, **options)


def test_tile_of_known_places():
    sahara, ocean, ice = (
        np.asarray(tiles.tile(*tiles.EXAMPLES[name])).mean((0, 1))
        for name in ("Sahara", "ocean", "ice")
    )
    assert sahara[0] > sahara[2] + 30  # yellow
    assert ocean[2] > ocean[0] + 15  # blue
    assert ice.min() > 200  # white
    assert tiles.tile(0, 0).size == (tiles.SIZE, tiles.SIZE)


def test_tile_and_render_agree():
    image = np.asarray(tiles.tile(12.0, 50.5))
    assert np.array_equal(image, tiles.render(at(12.0, 50.5))[0].permute(1, 2, 0).numpy())


def test_tile_of_a_bad_place():
    with pytest.raises(ValueError, match=r"latitude 95\.0"):
        tiles.tile(95, 0)


# Land


@pytest.mark.parametrize(
    ("lat", "lon", "land"),
    [(24, 6, True), (-77, 95, True), (61, 97, True), (-25, 134, True), (40, -100, True), (-38, -110, False), (0, 0, False), (89, 0, False),
     (30, -40, False), (-90, 0, True), (68, 180, True), (68, -180, True), (0, 180, False)],
)  # fmt: skip
def test_land_knows_where_it_is(lat, lon, land):
    assert bool(tiles.is_land(at(lat, lon))) == land


def test_land_share_of_the_sphere():
    assert float(tiles.is_land(sphere.fibonacci_grid(200_000)).double().mean()) == pytest.approx(
        0.2914, abs=0.001
    )


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_draws_are_on_land_with_their_share(split):
    n = 2000
    x = tiles.sample_centers(n, split, torch.Generator().manual_seed(0))
    assert float(tiles.is_land(x).double().mean()) == pytest.approx(
        tiles.LAND_SHARE, abs=4 * (0.19 / n) ** 0.5
    )


def test_prior_integrates_to_one():
    cells = healpix.centers(torch.arange(12 * 4**7), 7)
    density = tiles.log_prior(cells).double().exp()
    assert float(density.mean()) * 4 * np.pi == pytest.approx(1, abs=0.003)
    assert float((density * tiles.is_land(cells)).sum() / density.sum()) == pytest.approx(
        tiles.LAND_SHARE, abs=0.003
    )


# Splits


def test_a_fifth_of_the_blocks_is_held_out():
    assert float(tiles.held_out_blocks().double().mean()) == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize("views", tiles.VIEWS)
@pytest.mark.parametrize("split", tiles.SPLITS)
def test_no_pixel_of_a_tile_lies_on_the_other_side(split, views):
    x, seen = tiles.draw(1500, split, torch.Generator().manual_seed(0), views)
    sides = tiles.is_held_out(tiles.footprint(x, seen))
    assert int((sides != (split == "held-out")).flatten(1).any(1).sum()) == 0


def test_splits_are_different_draws(cache):
    train, validation, test = (tiles.load(split, 20).x for split in ("train", "validation", "test"))
    assert float(sphere.distance_km(train[:, None], validation[None]).min()) > 0.1
    assert float(sphere.distance_km(train[:, None], test[None]).min()) > 0.1


# The cache


def test_north_up_and_any_view_are_different_data(cache):
    north, any_ = (tiles.load("test", 40, views) for views in ("north-up", "any"))
    assert torch.equal(tiles.load("test", 40, "any").images, any_.images)
    assert torch.equal(tiles.load("test", 40, "north-up").images, north.images)
    assert not torch.equal(tiles.render(any_.x), any_.images)
    assert len(folders(cache)) == 2
    with pytest.raises(ValueError, match="unknown views 'north'"):
        tiles.load("test", 40, "north")


def test_tiles_are_what_their_places_show_and_deterministic(cache, tmp_path, monkeypatch):
    first = tiles.load("train", 30, "north-up")
    assert first.images.shape == (30, 3, 32, 32)
    assert first.images.dtype == torch.uint8
    x, views = tiles.draw(30, "train", torch.Generator().manual_seed(0), "north-up")
    assert torch.equal(first.x, x)
    assert torch.equal(first.images, tiles.render(x, views))
    assert [path.name.split("-")[0] for path in folders(cache)] == ["train"]
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "another"))
    again = tiles.load("train", 30, "north-up")
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.x, first.x)
    assert (tmp_path / "another" / "tiles").is_dir()


def test_second_load_reads_the_cache(cache, monkeypatch):
    first = tiles.load("test", 10)
    monkeypatch.delattr(tiles, "_fill")
    assert torch.equal(tiles.load("test", 10).images, first.images)


def test_indexing_keeps_images_and_places_together(cache):
    some = tiles.load("test", 10, "north-up")[torch.tensor([7, 2])]
    assert len(some) == 2
    assert torch.equal(some.images, tiles.render(some.x))


def test_an_interrupted_build_leaves_no_cache(cache, monkeypatch):
    render, calls = tiles.render, []

    def interrupted(x, views):
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(x, views)

    monkeypatch.setattr(tiles, "_fill", functools.partial(tiles._fill, chunk=4))
    monkeypatch.setattr(tiles, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiles.load("train", 10, "north-up")
    assert folders(cache) == []
    monkeypatch.setattr(tiles, "render", render)
    loaded = tiles.load("train", 10, "north-up")
    assert torch.equal(loaded.images, render(loaded.x))


def test_a_half_written_cache_is_not_taken_for_whole(cache):
    """What a process leaves that was killed while it wrote: a folder of another name."""
    whole = tiles.load("train", 10)
    (folder,) = folders(cache)
    partial = folder.with_name(folder.name + ".99999.partial")
    folder.rename(partial)
    (partial / "x.npy").unlink()
    again = tiles.load("train", 10)
    assert torch.equal(again.images, whole.images)


@pytest.mark.parametrize("name", ["images.npy", "x.npy"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "garbage"])
def test_a_damaged_cache_names_the_file(cache, name, damage):
    tiles.load("train", 10)
    (folder,) = folders(cache)
    content = (folder / name).read_bytes()
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(
            {"truncated": content[:-50], "empty": b"", "garbage": b"\x00" * len(content)}[damage]
        )
    with pytest.raises(OSError, match=name.replace(".", r"\.")):
        tiles.load("train", 10)


def test_a_cache_of_another_size_is_refused(cache):
    tiles.load("train", 10)
    (folder,) = folders(cache)
    np.save(folder / "x.npy", np.zeros((9, 3), np.float32))
    with pytest.raises(
        OSError,
        match=r"x\.npy is missing or damaged \(it differs from its checksum\)",
    ):
        tiles.load("train", 10)


def test_no_disk_space_is_said_before_any_work(cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    monkeypatch.setattr(tiles, "render", None)
    with pytest.raises(
        OSError, match=r"[0-9.]+ MB are needed in .*, 0.0 MB are free; set GEOFLOW_CACHE"
    ):
        tiles.load("train", 10_000)


def test_a_disk_that_fills_up_leaves_no_cache(cache, monkeypatch):
    def full(x, views):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tiles, "render", full)
    with pytest.raises(OSError, match="No space left"):
        tiles.load("train", 10)
    assert folders(cache) == []


def test_unknown_split_and_bad_counts(cache):
    with pytest.raises(ValueError, match="unknown split 'held_out' .did you mean 'held-out'"):
        tiles.load("held_out", 10)
    for n, text in ((0, "0 tiles"), ("5", "'5' tiles"), (2.5, r"2\.5 tiles"), (None, "None tiles")):
        with pytest.raises(
            ValueError, match=f"{text} asked for; expected a whole number from 1 to"
        ):
            tiles.load("train", n)


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        ("a", 3, "no numbers"),
        (None, 3, "no numbers"),
        (91, 3, r"latitude 91\.0"),
        (3, float("nan"), "longitude nan"),
    ],
)
def test_a_tile_of_no_place(lat, lon, message):
    with pytest.raises(ValueError, match=message):
        tiles.tile(lat, lon)
