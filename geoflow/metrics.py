"""Scores of predicted places and of predicted distributions: pure functions on tensors, in float64."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from geoflow import sphere

GEOSCORE_SCALE_KM = 1492.7
RADII_KM = (1, 25, 200, 750, 2500)

# One prediction per image


def error_km(predicted: Tensor, truth: Tensor) -> Tensor:
    """Great-circle distances in km: (..., 3), (..., 3) → (...) float64; NaN where a prediction is NaN."""
    return sphere.distance_km(predicted.double(), truth.double())


def geoscore(km: Tensor) -> Tensor:
    """5000 exp(−d / 1492.7 km): 5000 for the exact place (PLONK, section 4.1; the game GeoGuessr). NaN scores 0."""
    return torch.nan_to_num(5000 * torch.exp(-km.double() / GEOSCORE_SCALE_KM), nan=0.0)


def accuracy(km: Tensor, radius_km: float) -> float:
    """Share of predictions within a radius; NaN counts as a miss."""
    return float((km <= radius_km).double().mean())


def summary(
    predicted: Tensor, truth: Tensor, radii_km: Sequence[float] = RADII_KM
) -> dict[str, float]:
    """Scores of one prediction per image.

    Args:
        predicted, truth: (B, 3) unit vectors. NaN predictions count as misses, at half the Earth's circumference.
        radii_km: for the accuracies.

    Returns:
        GeoScore, mean and median distance in km, accuracy within each radius, number of images and of NaN predictions.

    Raises:
        ValueError: no images, or shapes that differ.
    """
    if (
        predicted.shape != truth.shape
        or predicted.ndim != 2
        or predicted.shape[-1] != 3
        or not len(predicted)
    ):
        raise ValueError(
            f"predicted {tuple(predicted.shape)}, truth {tuple(truth.shape)}; expected two equal shapes (B, 3), B ≥ 1"
        )
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
        **{
            f"within_{radius:g}_km": accuracy(torch.where(missing, torch.inf, km), radius)
            for radius in radii_km
        },
    }


def label_accuracy(
    predicted: Mapping[str, Iterable], truth: Mapping[str, Iterable]
) -> dict[str, float]:
    """Share of the images whose label is right, per level (country, region, …).

    A true label that is missing ("", NaN or None) matches nothing: the image is left out at that level, and counted. A label that
    only the prediction lacks is a miss. (The official code keeps sub-regions without a name, which can never be right.)

    Args:
        predicted, truth: level → labels of the B images, as from `geoflow.towns.lookup`.

    Returns:
        For each level the share (NaN if no image has a label) and, as `<level>_missing`, the number of images left out.

    Raises:
        ValueError: levels or numbers of labels that differ.
    """
    if set(predicted) != set(truth):
        raise ValueError(
            f"predicted levels {sorted(predicted)}, true ones {sorted(truth)}; expected the same"
        )
    scores: dict[str, float] = {}
    for level in truth:
        guess, true = (
            np.array([str(label) for label in labels[level]], dtype=object)
            for labels in (predicted, truth)
        )
        if len(guess) != len(true):
            raise ValueError(
                f"{len(guess)} predicted and {len(true)} true labels of level {level!r}; expected equal numbers"
            )
        known = ~np.isin(true, ["", "nan", "None"])
        scores[level] = float((guess == true)[known].mean()) if known.any() else math.nan
        scores[f"{level}_missing"] = int((~known).sum())
    return scores


# Samples of one image's distribution


def expected_geoscore(samples: Tensor) -> Tensor:
    """Expected GeoScore of answering with each sample, under the distribution of all of them: (B, n, 3) → (B, n)."""
    return geoscore(error_km(samples[:, :, None], samples[:, None])).mean(-1)


def best_for_geoscore(samples: Tensor) -> Tensor:
    """Of each image's samples the one with the highest expected GeoScore: (B, n, 3) → (B, 3)."""
    best = torch.cat([expected_geoscore(chunk).argmax(-1) for chunk in samples.split(64)])
    return samples[torch.arange(len(samples)), best]


def medoid(samples: Tensor) -> Tensor:
    """Of each image's samples the one with the smallest mean distance to all of them: (B, n, 3) → (B, 3)."""
    best = torch.cat(
        [
            error_km(chunk[:, :, None], chunk[:, None]).mean(-1).argmin(-1)
            for chunk in samples.split(64)
        ]
    )
    return samples[torch.arange(len(samples)), best]


def spherical_mean(samples: Tensor) -> Tensor:
    """Direction of the mean vector, the place of least mean squared chord: (B, n, 3) → (B, 3); NaN where the mean is zero.

    Of two far regions it answers a place between them, where neither is.
    """
    return sphere.unit(samples.mean(1))


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
    radius = torch.stack(
        [
            torch.where(nearest == i, km[center], torch.nan).nanmedian().nan_to_num(0)
            for i, center in enumerate(centers)
        ]
    )
    order = share.argsort(descending=True)
    return samples[centers[order]], share[order], radius[order]


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """E d(X, y) − ½ E d(X, X′) in km, d the great-circle distance: lower is better (Gneiting & Raftery, 2007, section 5.1).

    A strictly proper score: no distribution has a lower expected score than the one that y is drawn from. It needs samples, no
    density; a point prediction scores its error. The second mean is over pairs of different samples, so that both are unbiased.

    Args:
        samples: (B, n, 3) draws of each image's distribution, n ≥ 2.
        truth: (B, 3).

    Returns:
        (B,) float64; NaN where a sample is.

    Raises:
        ValueError: fewer than two samples, or other shapes.
    """
    if (
        samples.ndim != 3
        or samples.shape[1] < 2
        or truth.shape != samples[:, 0].shape
        or truth.shape[-1] != 3
    ):
        raise ValueError(
            f"samples {tuple(samples.shape)}, truth {tuple(truth.shape)}; expected (B, n, 3), n ≥ 2, and (B, 3)"
        )
    n = samples.shape[1]
    near = error_km(samples, truth[:, None]).mean(-1)
    spread = torch.zeros_like(near)
    for shift in range(
        1, n // 2 + 1
    ):  # pairs (i, i + shift), cyclically; the shift n − s has those of s again
        spread += (
            (1 if 2 * shift == n else 2)
            / (n - 1)
            * error_km(samples, samples.roll(shift, 1)).mean(-1)
        )
    return near - spread / 2


# Densities: nats with respect to area on the unit sphere


def bits_per_dimension(nats):
    """−log₂ p / 3 of a log-density in nats: the unit of the paper's tables (uniform: 1.2172).

    The 3 counts the coordinates of R³. A density with respect to area on S² has two dimensions, so 3 is a convention and not a
    rate: it scales every method alike, and numbers compare only with others that are divided by 3 and taken per steradian. (The
    paper's vMF rows are nats, undivided.)
    """
    return -nats / (3 * math.log(2))


def hpd_rank(log_prob_samples: Tensor, log_prob_truth: Tensor) -> Tensor:
    """Probability of the region where the density is higher than at the truth: share of the samples that are more probable.

    The truth lies in the smallest region of probability α if and only if its rank is below α (Hyndman, 1996). For a calibrated
    model ranks are uniform on [0, 1]; over-confidence shows as ranks near 1. Ties count half.

    Args:
        log_prob_samples: (B, n) of samples drawn from the same density.
        log_prob_truth: (B,).

    Returns:
        (B,) float64, multiples of 1/2n; NaN where a log-density is.

    Raises:
        ValueError: other shapes, n < 1.
    """
    _check_log_probs(log_prob_samples)
    if log_prob_truth.shape != log_prob_samples.shape[:1]:
        raise ValueError(
            f"log_prob_truth {tuple(log_prob_truth.shape)}; expected ({len(log_prob_samples)},), one per row of the samples"
        )
    truth = log_prob_truth[:, None]
    rank = ((log_prob_samples > truth).double() + 0.5 * (log_prob_samples == truth)).mean(-1)
    return torch.where((log_prob_samples + truth).isnan().any(-1), torch.nan, rank)


def region_area_km2(log_prob_samples: Tensor, level: float) -> Tensor:
    """Area in km² of the smallest region that holds a probability: R² E_p[1{p > threshold} / p].

    The expectation is over the samples, of which the share `level` that is most probable counts (the last one in part).

    Args:
        log_prob_samples: (B, n) of samples drawn from the same density.
        level: probability of the region, in (0, 1). Close to 1 the estimate rests on the few least probable samples.

    Returns:
        (B,) float64; NaN where a log-density is.

    Raises:
        ValueError: a level outside (0, 1), other shapes, n < 1.
    """
    _check_log_probs(log_prob_samples)
    if not 0 < level < 1:
        raise ValueError(f"level {level}; expected a probability between 0 and 1")
    n = log_prob_samples.shape[1]
    inside = (
        level * n - torch.arange(n, dtype=torch.float64, device=log_prob_samples.device)
    ).clamp(0, 1)
    ordered = log_prob_samples.double().sort(dim=-1, descending=True).values  # NaN first
    inverse = torch.where(inside > 0, torch.exp(-ordered), 0.0)
    return sphere.EARTH_RADIUS_KM**2 * (inside * inverse).mean(-1)


def calibration(
    log_prob_samples: Tensor, log_prob_truth: Tensor, levels: Sequence[float] = (0.5, 0.9, 0.95)
) -> dict[str, float]:
    """How often the truth lies in the smallest region of each probability, and how large that region is.

    n samples resolve levels to 1/n: an exact model's share for the level α is ⌈αn⌉/(n + 1), 0.92 for 0.95 and n = 24. Take hundreds.

    Args:
        log_prob_samples: (B, n) of samples drawn from each image's density.
        log_prob_truth: (B,).
        levels: probabilities in (0, 1).

    Returns:
        For each level, for example 0.9, `calibration_90`: share of the images whose truth is inside (0.9 if calibrated), and
        `area_90_km2`: the regions' median area over the images. `calibration_nan` counts images with a NaN log-density: their
        truth counts as outside, their area is left out.

    Raises:
        ValueError: as `hpd_rank` and `region_area_km2`; no images.
    """
    rank = hpd_rank(log_prob_samples, log_prob_truth)
    if not len(rank):
        raise ValueError("log-densities of 0 images; expected at least 1")
    scores: dict[str, float] = {"calibration_nan": int(rank.isnan().sum())}
    for level in levels:
        scores[f"calibration_{100 * level:g}"] = float((rank < level).double().mean())
        scores[f"area_{100 * level:g}_km2"] = float(
            region_area_km2(log_prob_samples, level).nanmedian()
        )
    return scores


def _check_log_probs(log_prob_samples: Tensor) -> None:
    if log_prob_samples.ndim != 2 or not log_prob_samples.shape[1]:
        raise ValueError(
            f"log_prob_samples {tuple(log_prob_samples.shape)}; expected (B, n), n ≥ 1"
        )


# Two sets of places


def prdc(real: Tensor, fake: Tensor, k: int = 3, chunks: int | None = None) -> dict[str, float]:
    """Precision, recall (Kynkäänniemi et al., 2019), density and coverage (Naeem et al., 2020) of a set of places, exact.

    Around each point lies a closed ball that reaches to its k-th nearest neighbour in its own set, by great-circle distance.

    - precision: share of the fake points in at least one real ball
    - recall: share of the real points in at least one fake ball
    - density: mean over the fake points of the number of real balls around them, divided by k; may exceed 1
    - coverage: share of the real balls with at least one fake point

    All four depend on the number of points: state it. Two sets of n draws of one density expect density 1 and coverage 1 − 2^−k.
    Memory is linear in the number of points. The definitions' balls are closed, so that a point that occurs often is worth many
    balls: with rounded coordinates density is large. (The official code's are open: it differs where points coincide.)

    Args:
        real, fake: (N, 3) and (M, 3) places, of more than k points each.
        k: neighbours.
        chunks: cut both into so many consecutive chunks (`torch.chunk`) and average their scores: the official code takes 20.

    Raises:
        ValueError: other shapes, NaN, too few points in a set or a chunk; with chunks, sets of different size.
    """
    if chunks is not None:
        if len(real) != len(fake) or chunks < 1:
            raise ValueError(
                f"{len(real)} real and {len(fake)} fake points in {chunks} chunks; expected equal numbers in at least 1"
            )
        parts = [prdc(a, b, k) for a, b in zip(real.chunk(chunks), fake.chunk(chunks), strict=True)]
        return {name: math.fsum(part[name] for part in parts) / len(parts) for name in parts[0]}
    x, many_x, radius_x = _balls(real, k, "real")
    y, many_y, radius_y = _balls(fake, k, "fake")
    fakes_inside, y_covered = _contained(x, radius_x, y, many_y)
    _, x_covered = _contained(y, radius_y, x, many_x)
    return {
        "precision": float(many_y[y_covered].sum() / len(fake)),
        "recall": float(many_x[x_covered].sum() / len(real)),
        "density": float((many_x * fakes_inside).sum() / (k * len(fake))),
        "coverage": float(many_x[fakes_inside > 0].sum() / len(real)),
    }


def _balls(points: Tensor, k: int, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct points (m, 3), how often each occurs (m,), and the chord from it to its k-th nearest neighbour among all (m,)."""
    from scipy.spatial import KDTree

    if points.ndim != 2 or k < 1 or len(points) <= k:
        raise ValueError(
            f"{name} points {tuple(points.shape)} with k = {k}; expected (N, 3), N > k ≥ 1"
        )
    x, many = np.unique(
        sphere.project(points.detach().cpu().double()).numpy(), axis=0, return_counts=True
    )
    chord, near = KDTree(x).query(x, k=list(range(1, min(k + 1, len(x)) + 1)))
    enough = many[near].cumsum(1) > k  # itself and k others
    return x, many, chord[np.arange(len(x)), enough.argmax(1)]


def _contained(
    centers: np.ndarray, radius: np.ndarray, points: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the points in each ball (m,), and which points lie in any (n,).

    Distinct points bound the pairs: on a surface a point lies in about 6k balls at most. They are listed some million at a time.
    """
    from scipy.spatial import KDTree

    tree = KDTree(points)
    radius = radius * (1 + 1e-12)  # closed, whatever the rounding
    number = tree.query_ball_point(centers, radius, return_length=True)
    inside, covered = np.zeros(len(centers)), np.zeros(len(points), dtype=bool)
    hit = np.flatnonzero(number)
    pairs = number[hit].cumsum()
    for part in np.split(hit, pairs.searchsorted(np.arange(2**20, number.sum(), 2**20))):
        lists = tree.query_ball_point(centers[part], radius[part], return_sorted=False)
        found = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=number[part].sum())
        inside[part] = np.bincount(
            np.repeat(np.arange(len(part)), number[part]), weight[found], len(part)
        )
        covered[found] = True
    return inside, covered


# Every image once


class Accumulator:
    """Values per image, collected over batches and processes, and every image exactly once.

        rows = Accumulator(len(dataset))
        for index, images, truth in loader:
            rows.update(index, predicted=predict(images), truth=truth)
        summary(**rows.compute())

    A `DistributedSampler` repeats images to give each process equally many: repeated rows that agree are dropped. NaN stays in
    its row, for `summary` and `calibration` to count as a miss and report.

    Args:
        images: their number N in the data set.
    """

    def __init__(self, images: int):
        self.images = images
        self.batches: list[tuple[Tensor, dict[str, Tensor]]] = []

    def update(self, index: Tensor, **values: Tensor) -> None:
        """Add a batch: the images' numbers in the data set (b,), and named values, each (b, ...).

        Raises:
            ValueError: shapes or names that do not fit, a number outside [0, N).
        """
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if index.ndim != 1 or any(shape[:1] != (len(index),) for shape in shapes.values()):
            raise ValueError(
                f"index {tuple(index.shape)} with {shapes}; expected (b,) with values of shape (b, ...)"
            )
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.images:
            raise ValueError(
                f"image numbers {int(index.min())} … {int(index.max())}; expected 0 … {self.images - 1}"
            )
        if self.batches and values.keys() != self.batches[0][1].keys():
            raise ValueError(
                f"values {sorted(values)}; expected {sorted(self.batches[0][1])}, as before"
            )
        self.batches.append(
            (
                index.detach().cpu().long(),
                {name: value.detach().cpu() for name, value in values.items()},
            )
        )

    def compute(self) -> dict[str, Tensor]:
        """Values of all images in the order of their numbers, each (N, ...): the same in every process.

        Raises:
            ValueError: an image that no process counted, or one counted with values that differ by more than 10⁻³.
        """
        batches = self.batches
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks: list = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, batches)
            batches = list(chain.from_iterable(ranks))
        index = torch.cat([torch.zeros(0, dtype=torch.long), *(number for number, _ in batches)])
        count = index.bincount(minlength=self.images)
        missing = (count == 0).nonzero().flatten().tolist()
        if missing or not batches:
            twice = int((count > 1).sum())
            raise ValueError(
                f"{len(missing)} of {self.images} images were not counted (numbers {_some(missing)}), {twice} more than once; "
                "expected each exactly once"
            )
        first = index.argsort(stable=True)[
            count.cumsum(0) - count
        ]  # the row that counts, of each image
        rows = {name: torch.cat([values[name] for _, values in batches]) for name in batches[0][1]}
        for name, value in rows.items():
            same = torch.isclose(
                value.double(), value[first[index]].double(), rtol=1e-3, atol=1e-3, equal_nan=True
            )
            if not bool(same.all()):
                clash = index[~same.reshape(len(index), -1).all(1)].unique().tolist()
                raise ValueError(
                    f"{len(clash)} images (numbers {_some(clash)}) were counted with different {name!r}; expected one value"
                )
        return {name: value[first] for name, value in rows.items()}


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
