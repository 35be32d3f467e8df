"""Outlines of cells and rasters of mass: exact areas, sums, seams, poles, and files that other programs read."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import torch
from small import points

from geoflow import healpix, sphere
from geoflow.gis import files, outlines, rasters


def drawn(cells, levels):
    coordinates = outlines.multipolygon(cells, levels)
    return shapely.geometry.shape({"type": "MultiPolygon", "coordinates": coordinates})


def true_area(shape):
    """Area on the unit sphere of a polygon whose sides are straight in longitude and latitude: that of its equal-area picture."""
    fine = shapely.segmentize(shape, 0.1)
    return shapely.transform(
        fine, lambda p: np.stack([np.radians(p[:, 0]), np.sin(np.radians(p[:, 1]))], 1)
    ).area


def disc(latlon, km):
    """Cells of several levels that fill a disc: large ones inside, small ones at its edge."""
    center, radius = sphere.from_latlon(torch.tensor(latlon).double()), km / sphere.EARTH_RADIUS_KM
    cells, found = torch.arange(12 * 4**2), []
    for level in range(2, 18):
        side = math.sqrt(math.pi / 3) / 2**level
        distance = sphere.distance(healpix.centers(cells, level), center)
        edge = (distance > radius - side) & (distance < radius + side) & (side > radius / 8)
        kept = cells[(distance < radius) & ~edge]
        found.append((kept, torch.full_like(kept, level)))
        cells = (4 * cells[edge][:, None] + torch.arange(4)).flatten()
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def scattered(level, share):
    cells = torch.arange(12 * 4**level)
    kept = cells[torch.rand(len(cells), generator=torch.Generator().manual_seed(level)) < share]
    return kept, torch.full_like(kept, level)


PLACES = [(48, 2), (60.1, -179.9), (0, 180), (90, 0), (-89.99, -135), (41.81, 90), (-41.8, 180)]
SETS = [
    *(pytest.param(*disc(place, km), id=f"{km} km at {place}") for place in PLACES for km in (2, 60, 3000)),
    *(pytest.param(*scattered(level, p), id=f"{p} of level {level}") for level in (3, 4) for p in (0.1, 0.5, 0.9)),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "levels"), SETS)
def test_outlines_have_the_area_of_their_cells_and_hold_their_centres(cells, levels):
    shape = drawn(cells, levels)
    assert shape.is_valid
    assert true_area(shape) == pytest.approx(
        float((math.pi / 3 / 4.0 ** levels.double()).sum()), rel=2e-3
    )
    lat, lon = sphere.to_latlon(healpix.centers(cells, levels)).T.numpy()
    assert shapely.intersects_xy(shape, lon, lat).all()
    west, south, east, north = shape.bounds
    assert -180 <= west < east <= 180 and -90 <= south < north <= 90


@pytest.mark.parametrize(("cells", "levels"), SETS)
def test_outlines_follow_rfc_7946(cells, levels):
    for exterior, *holes in outlines.multipolygon(cells, levels):
        assert exterior[0] == exterior[-1] and shapely.is_ccw(shapely.LinearRing(exterior))
        assert not any(shapely.is_ccw(shapely.LinearRing(hole)) for hole in holes)


@pytest.mark.parametrize(("cells", "levels"), SETS)
def test_outlines_leave_out_what_is_no_cell(cells, levels):
    """Random places are inside exactly when their cell is, but for a sliver along curves that are drawn as lines."""
    shape, x = drawn(cells, levels), points(20_000)
    x = torch.cat(
        [x, healpix.centers(cells, levels)[:2000] + 0.002 * points(len(cells[:2000])).double()]
    )
    x = sphere.unit(x.double())
    lat, lon = sphere.to_latlon(x).T.numpy()
    ours = torch.zeros(len(x), dtype=torch.bool)
    for level in levels.unique().tolist():
        ours |= torch.isin(healpix.cells(x, level), cells[levels == level])
    wrong = shapely.contains_xy(shape, lon, lat) != ours.numpy()
    assert wrong.mean() < 2e-3


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.5, "50%"), (0.999, "99.9%"), (0.005, "0.5%"), (0.683, "68.3%"), (0.28, "28%"), (0.9545, "95.45%")],
)  # fmt: skip
def test_a_region_names_its_probability(probability, words):
    one = torch.tensor([5]), torch.tensor([3])
    about = outlines.region(*one, probability, probability, 1.0)["properties"]
    assert f"The smallest region that holds {words} of the probability" in about["description"]


def test_a_hole_is_a_hole():
    around = torch.tensor([cell for cell in range(64) if cell != 27])
    [[_, hole]] = outlines.multipolygon(around, torch.full_like(around, 3))
    assert true_area(shapely.Polygon(hole)) == pytest.approx(math.pi / 3 / 4**3, rel=2e-3)


def test_all_of_the_earth_is_one_rectangle():
    ring = [[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]
    [[found]] = outlines.multipolygon(torch.arange(48), torch.ones(48, dtype=torch.int64))
    assert shapely.Polygon(found).equals(shapely.Polygon(ring)) and len(found) == 5


# Rasters


def mixed(finest):
    """All of the Earth in cells of random levels."""
    cells, found = torch.arange(12 * 4**3), []
    generator = torch.Generator().manual_seed(0)
    for level in range(3, finest + 1):
        split = (torch.rand(len(cells), generator=generator) < 0.4) & (level < finest)
        found.append((cells[~split], torch.full_like(cells[~split], level)))
        cells = (4 * cells[split][:, None] + torch.arange(4)).flatten()
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def axes(rows):
    return 90 - (torch.arange(rows) + 0.5) * 180 / rows, -180 + (
        torch.arange(2 * rows) + 0.5
    ) * 180 / rows


def raster(cells, levels, log_density, rows):
    x, log_density = healpix.centers(cells, levels), log_density.double()
    mass = log_density.exp() * math.pi / 3 / 4.0 ** levels.double()
    return rasters.mean_log_density(x, log_density, mass, cells, levels, *axes(rows))


@pytest.mark.parametrize("rows", [6, 18, 37, 180])
@pytest.mark.parametrize("finest", [4, 7])
def test_a_uniform_density_has_a_uniform_raster(rows, finest):
    cells, levels = mixed(finest)
    found = raster(
        cells, levels, torch.full((len(cells),), sphere.LOG_UNIFORM, dtype=torch.float64), rows
    )
    assert (found - sphere.LOG_UNIFORM).abs().max() < 1e-9


@pytest.mark.parametrize("rows", [6, 37, 180])
@pytest.mark.parametrize("seed", range(3))
def test_any_raster_adds_up_to_the_integral(rows, seed):
    """Densities that jump from cell to cell by up to e²⁰."""
    cells, levels = mixed(9)
    values = 20 * torch.rand(len(cells), generator=torch.Generator().manual_seed(seed)) - 25
    mass = values.double().exp() * math.pi / 3 / 4.0 ** levels.double()
    pixels = raster(cells, levels, values, rows).exp() * rasters.pixel_areas(rows)[:, None]
    assert float(pixels.sum()) == pytest.approx(float(mass.sum()), rel=1e-9)


@pytest.mark.parametrize("south", [-90, -30, 41.8, 80])
@pytest.mark.parametrize("rows", [6, 37, 180])
def test_a_density_that_is_zero_somewhere(south, rows):
    """Uniform north of a latitude and −∞ nats south of it."""
    cells, levels = mixed(6)
    inside = healpix.centers(cells, levels)[:, 2] > math.sin(math.radians(south))
    area = math.pi / 3 / 4.0 ** levels.double()
    values = torch.where(inside, -area[inside].sum().log(), -math.inf)
    pixels = raster(cells, levels, values, rows).exp() * rasters.pixel_areas(rows)[:, None]
    assert float(pixels.sum()) == pytest.approx(1, rel=1e-9)
    far = axes(rows)[0] < south - 180 / rows - 8  # further than a pixel and a cell
    assert float(pixels[far].sum()) < 1e-9


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", [6, 12])
def test_the_mass_of_a_cell_stays_where_it_is(place, level):
    """A single cell: its pixels are those that it overlaps, about by area, found here from many points inside."""
    x = sphere.from_latlon(torch.tensor(place).double())
    chosen = int(healpix.cells(x, level))
    cells, levels = torch.arange(12 * 4**3), torch.full((768,), 3)
    for depth in range(3, level):
        parent = chosen >> 2 * (level - depth)
        kept = ~((cells == parent) & (levels == depth))
        cells = torch.cat([cells[kept], 4 * parent + torch.arange(4)])
        levels = torch.cat([levels[kept], torch.full((4,), depth + 1)])
    values = torch.full((len(cells),), -60.0)
    values[(cells == chosen) & (levels == level)] = math.log(3 / math.pi * 4**level)
    found = raster(cells, levels, values, 90).exp() * rasters.pixel_areas(90)[:, None]
    inside = healpix.centers((chosen << 14) + torch.arange(4**7), level + 7)
    lat, lon = sphere.to_latlon(inside).unbind(-1)
    pixel = ((90 - lat) / 2).long().clamp(max=89) * 180 + ((lon + 180) / 2).long() % 180
    expected = torch.bincount(pixel, minlength=90 * 180).reshape(90, 180) / len(inside)
    assert float((found - expected).abs().sum()) / 2 < (0.3 if level == 6 else 0.2)


@pytest.mark.parametrize("rows", [1, 6, 180])
def test_pixels_cover_the_sphere(rows):
    assert float(rasters.pixel_areas(rows).sum()) * 2 * rows == pytest.approx(4 * math.pi)


# Files


@pytest.fixture(scope="module")
def peak():
    """A raster (H, 2H) that is uniform but for a peak in one pixel."""
    values = torch.full((18, 36), sphere.LOG_UNIFORM, dtype=torch.float64)
    values[3, 20] = 5.0
    return values


@pytest.mark.parametrize("write", [files.write_geotiff, files.write_netcdf])
@pytest.mark.parametrize("room", [0, 1000, 20_000])
def test_a_full_disk_is_an_error_and_leaves_no_half_a_file(write, room, tmp_path):
    """In a process of its own whose files cannot grow beyond `room` bytes."""
    code = f"""
import resource, signal, torch
from pathlib import Path
from geoflow.gis import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
try:
    files.{write.__name__}(Path("map"), torch.randn(180, 360, dtype=torch.float64))
except OSError as error:
    print("refused")
print([file.name for file in Path().iterdir()])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.split("\n")[:2] == ["refused", "[]"], run.stderr


def test_geotiff(peak, tmp_path):
    path = files.write_geotiff(tmp_path / "map.tif", peak)
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]
    with rasterio.open(path) as file:
        assert file.crs.to_epsg() == 4326 and tuple(file.bounds) == (-180, -90, 180, 90)
        assert (
            file.transform.e < 0 and file.compression.name == "deflate" and math.isnan(file.nodata)
        )
        assert file.descriptions == ("probability per square kilometre", "probability of the pixel")
        assert file.units == ("1/km²", "1") and "adds up" in file.tags()["description"]
        per_km2, mass = file.read().astype(float)
    assert np.allclose(per_km2, peak.exp() / 6371.0**2, rtol=1e-6)
    km2 = 6371.0**2 * np.radians(10) * np.diff(np.sin(np.radians(np.linspace(90, -90, 19)))) * -1
    assert np.allclose(mass, per_km2 * km2[:, None], rtol=1e-6)


AWKWARD = {
    "file": "é\0\x1b x\ud800",
    "unit": 1,
    "flush": None,
    "ns": " ",
    "a=b": [1, 2],
    "bidx": Path("a"),
}


@pytest.mark.parametrize("about", [None, {"file": "a.png", "seed": 0, "warning": ""}, AWKWARD])
def test_files_say_of_what_question_they_are(peak, tmp_path, about):
    from scipy.io import netcdf_file

    with rasterio.open(files.write_geotiff(tmp_path / "map.tif", peak, about)) as file:
        found = [file.tags().get("source")]
    with netcdf_file(files.write_netcdf(tmp_path / "map.nc", peak, about), mmap=False) as file:
        found.append(getattr(file, "source", None))
    expected = about and json.loads(json.dumps(about, default=str))
    assert [text and json.loads(text) for text in found] == [expected] * 2


def test_netcdf(peak, tmp_path):
    from scipy.io import netcdf_file

    path = files.write_netcdf(tmp_path / "map.nc", peak)
    with netcdf_file(path, mmap=False) as file:
        variables = file.variables
        assert variables["lat"][:].tolist() == axes(18)[0].tolist()
        assert variables["lon"].units == b"degrees_east" and file.Conventions == b"CF-1.8"
        assert np.allclose(variables["density"][:], peak.exp() / 6371.0**2, rtol=1e-6)
        total = float((peak.exp() * rasters.pixel_areas(18)[:, None]).sum())
        assert variables["probability"][:].sum(dtype=float) == pytest.approx(total, rel=1e-6)
        assert variables["probability"].dimensions == ("lat", "lon")
        for name in ("density", "probability"):
            grid = variables[variables[name].grid_mapping.decode()]
            assert rasterio.CRS.from_wkt(grid.crs_wkt.decode()).to_epsg() == 4326
            assert grid.grid_mapping_name == b"latitude_longitude"


@pytest.mark.parametrize("write", [files.write_geotiff, files.write_netcdf])
def test_a_file_without_a_name_is_refused(write, tmp_path):
    for given in ("", tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match=r"^'.*' is no file; expected a path to write to"):
            write(given, torch.zeros(4, 8))
    assert list(tmp_path.iterdir()) == []
