"""Maps of densities: the uniform one, von Mises–Fisher peaks in closed form, needles, ridges; regions, rasters and GIS files."""

import json
import math

import integrals
import numpy as np
import pytest
import rasterio
import shapely
import torch
from scipy.io import netcdf_file
from small import points

from geoflow import density, sphere
from geoflow.data import tiles
from geoflow.gis import rasters
from geoflow.vmf import Mixture


def vmf(latlon, kappa):
    """Log-density and samples of a von Mises-Fisher distribution, both exact."""
    mode = sphere.from_latlon(torch.tensor(latlon, dtype=torch.float64))

    def log_prob(x):
        cosine_less_one = -(x.double() - mode).square().sum(-1) / 2
        return (
            math.log(kappa / (2 * math.pi))
            - math.log(-math.expm1(-2 * kappa))
            + kappa * cosine_less_one
        )

    generator = torch.Generator().manual_seed(0)
    u, angle = torch.rand(2, 8192, generator=generator, dtype=torch.float64)
    z = 1 + torch.log(u + (1 - u) * math.exp(-2 * kappa)) / kappa
    east, north = sphere.tangent_basis(mode)
    direction = (
        torch.cos(2 * math.pi * angle)[:, None] * east
        + torch.sin(2 * math.pi * angle)[:, None] * north
    )
    return log_prob, z[:, None] * mode + (1 - z**2).clamp(min=0).sqrt()[:, None] * direction


def vmf_entropy(kappa):
    return -(
        math.log(kappa / (2 * math.pi))
        - math.log(-math.expm1(-2 * kappa))
        + kappa * (1 / math.tanh(kappa) - 1 / kappa - 1)
    )


def uniform_log_prob(x):
    return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)


@pytest.fixture(scope="module")
def uniform_map():
    return density.density_map(uniform_log_prob, points(8192), resolution=5.0)


@pytest.fixture(scope="module")
def coast_map():
    return density.density_map(*vmf((12.0, 179.5), 300.0), resolution=0.5)


def test_uniform_density(uniform_map):
    assert uniform_map.integral == pytest.approx(1, abs=1e-6)
    assert uniform_map.entropy == pytest.approx(math.log(4 * math.pi), abs=1e-6)
    assert float(uniform_map.area.sum()) == pytest.approx(4 * math.pi, rel=1e-12)
    assert uniform_map.mass(lambda latlon: latlon[:, 0] > 0) == pytest.approx(
        0.5, abs=0.04
    )  # cells on the equator have one centre
    assert torch.allclose(
        uniform_map.log_density,
        torch.full((36, 72), sphere.LOG_UNIFORM, dtype=torch.float64),
        atol=1e-6,
    )
    assert uniform_map.region_area_km2(0.5) == pytest.approx(
        sphere.EARTH_AREA_KM2, rel=1e-6
    )  # all of it is equally likely


def test_mass_of_half_the_sphere():
    mapped = density.density_map(*vmf((0.0, 30.0), 20.0), resolution=10.0)
    assert mapped.mass(lambda latlon: latlon[:, 0] > 1e-9) == pytest.approx(0.5, abs=0.03)
    assert mapped.mass(lambda latlon: latlon[:, 0] > -91) == pytest.approx(1)
    assert mapped.mass(lambda latlon: latlon[:, 0] > 91) == 0


@pytest.mark.parametrize("kappa", [0.5, 10.0, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("mode", [(51.3, 17.7), (-89.9, 0.0), (3.0, -180.0)])
def test_a_needle_integrates_to_one(kappa, mode):
    mapped = density.density_map(*vmf(mode, kappa), resolution=10.0)
    assert mapped.integral == pytest.approx(1, abs=0.01)
    assert mapped.entropy == pytest.approx(vmf_entropy(kappa), abs=0.03)
    assert float(mapped.area.sum()) == pytest.approx(4 * math.pi, rel=1e-12)
    assert len(mapped.area) <= 20_000


def test_grid_is_finer_where_the_mass_is():
    mapped = density.density_map(*vmf((51.3, 17.7), 1e4), resolution=10.0)
    assert float(mapped.area.max() / mapped.area.min()) >= 4**5
    assert mapped.cell_mass.max() < 1 / 120
    assert float(mapped.area[mapped.cell_log_density.argmax()]) == float(mapped.area.min())
    far = sphere.distance_km(mapped.x, sphere.from_latlon(torch.tensor([51.3, 17.7]))) > 3000
    assert (mapped.area[far] == mapped.area.max()).all()


@pytest.mark.parametrize("width", [0.3, 0.1, 0.03])
def test_a_ridge_integrates_to_one(width):
    """A band around a tilted great circle: centres beside the ridge matter as much as those on it."""
    normal = sphere.unit(torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64))
    log_total = math.log(
        2 * math.pi * width * math.sqrt(2 * math.pi) * math.erf(1 / (width * math.sqrt(2)))
    )

    def log_prob(x):
        return -0.5 * ((x.double() @ normal) / width) ** 2 - log_total

    candidates = points(40_000)
    keep = (
        torch.rand(len(candidates), generator=torch.Generator().manual_seed(1))
        < (log_prob(candidates) + log_total).exp()
    )
    mapped = density.density_map(log_prob, candidates[keep][:8192], resolution=10.0)
    assert mapped.integral == pytest.approx(1, abs=0.01)


def test_two_needles_are_both_found():
    (one, some), (two, others) = vmf((10.0, 10.0), 1e4), vmf((-60.0, 170.0), 3e4)

    def log_prob(x):
        return torch.logaddexp(one(x) + math.log(0.7), two(x) + math.log(0.3))

    mapped = density.density_map(log_prob, torch.cat([some[:1434], others[:614]]), resolution=10.0)
    assert mapped.integral == pytest.approx(1, abs=0.01)
    assert mapped.mass(lambda latlon: latlon[:, 0] > 0) == pytest.approx(0.7, abs=0.01)


@pytest.fixture(scope="module")
def needles():
    """50 peaks of 12 km: their log-density, and samples."""
    generator, kappa, n = torch.Generator().manual_seed(0), 3e5, 50
    weight = torch.full((1, n), -math.log(n)).double()
    mixture = Mixture(
        weight, sphere.uniform((1, n), generator).double(), torch.full((1, n), kappa).double()
    )
    samples = mixture.sample(torch.rand(1, 4096, 3, generator=generator).double())[0]
    return lambda x: mixture.log_prob(x[None].double())[0], samples


def test_integral_without_a_grid_and_its_stated_error(needles):
    """Over eight draws the deviations from 1, in units of the stated errors, have the size of a standard normal's."""
    found, error = torch.tensor(
        [
            density.importance_integral(*needles, 600, torch.Generator().manual_seed(seed))
            for seed in range(8)
        ],
        dtype=torch.float64,
    ).T
    assert error.max() < 0.025
    chi2 = float(((found - 1) / error).square().sum())
    assert 1.3 < chi2 < 22  # 99.5 % of χ² with 8 degrees of freedom


def test_integral_of_what_is_no_density(needles):
    log_prob, samples = needles
    whole, part = (
        density.importance_integral(
            lambda x, s=share: log_prob(x) + math.log(s),
            samples,
            600,
            torch.Generator().manual_seed(0),
        )
        for share in (1.0, 0.9)
    )
    assert part == pytest.approx((0.9 * whole[0], 0.9 * whole[1]))


def test_integral_counts_what_the_samples_have_missed(needles):
    """Half of the probability is uniform, and no sample lies there: a few of the points do."""
    log_prob, samples = needles

    def half(x):
        return torch.logaddexp(log_prob(x), torch.tensor(sphere.LOG_UNIFORM)) - math.log(2)

    found, error = density.importance_integral(
        half, samples, 4000, torch.Generator().manual_seed(0)
    )
    assert error < 0.1
    assert found == pytest.approx(1, abs=3 * error)


@pytest.mark.parametrize("seed", range(3))
def test_volcanoes_integrate_to_one(seed):
    """150 peaks of 20 to 100 km, most of them lighter than a cell that is split: rough, and found by samples."""
    generator = torch.Generator().manual_seed(seed)
    n, uniform = 150, torch.rand(2, 1, 150, generator=generator, dtype=torch.float64)
    kappa = (sphere.EARTH_RADIUS_KM / (20 * 5 ** uniform[0])) ** 2
    weight = (uniform[1] ** 2 + 0.01).log().log_softmax(-1)
    mixture = Mixture(weight, sphere.uniform((1, n), generator).double(), kappa)
    samples = mixture.sample(torch.rand(1, 8192, 3, generator=generator).double())[0]
    mapped = density.density_map(lambda x: mixture.log_prob(x[None].double())[0], samples, 10.0)
    assert mapped.integral == pytest.approx(1, abs=0.01)


def arcs(seed, km):
    """Two ridges along great circles, 5,000 km long and so many km wide, and a broad rest: log-density and samples."""
    generator, n = torch.Generator().manual_seed(seed), 8192
    pole = points(2, seed=seed)
    east, north = sphere.tangent_basis(pole)
    width, length = km / sphere.EARTH_RADIUS_KM, 0.8
    along = math.log(2 * math.pi * torch.special.i0(torch.tensor(length**-2)).item())
    across = math.log(width * math.sqrt(2 * math.pi))

    def log_prob(x):
        x = x.double()
        angle = torch.atan2(x @ north.T, x @ east.T)
        ridges = torch.cos(angle) / length**2 - along - 0.5 * ((x @ pole.T) / width) ** 2 - across
        return torch.logaddexp(
            ridges.logsumexp(-1) + math.log(0.35), torch.tensor(sphere.LOG_UNIFORM + math.log(0.3))
        )

    which = torch.rand(n, generator=generator)
    turn = torch.linspace(-math.pi, math.pi, 20001).double()[:-1]
    angle = turn[torch.multinomial((turn.cos() / length**2).exp(), n, True, generator=generator)]
    off = width * torch.randn(n, generator=generator, dtype=torch.float64)
    one = (which < 0.35).long()
    circle = torch.cos(angle)[:, None] * east[one] + torch.sin(angle)[:, None] * north[one]
    ridge = off[:, None] * pole[one] + (1 - off**2).sqrt()[:, None] * circle
    return log_prob, torch.where((which > 0.7)[:, None], points(n, seed=seed + 1), ridge)


def test_long_narrow_ridges_integrate_to_one():
    """Ocean tiles look like this. The errors of single maps are random: their mean is smaller."""
    found = [
        density.density_map(*arcs(seed, km), 10.0).integral for seed in range(3) for km in (20, 60)
    ]
    assert found == pytest.approx([1] * 6, abs=0.015)
    assert sum(found) / 6 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["tiles-vmf", "tiles-vmf-mixture"])
def test_closed_forms_integrate_to_one(name, shipped):
    """On random tiles, the last three of which are the first of the benchmark's 50: lowest 0.998."""
    for place in [*sphere.to_latlon(points(4, seed=11)).tolist(), *integrals.places()[:3]]:
        mapped = shipped(name).density(tiles.tile(*place), resolution=2.0)
        assert mapped.integral == pytest.approx(1, abs=0.003)
        assert raster_sum(mapped) == pytest.approx(mapped.integral, abs=1e-9)


@pytest.mark.slow
def test_an_ocean_tile_integrates_to_one(shipped):
    """Of 50 random tiles one whose integral fell shortest: ridges across two oceans, narrower than the cells."""
    mapped = shipped("tiles").density(tiles.tile(-51.37, 137.40), resolution=2.0)
    assert mapped.integral == pytest.approx(1, abs=0.01)
    assert raster_sum(mapped) == pytest.approx(mapped.integral, abs=1e-9)


def test_budget_of_evaluations_is_kept():
    calls = []
    log_prob, samples = vmf((10.0, 10.0), 30.0)

    def counting(x):
        calls.append(len(x))
        return log_prob(x)

    mapped = density.density_map(counting, samples, 10.0, max_cells=2000)
    assert sum(calls) <= 2000
    density.density_map(counting, samples, 10.0, max_cells=768)
    assert calls[-1:] == [768], "the coarsest grid alone"
    assert float(mapped.area.sum()) == pytest.approx(4 * math.pi, rel=1e-12)


@pytest.mark.parametrize("cells", [767, -1, 1000.5, "2000", None])
def test_bad_number_of_cells(cells):
    with pytest.raises(
        ValueError, match=f"max_cells={cells!r}; expected a whole number from 768 to"
    ):
        density.density_map(uniform_log_prob, points(10), 10.0, max_cells=cells)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_highest_density_region_of_a_vmf(probability, coast_map):
    """The region is a cap: its mass is 1 − exp(κ (cos r − 1)) up to e^−600."""
    kappa, (log_prob, _) = 300.0, vmf((12.0, 179.5), 300.0)
    cosine = 1 + math.log(1 - probability) / kappa
    edge = float(
        log_prob(sphere.from_latlon(torch.tensor([12.0, 179.5], dtype=torch.float64)))
    ) + kappa * (cosine - 1)
    assert coast_map.region_threshold(probability) == pytest.approx(edge, abs=0.05)
    area = 2 * math.pi * (1 - cosine) * sphere.EARTH_RADIUS_KM**2
    assert coast_map.region_area_km2(probability) == pytest.approx(area, rel=0.05)


def test_thresholds_fall_as_regions_grow(coast_map):
    thresholds = [coast_map.region_threshold(p) for p in (1e-9, 0.2, 0.5, 0.9, 0.99, 1 - 1e-12)]
    assert thresholds == sorted(thresholds, reverse=True)
    for probability in (0, 1, -0.5, math.nan):
        with pytest.raises(ValueError, match=f"probability {probability}"):
            coast_map.region_threshold(probability)
    with pytest.raises(ValueError, match="probability '0.5'; expected a finite number"):
        coast_map.region_area_km2("0.5")


def test_raster_shows_the_density(coast_map):
    """The mean of a vMF over a pixel of 0.5°, from 49 points in it."""
    log_prob, _ = vmf((12.0, 179.5), 300.0)
    centers = torch.stack(torch.meshgrid(coast_map.lat, coast_map.lon, indexing="ij"), -1).double()
    exact = log_prob(sphere.from_latlon(centers))
    near = exact > exact.max() - 3
    assert near.sum() > 200
    inside = torch.cartesian_prod(*[(torch.arange(7).double() - 3) / 14] * 2)
    exact = log_prob(sphere.from_latlon(centers[near][:, None] + inside)).exp().mean(1).log()
    assert (coast_map.log_density[near] - exact).abs().max() < 0.15


def raster_sum(mapped):
    """∫ over the pixels, whose areas are found here."""
    edges = np.sin(np.radians(np.linspace(90, -90, len(mapped.lat) + 1)))
    area = -np.diff(edges) * 2 * np.pi / len(mapped.lon)
    return float((mapped.log_density.exp().numpy() * area[:, None]).sum())


PLACES = [(48.0, 2.0), (60.1, -179.9), (0.2, 180.0), (90.0, 0.0), (-89.99, 45.0)]


@pytest.mark.parametrize("km", [0.5, 2, 6, 20, 100, 1000])
@pytest.mark.parametrize("mode", PLACES)
def test_rasters_add_up_and_hold_the_peak(mode, km):
    mapped = density.density_map(*vmf(mode, (sphere.EARTH_RADIUS_KM / km) ** 2), resolution=2.0)
    assert mapped.integral == pytest.approx(1, abs=0.003)
    assert raster_sum(mapped) == pytest.approx(mapped.integral, abs=1e-9)
    row, column = divmod(int(mapped.log_density.argmax()), len(mapped.lon))
    assert abs(float(mapped.lat[row]) - mode[0]) <= 1 + 1e-4
    if abs(mode[0]) < 89:
        assert abs((float(mapped.lon[column]) - mode[1] + 180) % 360 - 180) <= 1 + 1e-4


def test_the_raster_of_a_mixture_has_its_shares(needles):
    log_prob, samples = needles
    for resolution in (0.5, 3.0, 18.0):
        mapped = density.density_map(log_prob, samples, resolution)
        assert raster_sum(mapped) == pytest.approx(mapped.integral, abs=1e-9)
        north = mapped.lat > 0
        area = rasters.pixel_areas(len(mapped.lat))[:, None]
        share = float((mapped.log_density.exp() * area)[north].sum()) / mapped.integral
        assert share == pytest.approx(float((samples[:, 2] > 0).double().mean()), abs=0.03)


def test_raster_axes_are_pixel_centres(uniform_map):
    assert uniform_map.lat[[0, -1]].tolist() == [87.5, -87.5]
    assert uniform_map.lon[[0, -1]].tolist() == [-177.5, 177.5]


@pytest.mark.parametrize("mode", [(10.0, 180.0), (90.0, 0.0), (-90.0, 0.0)])
def test_raster_has_no_seam(mode):
    log_prob, samples = vmf(mode, 30.0)
    mapped = density.density_map(log_prob, samples, resolution=1.0)
    raster = mapped.log_density
    # neighbours across the seam differ no more than neighbours elsewhere: one degree at slope κ sin r
    across = (raster[:, 0] - raster[:, -1]).abs()
    inside = (raster[:, 1:] - raster[:, :-1]).abs()
    assert across.max() <= inside.max() + 1e-9
    for row in (0, -1):
        # far from the peak cells of 7° meet in small steps
        assert (raster[row] - raster[row].roll(180)).abs().max() < 30 * math.radians(1) + 0.3


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf, -800.0, 800.0])
def test_what_is_no_density_is_refused(value):
    with pytest.raises(ValueError, match=r"log_prob is no density: it integrates to .*; expected"):
        density.density_map(lambda x: torch.full((len(x),), value), sphere.uniform(1000), 10.0)


def test_entropy_where_a_density_is_zero():
    """Of a uniform density on the northern half: log 2π."""

    def log_prob(x):
        return torch.where(x[:, 2] > 0, -math.log(2 * math.pi), -math.inf).float()

    x = sphere.uniform(20_000, torch.Generator().manual_seed(0))
    mapped = density.density_map(log_prob, x[x[:, 2] > 0], 10.0)
    assert mapped.entropy == pytest.approx(math.log(2 * math.pi), abs=0.02)


@pytest.mark.parametrize("given", [np.float32(0.9), torch.tensor(0.9), 0.9])
def test_probabilities_of_many_types_come_once_each(given, coast_map):
    features = coast_map.to_geojson((given, 0.5, 0.5))["features"]
    regions = [f for f in features if f["geometry"]["type"].endswith("Polygon")]
    assert [r["properties"]["probability"] for r in regions] == pytest.approx([0.9, 0.5])
    json.dumps(features)
    for half in (0.5, torch.tensor(0.5), np.array(0.5), np.float64(0.5)):
        assert coast_map.to_geojson(half)["features"] == features[1:]
    for wrong in ("a", None, math.nan):
        with pytest.raises(ValueError, match=f"probability {wrong!r}"):
            coast_map.to_geojson((0.5, wrong))


@pytest.mark.parametrize("region", [lambda p: p[:, 0] > 0, lambda p: (p[:, 0] > 0).numpy(), lambda p: [lat > 0 for lat, _ in p]], ids=["tensor", "array", "list"])  # fmt: skip
def test_mass_of_a_region_that_is_an_array_or_a_list(region, uniform_map):
    assert uniform_map.mass(region) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("answer", [lambda north: True, lambda north: None, lambda north: north[:5], lambda north: north[:, None], lambda north: north.float(), lambda north: north.long(), lambda north: north.nonzero()[:, 0]])  # fmt: skip
def test_a_region_that_is_none(answer, uniform_map):
    """Numbers would be taken for those of cells, and one answer for that of all."""
    with pytest.raises(ValueError, match=r"region gives .*, not bool \(\d+,\)"):
        uniform_map.mass(lambda latlon: answer(latlon[:, 0] > 0))


@pytest.mark.parametrize("resolution", [0.0, -1.0, 31.0, math.nan, 1e-7, 1e-320, 0.04, "1"])
def test_bad_resolution(resolution):
    with pytest.raises(ValueError, match="resolution of"):
        density.density_map(uniform_log_prob, points(10), resolution)


# Files


def drawn(feature):
    return shapely.geometry.shape(feature["geometry"])


def area_km2(shape):
    """Of a polygon whose sides are straight in longitude and latitude: that of its equal-area picture."""
    fine = shapely.segmentize(shape, 0.1)
    equal_area = shapely.transform(
        fine, lambda p: np.stack([np.radians(p[:, 0]), np.sin(np.radians(p[:, 1]))], 1)
    )
    return equal_area.area * sphere.EARTH_RADIUS_KM**2


@pytest.mark.parametrize("km", [0.5, 2, 6, 20, 100, 1000, 4000])
@pytest.mark.parametrize("mode", PLACES)
def test_regions_hold_what_they_say(mode, km):
    """Area by an equal-area picture and by the closed form, mass by samples of the density."""
    kappa = (sphere.EARTH_RADIUS_KM / km) ** 2
    log_prob, samples = vmf(mode, kappa)
    collection = json.loads(json.dumps(density.density_map(log_prob, samples, 10.0).to_geojson()))
    assert [found["properties"]["probability"] for found in collection["features"]] == [
        0.95,
        0.9,
        0.5,
    ]
    lat, lon = sphere.to_latlon(samples).T.numpy()
    for feature in collection["features"]:
        about, shape = feature["properties"], drawn(feature)
        assert shape.is_valid
        assert about["mass"] == pytest.approx(about["probability"], abs=0.008)
        inside = shapely.contains_xy(shape, lon, lat).mean()
        assert inside == pytest.approx(about["mass"], abs=0.016)  # three standard errors of 8192
        assert area_km2(shape) == pytest.approx(about["area_km2"], rel=0.005)
        # a cap around the mode: 1 − p = (exp(κ cos r) − exp(−κ)) / (exp κ − exp(−κ))
        tail = math.exp(-2 * kappa)
        cosine = 1 + math.log((1 - about["mass"]) * (1 - tail) + tail) / kappa
        cap = 2 * math.pi * (1 - cosine) * sphere.EARTH_RADIUS_KM**2
        assert about["area_km2"] == pytest.approx(cap, rel=0.03)
        assert f"{about['probability']:.0%}" in about["description"]


def test_regions_of_many_peaks(needles):
    """Polygons of 50 peaks: valid, inside each other, and with the mass of samples that the map has not seen."""
    log_prob, samples = needles
    mapped = density.density_map(log_prob, samples[:2048], 10.0)
    large, middle, small = mapped.to_geojson()["features"]
    lat, lon = sphere.to_latlon(samples[2048:]).T.numpy()
    for feature in (large, middle, small):
        shape, about = drawn(feature), feature["properties"]
        assert shape.is_valid
        inside = shapely.contains_xy(shape, lon, lat).mean()
        assert inside == pytest.approx(about["probability"], abs=0.035)
        assert area_km2(shape) == pytest.approx(about["area_km2"], rel=0.005)
        assert len(json.dumps(feature)) < 300_000
    assert drawn(large).buffer(1e-6).covers(drawn(middle))
    assert drawn(middle).buffer(1e-6).covers(drawn(small))


def test_a_plateau_is_drawn_whole(uniform_map):
    """Where every place is alike no half of them is preferred; the file says what the region holds."""
    for feature in uniform_map.to_geojson()["features"]:
        assert feature["properties"]["mass"] == 1
        assert drawn(feature).equals(shapely.box(-180, -90, 180, 90))


def test_geotiff_round_trip(coast_map, tmp_path):
    path = coast_map.to_geotiff(tmp_path / "map.tif")
    assert [file.name for file in tmp_path.iterdir()] == ["map.tif"]
    with rasterio.open(path) as file:
        row, column = file.index(float(coast_map.lon[7]), float(coast_map.lat[100]))
        assert (row, column) == (100, 7)
        per_km2, mass = file.read().astype(float)
    assert mass.sum() == pytest.approx(coast_map.integral, abs=1e-5)
    expected = coast_map.log_density.exp().numpy() / sphere.EARTH_RADIUS_KM**2
    assert np.allclose(per_km2, expected, rtol=1e-6, atol=1e-30)


def test_netcdf_round_trip(coast_map, tmp_path):
    with netcdf_file(coast_map.to_netcdf(tmp_path / "map.nc"), mmap=False) as file:
        assert not hasattr(file, "source")
        total = file.variables["probability"][:].sum(dtype=float)
    assert total == pytest.approx(coast_map.integral, abs=1e-5)
