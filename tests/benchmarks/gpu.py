"""What a GPU does: answers beside the CPU's, speed, and the recipes `gpu` from nothing to scores. On one H200 it takes some nine minutes:

python tests/benchmarks/gpu.py [--out data/results/gpu] [--parts answers sampling training graphs compiled tiles events]

Parts run one after the other, the most valuable first, while the tiles are drawn on the CPU. Each writes a JSON file with card, torch, date
and seconds, anew after every result: what a part has measured is there, whatever happens later. `--scale smoke` rehearses everything in
two minutes, on a CPU too. The official package is timed where it is installed. Events come from the cache (`geoflow data fetch earth-events`).
"""

import argparse
import contextlib
import copy
import dataclasses
import datetime
import functools
import importlib.util
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
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
from geoflow.training.graphs import Recorded
from geoflow.training.recipes import read_recipe
from geoflow.velocity import in_float32

MODES = ("float32", "tf32", "bf16")
Results = Iterator[tuple[str, dict]]


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    scale: str  # of the recipes
    models: int  # how many of the shipped ones
    events: tuple[str, ...]
    points: int  # samples, and places of log p
    places: int  # whose log p is compared with the CPU's
    repeats: int
    batches: tuple[int, ...]  # of training steps of the published size
    trained: int  # steps of the network of the published size
    images: int  # to score
    matrix: int
    official: int  # steps of the official sampler
    resolution: float  # of maps, degrees
    maps: tuple[str, ...]  # modes in which they are made


SMOKE = Size(
    scale="smoke", models=2, events=("volcano",), points=16, places=2, repeats=1, batches=(16,),
    trained=2, images=20, matrix=64, official=4, resolution=30.0, maps=(),
)  # fmt: skip
GPU = Size(
    scale="gpu", models=7, events=("volcano", "fire"), points=1024, places=64, repeats=5,
    batches=(1024, 8192), trained=500, images=4000, matrix=8192, official=250, resolution=1.0,
    maps=MODES[:2],
)  # fmt: skip
SIZES = {size.scale: size for size in (SMOKE, GPU)}


# Measuring


def on_gpu() -> bool:
    return runtime.device() == "cuda"


def wait() -> None:
    """Until the GPU has done what it was asked."""
    if on_gpu():
        torch.cuda.synchronize()


def milliseconds(call, repeats: int) -> float:
    """Median wall time of a call, after one that warms up."""
    call()
    found = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        found.append(time.perf_counter() - start)
    return 1000 * statistics.median(found)


@contextlib.contextmanager
def computing(mode: str):
    """Matrix products in float32, in TF32, or in bfloat16 by autocast."""
    device, products = runtime.device(), "highest" if mode == "float32" else "high"
    bf16 = torch.autocast(device, torch.bfloat16, enabled=mode == "bf16")
    with in_float32(device, products), bf16:
        yield


@functools.cache
def matrix_tflops(size: Size) -> dict[str, float]:
    """Rates of matrix products of random numbers, 10¹² operations a second."""
    rates = {}
    for mode in MODES:
        kind = torch.bfloat16 if mode == "bf16" else torch.float32
        shape = size.matrix, size.matrix
        a, b = (torch.randn(shape, device=runtime.device(), dtype=kind) for _ in range(2))
        with computing("tf32" if mode == "tf32" else "float32"):
            took = milliseconds(lambda a=a, b=b: a @ b, size.repeats)
        rates[mode] = 2 * size.matrix**3 / took / 1e9
    return rates


# Answers


def six_tiles() -> list:
    return [tiles.tile(*place) for place in tiles.EXAMPLES.values()]


def distance_km(a: Tensor, b: Tensor) -> Tensor:
    """Between places in degrees."""
    return sphere.distance_km(*(sphere.from_latlon(latlon.double()) for latlon in (a, b)))


def answers(size: Size, folder: Path) -> Results:
    """How far answers of the shipped models on the GPU are from those on the CPU."""
    for name in shipped_models()[: size.models]:
        cpu, gpu = (Geolocator.from_pretrained(name, device=d) for d in ("cpu", runtime.device()))
        images = six_tiles()
        cond = cpu.embed(images)
        x = cpu.sample(cond=cond, n=size.points, seed=0)
        places = x[:, : 2 if cpu.model.points_per_place > 1 else size.places]
        log_p = cpu.log_prob(places, cond=cond)
        found: dict = {"embedding": float((gpu.embed(images) - cond).abs().max())}
        for mode in MODES:
            with computing(mode):
                km = distance_km(gpu.sample(cond=cond, n=size.points, seed=0), x)
                off = (gpu.log_prob(places, cond=cond) - log_p).abs()
            found[mode] = {
                "samples_km": {"mean": float(km.mean()), "max": float(km.max())},
                "within_1_km": float((km <= 1).double().mean()),
                "log_p_nats": {"mean": float(off.mean()), "max": float(off.max())},
            }
        yield name, found


# Samples


def networks(size: Size, folder: Path) -> dict[str, tuple[Geolocator, Tensor]]:
    """A network of the published size, trained here, since the published weights may be out of reach, and the shipped flow;
    each with the embedding of an image."""
    steps, small = size.trained, size.scale == "smoke"
    cond, data = solvers.embeddings(64 if small else 20_000)
    where = folder / f"published-{steps}"
    solvers.train(where, steps, 0, cond, data, dim=64 if small else 512)
    shipped = Geolocator.from_pretrained("tiles")
    return {
        "published size": (Geolocator.from_pretrained(where), cond[:1]),
        "tiles": (shipped, shipped.embed(six_tiles()[:1])),
    }


def sampling(size: Size, folder: Path) -> Results:
    """Samples, guided ones, log p and a map, beside the official sampler's 250 steps."""
    yield "matrix_tflops", matrix_tflops(size)
    for name, (geo, cond) in networks(size, folder).items():
        noise = geo.model.noise((1, size.points), torch.Generator().manual_seed(0))
        x = geo.sample(cond=cond, noise=noise)
        log_p = geo.log_prob(x, cond=cond)
        samples = functools.partial(geo.sample, cond=cond, noise=noise)
        calls = {
            "samples": samples,
            "guided": functools.partial(samples, guidance=2.0),
            "log_p": functools.partial(geo.log_prob, x, cond=cond),
            "map": functools.partial(geo.density, cond=cond, resolution=size.resolution),
            "euler_250": functools.partial(samples, steps=size.official, solver="plonk"),
        }
        for mode in MODES:
            kept = {k: v for k, v in calls.items() if k != "map" or mode in size.maps}
            with computing(mode):
                repeats = {what: 1 if what == "map" else size.repeats for what in kept}
                took = {what: milliseconds(call, repeats[what]) for what, call in kept.items()}
                km, off = distance_km(samples(), x), (calls["log_p"]() - log_p).abs()
            apart = {"samples_km": float(km.mean()), "log_p_nats": float(off.mean())}
            yield f"{name}, {mode}", {"ms": took, "from_float32": apart}
    if importlib.util.find_spec("plonk") is not None:
        yield "official", official(size, folder)


def official(size: Size, folder: Path) -> dict:
    """The official package's sampler, on the same weights and starting points."""
    import official as package

    geo, cond = networks(size, folder)["published size"]
    noise = sphere.uniform(size.points, torch.Generator().manual_seed(0))
    pipe = package.official_pipe(folder / f"published-{size.trained}", runtime.device())
    found = {}
    for name, guidance in (("samples", 0.0), ("guided", 2.0)):
        call = functools.partial(package.official_samples, pipe, noise, cond, guidance)
        found[name] = milliseconds(call, 3)
    ours = geo.sample(cond=cond, noise=noise[None], steps=250, solver="plonk")[0]
    theirs = package.official_samples(pipe, noise, cond, 0.0).cpu()
    apart = sphere.distance_km(sphere.from_latlon(ours), theirs)
    return {"ms": found, "from_ours_km": {"mean": float(apart.mean()), "max": float(apart.max())}}


# Training steps


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
        self.module.recordable = False

    def gradients(self, step: int = 0) -> None:
        self.optimizer.zero_grad()
        with computing(self.mode):
            self.module.loss_of_step(self.batch, step).backward()

    def off_when_recorded(self) -> float:
        """How far recorded gradients are from others of the same step, relative to their length."""
        lengths = []
        for step in (1, 2):
            found = []
            for self.module.recordable in (True, False):
                self.gradients(step)
                found.append([weight.grad.clone() for weight in self.module.parameters()])
            recorded, plain = (torch.cat([g.flatten() for g in grads]) for grads in found)
            lengths.append(float((recorded - plain).norm() / plain.norm()))
        return max(lengths)

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

    def measured(self, size: Size, flop: int) -> dict:
        """Milliseconds, and what part of the bfloat16 rate is used."""
        here, rate = self.rows.to(runtime.device()), matrix_tflops(size)["bf16"]
        parts = {
            "step_ms": self.whole,
            "gradients_ms": self.gradients,
            "optimiser_and_average_ms": self.update,
            "loader_cpu_ms": lambda: self.load(self.rows),
            "loader_here_ms": lambda: self.load(here),
        }
        took = {name: milliseconds(call, size.repeats) for name, call in parts.items()}
        shares = {
            "share_of_bf16_rate": flop / took["step_ms"] / 1e9 / rate,
            "share_by_gradients": flop / took["gradients_ms"] / 1e9 / rate,
        }
        return {"gigaflop": flop / 1e9} | took | shares


def steps_of(size: Size) -> Iterator[tuple[str, int, dict[str, Step]]]:
    """What is timed: its name, operations, and the step in each mode."""
    published = read_recipe("osv5m", "smoke" if size.scale == "smoke" else "paper"), 1024
    own = read_recipe("tiles", size.scale)
    cases = {f"published size, batch {batch}": (*published, batch) for batch in size.batches}
    cases["tiles"] = own, own["encoder"]["dim"], own["flow"]["optimization"]["batch"]
    for name, case in cases.items():
        flop = Step(*case, "float32").flop()
        yield name, flop, {mode: Step(*case, mode) for mode in MODES}


def training_steps(size: Size, folder: Path) -> Results:
    yield "matrix_tflops", matrix_tflops(size)
    for name, flop, steps in steps_of(size):
        for mode, step in steps.items():
            yield f"{name}, {mode}", step.measured(size, flop)


def compiled(size: Size, folder: Path) -> Results:
    """Training steps with `torch.compile`, recorded: what it fuses takes the GPU less time."""
    yield "matrix_tflops", matrix_tflops(size)
    for name, flop, steps in steps_of(size):
        step = steps["bf16"]
        step.module.network.compile()
        step.module.recordable = True
        yield f"{name}, bf16", step.measured(size, flop)


def graphs(size: Size, folder: Path) -> Results:
    """Training steps and samples as CUDA graphs, so of what the GPU alone takes."""
    yield "matrix_tflops", matrix_tflops(size)
    if not on_gpu():
        return
    for name, (geo, cond) in networks(size, folder).items():
        noise = geo.model.noise((1, size.points), torch.Generator().manual_seed(0))
        latlon = geo.sample(cond=cond, noise=noise)
        given = [tensor.to(runtime.device()) for tensor in (noise, cond)]
        for mode, guidance in ((mode, omega) for mode in MODES for omega in (0.0, 2.0)):
            options = dataclasses.replace(geo.model.defaults, guidance=guidance)
            with computing(mode):
                graph = Recorded(functools.partial(geo.model.sample, options=options), *given)
                took = milliseconds(functools.partial(graph, *given), size.repeats)
                found = {"ms": took}
                if not guidance:
                    km = distance_km(sphere.to_latlon(graph(*given).cpu()), latlon)
                    found["from_float32_km"] = float(km.mean())
            yield f"samples, {name}, {mode}, guidance {guidance:g}", found
    for name, flop, steps in steps_of(size):
        for mode, step in steps.items():
            off, step.module.recordable = step.off_when_recorded(), True
            yield f"training, {name}, {mode}", {"off": off, **step.measured(size, flop)}


# Recipes


def log(line: str) -> None:
    print(line, flush=True)


def draw_tiles(size: Size) -> None:
    """Draw all tiles that the recipe and its judgement need, where they are not in the cache yet."""
    recipe = read_recipe("tiles", size.scale)
    wanted = {
        "train": recipe["tiles"],
        "validation": recipe["validation_tiles"],
        "encoder": recipe["encoder"].get("tiles"),
        **dict.fromkeys(JUDGED, tiles.judged(size.scale)),
    }
    views = tiles.views_of(recipe)
    drawn = [(split, n, views) for split, n in wanted.items() if n]
    if many := [part for part in drawn if part[1] > 50_000]:
        with multiprocessing.get_context("spawn").Pool(len(many)) as pool:
            pool.starmap(draw, many)
    for part in drawn:
        if part not in many:
            draw(*part)


def draw(split: str, n: int, views: str) -> None:
    tiles.load(split, n, views)  # a process returns nothing of it


def tiles_recipe(size: Size, folder: Path) -> Results:
    """The tiles recipe from nothing to scores, beside the shipped model's on the same tiles."""
    recipe = read_recipe("tiles", size.scale)
    yield "recipe", recipe
    draw_tiles(size)
    geo = training.trained_on_tiles(recipe, folder / "tiles", log=log)
    yield "seconds_of_training", geo.provenance["seconds"]
    for name, model in {"gpu": geo, "shipped": Geolocator.from_pretrained("tiles")}.items():
        for judged in JUDGED:
            for guidance in (0.0, 2.0):
                how = {"guidance": guidance} | ({"likelihood": False} if guidance else {})
                views = tiles.views_of(recipe)
                report = score_tiles(model, judged, size.scale, size.images, views, **how)
                yield f"{name}, {judged}, guidance {guidance:g}", report.values()


def events(size: Size, folder: Path) -> Results:
    """One split of two of the four sets of events."""
    for name in size.events:
        recipe = point_sets.recipe_of(read_recipe("earth-events", size.scale), name)
        places = earth_events.load(name)
        yield name, point_sets.fit_and_judge(name, places, 0, recipe, folder / name, log=log)


PARTS = {
    "answers": answers,
    "sampling": sampling,
    "training": training_steps,
    "graphs": graphs,
    "compiled": compiled,
    "tiles": tiles_recipe,
    "events": events,
}


# The command


def here() -> dict:
    """Where and when."""
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    return {"machine": runtime.machine(), "torch": torch.__version__, "date": date}


def run(part: str, size: Size, out: Path) -> None:
    """One part, whose file is written anew after each result."""
    work, start, found = out / "work", time.perf_counter(), {}
    work.mkdir(parents=True, exist_ok=True)
    for name, values in PARTS[part](size, work):
        found[name] = values
        took = {"seconds": time.perf_counter() - start}
        runtime.write_json(out / f"{part}.json", {**here(), **took, **found})
        log(f"{part}, {name}: {json.dumps(values)[:2000]}")
    log(f"{part}: {time.perf_counter() - start:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("data/results/gpu"))
    parser.add_argument("--parts", nargs="+", default=tuple(PARTS), choices=(*PARTS, "draw"))
    parser.add_argument("--scale", default="gpu", choices=tuple(SIZES))
    a = parser.parse_args()
    if a.parts == ["draw"]:
        draw_tiles(SIZES[a.scale])
    elif len(a.parts) == 1:
        run(a.parts[0], SIZES[a.scale], a.out)
    else:
        command = [sys.executable, __file__, "--out", str(a.out), "--scale", a.scale, "--parts"]
        drawing = subprocess.Popen([*command, "draw"]) if "tiles" in a.parts else None
        failed = [part for part in a.parts if subprocess.run([*command, part]).returncode]
        if drawing is not None and drawing.wait():
            failed.append("draw")
        if failed:
            raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
