"""A model and a data set → a report: what was scored, on what, how many, with which solver and seed, how long it took."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed

from geoflow import metrics, runtime, samplers, sphere
from geoflow.data import towns
from geoflow.data.tiles import Tiles
from geoflow.methods import REFERENCES, Flow
from geoflow.runtime import choose, machine, write_atomically

ANSWERS = ("geoscore", "likeliest")


@dataclass(frozen=True)
class Report:
    """Scores and how they were obtained.

    Attributes:
        dataset: its name.
        metrics: name → number; see `evaluate`. With several seeds the mean over them.
        deviations: name → standard deviation over the seeds; empty for one seed.
        settings: name → value.
        seconds: of the whole evaluation.
        machine: the hardware.
    """

    dataset: str
    metrics: dict[str, float]
    deviations: dict[str, float]
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
        each = 1000 * self.seconds / self.metrics["images"]
        lines = [
            f"{self.dataset}: {self.metrics['images']} images, {how}; {self.seconds:.0f} s, {each:.0f} ms per image, on {self.machine}"
        ]
        width = max(map(len, self.metrics))
        for name, value in self.metrics.items():
            deviation = (
                f" ± {_number(self.deviations[name]).strip()}" if self.deviations.get(name) else ""
            )
            lines.append(f"  {name:{width}}  {_number(value)}{deviation}")
        return "\n".join(lines)


def _number(value: float) -> str:
    return (
        f"{value:10d}"
        if isinstance(value, int)
        else f"{value:13.2f}"
        if abs(value) < 100
        else f"{value:10.0f}"
    )


def evaluate(
    geo,
    dataset: Tiles | tuple[Tensor, Tensor],
    name: str = "data",
    samples: int = 24,
    steps: int = 16,
    solver: str = "rk4",
    guidance: float = 0.0,
    seed: int = 0,
    seeds: int = 1,
    likelihood: bool = True,
    labels: bool = False,
    calibrated: int = 0,
    answer: str = "geoscore",
) -> Report:
    """Score a model.

    Each image has starting points of its own, keyed by the seed and its number in the data set, whatever the batch. With several
    processes (torch.distributed) each scores its share of the images, every image is counted once, and all return the same report.

    Args:
        geo: a Geolocator.
        dataset: `Tiles`, or embeddings (B, C) and places (B, 2) in degrees.
        name: of the data set, for the report.
        samples: per image; the answer is one of them, see `answer`.
        steps, solver, guidance: of the sampler; likelihood and calibration are always those of the unguided model, by RK4.
        seed: of the starting points.
        seeds: how many seeds to average over: seed, seed + 1, …
        likelihood: whether to compute the NLL of the true places.
        labels: whether to compare country, region, sub-region and city (nearest towns, offline).
        calibrated: number of images, the first ones, whose highest-density regions are checked, by 200 samples each.
        answer: `geoscore`, the sample of highest expected GeoScore, or `likeliest`, that of highest density (the paper's ensemble).

    Returns:
        A report with
        for the answer `geoscore`, `mean_km`, `median_km` and `within_…_km`;
        `<answer>_geoscore` and `<answer>_median_km` of other answers: a `single` sample, the `medoid` and the `spherical_mean`;
        `energy_km`, the energy score; `precision`, `recall`, `density`, `coverage` of single samples, or of the likeliest ones, against
        true places (k = 3);
        `nll` in nats, `nll_over_uniform` (negative: better than a uniform guess), `bits_per_dimension`, the paper's unit, and for
        methods in R³ `ambient_bits_per_dimension`, the paper's number for them, which is not a density on S²;
        with `labels` the shares of right labels; with `calibrated` how often a region of probability 0.5, 0.9, 0.95 holds the truth;
        the number of images and of NaN predictions, which count as misses.

    Raises:
        ValueError: an empty data set, shapes that differ, samples or seeds < 1, an unknown answer.
    """
    start = time.perf_counter()
    if isinstance(dataset, Tiles):
        blind = geo.method in REFERENCES
        if geo.encoder is None and not blind:
            raise ValueError("this model has no image encoder; give embeddings and places")
        cond, truth = (
            torch.zeros(len(dataset), 0) if blind else geo.encoder.embed(dataset.images),
            dataset.x,
        )
    else:
        cond, truth = dataset[0], sphere.from_latlon(dataset[1]).float()
    if len(cond) != len(truth) or not len(truth):
        raise ValueError(
            f"{len(cond)} embeddings and {len(truth)} places; expected equal numbers of at least 1"
        )
    if samples < 1 or seeds < 1:
        raise ValueError(f"{samples} samples per image, {seeds} seeds; expected at least 1 of each")
    likeliest = choose("answer", answer, ANSWERS) == "likeliest"
    how: dict[str, object] = {
        "method": geo.method,
        "samples": samples,
        "answer": answer,
        "guidance": guidance,
    }
    if isinstance(geo.model, Flow):
        how |= {
            "schedule": geo.model.schedule_name,
            "solver": solver,
            "steps": steps,
            "evaluations": samplers.evaluations(solver, steps),
        }
    how["seeds"] = list(range(seed, seed + seeds))
    runs = []
    for s in range(seed, seed + seeds):
        rows = _sampled(
            geo,
            cond,
            truth,
            name,
            samples,
            dict(steps=steps, solver=solver, guidance=guidance),
            s,
            likeliest,
        )
        runs.append(_sample_scores(rows["points"], truth, labels, rows.get("likeliest")))
    scores, deviations = _over_runs(runs)
    if likelihood:
        scores |= _likelihood_scores(geo, cond, truth, name)
    if calibrated:
        scores |= _calibration_scores(geo, cond[:calibrated], truth[:calibrated], seed)
    return Report(name, scores, deviations, how, time.perf_counter() - start, machine())


def distributed_if_launched() -> None:
    """Join the other processes if `torchrun` started several."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")


def _shares(n: int):
    """Batches of image numbers of this process."""
    rank, world = (
        (distributed.get_rank(), distributed.get_world_size())
        if distributed.is_available() and distributed.is_initialized()
        else (0, 1)
    )
    return torch.arange(n)[rank::world].split(256)


def _collected(n: int, description: str, compute) -> dict[str, Tensor]:
    """compute(image numbers) → named rows, over all images and processes, every image once."""
    rows = metrics.Accumulator(n)
    with runtime.progress(total=n, desc=description, unit="image") as bar:
        for numbers in _shares(n):
            rows.update(numbers, **compute(numbers))
            bar.update(len(numbers))
    return rows.compute()


def _sampled(geo, cond, truth, name, samples, options, seed, likeliest) -> dict[str, Tensor]:
    def compute(numbers):
        noise = samplers.noise_for(geo.model, numbers.tolist(), samples, seed)
        drawn = geo.sample(cond=cond[numbers], noise=noise, **options)
        found = {"points": sphere.from_latlon(drawn)}
        if likeliest:
            log_prob = geo.log_prob(drawn, cond=cond[numbers], guidance=options["guidance"])
            found["likeliest"] = found["points"][torch.arange(len(numbers)), log_prob.argmax(-1)]
        return found

    return _collected(len(truth), f"sampling {name}", compute)


def _sample_scores(
    points: Tensor, truth: Tensor, labels: bool, likeliest: Tensor | None
) -> dict[str, float]:
    best = metrics.best_for_geoscore(points) if likeliest is None else likeliest
    scores = metrics.summary(best, truth)
    others = {
        "single": points[:, 0],
        "medoid": metrics.medoid(points),
        "spherical_mean": metrics.spherical_mean(points),
    }
    for answer, x in others.items():
        alone = metrics.summary(x, truth)
        scores |= {
            f"{answer}_geoscore": alone["geoscore"],
            f"{answer}_median_km": alone["median_km"],
        }
    if points.shape[1] > 1:
        scores["energy_km"] = float(metrics.energy_score(points, truth).mean())
    if len(truth) > 3:
        scores |= metrics.prdc(truth, points[:, 0] if likeliest is None else likeliest)
    if labels:
        scores |= metrics.label_accuracy(
            towns.lookup(sphere.to_latlon(best)), towns.lookup(sphere.to_latlon(truth))
        )
    return scores


def read_report(file) -> Report:
    """A report that `Report.to_json` wrote.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    try:
        return Report(**json.loads(Path(file).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no report of this version: {error}") from error


def mean_report(reports: list[Report]) -> Report:
    """Reports of one method trained with several seeds → their mean, with the standard deviation over them.

    Raises:
        ValueError: no reports, or reports on different data or with different settings.
    """
    if not reports or any(
        (r.dataset, r.settings) != (reports[0].dataset, reports[0].settings) for r in reports
    ):
        raise ValueError(
            f"{len(reports)} reports to average; expected at least one, all on the same data with the same settings"
        )
    scores, deviations = _over_runs([report.metrics for report in reports])
    how = {**reports[0].settings, "trained": len(reports)}
    return Report(
        reports[0].dataset,
        scores,
        deviations,
        how,
        sum(r.seconds for r in reports) / len(reports),
        reports[0].machine,
    )


def _over_runs(runs: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    if len(runs) == 1:
        return runs[0], {}
    columns = {
        name: torch.tensor([run[name] for run in runs], dtype=torch.float64) for name in runs[0]
    }
    counts = {name: type(runs[0][name]) for name in columns}
    return {n: counts[n](c.mean()) for n, c in columns.items()}, {
        n: float(c.std()) for n, c in columns.items()
    }


def _likelihood_scores(geo, cond, truth, name) -> dict[str, float]:
    latlon = sphere.to_latlon(truth[:, None])

    def compute(numbers):
        found = {"log_prob": geo.log_prob(latlon[numbers], cond=cond[numbers])[:, 0]}
        if isinstance(geo.model, Flow) and not geo.path.tangent:
            found["ambient"] = geo.ambient_log_prob(latlon[numbers], cond=cond[numbers])[:, 0]
        return found

    rows = _collected(len(truth), f"likelihood of {name}", compute)
    nll = -float(rows["log_prob"].double().mean())
    scores = {
        "nll": nll,
        "nll_over_uniform": nll + sphere.LOG_UNIFORM,
        "bits_per_dimension": metrics.bits_per_dimension(-nll),
    }
    if "ambient" in rows:
        scores["ambient_bits_per_dimension"] = metrics.bits_per_dimension(
            float(rows["ambient"].double().mean())
        )
    return scores


def _calibration_scores(geo, cond, truth, seed, samples: int = 200) -> dict[str, float]:
    latlon = sphere.to_latlon(truth[:, None])

    def compute(numbers):
        noise = samplers.noise_for(geo.model, numbers.tolist(), samples, seed)
        drawn = geo.sample(cond=cond[numbers], noise=noise)
        values = geo.log_prob(torch.cat([latlon[numbers].to(drawn), drawn], 1), cond=cond[numbers])
        return {"truth": values[:, 0], "drawn": values[:, 1:]}

    rows = _collected(len(truth), "calibration", compute)
    return metrics.calibration(rows["drawn"], rows["truth"])
