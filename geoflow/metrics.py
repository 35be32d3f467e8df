"""Scores of predicted places: pure functions on tensors of unit vectors, in float64."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geoflow import sphere

GEOSCORE_SCALE_KM = 1492.7
RADII_KM = (1, 25, 200, 750, 2500)


def error_km(predicted: Tensor, truth: Tensor) -> Tensor:
    """Great-circle distances in km: (..., 3), (..., 3) → (...) float64; NaN where a prediction is NaN."""
    return sphere.distance_km(predicted.double(), truth.double())


def geoscore(km: Tensor) -> Tensor:
    """5000 exp(−d / 1492.7 km): 5000 for the exact place (PLONK, section 4.1; the game GeoGuessr). NaN scores 0."""
    return torch.nan_to_num(5000 * torch.exp(-km.double() / GEOSCORE_SCALE_KM), nan=0.0)


def accuracy(km: Tensor, radius_km: float) -> float:
    """Share of predictions within a radius; NaN counts as a miss."""
    return float((km <= radius_km).double().mean())


def summary(predicted: Tensor, truth: Tensor, radii_km: Sequence[float] = RADII_KM) -> dict[str, float]:
    """Scores of one prediction per image.

    Args:
        predicted, truth: (B, 3) unit vectors. NaN predictions count as misses, at half the Earth's circumference.
        radii_km: for the accuracies.

    Returns:
        GeoScore, mean and median distance in km, accuracy within each radius, number of images and of NaN predictions.

    Raises:
        ValueError: no images, or shapes that differ.
    """
    if predicted.shape != truth.shape or predicted.ndim != 2 or predicted.shape[-1] != 3 or not len(predicted):
        raise ValueError(f"predicted {tuple(predicted.shape)}, truth {tuple(truth.shape)}; expected two equal shapes (B, 3), B ≥ 1")
    if not bool(truth.isfinite().all()):
        raise ValueError("a true place is NaN or infinite; expected unit vectors")
    km = error_km(predicted, truth)
    missing = km.isnan()
    km = torch.where(missing, torch.pi * sphere.EARTH_RADIUS_KM, km)
    return {
        "images": len(km),
        "nan": int(missing.sum()),
        "geoscore": float(torch.where(missing, 0.0, geoscore(km)).mean()),
        "mean_km": float(km.mean()),
        "median_km": float(km.median()),
        **{f"within_{radius:g}_km": accuracy(torch.where(missing, torch.inf, km), radius) for radius in radii_km},
    }


def expected_geoscore(samples: Tensor) -> Tensor:
    """Expected GeoScore of answering with each sample, under the distribution of all of them: (B, n, 3) → (B, n)."""
    return geoscore(error_km(samples[:, :, None], samples[:, None])).mean(-1)


def best_for_geoscore(samples: Tensor) -> Tensor:
    """Of each image's samples the one with the highest expected GeoScore: (B, n, 3) → (B, 3)."""
    best = torch.cat([expected_geoscore(chunk).argmax(-1) for chunk in samples.split(64)])
    return samples[torch.arange(len(samples)), best]


def best_places(samples: Tensor, k: int, rounds: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """k of the samples that maximise the mean over all samples of the GeoScore to the nearest of them.

    Chosen one by one, each for the largest gain, then improved by moving each to the best sample of its own cluster.

    Args:
        samples: (n, 3) draws of one image's distribution.
        k: places.
        rounds: at most so many improvements.

    Returns:
        Places (k, 3), by descending share; the share of the samples nearest to each (k,); the distance in km within which
        half of those lie (k,).
    """
    km = error_km(samples[:, None], samples[None])
    score = geoscore(km)
    chosen: list[int] = []
    reached = torch.zeros(len(samples), dtype=score.dtype)
    for _ in range(k):
        chosen.append(int((score - reached).clamp(min=0).sum(-1).argmax()))
        reached = torch.maximum(reached, score[chosen[-1]])
    centers = torch.tensor(chosen)
    for _ in range(rounds):
        nearest = score[centers].argmax(0)
        moved = torch.stack([(score * (nearest == i)).sum(-1).argmax() for i in range(k)])
        if bool((moved == centers).all()):
            break
        centers = moved
    nearest = score[centers].argmax(0)
    share = torch.bincount(nearest, minlength=k) / len(samples)
    radius = torch.stack([torch.where(nearest == i, km[center], torch.nan).nanmedian().nan_to_num(0) for i, center in enumerate(centers)])
    order = share.argsort(descending=True)
    return samples[centers[order]], share[order], radius[order]
