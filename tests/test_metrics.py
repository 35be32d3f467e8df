"""Scores: references, closed forms, NaN counted, best places; scores of distributions and of sets; every image once."""

import math

import official
import pytest
import scipy.stats
import torch
from small import around, place, points

from geoflow import metrics, sphere


def at_km(x, km):
    """Points at exact distances from x."""
    return sphere.exp(
        x,
        (torch.as_tensor(km, dtype=x.dtype) / sphere.EARTH_RADIUS_KM)[..., None]
        * sphere.tangent_basis(x)[0],
    )


def test_distances_and_scores_agree_with_the_official_code():
    known = official.tensors("metrics")
    truth, predicted = (
        sphere.from_latlon(torch.rad2deg(known[f"{name}_gps_rad"].double()))
        for name in ("gt", "pred")
    )
    km = metrics.error_km(predicted, truth)
    assert torch.allclose(km, known["haversine_km_f64"], rtol=1e-6, atol=1e-6)
    assert torch.allclose(metrics.geoscore(km), known["geoscore"].double(), rtol=1e-5, atol=1e-2)
    expected = official.scores()["haversine_metrics_400"]
    found = metrics.summary(predicted, truth)
    assert found["mean_km"] == pytest.approx(expected["Haversine"], rel=1e-6)
    assert found["geoscore"] == pytest.approx(expected["Geoguessr"], rel=1e-6)
    for radius in (1, 25, 200, 750, 2500):
        assert found[f"within_{radius}_km"] == pytest.approx(
            expected[f"Accuracy_{radius}_km_radius"], abs=1e-7
        )


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
    assert found["geoscore"] == pytest.approx(
        sum(5000 * math.exp(-d / 1492.7) for d in (0.5, 20, 150, 700, 3000)) / 5
    )


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
    assert metrics.accuracy(metrics.error_km(predicted, truth), 1e9) == 0.5


@pytest.mark.parametrize(
    ("predicted", "truth"),
    [
        ((3, 3), (4, 3)),
        ((0, 3), (0, 3)),
        ((3, 2), (3, 2)),
        ((3,), (3,)),
        ((2, 4, 3), (2, 4, 3)),
        ((1, 3), (4, 3)),
    ],
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
        by_hand = [
            float(metrics.geoscore(metrics.error_km(samples[i], s)).mean()) for s in samples[i]
        ]
        assert score[i].tolist() == pytest.approx(by_hand)
    best = metrics.best_for_geoscore(samples)
    assert torch.equal(best, samples[torch.arange(3), score.argmax(-1)])


def test_best_answer_for_many_images_is_the_same_as_one_by_one():
    samples = points(130, 6)
    assert torch.equal(
        metrics.best_for_geoscore(samples),
        torch.cat([metrics.best_for_geoscore(s[None]) for s in samples]),
    )


def test_best_answer_lies_in_the_larger_cluster_not_between():
    samples = clusters([(60.0, -100.0, 60), (60.0, 100.0, 40)])
    best = metrics.best_for_geoscore(samples[None])[0]
    assert float(metrics.error_km(best, place(60.0, -100.0))) < 100


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
    assert radius.tolist() == pytest.approx(
        [100 * math.sqrt(2 * math.log(2))] * 2, rel=0.2
    )  # half of a 2-D Gaussian
    assert all(
        bool((samples == place_).all(-1).any()) for place_ in x
    )  # each is one of the samples


def test_one_best_place_is_the_best_answer():
    samples = points(200)
    x, share, radius = metrics.best_places(samples, 1)
    assert torch.equal(x[0], metrics.best_for_geoscore(samples[None])[0])
    assert share.tolist() == [1]
    assert float(radius[0]) == pytest.approx(
        float(metrics.error_km(samples, x[0]).quantile(0.5)), rel=0.02
    )


def test_more_places_never_serve_worse():
    samples = clusters([(0.0, 0.0, 50), (40.0, 100.0, 30), (-60.0, 20.0, 20)], km=800.0)
    served = []
    for k in (1, 2, 3, 5, 8):
        x, share, _ = metrics.best_places(samples, k)
        served.append(
            float(
                metrics.geoscore(metrics.error_km(samples[:, None], x[None])).max(-1).values.mean()
            )
        )
        assert float(share.sum()) == pytest.approx(1)
        assert share.tolist() == sorted(share.tolist(), reverse=True)
    assert served == sorted(served)


def test_more_places_than_distinct_samples():
    x, share, radius = metrics.best_places(place(10.0, 20.0).repeat(5, 1), 3)
    assert x.shape == (3, 3)
    assert share.tolist() == [1, 0, 0]
    assert radius.isfinite().all()


# Labels


def test_labels_are_compared_where_there_is_a_true_one():
    truth = {
        "country": ["FR", "FR", "NA", "US"],
        "sub-region": ["Finistere_Brittany_FR", "", "nan", math.nan],
        "city": ["", "", "", None],
    }
    predicted = {
        "country": ["FR", "DE", "NA", ""],
        "sub-region": ["", "", "nan", "x"],
        "city": [""] * 4,
    }
    scores = metrics.label_accuracy(predicted, truth)
    assert math.isnan(scores.pop("city"))  # there is nothing to be right about
    assert scores == {
        "country": 0.5,
        "country_missing": 0,
        "sub-region": 0,
        "sub-region_missing": 3,
        "city_missing": 4,
    }


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ({"country": ["FR"]}, "1 predicted and 2 true labels of level 'country'"),
        ({"land": ["FR", "US"]}, "predicted levels"),
    ],
)
def test_labels_that_are_not_pairs_are_refused(predicted, message):
    with pytest.raises(ValueError, match=message):
        metrics.label_accuracy(predicted, {"country": ["FR", "US"]})


# Energy score


@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_energy_score_by_hand(n):
    samples, truth = points(3, n), points(3, seed=1)
    for x, y, score in zip(samples, truth, metrics.energy_score(samples, truth), strict=True):
        pairs = [float(metrics.error_km(x[i], x[j])) for i in range(n) for j in range(n) if i != j]
        assert float(score) == pytest.approx(
            float(metrics.error_km(x, y).mean()) - sum(pairs) / len(pairs) / 2
        )


def test_energy_score_in_closed_form(generator):
    """A point scores its error; the uniform distribution a quarter of half the circumference, with as few as two samples."""
    x, y = points(4), points(4, seed=1)
    assert torch.allclose(
        metrics.energy_score(x[:, None].expand(-1, 5, -1), y), metrics.error_km(x, y)
    )
    uniform = metrics.energy_score(
        sphere.uniform((50_000, 2), generator), sphere.uniform(50_000, generator)
    )
    assert float(uniform.mean()) == pytest.approx(
        math.pi * 6371 / 4, abs=4 * float(uniform.std()) / math.sqrt(50_000)
    )


@pytest.mark.parametrize(("shift_km", "width_km"), [(300, 500), (0, 800), (0, 300), (0, 1e-6)])
def test_energy_score_prefers_the_distribution_of_the_truth(shift_km, width_km):
    center = points(4000)
    truth = around(center, 500.0, 1, seed=1)[:, 0]
    right = metrics.energy_score(around(center, 500.0, 12, seed=2), truth)
    wrong = metrics.energy_score(around(at_km(center, shift_km), width_km, 12, seed=2), truth)
    loss = wrong - right
    assert float(loss.mean()) > 4 * float(loss.std()) / math.sqrt(len(loss))


def test_energy_score_of_nan_is_nan():
    samples = points(2, 4)
    samples[1, 2] = math.nan
    assert metrics.energy_score(samples, points(2)).isnan().tolist() == [False, True]


@pytest.mark.parametrize(
    ("samples", "truth"),
    [((2, 1, 3), (2, 3)), ((2, 4, 3), (3, 3)), ((2, 4, 2), (2, 2)), ((4, 3), (4, 3))],
)
def test_energy_score_refuses_other_shapes(samples, truth):
    with pytest.raises(ValueError, match=r"expected \(B, n, 3\), n ≥ 2"):
        metrics.energy_score(torch.ones(samples), torch.ones(truth))


# Calibration


def vmf(concentration, n, generator):
    """Log-densities of n draws of each vMF(κ), by the closed form of 1 − ⟨μ, x⟩, and the heights themselves: (B, n), (B, n)."""
    u = torch.rand(len(concentration), n, generator=generator, dtype=torch.float64)
    height = -torch.log1p(u * torch.expm1(-2 * concentration[:, None])) / concentration[:, None]
    return vmf_log_prob(height, concentration), height


def vmf_log_prob(height, concentration):
    return (concentration / (2 * math.pi * -torch.expm1(-2 * concentration)))[
        :, None
    ].log() - concentration[:, None] * height


def test_ranks_of_exact_draws_are_uniform_and_regions_hold_what_they_say(generator):
    images, n = 3000, 1000
    concentration = torch.logspace(-1, 7, images, dtype=torch.float64)
    samples, truth = vmf(concentration, n, generator)[0], vmf(concentration, 1, generator)[0][:, 0]
    rank = metrics.hpd_rank(samples, truth)
    assert scipy.stats.kstest(rank.numpy(), "uniform").pvalue > 0.01
    scores = metrics.calibration(samples, truth)
    assert scores["calibration_nan"] == 0
    for level in (0.5, 0.9, 0.95):
        assert scores[f"calibration_{100 * level:g}"] == pytest.approx(
            level, abs=4 * math.sqrt(level * (1 - level) / images)
        )


def test_few_samples_resolve_coarse_levels(generator):
    n, concentration = 24, torch.full((20_000,), 30.0, dtype=torch.float64)
    scores = metrics.calibration(
        vmf(concentration, n, generator)[0], vmf(concentration, 1, generator)[0][:, 0]
    )
    for level in (0.5, 0.9, 0.95):
        assert scores[f"calibration_{100 * level:g}"] == pytest.approx(
            math.ceil(level * n) / (n + 1), abs=0.015
        )


def test_over_confidence_is_detected(generator):
    """Truths four times less concentrated than said: 1 − (1 − α)^(1/4) of them lie inside."""
    images, said = 4000, torch.logspace(3, 6, 4000, dtype=torch.float64)
    samples = vmf(said, 500, generator)[0]
    truth = vmf_log_prob(vmf(said / 4, 1, generator)[1], said)[:, 0]
    assert scipy.stats.kstest(metrics.hpd_rank(samples, truth).numpy(), "uniform").pvalue < 1e-9
    scores = metrics.calibration(samples, truth)
    for level in (0.5, 0.9, 0.95):
        expected = 1 - (1 - level) ** 0.25
        assert scores[f"calibration_{100 * level:g}"] == pytest.approx(
            expected, abs=4 * math.sqrt(expected * (1 - expected) / images) + 0.005
        )


@pytest.mark.parametrize("shape", [0.7, 1.0, 1.3])
def test_a_correction_of_levels_keeps_what_it_promises(shape, generator):
    """Ranks whose exponent is a Weibull variable: the correction is fitted on one half, and judged on the other."""
    images, n = 20_000, 19
    exponent = torch.empty(2, images, dtype=torch.float64).exponential_(generator=generator)
    rank = 1 - torch.exp(-(exponent ** (1 / shape)))
    fitted = metrics.level_shape((rank[0] * (n + 1)).floor() / n, n)
    assert fitted == pytest.approx(shape, rel=0.03)
    for level in (0.5, 0.9, 0.95):
        inside = float((rank[1] < metrics.corrected_level(level, fitted)).double().mean())
        assert inside == pytest.approx(level, abs=0.012)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.level_shape(torch.tensor([]), 19), "expected at least one"),
        (lambda: metrics.level_shape(torch.tensor([0.5, math.nan]), 19), "1 of them NaN"),
        (lambda: metrics.corrected_level(1.0, 1.0), "level 1.0"),
        (lambda: metrics.corrected_level(0.5, 0.0), "shape 0.0"),
    ],
)
def test_bad_ranks_and_levels_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_region_of_a_vmf_is_a_cap(level, generator):
    """p > threshold is the cap 1 − ⟨μ, x⟩ < h, of probability (1 − e^{−κh}) / (1 − e^{−2κ}) and area 2π R² h."""
    concentration = torch.tensor([0.01, 1.0, 50.0, 1e4, 1e9], dtype=torch.float64)
    samples, _ = vmf(concentration, 40_000, generator)
    height = -torch.log1p(level * torch.expm1(-2 * concentration)) / concentration
    area = metrics.region_area_km2(samples, level)
    assert area.tolist() == pytest.approx((2 * math.pi * 6371**2 * height).tolist(), rel=0.05)
    truth = samples[:, 0]
    assert metrics.calibration(samples, truth, [level])[
        f"area_{100 * level:g}_km2"
    ] == pytest.approx(float(area[2]))


def test_region_of_the_uniform_density_is_its_share_of_the_earth():
    area = metrics.region_area_km2(torch.full((2, 7), sphere.LOG_UNIFORM), 0.9)
    assert area.tolist() == pytest.approx([0.9 * sphere.EARTH_AREA_KM2] * 2, rel=1e-6)


def test_rank_counts_ties_half_and_keeps_nan():
    samples = torch.tensor(
        [[1.0, 2, 2, 3], [1, 2, 3, 4], [1, 2, 3, math.nan], [1, 2, 3, 4], [1, 2, 3, 4]]
    )
    truth = torch.tensor([2.0, -math.inf, 0, math.nan, 5])
    assert metrics.hpd_rank(samples, truth).tolist() == pytest.approx(
        [0.5, 1, math.nan, math.nan, 0], nan_ok=True
    )
    scores = metrics.calibration(samples, truth, [0.6])
    assert scores["calibration_nan"] == 2
    assert scores["calibration_60"] == 0.4  # NaN is outside
    assert math.isfinite(scores["area_60_km2"])
    assert metrics.region_area_km2(samples, 0.5).isnan().tolist() == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_calibration_refuses_what_it_cannot_score():
    ok = torch.zeros(2, 5)
    for call, message in (
        (lambda: metrics.hpd_rank(ok, torch.zeros(3)), r"expected \(2,\)"),
        (lambda: metrics.hpd_rank(ok[:, :0], torch.zeros(2)), "n ≥ 1"),
        (lambda: metrics.region_area_km2(ok, 1.0), "level 1.0"),
        (lambda: metrics.region_area_km2(ok[0], 0.5), "n ≥ 1"),
        (lambda: metrics.calibration(ok[:0], torch.zeros(0)), "0 images"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_bits_per_dimension_of_the_paper():
    assert metrics.bits_per_dimension(sphere.LOG_UNIFORM) == pytest.approx(1.2172, abs=5e-5)
    nats = torch.tensor([0.0, math.log(8.0)], dtype=torch.float64)
    assert metrics.bits_per_dimension(nats).tolist() == pytest.approx([0, -1])


# Point answers


def test_medoid_is_robust_and_the_mean_lies_between():
    """Three samples in one region and two in another: the medoid is the middle one of the three, the mean between the regions."""
    samples = sphere.from_latlon(
        torch.tensor(
            [[[0.0, 0.0], [0.0, 1.0], [0.0, 3.0], [0.0, 90.0], [0.0, 91.0]]], dtype=torch.float64
        )
    )
    assert sphere.to_latlon(metrics.medoid(samples))[0, 1] == pytest.approx(3.0)
    assert 20 < float(sphere.to_latlon(metrics.spherical_mean(samples))[0, 1]) < 50


def test_spherical_mean_minimises_the_squared_chord():
    samples = sphere.unit(
        torch.tensor([1.0, 0.2, 0.5])
        + 0.4 * torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(0))
    )

    def cost(x):
        return (samples - x[:, None]).square().sum(-1).mean(-1)

    mean = metrics.spherical_mean(samples)
    for seed in range(5):
        near = sphere.unit(mean + 0.05 * sphere.uniform(3, torch.Generator().manual_seed(seed)))
        assert bool((cost(near) > cost(mean)).all())


def test_antipodal_samples_have_no_mean():
    x = torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]])
    assert bool(metrics.spherical_mean(x).isnan().all())


def test_the_error_of_a_paired_difference_is_that_of_its_mean(generator):
    """Of n independent differences: their deviation over √n, whatever the images' own spread is."""
    hard, own = (torch.randn(4000, dtype=torch.float64, generator=generator) for _ in range(2))
    mean, error = metrics.paired_difference(100 * hard + own + 0.1, 100 * hard)
    assert mean == pytest.approx(0.1 + float(own.mean()), abs=1e-9)
    assert error == pytest.approx(float(own.std()) / 4000**0.5, rel=0.1)
    assert metrics.paired_difference(hard, own) == metrics.paired_difference(hard, own)


def test_the_error_of_a_paired_difference_counts_trainings(generator):
    """With trainings that differ by more than images do, √(σ² (k − 1) / k²) by the bootstrap."""
    shift = torch.tensor([[-1.0], [0.0], [1.0], [2.0]])
    noise = 0.01 * torch.randn(4, 500, generator=generator)
    mean, error = metrics.paired_difference(shift + noise, torch.zeros(4, 500))
    assert mean == pytest.approx(0.5, abs=0.01)
    assert error == pytest.approx((1.25 / 4) ** 0.5, rel=0.1)


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2, 2), (2, 2, 2)), ((), ())])
def test_scores_that_are_not_paired(shapes):
    a, b = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="expected two equal ones"):
        metrics.paired_difference(a, b)
