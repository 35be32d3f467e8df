"""Earth tiles: no seams, the right places, disjoint splits, a cache that is whole or not there."""

import errno
import functools
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("split", tiles.SPLITS)
def test_no_pixel_of_a_tile_lies_on_the_other_side(split):
    x = tiles.sample_centers(1500, split, torch.Generator().manual_seed(0))
    sides = tiles.is_held_out(tiles.footprint(x))
    assert int((sides != (split == "held-out")).flatten(1).any(1).sum()) == 0


def test_splits_are_different_draws(cache):
    train, validation, test = (tiles.load(split, 20).x for split in ("train", "validation", "test"))
    assert float(sphere.distance_km(train[:, None], validation[None]).min()) > 0.1
    assert float(sphere.distance_km(train[:, None], test[None]).min()) > 0.1


# The cache


def test_tiles_are_what_their_places_show_and_deterministic(cache, tmp_path, monkeypatch):
    first = tiles.load("train", 30)
    assert first.images.shape == (30, 3, 32, 32)
    assert first.images.dtype == torch.uint8
    assert torch.equal(first.images, tiles.render(first.x))
    assert [path.name.split("-")[0] for path in folders(cache)] == ["train"]
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "another"))
    again = tiles.load("train", 30)
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.x, first.x)
    assert (tmp_path / "another" / "tiles").is_dir()


def test_second_load_reads_the_cache(cache, monkeypatch):
    first = tiles.load("test", 10)
    monkeypatch.delattr(tiles, "_fill")
    assert torch.equal(tiles.load("test", 10).images, first.images)


def test_indexing_keeps_images_and_places_together(cache):
    some = tiles.load("test", 10)[torch.tensor([7, 2])]
    assert len(some) == 2
    assert torch.equal(some.images, tiles.render(some.x))


def test_an_interrupted_build_leaves_no_cache(cache, monkeypatch):
    render, calls = tiles.render, []

    def interrupted(x):
        calls.append(len(x))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(x)

    monkeypatch.setattr(tiles, "_fill", functools.partial(tiles._fill, chunk=4))
    monkeypatch.setattr(tiles, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiles.load("train", 10)
    assert folders(cache) == []
    monkeypatch.setattr(tiles, "render", render)
    loaded = tiles.load("train", 10)
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
    def full(x):
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
            ValueError, match=f"{text} asked for; expected a whole number of at least 1"
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
