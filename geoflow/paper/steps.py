"""The steps: each computes the numbers of one result file. `STEPS` lists them all."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoflow import paths, runtime, samplers, schedules, sphere
from geoflow.data import earth_events, towns
from geoflow.density import density_map
from geoflow.geolocator import Geolocator
from geoflow.paper import point_sets
from geoflow.paper.materials import SCALES, Materials, checksum_of_tiles
from geoflow.paper.results import packed, packed_map
from geoflow.paper.tables import read_yaml
from geoflow.scores import metrics
from geoflow.scores.evaluation import evaluate
from geoflow.training.recipes import read_recipe

GUIDANCE = 2.0  # the paper's, where one answer is wanted
Values = dict[str, Any]  # the numbers of a step, as JSON can hold them


@dataclass(frozen=True)
class Step:
    """How the numbers of a result file are computed."""

    compute: Callable[..., Values]  # (setup, **settings) → numbers
    inputs: Callable[[Materials], dict[str, str]] = lambda setup: {}  # checksums of what it needs
    data: str = ""  # name of its own data set; empty: the setup's
    after: dict[str, str] = field(default_factory=dict)  # input → the step whose network it is


def settings_of(step: str, scale: str) -> dict[str, Any]:
    """The settings of a step. A list has one value per scale, the last for all larger ones."""
    settings, number = read_yaml("steps")[step], SCALES.index(scale)
    lists = {name: value for name, value in settings.items() if isinstance(value, list)}
    return settings | {k: value[min(number, len(value) - 1)] for k, value in lists.items()}


def score(setup: Materials, images: int | None, seed: int, method: str, **options) -> Values:
    """The report of `evaluate` on the first images, with standard errors over them."""
    geo, found = setup.model(method), setup.images(images)
    report = evaluate(geo, found, setup.data, seed=seed, labels=True, **options)
    errors = {name: standard_error(each) for name, each in report.rows.items()}
    errors["nll_over_uniform"] = errors["nll"]
    errors["bits_per_dimension"] = metrics.bits_per_dimension(-errors["nll"])
    report.metrics.update({f"{name}_error": error for name, error in errors.items()})
    return report.values()


def standard_error(scores: Tensor) -> float:
    """The standard error of the mean of some scores."""
    return float(scores.double().std() / math.sqrt(len(scores)))


def score_as_the_paper(setup: Materials, images: int | None, seed: int, method: str) -> Values:
    """The paper's protocol: one guided sample per image; for table A also the guided likelihood."""
    geo = setup.model(method)
    guidance = GUIDANCE if geo.model.guidable else 0.0
    report = score(setup, images, seed, method, samples=1, guidance=guidance)
    if method == "riemannian":
        cond, x = setup.embedded(geo, images)
        parts = zip(sphere.to_latlon(x[:, None]).split(256), cond.split(256), strict=True)
        log_p = torch.cat([geo.log_prob(p, cond=c, guidance=GUIDANCE)[:, 0] for p, c in parts])
        bits = metrics.bits_per_dimension(float(log_p.double().mean()))
        report["metrics"]["guided_bits_per_dimension"] = bits
    return report


def train(setup: Materials, schedule: str) -> Values:
    """Train the Riemannian flow with another schedule: checksum of its weights, and seconds."""
    geo = setup.model(f"riemannian-{schedule}")
    assert geo.network is not None
    tensors = [tensor.numpy() for _, tensor in sorted(geo.network.state_dict().items())]
    weights = runtime.sha256_of(*(runtime.sha256_of(tensor.tobytes()) for tensor in tensors))
    return {"weights": weights, "seconds": geo.provenance.get("seconds", {}).get("flow", 0)}


def answer(geo, cond, place, seed, cells: int, density_steps: int, resolution: float) -> Values:
    """What a model answers to one image: its best place, how far off that is, and the density."""

    def log_prob(x: Tensor) -> Tensor:
        return geo.log_prob(sphere.to_latlon(x), cond=cond, steps=density_steps)[0]

    few = cells <= 2000  # a sketch
    best = geo.predict(cond=cond, n=128 if few else 1024, seed=seed).latlon[0]
    km = sphere.distance_km(sphere.from_latlon(best), sphere.from_latlon(torch.tensor([place])))
    latlon = geo.sample(cond=cond, n=256 if few else 8192, seed=seed)
    drawn, desc = sphere.from_latlon(latlon)[0], "density map"
    # Methods in R³ end in narrower peaks, whose flanks need lighter cells.
    mass = 1 / 240 if geo.method in ("flow", "diffusion") else 1 / 120
    density = density_map(log_prob, drawn, resolution, mass, cells, desc)
    return {"answer": best[0].tolist(), "km": float(km), "density": packed_map(density)}


def figure_1(setup: Materials, points: int, steps: int, seed: int, **sizes) -> Values:
    """Trajectories, answers and densities of three images."""
    geo, found = setup.model("riemannian"), []
    examples = setup.examples(geo, ("ocean", "coast", "taiga"))
    for image, cond in runtime.progress(examples, desc="figure 1"):
        trajectories = geo.trajectories(cond=cond, n=points, steps=steps, seed=seed)[:, 0]
        image["trajectories"] = packed(trajectories, 0.02)
        image["times"] = schedules.time_grid(geo.schedule, steps).tolist()
        found.append(image | answer(geo, cond, image["latlon"], seed, **sizes))
    return {"images": found}


def figure_a(setup: Materials, method: str, seed: int, **sizes) -> Values:
    """Answer and density of one method for one ambiguous image."""
    ((image, cond),) = setup.examples(setup.model("riemannian"), ("coast",))
    return image | answer(setup.model(method), cond, image["latlon"], seed, **sizes)


def figure_2(setup: Materials, points: int, moments: int, seed: int) -> Values:
    """The states of random points on their way to one place, for the three paths."""
    latlon = [48.9, 2.4]
    x1 = sphere.from_latlon(torch.tensor(latlon)).expand(moments, points, 3)
    t = torch.linspace(0, 1, moments)[:, None].expand(moments, points)
    found = {}
    for method in ("diffusion", "flow", "riemannian"):
        path = paths.by_name(method)
        x0 = path.noise_like(x1[0], torch.Generator().manual_seed(seed))
        found[method] = packed(path.sample(x0.expand(moments, -1, -1), x1, t).x_t, 0.001)
    return {"place": latlon, "times": t[:, 0].tolist(), "paths": found}


def figure_4(setup: Materials, points: int) -> Values:
    """Noise levels κ(t) of the schedules; `as printed` has the constants α = −3, β = 7."""
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    kappa = {k: 1 - schedules.by_name(k)(1 - t) for k in ("skewed-sigmoid", "sigmoid", "linear")}
    low, high = torch.tensor([-3.0, 7.0], dtype=torch.float64).sigmoid()
    kappa["as printed"] = (low - (10 * t - 3).sigmoid()) / (low - high)
    return {"t": t.tolist(), "kappa": {name: curve.tolist() for name, curve in kappa.items()}}


def curves(setup: Materials, runs: list[tuple], images: int | None, seed: int) -> Values:
    """Scores of the flow, one sample per image, for runs: (solver, label, options of `sample`)."""
    geo = setup.model("riemannian")
    cond, truth = setup.embedded(geo, images)
    found: dict[str, dict[str, dict]] = {"euler": {}, "rk4": {}}
    for solver, label, options in runtime.progress(runs, desc="scores"):
        drawn = []
        for rows in torch.arange(len(truth)).split(256):
            noise = samplers.noise_for(geo.model, rows.tolist(), 1, seed)
            drawn.append(geo.sample(cond=cond[rows], noise=noise, solver=solver, **options)[:, 0])
        found[solver][label] = scores(torch.cat(drawn), truth)
    return found


def scores(latlon: Tensor, truth: Tensor) -> Values:
    """Scores of answers (n, 2) to images taken at places (n, 3)."""
    x = sphere.from_latlon(latlon).float()
    summary, prdc = metrics.summary(x, truth), metrics.prdc(truth, x)
    labels = metrics.label_accuracy(towns.lookup(latlon), towns.lookup(sphere.to_latlon(truth)))
    precision, recall = prdc["precision"], prdc["recall"]
    found = {name: summary[name] for name in ("geoscore", "mean_km", "median_km")}
    each = metrics.geoscore(metrics.error_km(x, truth))
    found["geoscore_error"] = standard_error(each)
    found |= {level: labels[level] for level in ("country", "region", "city")}
    return found | prdc | {"f1": 2 * precision * recall / max(precision + recall, 1e-9)}


def figure_5(setup: Materials, most: int, **sizes) -> Values:
    """Scores against evaluations of the network, 1, 2, 4, … up to `most`."""
    runs = [
        (solver, str(2**k), {"steps": 2**k // stages, "guidance": GUIDANCE})
        for solver, stages in (("euler", 1), ("rk4", 4))
        for k in range(most.bit_length())
        if 2**k >= stages
    ]
    return curves(setup, runs, **sizes)


def figure_6(setup: Materials, images: int | None, samples: int, seed: int) -> Values:
    """Localizability of all images, in bits, and which are highest, in the middle and lowest."""
    geo = setup.model("riemannian")
    cond, truth = setup.embedded(geo, images)
    parts = runtime.progress(cond.split(16), desc="figure 6", unit="batch")
    bits = torch.cat([geo.localizability(cond=part, n=samples, seed=seed) for part in parts])
    order, middle = bits.argsort(descending=True).tolist(), len(bits) // 2
    chosen = {"high": order[:3], "medium": order[middle - 1 : middle + 2], "low": order[-3:]}
    latlon = sphere.to_latlon(truth).tolist()
    shown = [{"image": i, "latlon": latlon[i], "bits": float(bits[i])} for i in range(len(bits))]
    kinds = {name: [shown[i] for i in numbers] for name, numbers in chosen.items()}
    rounded = [round(image["bits"], 3) for image in shown]
    return {"bits": rounded, "tile": setup.shards is None, "shown": kinds}


def figure_7(setup: Materials, guidance: list[float], steps: int, **sizes) -> Values:
    """Scores against the guidance, with the same number of steps of two solvers."""
    options = {f"{omega:g}": {"steps": steps, "guidance": omega} for omega in guidance}
    runs = [(solver, name, options[name]) for solver in ("euler", "rk4") for name in options]
    return curves(setup, runs, **sizes)


def recipe_of_events(scale: str, events: str) -> dict[str, Any]:
    return point_sets.recipe_of(read_recipe("earth-events", scale), events)


def run_of_events(setup: Materials, events: str, seed: int, distinct: bool) -> tuple[Values, Path]:
    """A run on one split, and its folder, which is kept: an interruption costs minutes at most."""
    folder = setup.folder_of_data("earth-events") / "models"
    folder /= f"{events}-{seed}{'-distinct' * distinct}"
    recipe, latlon = recipe_of_events(setup.scale, events), earth_events.load(events)
    return point_sets.fit_and_judge(
        events, latlon, seed, recipe, folder, distinct, setup.log
    ), folder


def flow_of_events(setup: Materials, events: str) -> Geolocator:
    """The flow of the first split."""
    return Geolocator.from_pretrained(run_of_events(setup, events, 0, False)[1] / "model")


def scores_of_events(setup: Materials, events: str, distinct: bool, splits: list[int]) -> Values:
    """The runs on several splits."""
    numbers = runtime.progress(splits, desc=events)
    runs = [run_of_events(setup, events, seed, distinct)[0] for seed in numbers]
    dropped = ("format", "distinct", "recipe", "sha256", "geoflow")
    kept = [{key: run[key] for key in run if key not in dropped} for run in runs]
    return {"runs": kept, "seconds": sum(sum(run["seconds"].values()) for run in runs)}


def map_of_events(setup: Materials, events: str, cells: int, density_steps: int, **guide):
    """The density of the first split's flow, as a map."""
    flow = flow_of_events(setup, events)
    return {"density": packed_map(point_sets.density_map(flow, cells, density_steps, **guide))}


def integral_of_events(setup: Materials, events: str, density_steps: int, **sizes) -> Values:
    """The integral of the same density without a grid, and its standard error."""
    flow = flow_of_events(setup, events)
    integral, error = point_sets.sampled_integral(flow, steps=density_steps, **sizes)
    return {"integral": integral, "error": error}


def inputs_of_training(setup: Materials, schedule: str) -> dict[str, str]:
    """Checksums of the network of another schedule, or of what it is trained from."""
    if setup.has(name := f"riemannian-{schedule}") or setup.shards is not None:
        return setup.checksums_of_models(name)
    recipe = runtime.sha256_of(json.dumps(setup.recipe(schedule), sort_keys=True))
    shipped = setup.checksums_of_models("riemannian")
    return shipped | {"recipe": recipe, "tiles": checksum_of_tiles()}


def inputs_of_events(setup: Materials, events: str) -> dict[str, str]:
    """Checksums of the file of events and of the recipe."""
    earth_events.load(events)  # An error tells here what is missing or changed.
    source, recipe = earth_events.SOURCES[events], recipe_of_events(setup.scale, events)
    return {
        source.file: source.sha256,
        "recipe": runtime.sha256_of(json.dumps(recipe, sort_keys=True)),
    }


def steps_of_tiles() -> dict[str, Step]:
    """The steps of the paper's items by name."""

    def models(*methods: str) -> Callable[[Materials], dict[str, str]]:
        return lambda setup: setup.checksum_of_data | setup.checksums_of_models(*methods)

    shipped, of_riemannian = models("riemannian"), partial(score, method="riemannian")
    steps = {
        "score-unguided": Step(partial(of_riemannian, samples=1), shipped),
        "score-likeliest": Step(partial(of_riemannian, samples=32, answer="likeliest"), shipped),
        "fig1": Step(figure_1, shipped),
        "fig2": Step(figure_2),
        "fig4": Step(figure_4),
        "fig5": Step(figure_5, shipped),
        "fig6": Step(figure_6, shipped),
        "fig7": Step(figure_7, shipped),
    }
    for method in ("riemannian", "flow", "diffusion", "vmf-mixture", "vmf", "uniform"):
        scored, drawn = (partial(f, method=method) for f in (score_as_the_paper, figure_a))
        steps[f"score-{method}"] = Step(scored, models(method))
        steps[f"figA-{method}"] = Step(drawn, models(method, "riemannian"))
    for name in ("linear", "sigmoid"):
        trained, inputs = (partial(f, schedule=name) for f in (train, inputs_of_training))
        scored = partial(score, method=f"riemannian-{name}", samples=1, guidance=GUIDANCE)
        network = {f"network, {name} schedule": f"train-{name}"}
        steps[f"train-{name}"] = Step(trained, inputs)
        steps[f"score-{name}"] = Step(scored, models(), after=network)
    return steps


def steps_of_events() -> dict[str, Step]:
    """The steps of earth events by name."""
    computed: dict[str, Callable[..., Values]] = {
        "": partial(scores_of_events, distinct=False),
        "-distinct": partial(scores_of_events, distinct=True),
        "-map": map_of_events,
        "-integral": integral_of_events,
    }
    steps = {}
    for events in earth_events.SOURCES:
        inputs = partial(inputs_of_events, events=events)
        for name, compute in computed.items():
            if events == "volcano" or name != "-integral":
                of_events = partial(compute, events=events)
                steps[f"events-{events}{name}"] = Step(of_events, inputs, "earth-events")
    return steps


STEPS = steps_of_tiles() | steps_of_events()
