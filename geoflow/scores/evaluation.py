"""A model and a data set → a report: scores, settings, seconds and machine.

Bad input, data or files raise a `ValueError` that names the value and what was expected.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, distributed

from geoflow import inputs, runtime, samplers, sphere
from geoflow.data import towns, typed
from geoflow.data.tiles import Tiles
from geoflow.methods import REFERENCES, Flow
from geoflow.runtime import choose
from geoflow.scores import metrics

ANSWERS = ("geoscore", "likeliest")


@dataclass(frozen=True)
class Report:
    """Scores and how they were obtained."""

    dataset: str  # its name
    metrics: dict[str, float]  # see `evaluate`; with several seeds the means over them
    deviations: dict[str, float]  # standard deviations over the seeds; empty for one seed
    settings: dict[str, object]
    seconds: float  # of the whole evaluation
    machine: str  # the hardware
    rows: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)
    """Scores of each image, (B,) in the order of the data, means over the seeds: not in the JSON.

    `geoscore`, `single_geoscore`, `energy_km` and `nll`, as far as they were computed.
    """

    def values(self) -> dict:
        """All but the rows."""
        return {name: value for name, value in vars(self).items() if name != "rows"}

    def to_json(self, file=None) -> str:
        """The values as JSON, written to a file if one is given."""
        if file is not None:
            runtime.write_json(Path(file), self.values())
        return runtime.to_json(self.values())

    def table(self) -> str:
        """The report as lines of text."""
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        images = self.metrics["images"]
        each = f"{self.seconds:.0f} s, {1000 * self.seconds / images:.0f} ms per image"
        lines = [f"{self.dataset}: {images} images, {settings}; {each}, on {self.machine}"]
        width = max(map(len, self.metrics))
        for name, value in self.metrics.items():
            deviation = self.deviations.get(name)
            spread = f" ± {_number(deviation).strip()}" if deviation else ""
            lines.append(f"  {name:{width}}  {_number(value)}{spread}")
        return "\n".join(lines)


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:10d}"
    return f"{value:13.2f}" if abs(value) < 100 else f"{value:10.0f}"


def evaluate(
    geo, dataset: Tiles | tuple[Tensor, Tensor], name: str = "data", samples: int = 24,
    steps: int | None = None, solver: str | None = None, guidance: float = 0.0, seed: int = 0,
    seeds: int = 1, likelihood: bool = True, labels: bool = False, calibrated: int = 0,
    answer: str = "geoscore",
) -> Report:  # fmt: skip
    """Score a model.

    Each image has starting points of its own, keyed by the seed and its number in the data set,
    whatever the batch. With several processes (torch.distributed) each scores its share of the
    images, every image is counted once, and all return the same report.

    >>> from geoflow import Geolocator
    >>> from geoflow.data import tiles
    >>> report = evaluate(Geolocator.from_pretrained("uniform"), tiles.load("test", 50))
    >>> abs(report.metrics["nll_over_uniform"]) < 1e-6
    True

    Args:
        geo, name: a Geolocator; and what the report calls the data set.
        dataset: `Tiles`, or embeddings (B, C) and places (B, 2) in degrees.
        samples: per image, at least 1; the answer is one of them, see `answer`.
        steps, solver, guidance: of the sampler; None are the model's own. Likelihood and
            calibration are those of the unguided model, with its own solver.
        seed, seeds: the first seed of the starting points, and how many to average over.
        likelihood: whether to compute the NLL of the true places.
        labels: whether to compare country, region, sub-region and city (nearest towns, offline).
        calibrated: how many images, the first ones, to check the highest-density regions of.
        answer: `geoscore`, the sample of highest expected GeoScore, or `likeliest`, that of highest
            density (the paper's ensemble).

    Returns:
        A report, whose metrics are those of `metrics.summary` for the answer;
        `<answer>_geoscore` and `<answer>_median_km` of other answers: a `single` sample, the
        `medoid`, the `spherical_mean`; `energy_km` (samples > 1), the energy score; `metrics.prdc`
        of single samples, or the likeliest, against true places (k = 3; more than 3 images);
        `nll` in nats, `nll_over_uniform` (negative: better than a uniform guess),
        `bits_per_dimension`, the paper's unit, and for methods in R³
        `ambient_bits_per_dimension`, the paper's number for them, which is not a density on S²;
        with `labels` the shares of right labels; with `calibrated` how often a region of
        probability 0.5, 0.9, 0.95 holds the truth.
    """
    start = time.perf_counter()
    cond, truth = _embedded(geo, dataset)
    text = f"{samples!r} samples per image, {seeds!r} seeds"
    samples, seeds = runtime.whole(text, samples), runtime.whole(text, seeds)
    seed = runtime.whole(f"seed={seed!r}", seed, -(2**63))
    calibrated = runtime.whole(f"{calibrated!r} images to calibrate", calibrated, 0)
    likeliest = choose("answer", answer, ANSWERS) == "likeliest"
    options = inputs.solver_options(geo.model, steps, solver, guidance)
    settings: dict[str, object] = {"method": geo.method, "samples": samples, "answer": answer}
    settings["guidance"] = guidance
    if isinstance(geo.model, Flow):
        solved = {"solver": options.solver, "steps": options.steps}
        settings |= {"schedule": geo.model.schedule_name, **solved}
        settings["evaluations"] = samplers.evaluations(**solved)
    settings["seeds"] = list(range(seed, seed + seeds))
    how = {"steps": options.steps, "solver": options.solver, "guidance": options.guidance}
    runs, rows = [], []
    for s in range(seed, seed + seeds):
        drawn = _sampled(geo, cond, truth, name, samples, how, s, likeliest)
        points = drawn["points"]
        best = drawn["likeliest"] if likeliest else metrics.best_for_geoscore(points)
        compared = best if likeliest else points[:, 0]
        rows.append(_sample_rows(points, truth, best))
        runs.append(_sample_scores(points, truth, labels, best, compared))
        if "energy_km" in rows[-1]:
            runs[-1]["energy_km"] = float(rows[-1]["energy_km"].mean())
    scores, deviations = _over_runs(runs)
    of_images = {kind: torch.stack([row[kind] for row in rows]).mean(0) for kind in rows[0]}
    if likelihood:
        log_probs = _log_probs(geo, cond, truth, name)
        scores |= _likelihood_scores(log_probs)
        of_images["nll"] = -log_probs["log_prob"]
    if calibrated:
        scores |= _calibration_scores(geo, cond[:calibrated], truth[:calibrated], seed)
    seconds = time.perf_counter() - start
    return Report(name, scores, deviations, settings, seconds, runtime.machine(), of_images)


def _embedded(geo, dataset) -> tuple[Tensor, Tensor]:
    """Embeddings (B, C) and true places (B, 3)."""
    if not hasattr(geo, "model"):
        raise ValueError(f"a model of type {type(geo).__name__}; expected a Geolocator")
    if isinstance(dataset, Tiles):
        if geo.method in REFERENCES:
            cond = torch.zeros(len(dataset), 0)
        elif geo.encoder is None:
            raise ValueError("this model has no image encoder; give embeddings and places")
        else:
            cond = geo.encoder.embed(dataset.images)
        truth = dataset.x
    elif isinstance(dataset, (tuple, list)) and len(dataset) == 2:
        cond = inputs.tensor("embeddings", dataset[0], "(B, C)")
        truth = sphere.from_latlon(dataset[1]).float()
    else:
        expected = "expected Tiles, or a pair of embeddings (B, C) and places (B, 2)"
        raise ValueError(f"a data set of type {type(dataset).__name__}; {expected}")
    if (cond.ndim, truth.ndim) != (2, 2):
        shapes = f"embeddings of shape {tuple(cond.shape)}, places of {tuple(truth.shape[:-1])} × 2"
        raise ValueError(f"{shapes}; expected (B, C) and (B, 2)")
    if len(cond) != len(truth) or not len(truth):
        counts = f"{len(cond)} embeddings and {len(truth)} places"
        raise ValueError(f"{counts}; expected equal numbers of at least 1")
    return cond, truth


def distributed_if_launched() -> None:
    """Join the other processes if `torchrun` started several."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not distributed.is_initialized():
        distributed.init_process_group("gloo")


def _collected(n: int, description: str, compute) -> dict[str, Tensor]:
    """The named rows that compute(numbers) gives for images, of all images from all processes."""
    rank, world = 0, 1
    if distributed.is_available() and distributed.is_initialized():
        rank, world = distributed.get_rank(), distributed.get_world_size()
    rows = metrics.Accumulator(n)
    with runtime.progress(total=n, desc=description, unit="image") as bar:
        for numbers in torch.arange(n)[rank::world].split(256):
            rows.update(numbers, **compute(numbers))
            bar.update(len(numbers))
    return rows.compute()


def _sampled(geo, cond, truth, name, samples, options, seed, likeliest) -> dict[str, Tensor]:
    def compute(numbers):
        noise = samplers.noise_for(geo.model, numbers.tolist(), samples, seed)
        drawn = geo.sample(cond=cond[numbers], noise=noise, **options)
        points = sphere.from_latlon(drawn)
        if not likeliest:
            return {"points": points}
        log_prob = geo.log_prob(drawn, cond=cond[numbers], guidance=options["guidance"])
        best = points[torch.arange(len(numbers)), log_prob.argmax(-1)]
        return {"points": points, "likeliest": best}

    return _collected(len(truth), f"sampling {name}", compute)


def _sample_scores(
    points: Tensor, truth: Tensor, labels: bool, best: Tensor, compared: Tensor
) -> dict[str, float]:
    scores = metrics.summary(best, truth)
    mean = metrics.spherical_mean(points)
    others = {"single": points[:, 0], "medoid": metrics.medoid(points), "spherical_mean": mean}
    for answer, x in others.items():
        alone = metrics.summary(x, truth)
        scores |= {f"{answer}_{score}": alone[score] for score in ("geoscore", "median_km")}
    if len(truth) > 3:
        scores |= metrics.prdc(truth, compared)
    if labels:
        names = (towns.lookup(sphere.to_latlon(x)) for x in (best, truth))
        scores |= metrics.label_accuracy(*names)
    return scores


def _sample_rows(points: Tensor, truth: Tensor, best: Tensor) -> dict[str, Tensor]:
    answers = {"geoscore": best, "single_geoscore": points[:, 0]}
    rows = {name: metrics.geoscore(metrics.error_km(x, truth)) for name, x in answers.items()}
    if points.shape[1] > 1:
        rows["energy_km"] = metrics.energy_score(points, truth)
    return rows


def _log_probs(geo, cond, truth, name) -> dict[str, Tensor]:
    latlon = sphere.to_latlon(truth[:, None])
    ambient = isinstance(geo.model, Flow) and not geo.path.tangent

    def compute(numbers):
        given = latlon[numbers], None, cond[numbers]
        found = {"log_prob": geo.log_prob(*given)[:, 0]}
        return found | ({"ambient": geo.ambient_log_prob(*given)[:, 0]} if ambient else {})

    return _collected(len(truth), f"likelihood of {name}", compute)


def _likelihood_scores(log_probs: dict[str, Tensor]) -> dict[str, float]:
    mean = {kind: float(values.double().mean()) for kind, values in log_probs.items()}
    nll = -mean["log_prob"]
    scores = {"nll": nll, "nll_over_uniform": nll + sphere.LOG_UNIFORM}
    scores["bits_per_dimension"] = metrics.bits_per_dimension(-nll)
    if "ambient" in mean:
        scores["ambient_bits_per_dimension"] = metrics.bits_per_dimension(mean["ambient"])
    return scores


def _calibration_scores(geo, cond, truth, seed) -> dict[str, float]:
    latlon = sphere.to_latlon(truth[:, None])

    def compute(numbers):
        noise = samplers.noise_for(geo.model, numbers.tolist(), 200, seed)
        drawn = geo.sample(cond=cond[numbers], noise=noise)
        places = torch.cat([latlon[numbers].to(drawn), drawn], 1)
        values = geo.log_prob(places, cond=cond[numbers])
        return {"truth": values[:, 0], "drawn": values[:, 1:]}

    rows = _collected(len(truth), "calibration", compute)
    return metrics.calibration(rows["drawn"], rows["truth"])


def read_report(file) -> Report:
    """A report that `Report.to_json` wrote.

    >>> import tempfile
    >>> report = Report("tiles", {"images": 9}, {}, {}, 1.0, "a machine")
    >>> file = Path(tempfile.mkdtemp()) / "report.json"
    >>> written = report.to_json(file)
    >>> read_report(file) == report
    True
    """
    try:
        report = typed.from_json(Report, runtime.read_json(Path(file), dict))
        if not report.dataset or report.metrics.get("images", 0) < 1:
            raise ValueError("expected the name of a data set, and at least one image")
    except ValueError as error:
        raise ValueError(f"{file} is no report of this version: {error}") from error
    return report


def mean_report(reports: list[Report]) -> Report:
    """The mean over trainings of one method with several seeds, on the same data and settings."""
    kinds = [(report.dataset, report.settings) for report in reports]
    if not reports or any(kind != kinds[0] for kind in kinds):
        expected = "expected at least one, all on the same data with the same settings"
        raise ValueError(f"{len(reports)} reports to average; {expected}")
    first = reports[0]
    scores, deviations = _over_runs([report.metrics for report in reports])
    settings = {**first.settings, "trained": len(reports)}
    seconds = sum(report.seconds for report in reports) / len(reports)
    return Report(first.dataset, scores, deviations, settings, seconds, first.machine)


def _over_runs(runs: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Means, and standard deviations if there are several runs; counts stay whole numbers."""
    if len(runs) == 1:
        return runs[0], {}
    means, deviations = {}, {}
    for name, first in runs[0].items():
        column = torch.tensor([run[name] for run in runs], dtype=torch.float64)
        means[name], deviations[name] = type(first)(column.mean()), float(column.std())
    return means, deviations
