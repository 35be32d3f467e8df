"""Precision, recall, density, coverage: the definitions by hand, the official code, closed forms."""

import math

import official
import pytest
import torch
from small import around, place, points

from geoflow import metrics, sphere
from geoflow.scores.prdc import _balls


def prdc_by_hand(real, fake, k):
    """The definitions, on all pairwise distances."""
    to_other = sphere.distance(real[:, None], fake[None])
    radius, other = (
        sphere.distance(x[:, None], x[None]).sort(-1).values[:, k] * (1 + 1e-9)
        for x in (real, fake)
    )
    inside = to_other <= radius[:, None]
    return {
        "precision": float(inside.any(0).double().mean()),
        "recall": float((to_other <= other).any(1).double().mean()),
        "density": float(inside.sum(0).double().mean() / k),
        "coverage": float(inside.any(1).double().mean()),
    }


def test_prdc_agrees_with_the_official_code():
    known = official.tensors("metrics")
    expected = official.scores()
    real, fake, truth, predicted = (
        sphere.from_latlon(torch.rad2deg(known[f"{name}_rad"].double()))
        for name in ("prdc_real", "prdc_fake", "gt_gps", "pred_gps")
    )
    for k in (3, 5):
        assert metrics.prdc(real, fake, k) == pytest.approx(
            expected["prdc_300x250"][f"k{k}"], abs=1e-12
        )
    chunked = metrics.prdc(truth, predicted, chunks=20)
    assert chunked == pytest.approx(
        {name: expected["haversine_metrics_400"][name] for name in chunked}, abs=1e-12
    )
    distinct, _, chord = (torch.from_numpy(part) for part in _balls(real, 3, "real"))
    order = sphere.distance(distinct[:, None], real).argmin(0)  # distinct points are sorted
    assert torch.allclose(
        2 * torch.arcsin(chord / 2)[order], known["prdc_radii_real_k3"].double(), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("n", "m", "k"), [(60, 40, 1), (50, 80, 3), (6, 200, 5), (1500, 1400, 1000)]
)  # the last lists its pairs in parts
def test_prdc_by_hand(n, m, k):
    real, fake = (
        around(points(2), 800.0, n // 2).flatten(0, 1),
        around(points(5), 1500.0, m // 5, seed=1).flatten(0, 1),
    )
    assert metrics.prdc(real, fake, k) == pytest.approx(prdc_by_hand(real, fake, k), abs=1e-12)
    mirrored = metrics.prdc(fake, real, k)
    assert mirrored["precision"] == metrics.prdc(real, fake, k)["recall"]


@pytest.mark.parametrize("degrees", [180, 60, 20, 5])
def test_prdc_of_points_that_coincide(degrees):
    """On a coarse grid most balls have radius 0, and contain their own place."""
    real, fake = (
        sphere.from_latlon((sphere.to_latlon(points(300, seed=seed)) / degrees).round() * degrees)
        for seed in (0, 1)
    )
    for k in (1, 3, 7):
        assert metrics.prdc(real, fake, k) == pytest.approx(prdc_by_hand(real, fake, k), abs=1e-12)


def test_prdc_of_one_place_and_of_places_apart():
    here, there = place(48.0, 2.0).expand(9, 3), place(-48.0, 100.0).expand(7, 3)
    assert metrics.prdc(here, here) == {"precision": 1, "recall": 1, "density": 3, "coverage": 1}
    assert metrics.prdc(here, there) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_prdc_of_a_set_with_itself(k):
    """A closed ball holds its centre and k neighbours."""
    x = points(200)
    assert metrics.prdc(x, x, k) == pytest.approx(
        {"precision": 1, "recall": 1, "density": (k + 1) / k, "coverage": 1}
    )


@pytest.mark.parametrize("k", [1, 3])
def test_prdc_of_two_draws_of_one_density(k):
    """Density 1, coverage 1 − 2^−k (Naeem et al., 2020, lemma 2), whatever the density."""
    center = points(20)
    real, fake = (around(center, 900.0, 500, seed=seed).flatten(0, 1) for seed in (1, 2))
    scores = metrics.prdc(real, fake, k)
    assert scores["density"] == pytest.approx(1, abs=0.05)
    assert scores["coverage"] == pytest.approx(1 - 2**-k, abs=0.02)


def test_prdc_tells_what_is_lost():
    """Half of the places never proposed: fake points are plausible, half of the real ones are not reached."""
    center = points(40)
    real = around(center, 20.0, 50).flatten(0, 1)
    fake = around(center[:20], 20.0, 100, seed=1).flatten(0, 1)
    scores = metrics.prdc(real, fake)
    assert scores["precision"] > 0.9
    assert scores["recall"] == pytest.approx(0.5, abs=0.05)
    assert scores["coverage"] < 0.51


def test_prdc_in_chunks_is_the_mean_over_consecutive_parts():
    real, fake = points(50), points(50, seed=1)
    parts = [metrics.prdc(real[i : i + 13], fake[i : i + 13]) for i in (0, 13, 26, 39)]
    assert metrics.prdc(real, fake, chunks=4) == pytest.approx(
        {name: sum(part[name] for part in parts) / 4 for name in parts[0]}
    )
    assert metrics.prdc(real, fake, chunks=1) == metrics.prdc(real, fake)


def test_prdc_refuses_what_has_no_score():
    x, bad = points(10), points(10)
    bad[3, 1] = math.nan
    for call, message in (
        (
            lambda: metrics.prdc(x[:3], x),
            r"real points \(3, 3\) with k = 3; expected \(N, 3\), N > k",
        ),
        (lambda: metrics.prdc(x, x[:3]), "fake points"),
        (lambda: metrics.prdc(x, x, 0), "k = 0"),
        (lambda: metrics.prdc(x, bad), "nan"),
        (lambda: metrics.prdc(x[:, :2], x), "expected"),
        (lambda: metrics.prdc(x[None], x), "real points"),
        (lambda: metrics.prdc(x, x, chunks=4), "k = 3"),
        (lambda: metrics.prdc(x, x[:9], chunks=2), "10 real and 9 fake points in 2 chunks"),
        (lambda: metrics.prdc(x, x, chunks=0), "0 chunks"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
