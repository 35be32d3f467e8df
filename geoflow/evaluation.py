"""A model and a data set → a report: what was scored, on what, how many, with which solver and seed, how long it took."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from geoflow import metrics, samplers, settings, sphere
from geoflow.data.tiles import Tiles
from geoflow.training import machine, write_atomically


@dataclass(frozen=True)
class Report:
    """Scores and how they were obtained.

    Attributes:
        dataset: its name.
        metrics: name → number; see `evaluate`.
        settings: name → value.
        seconds: of the whole evaluation.
        machine: the hardware.
    """

    dataset: str
    metrics: dict[str, float]
    settings: dict[str, object]
    seconds: float
    machine: str

    def to_json(self, file=None) -> str:
        """The report as JSON, written to a file if one is given."""
        text = json.dumps(asdict(self), indent=1)
        if file is not None:
            write_atomically(Path(file), text + "\n")
        return text

    def table(self) -> str:
        """The report as lines of text."""
        how = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"{self.dataset}: {self.metrics['images']} images, {how}; {self.seconds:.0f} s on {self.machine}"]
        width = max(map(len, self.metrics))
        lines += [f"  {name:{width}}  {_number(value)}" for name, value in self.metrics.items()]
        return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:10d}" if isinstance(value, int) else f"{value:13.2f}" if abs(value) < 100 else f"{value:10.0f}"


def evaluate(
    geo,
    dataset: Tiles | tuple[Tensor, Tensor],
    name: str = "data",
    samples: int = 24,
    steps: int = 16,
    solver: str = "rk4",
    guidance: float = 0.0,
    seed: int = 0,
    likelihood: bool = True,
) -> Report:
    """Score a model.

    Each image has starting points of its own, keyed by the seed and its number in the data set, whatever the batch.

    Args:
        geo: a Geolocator.
        dataset: `Tiles`, or embeddings (B, C) and places (B, 2) in degrees.
        name: of the data set, for the report.
        samples: per image; the answer is the one with the highest expected GeoScore.
        steps, solver, guidance: of the sampler; the likelihood is always that of the unguided flow.
        seed: of the starting points.
        likelihood: whether to compute the NLL of the true places.

    Returns:
        A report with, for the best of the samples, `geoscore`, `mean_km`, `median_km` and `within_…_km`; for the first sample alone
        `single_geoscore`, `single_median_km`; `nll` in nats and `nll_over_uniform` (negative: better than a uniform guess); the number
        of images and of NaN predictions.

    Raises:
        ValueError: an empty data set, shapes that differ, samples < 1.
    """
    start = time.perf_counter()
    if isinstance(dataset, Tiles):
        cond, truth = geo.encoder.embed(dataset.images), dataset.x
    else:
        cond, truth = dataset[0], sphere.from_latlon(dataset[1]).float()
    if len(cond) != len(truth) or not len(truth):
        raise ValueError(f"{len(cond)} embeddings and {len(truth)} places; expected equal numbers of at least 1")
    if samples < 1:
        raise ValueError(f"{samples} samples per image; expected at least 1")
    options = dict(steps=steps, solver=solver)
    best, single, log_probs = [], [], []
    with settings.progress(total=len(truth), desc=f"evaluating {name}", unit="image") as bar:
        for rows in torch.arange(len(truth)).split(256):
            noise = samplers.noise_for(geo.path, rows.tolist(), samples, seed)
            points = sphere.from_latlon(geo.sample(cond=cond[rows], guidance=guidance, noise=noise, **options))
            best.append(metrics.best_for_geoscore(points))
            single.append(points[:, 0])
            if likelihood:
                log_probs.append(geo.log_prob(sphere.to_latlon(truth[rows][:, None]), cond=cond[rows], **options)[:, 0])
            bar.update(len(rows))
    scores = metrics.summary(torch.cat(best), truth)
    alone = metrics.summary(torch.cat(single), truth)
    scores |= {"single_geoscore": alone["geoscore"], "single_median_km": alone["median_km"]}
    if likelihood:
        nll = -float(torch.cat(log_probs).double().mean())
        scores |= {"nll": nll, "nll_over_uniform": nll + sphere.LOG_UNIFORM}
    how = {"samples": samples, "solver": solver, "steps": steps, "guidance": guidance, "seed": seed}
    how["evaluations"] = samplers.evaluations(solver, steps)
    return Report(name, scores, how, time.perf_counter() - start, machine())
