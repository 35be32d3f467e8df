"""Scores: references, closed forms, NaN counted, best places."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from geoflow import metrics, sphere


def points(*shape, seed=0):
    return sphere.project(torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def at_km(x, km):
    """Points at exact distances from x."""
    return sphere.exp(x, (torch.as_tensor(km, dtype=x.dtype) / sphere.EARTH_RADIUS_KM)[..., None] * sphere.tangent_basis(x)[0])


def test_distances_and_scores_agree_with_the_official_code(shared):
    official = load_file(shared / "parity" / "metrics.safetensors")
    truth, predicted = (sphere.from_latlon(torch.rad2deg(official[f"{name}_gps_rad"].double())) for name in ("gt", "pred"))
    km = metrics.error_km(predicted, truth)
    assert torch.allclose(km, official["haversine_km_f64"], rtol=1e-6, atol=1e-6)
    assert torch.allclose(metrics.geoscore(km), official["geoscore"].double(), rtol=1e-5, atol=1e-2)
    expected = json.loads((shared / "parity" / "info.json").read_text())["metrics"]["haversine_metrics_400"]
    found = metrics.summary(predicted, truth)
    assert found["mean_km"] == pytest.approx(expected["Haversine"], rel=1e-6)
    assert found["geoscore"] == pytest.approx(expected["Geoguessr"], rel=1e-6)
    for radius in (1, 25, 200, 750, 2500):
        assert found[f"within_{radius}_km"] == pytest.approx(expected[f"Accuracy_{radius}_km_radius"], abs=1e-7)


def test_errors_are_exact_distances():
    x = points(5)
    km = [0.001, 1.0, 100.0, 5000.0, 20_000.0]
    assert metrics.error_km(at_km(x, km), x).tolist() == pytest.approx(km, rel=1e-9)
    assert metrics.error_km(x.float(), x.float()).dtype == torch.float64


def test_geoscore_in_closed_form():
    km = torch.tensor([0.0, 1492.7, 1492.7 * math.log(2), math.nan], dtype=torch.float64)
    assert metrics.geoscore(km).tolist() == pytest.approx([5000, 5000 / math.e, 2500, 0])


def test_uniform_guesses_score_what_the_integral_says(generator):
    """∫ 5000 exp(−Rθ/s) sin θ/2 dθ = 2500 (1 + e^{−aπ}) / (1 + a²), a = R/s: 130.1; mean distance a quarter turn."""
    n, a = 200_000, sphere.EARTH_RADIUS_KM / metrics.GEOSCORE_SCALE_KM
    found = metrics.summary(sphere.uniform(n, generator), sphere.uniform(n, generator))
    expected = 2500 * (1 + math.exp(-a * math.pi)) / (1 + a * a)
    assert expected == pytest.approx(130.1, abs=0.05)
    assert found["geoscore"] == pytest.approx(expected, abs=4 * 440 / math.sqrt(n))
    assert found["mean_km"] == pytest.approx(10_007.5, abs=4 * 4360 / math.sqrt(n))
    assert found["within_2500_km"] == pytest.approx((1 - math.cos(2500 / 6371)) / 2, abs=0.002)


def test_summary_in_closed_form():
    truth = points(5)
    found = metrics.summary(at_km(truth, [0.5, 20, 150, 700, 3000]), truth)
    assert found["images"] == 5
    assert found["nan"] == 0
    assert found["mean_km"] == pytest.approx((0.5 + 20 + 150 + 700 + 3000) / 5)
    assert found["median_km"] == pytest.approx(150)
    assert [found[f"within_{r}_km"] for r in metrics.RADII_KM] == [0.2, 0.4, 0.6, 0.8, 0.8]
    assert found["geoscore"] == pytest.approx(sum(5000 * math.exp(-d / 1492.7) for d in (0.5, 20, 150, 700, 3000)) / 5)


def test_nan_predictions_are_counted_misses():
    truth = points(4)
    predicted = truth.clone()
    predicted[1, 2] = math.nan
    predicted[3] = math.nan
    found = metrics.summary(predicted, truth)
    assert found["images"] == 4
    assert found["nan"] == 2
    assert found["geoscore"] == pytest.approx(2500)
    assert found["mean_km"] == pytest.approx(math.pi * 6371 / 2)
    assert found["within_1_km"] == 0.5
    assert metrics.summary(predicted, truth, [30_000])["within_30000_km"] == 0.5
    assert metrics.accuracy(metrics.error_km(predicted, truth), 1e9) == 0.5


@pytest.mark.parametrize(
    ("predicted", "truth"), [((3, 3), (4, 3)), ((0, 3), (0, 3)), ((3, 2), (3, 2)), ((3,), (3,)), ((2, 4, 3), (2, 4, 3)), ((1, 3), (4, 3))]
)
def test_summary_refuses_what_are_not_pairs(predicted, truth):
    with pytest.raises(ValueError, match="expected two equal shapes"):
        metrics.summary(torch.ones(predicted), torch.ones(truth))


def test_summary_refuses_truth_that_is_nowhere():
    truth = points(3)
    truth[1, 0] = math.nan
    with pytest.raises(ValueError, match="true place is NaN"):
        metrics.summary(points(3), truth)


def test_best_answer_for_the_geoscore():
    samples = points(3, 40).float()
    score = metrics.expected_geoscore(samples)
    assert score.shape == (3, 40)
    for i in range(3):
        by_hand = [float(metrics.geoscore(metrics.error_km(samples[i], s)).mean()) for s in samples[i]]
        assert score[i].tolist() == pytest.approx(by_hand)
    best = metrics.best_for_geoscore(samples)
    assert torch.equal(best, samples[torch.arange(3), score.argmax(-1)])


def test_best_answer_for_many_images_is_the_same_as_one_by_one():
    samples = points(130, 6)
    assert torch.equal(metrics.best_for_geoscore(samples), torch.cat([metrics.best_for_geoscore(s[None]) for s in samples]))


def test_best_answer_lies_in_the_larger_cluster_not_between():
    samples = clusters([(60.0, -100.0, 60), (60.0, 100.0, 40)])
    best = metrics.best_for_geoscore(samples[None])[0]
    assert float(metrics.error_km(best, place(60.0, -100.0))) < 100


def place(lat, lon):
    return sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))


def clusters(parts, km=100.0):
    """Samples around places (latitude, longitude, how many), shuffled."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for lat, lon, n in parts:
        x = place(lat, lon).expand(n, -1)
        v = sphere.to_tangent(x, torch.randn(n, 3, generator=generator, dtype=torch.float64))
        found.append(sphere.exp(x, v * km / sphere.EARTH_RADIUS_KM))
    samples = torch.cat(found)
    return samples[torch.randperm(len(samples), generator=generator)]


def test_best_places_of_two_clusters():
    samples = clusters([(24.0, 6.0, 300), (-25.0, 134.0, 100)])
    x, share, radius = metrics.best_places(samples, 2)
    assert share.tolist() == [0.75, 0.25]
    assert float(metrics.error_km(x[0], place(24.0, 6.0))) < 50
    assert float(metrics.error_km(x[1], place(-25.0, 134.0))) < 50
    assert radius.tolist() == pytest.approx([100 * math.sqrt(2 * math.log(2))] * 2, rel=0.2)  # half of a 2-D Gaussian
    assert all(bool((samples == place_).all(-1).any()) for place_ in x)  # each is one of the samples


def test_one_best_place_is_the_best_answer():
    samples = points(200)
    x, share, radius = metrics.best_places(samples, 1)
    assert torch.equal(x[0], metrics.best_for_geoscore(samples[None])[0])
    assert share.tolist() == [1]
    assert float(radius[0]) == pytest.approx(float(metrics.error_km(samples, x[0]).quantile(0.5)), rel=0.02)


def test_more_places_never_serve_worse():
    samples = clusters([(0.0, 0.0, 50), (40.0, 100.0, 30), (-60.0, 20.0, 20)], km=800.0)
    served = []
    for k in (1, 2, 3, 5, 8):
        x, share, _ = metrics.best_places(samples, k)
        served.append(float(metrics.geoscore(metrics.error_km(samples[:, None], x[None])).max(-1).values.mean()))
        assert float(share.sum()) == pytest.approx(1)
        assert share.tolist() == sorted(share.tolist(), reverse=True)
    assert served == sorted(served)


def test_more_places_than_distinct_samples():
    x, share, radius = metrics.best_places(place(10.0, 20.0).repeat(5, 1), 3)
    assert x.shape == (3, 3)
    assert share.tolist() == [1, 0, 0]
    assert radius.isfinite().all()
