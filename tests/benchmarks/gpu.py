"""What a GPU does: answers beside the CPU's, speed, and the recipes `gpu` from nothing to scores. On one H100 it takes some nine minutes:

python tests/benchmarks/gpu.py [--out data/results/gpu] [--parts answers sampling training compiled tiles events]

Each part writes a JSON file as soon as it is done, with card, torch, date and seconds, the most valuable first; `tiles` and `events` share the
GPU, the others have it to themselves. `--scale smoke` rehearses everything in a minute, on a CPU too. The official package is timed
where it is installed. Events are read from the cache (`geoflow data fetch earth-events`).
"""

import argparse
import contextlib
import copy
import dataclasses
import datetime
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import solvers
import torch
from torch import Tensor

from geoflow import Geolocator, runtime, sphere, training
from geoflow.checkpoint import shipped_models
from geoflow.cli.common import JUDGED, score_tiles
from geoflow.data import earth_events, tiles
from geoflow.paper import point_sets
from geoflow.training.batches import Rows
from geoflow.training.recipes import read_recipe

PARTS = ("answers", "sampling", "training", "compiled", "tiles", "events")
ALONE = PARTS[:4]
EVENTS = ("volcano", "fire")
MODES = ("float32", "tf32", "bf16")
SIZES = {
    "smoke": {
        "points": 16, "places": 4, "repeats": 1, "batches": (16,), "trained": 2, "images": 20, "matrix": 64, "official": 4, "resolution": 30.0, "maps": (),
    },
    "gpu": {
        "points": 1024, "places": 64, "repeats": 5, "batches": (1024, 8192), "trained": 500, "images": 4000, "matrix": 8192, "official": 250, "resolution": 1.0, "maps": ("float32", "tf32"),
    },
}  # fmt: skip


# Measuring


def wait() -> None:
    """Until the GPU has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(call, repeats: int) -> float:
    """Median wall time of a call, after one that warms up."""
    call()
    found = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


@contextlib.contextmanager
def computing(mode: str):
    """Matrix products in float32, in tf32, or in bfloat16 by autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if mode == "float32" else "high")
    try:
        with torch.autocast(runtime.device(), torch.bfloat16, enabled=mode == "bf16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def matrix_tflops(size: int, repeats: int) -> dict[str, float]:
    """Rates of matrix products of random numbers, 10¹² operations a second."""
    rates = {}
    for mode in MODES:
        kind = torch.bfloat16 if mode == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=runtime.device(), dtype=kind) for _ in range(2))
        with computing("tf32" if mode == "tf32" else "float32"):
            rates[mode] = 2 * size**3 / seconds(lambda a=a, b=b: a @ b, repeats) / 1e12
    return rates


class Captured:
    """A computation on tensors of fixed shapes as a CUDA graph: its kernels start without Python, which takes longer than they do."""

    def __init__(self, compute, *inputs: Tensor):
        self.inputs = tuple(tensor.to(runtime.device(), copy=True) for tensor in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.no_grad():
            compute(*self.inputs)  # warms up
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph), torch.no_grad():
            self.output = compute(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return self.output.clone()


# Answers


def six_tiles() -> list:
    return [tiles.tile(*place) for place in tiles.EXAMPLES.values()]


def answers(size: dict, folder: Path, scale: str) -> dict:
    """How far answers of the shipped models on the GPU are from those on the CPU."""
    found = {}
    for name in shipped_models():
        cpu, gpu = (Geolocator.from_pretrained(name, device=d) for d in ("cpu", runtime.device()))
        images = six_tiles()
        cond = cpu.embed(images)
        few = 2 if cpu.model.points_per_place > 1 else size["places"]
        x = cpu.sample(cond=cond, n=size["points"], seed=0)
        places = x[:, :few]
        log_p = cpu.log_prob(places, cond=cond)
        found[name] = {"embedding": float((gpu.embed(images) - cond).abs().max())}
        for mode in MODES:
            with computing(mode):
                km = distance_km(gpu.sample(cond=cond, n=size["points"], seed=0), x)
                off = (gpu.log_prob(places, cond=cond) - log_p).abs()
            found[name][mode] = {
                "samples_km": {"mean": float(km.mean()), "max": float(km.max())},
                "within_1_km": float((km <= 1).double().mean()),
                "log_p_nats": {"mean": float(off.mean()), "max": float(off.max())},
            }
        print(name, json.dumps(found[name]), flush=True)
    return found


def distance_km(a: Tensor, b: Tensor) -> Tensor:
    """Between places in degrees."""
    return sphere.distance_km(*(sphere.from_latlon(latlon.double()) for latlon in (a, b)))


# Speed


class Step:
    """A training step of a recipe on random embeddings, part by part."""

    def __init__(self, recipe: dict, width: int, batch: int, mode: str):
        torch.manual_seed(0)
        self.mode, device = mode, runtime.device()
        self.module = training.network_module(recipe, "riemannian", width).to(device)
        self.average = copy.deepcopy(self.module.network)
        generator = torch.Generator().manual_seed(0)
        points = sphere.uniform(4 * batch, generator)
        self.rows = Rows((torch.randn(4 * batch, width, generator=generator), points))
        self.order = torch.randperm(4 * batch, generator=generator)[:batch]
        self.batch = tuple(column.to(device) for column in self.rows[self.order])
        self.optimizer = self.module.optimization.optimizer_of(self.module.parameters())
        self.generator = self.module.generator(0)
        self.graph = None

    def gradients(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        with computing(self.mode):
            self.optimizer.zero_grad()
            self.module.loss(self.batch, self.generator).backward()

    def capture(self) -> None:
        """Loss and gradients as a CUDA graph."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.gradients()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph), computing(self.mode):
            self.module.loss(self.batch, self.generator).backward()
        self.graph = graph

    def update(self) -> None:
        parameters = list(self.module.network.parameters())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), parameters, 1e-3)

    def whole(self) -> None:
        self.gradients()
        self.update()

    def load(self, rows) -> None:
        for column in rows[self.order]:
            column.to(runtime.device())

    def flop(self) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.gradients()
        return counter.get_total_flops()

    def milliseconds(self, repeats: int, flop: float, rate: float) -> dict:
        here, step = self.rows.to(runtime.device()), seconds(self.whole, repeats)
        parts = {
            "gradients_ms": self.gradients,
            "optimiser_and_average_ms": self.update,
            "loader_cpu_ms": lambda: self.load(self.rows),
            "loader_here_ms": lambda: self.load(here),
        }
        took = {name: 1000 * seconds(call, repeats) for name, call in parts.items()}
        shares = {
            "share_of_bf16_rate": flop / step / 1e12 / rate,
            "share_of_gradients": 1000 * flop / took["gradients_ms"] / 1e12 / rate,
        }
        return {"step_ms": 1000 * step} | took | shares


def training_cases(size: dict, scale: str) -> dict:
    """What is timed: a recipe, width of embeddings, images per step."""
    published = read_recipe("osv5m", "smoke" if scale == "smoke" else "paper"), 1024
    own = read_recipe("tiles", scale)
    return {
        **{f"published size, batch {batch}": (*published, batch) for batch in size["batches"]},
        "tiles": (own, own["encoder"]["dim"], own["flow"]["optimization"]["batch"]),
    }


def training_speed(size: dict, folder: Path, scale: str) -> dict:
    """Milliseconds of a training step, and what part of the bfloat16 rate it uses."""
    rates = matrix_tflops(size["matrix"], size["repeats"])
    found: dict = {"matrix_tflops": rates}
    for name, case in training_cases(size, scale).items():
        flop = Step(*case, "float32").flop()
        found[name] = {"gigaflop": flop / 1e9}
        for mode in MODES:
            step = Step(*case, mode)
            found[name][mode] = step.milliseconds(size["repeats"], flop, rates["bf16"])
            if torch.cuda.is_available():
                step.capture()
                captured = step.milliseconds(size["repeats"], flop, rates["bf16"])
                found[name][f"{mode}, captured"] = captured
        print(name, json.dumps(found[name]), flush=True)
    return found


def compiled_speed(size: dict, folder: Path, scale: str) -> dict:
    """The same with `torch.compile`, which takes a while."""
    rates = matrix_tflops(size["matrix"], size["repeats"])
    found: dict = {"matrix_tflops": rates}
    for name, case in list(training_cases(size, scale).items())[:2]:
        step = Step(*case, "bf16")
        flop = step.flop()
        step.module.network.compile()
        found[name] = {"bf16": step.milliseconds(size["repeats"], flop, rates["bf16"])}
        print(name, json.dumps(found[name]), flush=True)
    return found


def published_network(steps: int, folder: Path) -> tuple[Geolocator, Tensor]:
    """A network of the published size, trained here, since the published weights may be out of reach."""
    cond, data = solvers.embeddings(64 if steps < 10 else 20_000)
    where = folder / f"published-{steps}"
    solvers.train(where, steps, 0, cond, data, dim=64 if steps < 10 else 512)
    return Geolocator.from_pretrained(where), cond[:1]


def sampling_speed(size: dict, folder: Path, scale: str) -> dict:
    """Seconds of samples, guided ones, log p and a map, of a network of the published size and of the shipped flow, beside the
    official sampler's 250 steps."""
    shipped = Geolocator.from_pretrained("tiles")
    models = {
        "published size": published_network(size["trained"], folder),
        "tiles": (shipped, shipped.embed(six_tiles()[:1])),
    }
    n, found = size["points"], {"matrix_tflops": matrix_tflops(size["matrix"], size["repeats"])}
    for name, (geo, cond) in models.items():
        noise = geo.model.noise((1, n), torch.Generator().manual_seed(0))
        with computing("float32"):
            x = geo.sample(cond=cond, noise=noise)
            log_p = geo.log_prob(x, cond=cond)
        found[name] = {}
        for mode in MODES:
            calls = {
                "samples": lambda g=geo, c=cond, z=noise: g.sample(cond=c, noise=z),
                "guided": lambda g=geo, c=cond, z=noise: g.sample(cond=c, noise=z, guidance=2.0),
                "log_p": lambda g=geo, c=cond, y=x: g.log_prob(y, cond=c),
                "map": lambda g=geo, c=cond: g.density(cond=c, resolution=size["resolution"]),
                "euler_250": lambda g=geo, c=cond, z=noise: g.sample(
                    cond=c, noise=z, steps=size["official"], solver="plonk"
                ),
            }
            with computing(mode):
                took = {
                    what: 1000 * seconds(call, 1 if what == "map" else size["repeats"])
                    for what, call in calls.items()
                    if what != "map" or mode in size["maps"]
                }
                km, off = distance_km(calls["samples"](), x), (calls["log_p"]() - log_p).abs()
            found[name][mode] = {
                "ms": took,
                "from_float32": {
                    "samples_km": float(km.mean()),
                    "log_p_nats": float(off.mean()),
                },
            }
            if torch.cuda.is_available():
                with computing(mode):
                    found[name][mode] |= captured_speed(geo, cond, noise, x, size["repeats"])
            print(name, mode, json.dumps(found[name][mode]), flush=True)
    if importlib.util.find_spec("plonk") is not None:
        found["official"] = official(models["published size"], size, folder)
    return found


def captured_speed(geo, cond: Tensor, noise: Tensor, latlon: Tensor, repeats: int) -> dict:
    """The same as CUDA graphs: milliseconds, and how far samples are from those without."""
    options, x = geo.model.defaults, sphere.from_latlon(latlon).float()
    guided = dataclasses.replace(options, guidance=2.0)
    graphs = {
        "samples": (lambda z, c: geo.model.sample(z, c, options), noise, cond),
        "guided": (lambda z, c: geo.model.sample(z, c, guided), noise, cond),
        "log_p": (lambda y, c: geo.model.log_prob(y, c, options), x, cond),
    }
    took, inputs = {}, {}
    for what, (compute, *given) in graphs.items():
        graph = Captured(compute, *given)
        inputs[what] = [tensor.to(runtime.device()) for tensor in given]
        took[what] = 1000 * seconds(lambda g=graph, i=inputs[what]: g(*i), repeats)
        if what == "samples":
            km = distance_km(sphere.to_latlon(graph(*inputs[what]).cpu()), latlon)
    return {"captured_ms": took, "captured_km": float(km.mean())}


def official(model: tuple[Geolocator, Tensor], size: dict, folder: Path) -> dict:
    """Milliseconds of the official package's sampler, on the same weights and starting points."""
    import official as package

    geo, cond = model
    noise = sphere.uniform(size["points"], torch.Generator().manual_seed(0))
    pipe = package.official_pipe(folder / f"published-{size['trained']}", runtime.device())
    found = {}
    for name, guidance in (("samples", 0.0), ("guided", 2.0)):
        call = functools.partial(package.official_samples, pipe, noise, cond, guidance)
        found[name] = 1000 * seconds(call, 3)
    ours = geo.sample(cond=cond, noise=noise[None], steps=250, solver="plonk")[0]
    theirs = package.official_samples(pipe, noise, cond, 0.0).cpu()
    apart = sphere.distance_km(sphere.from_latlon(ours), theirs)
    return {"ms": found, "from_ours_km": {"mean": float(apart.mean()), "max": float(apart.max())}}


# Recipes


def tiles_recipe(size: dict, folder: Path, scale: str) -> dict:
    """The tiles recipe from nothing to scores, beside the shipped model's on the same tiles."""
    recipe, start = read_recipe("tiles", scale), time.perf_counter()
    views = tiles.views_of(recipe)
    draw_tiles(recipe, size)
    drawn, start = time.perf_counter() - start, time.perf_counter()
    geo = training.trained_on_tiles(recipe, folder / "tiles", log=log)
    trained, start = time.perf_counter() - start, time.perf_counter()
    models, reports = {"gpu": geo, "shipped": Geolocator.from_pretrained("tiles")}, {}
    for name, model in models.items():
        for judged in JUDGED:
            for guidance in (0.0, 2.0):
                how = {"guidance": guidance} | ({"likelihood": False} if guidance else {})
                report = score_tiles(model, judged, "gpu", size["images"], views, **how)
                reports[f"{name}, {judged}, {guidance:g}"] = report.values()
                print(report.table(), flush=True)
    scored = time.perf_counter() - start
    each = {"drawing": drawn, "training": trained, "scoring": scored} | geo.provenance["seconds"]
    return {"recipe": recipe, "took": each, "reports": reports}


def log(line: str) -> None:
    print(line, flush=True)


def draw_tiles(recipe: dict, size: dict) -> None:
    """Draw all tiles that a recipe and its judgement need, where they are not in the cache yet."""
    views = tiles.views_of(recipe)
    wanted = {
        "train": recipe["tiles"],
        "validation": recipe["validation_tiles"],
        "encoder": recipe["encoder"].get("tiles"),
        **dict.fromkeys(JUDGED, 4000),
    }
    for split, n in wanted.items():
        if n:
            tiles.load(split, n, views)


def events(size: dict, folder: Path, scale: str) -> dict:
    """One split of two of the four sets of events."""
    found = {}
    for name in EVENTS:
        recipe = point_sets.recipe_of(read_recipe("earth-events", scale), name)
        found[name] = point_sets.run(
            name, earth_events.load(name), 0, recipe, folder / name, log=log
        )
        print(name, found[name]["nll"], flush=True)
    return found


# The command


def here() -> dict:
    """Where and when."""
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"machine": runtime.machine(), "torch": torch.__version__, "date": date}


def run(part: str, scale: str, out: Path) -> None:
    work, start = out / "work", time.perf_counter()
    work.mkdir(parents=True, exist_ok=True)
    size = SIZES[scale]
    if part == "draw":
        draw_tiles(read_recipe("tiles", scale), size)
        return
    parts = answers, sampling_speed, training_speed, compiled_speed, tiles_recipe, events
    found = parts[PARTS.index(part)](size, work, scale)
    took = {"seconds": time.perf_counter() - start}
    runtime.write_json(out / f"{part}.json", {**here(), **took, **found})
    print(f"{part}: {took['seconds']:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/results/gpu"))
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=(*PARTS, "draw"))
    parser.add_argument("--scale", default="gpu", choices=tuple(SIZES))
    a = parser.parse_args()
    if len(a.parts) == 1:
        run(a.parts[0], a.scale, a.out)
        return

    def start(part: str) -> subprocess.Popen:
        command = [sys.executable, __file__, "--out", str(a.out), "--scale", a.scale]
        return subprocess.Popen([*command, "--parts", part])

    drawing = [start("draw")] if "tiles" in a.parts else []  # on the CPU, meanwhile
    failed = [part for part in a.parts if part in ALONE and start(part).wait()]
    for process in drawing:
        process.wait()
    together = {part: start(part) for part in a.parts if part not in ALONE}
    failed += [part for part, process in together.items() if process.wait()]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
