"""Reports: what they count, and what the scores of known distributions are."""

import json

import pytest
import torch

import geoflow
from geoflow import Geolocator, samplers, sphere
from geoflow.velocity import VelocityTransformer


@pytest.fixture
def geo():
    torch.manual_seed(0)
    network = VelocityTransformer(cond_dim=4, dim=16, depth=1)
    torch.nn.init.normal_(network.modulation.weight, std=0.3)
    return Geolocator(network)


def data(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), sphere.to_latlon(sphere.uniform(n, generator))


def test_counts_every_image_once_and_says_how(geo, tmp_path):
    report = geoflow.evaluate(geo, data(7), samples=3, steps=2, solver="midpoint")
    assert report.metrics["images"] == 7
    assert report.metrics["nan"] == 0
    assert report.settings["evaluations"] == 4
    assert report.settings["samples"] == 3
    file = tmp_path / "report.json"
    assert json.loads(report.to_json(file)) == json.loads(file.read_text())
    assert "7 images" in report.table()
    assert "geoscore" in report.table()


def test_each_image_has_starting_points_of_its_own(geo):
    cond, latlon = data(3)
    noise = samplers.noise_for(geo.path, range(3), 4, seed=5)
    assert not torch.equal(noise[0], noise[1])
    alone = [geo.sample(cond=cond[i : i + 1], noise=noise[i : i + 1], steps=2)[0, 0] for i in range(3)]
    km = sphere.distance_km(sphere.from_latlon(torch.stack(alone)).double(), sphere.from_latlon(latlon).float().double())
    report = geoflow.evaluate(geo, (cond, latlon), samples=4, steps=2, seed=5)
    assert report.metrics["single_median_km"] == pytest.approx(float(km.median()), rel=1e-5)


def test_a_field_of_zero_scores_as_uniform(geo):
    torch.nn.init.zeros_(geo.network.head.weight)
    torch.nn.init.zeros_(geo.network.head.bias)
    report = geoflow.evaluate(geo, data(3000), samples=1, steps=1, solver="euler")
    assert report.metrics["nll"] == pytest.approx(2.5310, abs=1e-4)
    assert report.metrics["nll_over_uniform"] == pytest.approx(0, abs=1e-4)
    # closed forms: mean distance a quarter of the circumference; its standard error here is 80 km
    assert report.metrics["mean_km"] == pytest.approx(10007.5, abs=320)
    assert report.metrics["geoscore"] == pytest.approx(130.1, abs=40)


def test_likelihood_can_be_left_out(geo):
    assert "nll" not in geoflow.evaluate(geo, data(3), samples=2, steps=1, likelihood=False).metrics


@pytest.mark.parametrize(
    ("sizes", "samples", "message"), [((0, 0), 2, "at least 1"), ((3, 2), 2, "3 embeddings and 2 places"), ((2, 2), 0, "0 samples")]
)
def test_bad_input_is_named(geo, sizes, samples, message):
    cond, latlon = torch.zeros(sizes[0], 4), torch.zeros(sizes[1], 2)
    with pytest.raises(ValueError, match=message):
        geoflow.evaluate(geo, (cond, latlon), samples=samples, steps=1)
