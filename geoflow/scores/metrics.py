"""Scores of predicted places and of predicted distributions: pure functions.

Where input is checked, bad input raises a `ValueError` that names the value and what was expected:
other shapes than those named, no images, no samples, levels outside (0, 1).
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from geoflow import sphere
from geoflow.scores.accumulator import Accumulator as Accumulator
from geoflow.scores.prdc import prdc as prdc

GEOSCORE_SCALE_KM = 1492.7
RADII_KM = (1, 25, 200, 750, 2500)

# One prediction per image


def error_km(predicted: Tensor, truth: Tensor) -> Tensor:
    """Great-circle distances in km, (..., 3), (..., 3) → (...) float64; NaN for NaN.

    >>> x = sphere.uniform(3)
    >>> error_km(x, x)
    tensor([0., 0., 0.], dtype=torch.float64)
    """
    return sphere.distance_km(predicted.double(), truth.double())


def geoscore(km: Tensor) -> Tensor:
    """5000 exp(−d / 1492.7 km): 5000 for the exact place, 0 for NaN (PLONK, section 4.1).

    >>> geoscore(torch.tensor([0.0, 1492.7])).round()
    tensor([5000., 1839.], dtype=torch.float64)
    """
    return torch.nan_to_num(5000 * torch.exp(-km.double() / GEOSCORE_SCALE_KM), nan=0.0)


def accuracy(km: Tensor, radius_km: float) -> float:
    """Share of predictions within a radius; NaN counts as a miss."""
    return float((km <= radius_km).double().mean())


def summary(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Scores of one prediction per image, (B, 3) and (B, 3) → named numbers.

    These are the number of `images` and of `nan` predictions, GeoScore, mean and median distance in
    km, and the accuracy within each of `RADII_KM`. A NaN prediction counts as a miss, at half the
    Earth's circumference; a true place must be finite.

    >>> x = sphere.uniform(10)
    >>> summary(x, x)["geoscore"]
    5000.0
    """
    if predicted.shape != truth.shape or predicted.shape[1:] != (3,) or not len(predicted):
        shapes = f"predicted {tuple(predicted.shape)}, truth {tuple(truth.shape)}"
        raise ValueError(f"{shapes}; expected two equal shapes (B, 3), B ≥ 1")
    if not bool(truth.isfinite().all()):
        raise ValueError("a true place is NaN or infinite; expected unit vectors")
    km = error_km(predicted, truth)
    missing = km.isnan()
    scores = {"images": len(km), "nan": int(missing.sum()), "geoscore": float(geoscore(km).mean())}
    within = {f"within_{radius:g}_km": accuracy(km, radius) for radius in RADII_KM}
    km = torch.where(missing, torch.pi * sphere.EARTH_RADIUS_KM, km)
    return scores | {"mean_km": float(km.mean()), "median_km": float(km.median())} | within


def label_accuracy(
    predicted: Mapping[str, Iterable], truth: Mapping[str, Iterable]
) -> dict[str, float]:
    """Share of right labels per level, of {level: B labels} as from `geoflow.data.towns.lookup`.

    A true label that is missing ("", NaN or None) matches nothing: the image is left out at that
    level and counted in `<level>_missing`; the share is NaN if no image has a label. A label that
    only the prediction lacks is a miss. (The official code keeps sub-regions without a name.)

    >>> label_accuracy({"country": ["FR", "DE"]}, {"country": ["FR", "IT"]})
    {'country': 0.5, 'country_missing': 0}
    """
    if set(predicted) != set(truth):
        levels = f"predicted levels {sorted(predicted)}, true ones {sorted(truth)}"
        raise ValueError(f"{levels}; expected the same")
    scores: dict[str, float] = {}
    for level in truth:
        guess, true = (np.array([str(x) for x in y[level]], object) for y in (predicted, truth))
        if len(guess) != len(true):
            counts = f"{len(guess)} predicted and {len(true)} true labels of level {level!r}"
            raise ValueError(f"{counts}; expected equal numbers")
        known = ~np.isin(true, ["", "nan", "None"])
        scores[level] = float((guess == true)[known].mean()) if known.any() else math.nan
        scores[f"{level}_missing"] = int((~known).sum())
    return scores


# Samples of one image's distribution


def expected_geoscore(samples: Tensor) -> Tensor:
    """Expected GeoScore of answering with each sample, under all of them: (B, n, 3) → (B, n).

    >>> expected_geoscore(sphere.uniform((2, 7))).shape
    torch.Size([2, 7])
    """
    return geoscore(error_km(samples[:, :, None], samples[:, None])).mean(-1)


def best_for_geoscore(samples: Tensor) -> Tensor:
    """The sample of highest expected GeoScore, of each image: (B, n, 3) → (B, 3).

    >>> best_for_geoscore(sphere.uniform((2, 7))).shape
    torch.Size([2, 3])
    """
    return _best(samples, expected_geoscore)


def medoid(samples: Tensor) -> Tensor:
    """The sample of smallest mean distance to all samples, of each image: (B, n, 3) → (B, 3).

    >>> medoid(sphere.uniform((2, 7))).shape
    torch.Size([2, 3])
    """
    return _best(samples, lambda x: -error_km(x[:, :, None], x[:, None]).mean(-1))


def _best(samples: Tensor, score) -> Tensor:
    """The sample of highest score, of each image; some images are computed at a time."""
    best = torch.cat([score(part).argmax(-1) for part in samples.split(64)])
    return samples[torch.arange(len(samples)), best]


def spherical_mean(samples: Tensor) -> Tensor:
    """Direction of the mean vector, (B, n, 3) → (B, 3); NaN where the mean is zero.

    The place of least mean squared chord: for two distant regions it lies between them.

    >>> spherical_mean(torch.eye(3)[None, :2])
    tensor([[0.7071, 0.7071, 0.0000]])
    """
    return sphere.unit(samples.mean(1))


def best_places(samples: Tensor, k: int, rounds: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """k of the samples (n, 3) with a high mean GeoScore of all to the nearest: a local maximum.

    They are chosen one by one, each for the largest gain; then each moves to the best sample of its
    own cluster, in `rounds` rounds at most.

    >>> x = sphere.from_latlon(torch.tensor([[50.0, 0.0], [50.1, 0.0], [50.2, 0.0], [-30.0, 90.0]]))
    >>> places, share, radius_km = best_places(x, k=2)
    >>> sphere.to_latlon(places).round(), share
    (tensor([[ 50.,   0.],
            [-30.,  90.]]), tensor([0.7500, 0.2500]))

    Returns:
        Places (k, 3), by descending share; the share of the samples nearest to each (k,); the
        distance in km within which half of those lie (k,).
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
        if torch.equal(moved, centers):
            break
        centers = moved
    nearest = score[centers].argmax(0)
    share = torch.bincount(nearest, minlength=k) / len(samples)
    own = [km[center][nearest == i] for i, center in enumerate(centers)]
    radius = torch.stack([x.median() if len(x) else km.new_zeros(()) for x in own])
    order = share.argsort(descending=True)
    return samples[centers[order]], share[order], radius[order]


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """E d(X, y) − ½ E d(X, X′) in km, (B, n, 3), (B, 3) → (B,) float64: lower is better.

    d is the great-circle distance. A proper score (Gneiting & Raftery, 2007, section 5.1): no
    distribution has a lower expected score than the one that y is drawn from. It is not strictly
    proper, since d(x, y) + d(x, −y) is constant: mass that is split equally between opposite points
    scores as if it were uniform. It needs samples, n ≥ 2, not a density; a point prediction scores
    its error. The second mean is over pairs of different samples, so that both are unbiased. NaN
    where a sample is.

    >>> truth = sphere.uniform(2)
    >>> energy_score(truth[:, None].expand(-1, 5, -1), truth)  # all samples at the truth
    tensor([0., 0.], dtype=torch.float64)
    """
    fits = samples.ndim == 3 and samples.shape[1] >= 2 and samples.shape[2] == 3
    if not fits or truth.shape != samples[:, 0].shape:
        shapes = f"samples {tuple(samples.shape)}, truth {tuple(truth.shape)}"
        raise ValueError(f"{shapes}; expected (B, n, 3), n ≥ 2, and (B, 3)")
    n = samples.shape[1]
    near = error_km(samples, truth[:, None]).mean(-1)
    spread = torch.zeros_like(near)
    for shift in range(1, n // 2 + 1):  # pairs (i, i + shift), cyclically; n − shift has the same
        weight = (1 if 2 * shift == n else 2) / (n - 1)
        spread += weight * error_km(samples, samples.roll(shift, 1)).mean(-1)
    return near - spread / 2


# Comparisons


def paired_difference(
    a: Tensor, b: Tensor, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean of a − b over the same images, and its standard error by a paired bootstrap.

    Images are drawn again with replacement, and so are trainings if there are several (Efron,
    1979). One method is ahead of another if the mean is more than two standard errors from zero.

    >>> paired_difference(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 2.0]))
    (1.0, 0.0)

    Args:
        a, b: scores of n images, (n,), or of several trainings too, (k, n).
        draws: number of bootstrap samples.
        seed: of the draws.

    Raises:
        ValueError: other shapes, or different ones.
    """
    if a.shape != b.shape or a.ndim not in (1, 2) or not a.numel():
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"scores of shapes {shapes}; expected two equal ones, (n,) or (k, n)")
    difference = (a - b).double().reshape(-1, a.shape[-1])  # (k, n)
    generator = torch.Generator().manual_seed(seed)
    k, n = difference.shape
    means = []
    for _ in range(draws):
        trainings = torch.randint(k, (k,), generator=generator)
        images = torch.randint(n, (n,), generator=generator)
        means.append(difference[trainings].mean(0)[images].mean())
    return float(difference.mean()), float(torch.stack(means).std())


# Densities: nats with respect to area on the unit sphere


def bits_per_dimension(nats):
    """−log₂ p / 3 of a log-density in nats, the unit of the paper's tables (uniform: 1.2172).

    By convention the 3 counts the coordinates of R³, although a density on S² has two dimensions.
    (The paper's vMF rows are nats, undivided.)

    >>> round(bits_per_dimension(sphere.LOG_UNIFORM), 4)
    1.2172
    """
    return -nats / (3 * math.log(2))


def hpd_rank(log_prob_samples: Tensor, log_prob_truth: Tensor) -> Tensor:
    """Probability of the region where the density is higher than at the truth, by samples.

    Log-densities (B, n) of samples of the same density, and (B,) of the truths → (B,) float64,
    multiples of 1/(2n), as ties count half; NaN where one is. The truth lies in the smallest region
    of probability α if and only if its rank is below α (Hyndman, 1996). Without ties, a calibrated
    model's ranks are uniform on [0, 1] (`uniform` has ½ only); over-confident ones are near 1.

    >>> hpd_rank(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([2.5]))
    tensor([0.5000], dtype=torch.float64)
    """
    _check_log_probs(log_prob_samples)
    if log_prob_truth.shape != log_prob_samples.shape[:1]:
        expected = f"expected ({len(log_prob_samples)},), one per row of the samples"
        raise ValueError(f"log_prob_truth {tuple(log_prob_truth.shape)}; {expected}")
    truth = log_prob_truth[:, None]
    above, equal = (log_prob_samples > truth).double(), log_prob_samples == truth
    rank = (above + 0.5 * equal).mean(-1)
    return torch.where((log_prob_samples + truth).isnan().any(-1), torch.nan, rank)


def region_area_km2(log_prob_samples: Tensor, level: float) -> Tensor:
    """Area in km² of the smallest region that holds a probability: R² E_p[1{p > threshold} / p].

    (B, n) → (B,) float64; NaN where a log-density is. The expectation is over the samples, of which
    the share `level` that is most probable counts (the last one in part). For levels close to 1 the
    estimate rests on the few least probable samples.

    >>> uniform = torch.full((1, 1000), sphere.LOG_UNIFORM)
    >>> region_area_km2(uniform, 0.5) / sphere.EARTH_AREA_KM2
    tensor([0.5000], dtype=torch.float64)
    """
    _check_log_probs(log_prob_samples)
    if not 0 < level < 1:
        raise ValueError(f"level {level}; expected a probability between 0 and 1")
    n = log_prob_samples.shape[1]
    number = torch.arange(n, dtype=torch.float64, device=log_prob_samples.device)
    inside = (level * n - number).clamp(0, 1)
    ordered = log_prob_samples.double().sort(dim=-1, descending=True).values  # NaN first
    inverse = torch.where(inside > 0, torch.exp(-ordered), 0.0)
    return sphere.EARTH_RADIUS_KM**2 * (inside * inverse).mean(-1)


def calibration(
    log_prob_samples: Tensor, log_prob_truth: Tensor, levels: Sequence[float] = (0.5, 0.9, 0.95)
) -> dict[str, float]:
    """How often the truth lies in the smallest region of a probability, and how large that is.

    n samples resolve levels to 1/n: without ties an exact model's share for the level α is
    ⌈αn⌉/(n + 1), 0.92 for 0.95 and n = 24. Take hundreds. Log-densities as for `hpd_rank`.

    >>> scores = calibration(torch.randn(10, 200), torch.randn(10))
    >>> sorted(scores)[:3]
    ['area_50_km2', 'area_90_km2', 'area_95_km2']

    Returns:
        For each level, for example 0.9, `calibration_90`: share of the images whose truth is inside
        (0.9 if calibrated), and `area_90_km2`: the regions' median area over the images.
        `calibration_nan` counts images with a NaN log-density, which is a miss and has no area.
    """
    rank = hpd_rank(log_prob_samples, log_prob_truth)
    if not len(rank):
        raise ValueError("log-densities of 0 images; expected at least 1")
    scores: dict[str, float] = {"calibration_nan": int(rank.isnan().sum())}
    for level in levels:
        area = region_area_km2(log_prob_samples, level)
        scores[f"calibration_{100 * level:g}"] = float((rank < level).double().mean())
        scores[f"area_{100 * level:g}_km2"] = float(area.nanmedian())
    return scores


def level_shape(rank: Tensor, samples: int) -> float:
    """One parameter k that describes how a model errs in the probabilities of its regions.

    If the ranks R have −log(1 − R) = E^(1/k) with an exponential E, then k = 1 is calibrated. With
    k > 1 a model's small regions hold too few truths and its large regions too many. k is the most
    likely one for ranks that n samples resolve to n + 1 equally probable classes. Fit it on other
    images than those that are judged, and correct levels by `corrected_level`.

    >>> levels = torch.linspace(0.025, 0.975, 20, dtype=torch.float64)
    >>> abs(level_shape((levels * 20 - 0.5) / 19, samples=19) - 1) < 1e-3
    True

    Args:
        rank: `hpd_rank` of the images (B,), without NaN.
        samples: n, the number of samples behind each rank.
    """
    from scipy.optimize import minimize_scalar

    if not rank.numel() or rank.isnan().any():
        text = f"ranks {tuple(rank.shape)}, {int(rank.isnan().sum())} of them NaN"
        raise ValueError(f"{text}; expected at least one, and no NaN")
    images = torch.bincount((rank * samples).round().long(), minlength=samples + 1)
    edges = torch.linspace(0, 1, samples + 2, dtype=torch.float64)

    def minus_log_likelihood(k: float) -> float:
        inside = -torch.expm1(-((-torch.log1p(-edges)) ** k))
        return float(-(images * inside.diff().log()).sum())

    return float(minimize_scalar(minus_log_likelihood, bounds=(0.2, 5), method="bounded").x)


def corrected_level(level: float, shape: float) -> float:
    """Level at which a region is to be drawn so that it holds the truth with probability `level`.

    1 − exp(−(−log(1 − level))^(1/k)) with the shape k of `level_shape`.

    >>> corrected_level(0.9, 1.0)
    0.9
    >>> round(corrected_level(0.9, 1.2), 3)  # large regions of such a model are too large
    0.865
    """
    if not (0 < level < 1 and shape > 0):
        expected = "expected a probability between 0 and 1, and a positive shape"
        raise ValueError(f"level {level}, shape {shape}; {expected}")
    return -math.expm1(-((-math.log1p(-level)) ** (1 / shape)))


def _check_log_probs(log_prob_samples: Tensor) -> None:
    if log_prob_samples.ndim != 2 or not log_prob_samples.shape[1]:
        shape = tuple(log_prob_samples.shape)
        raise ValueError(f"log_prob_samples {shape}; expected (B, n), n ≥ 1")
