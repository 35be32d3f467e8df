"""geoflow beside the paper's official code: the same weights, starting points and machine, in one run. Run it on an idle machine:

python -m venv OTHER && OTHER/bin/pip install diff-plonk              # the official package, in an environment of its own
python tests/benchmarks/official.py OTHER/bin/python [--points 1024]  # some 25 minutes on 2 CPU cores

The network has the published size (512 wide, 12 blocks, 36 million parameters). As the published weights may be out of reach, it is
trained here for a few steps on the embedded tiles, so that its field is one that training makes, and kept in outputs/official-STEPS.
The official likelihood would take an hour, so it is solved for some points, and its evaluations are timed with all of them.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory
import torch
from safetensors.torch import load_file, save_file

LIKELIHOOD_POINTS = 32
SOLVED_BY = (("ab3", 64), ("ab3", 48), ("rk4", 16))  # the first is the default for such networks
TRAINING_STEPS = 5
TIMES = 2  # samples are drawn this often by either side, and the fastest counts
PARITY = 32
REFERENCES = 64  # points whose exact ends are computed
TASKS = ("sample", "guided", "train", "likelihood", "map")
GRID = 181 * 361  # points of the official grid at 1°


def timed(call):
    """Result and seconds of one call."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def official_pipe(folder: Path, device: str = "cpu"):
    """The official pipeline around the weights in a folder, without a photo encoder."""
    if (
        importlib.util.find_spec("torchvision") is None
    ):  # it prepares photos only, and there are none here
        from unittest.mock import MagicMock

        from transformers import CLIPProcessor, CLIPVisionModel  # noqa: F401 (they look for torchvision when they are first imported)

        sys.modules["torchvision"] = sys.modules["torchvision.transforms"] = MagicMock()
    import plonk.models.schedulers as schedulers
    from plonk.models.preconditioning import DDPMPrecond
    from plonk.models.pretrained_models import Plonk
    from plonk.pipe import PlonkPipeline
    from plonk.utils.manifolds import Sphere

    pipe = PlonkPipeline.__new__(PlonkPipeline)  # its __init__ would fetch a photo encoder
    pipe.network = Plonk.from_pretrained(folder).requires_grad_(False).eval().to(device)
    pipe.scheduler = schedulers.SigmoidScheduler(-7, 3, 1.0)
    pipe.preconditioning, pipe.manifold, pipe.input_dim, pipe.device = (
        DDPMPrecond(),
        Sphere(),
        3,
        torch.device(device),
    )
    return pipe


def official_samples(pipe, noise, cond, guidance: float):
    """250 steps of the official sampler, for points (n, 3) of one image."""
    from plonk.models.samplers.riemannian_flow_sampler import riemannian_flow_sampler

    batch = {"y": noise.to(pipe.device), "emb": cond.to(pipe.device).repeat(len(noise), 1)}
    how = {"conditioning_keys": "emb", "scheduler": pipe.scheduler, "cfg_rate": guidance}
    with torch.no_grad():
        return riemannian_flow_sampler(pipe.model, batch, **how)


def official(folder: Path, task: str) -> None:
    """Runs in the other environment: one task of the official code, its result and seconds to official.json."""
    pipe = official_pipe(folder)
    given = load_file(folder / "given.safetensors")
    noise, cond = given["noise"], given["cond"]
    threads = torch.get_num_threads()
    if task == "likelihood":
        calls, model = 0, pipe.model

        def counted(batch):
            nonlocal calls
            calls += 1
            return model(batch)

        def solve(places, **tolerances):
            """Seconds and calls of the network."""
            nonlocal calls
            calls = 0
            emb, pipe.model = cond.repeat(len(places), 1), counted
            result, seconds = timed(
                lambda: pipe.compute_likelihood(
                    emb=emb, coordinates=places.numpy(), normalize_logp=False, **tolerances
                )
            )
            return result, seconds, calls

        result, _, needed = solve(given["places"][:LIKELIHOOD_POINTS])
        _, seconds, few = solve(
            given["places"], atol=1e3, rtol=1e3
        )  # as few evaluations as there can be
        seconds *= needed / few
    elif task == "train":
        from plonk.models.losses import RiemannianFlowMatchingLoss
        from plonk.utils.optimizers import Lamb

        pipe.network.requires_grad_(True).train()
        loss = RiemannianFlowMatchingLoss(
            pipe.scheduler, cond_drop_rate=0.1, conditioning_key="emb"
        )
        optimizer = Lamb(pipe.network.parameters(), lr=8e-4, weight_decay=0.05)

        def step():
            batch = {"x_0": noise, "emb": cond.repeat(len(noise), 1)}
            optimizer.zero_grad()
            value = loss(pipe.preconditioning, pipe.network, batch)
            value.backward()
            optimizer.step()
            return value.detach()[None]

        step()
        result, seconds = timed(lambda: [step() for _ in range(TRAINING_STEPS)][-1])
    else:
        guidance = 2.0 if task == "guided" else 0.0
        result, seconds = timed(lambda: official_samples(pipe, noise, cond, guidance))
    save_file({"result": result.contiguous()}, folder / "official.safetensors")
    (folder / "official.json").write_text(
        json.dumps({"seconds": seconds, "peak_gb": memory.peak_gb(), "threads": threads})
    )


def network(steps: int):
    """A network of the published size, trained for some steps on Earth tiles whose embeddings are padded to 1,024 channels."""
    import solvers

    folder = Path(f"outputs/official-{steps}")
    cond, data = solvers.embeddings()
    solvers.train(folder, steps, 0, cond, data, dim=512)
    return folder, cond[:1]


def geoflow(folder: Path, task: str) -> None:
    """Runs in a fresh process: one task of geoflow, its result and seconds to geoflow.json."""
    from geoflow import Geolocator, sphere

    geo = Geolocator.from_pretrained(folder)
    given = load_file(folder / "given.safetensors")
    noise, cond = given["noise"][None], given["cond"]
    geo.sample(cond=cond, n=8, steps=1)
    if task.startswith("likelihood"):
        _, solver, steps = task.split(":")
        result, seconds = timed(
            lambda: geo.log_prob(given["places"], cond=cond, steps=int(steps), solver=solver)[0]
        )
    elif task == "train":
        from geoflow.cli import read_recipe
        from geoflow.training import network_module

        module = network_module(read_recipe("osv5m", "paper"), "riemannian", cond.shape[1])
        module.network.load_state_dict(geo.network.state_dict())
        optimizer = module.optimization.optimizer_of(module.parameters())
        batch = cond.repeat(noise.shape[1], 1), noise[0]

        def step(number):
            optimizer.zero_grad()
            loss = module.loss(batch, module.generator(number))
            loss.backward()
            optimizer.step()
            return loss.detach()[None]

        step(0)
        result, seconds = timed(lambda: [step(1 + n) for n in range(TRAINING_STEPS)][-1])
    elif task == "map":
        density, seconds = timed(lambda: geo.density(cond=cond))
        result = torch.tensor([density.integral])
    else:
        kind, solver, steps = task.split(":")
        guidance = 2.0 if kind == "guided" else 0.0
        latlon, seconds = timed(
            lambda: geo.sample(
                cond=cond, noise=noise, steps=int(steps), solver=solver, guidance=guidance
            )
        )
        result = sphere.from_latlon(latlon)[0]
    save_file({"result": result.contiguous()}, folder / "geoflow.safetensors")
    (folder / "geoflow.json").write_text(
        json.dumps(
            {"seconds": seconds, "peak_gb": memory.peak_gb(), "threads": torch.get_num_threads()}
        )
    )


def fastest(*how):
    return min((run(*how) for _ in range(TIMES)), key=lambda result: result[1]["seconds"])


def run(python: str, who: str, folder: Path, task: str):
    subprocess.run(
        [python, "-W", "ignore", __file__, "--who", who, "--folder", folder, "--task", task, "x"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return load_file(folder / f"{who}.safetensors")["result"], json.loads(
        (folder / f"{who}.json").read_text()
    )


def matrix_gflops() -> float:
    """Rate of a float32 matrix product, the best of 10."""
    a = torch.randn(2048, 2048)
    return max(2 * 2048**3 / timed(lambda: a @ a)[1] / 1e9 for _ in range(10))


def compare(other: str, points: int, steps: int, tasks: list[str]) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from geoflow import Geolocator, plonk, samplers, sphere
    from geoflow.runtime import machine

    source, cond = network(steps)
    geo, rate = Geolocator.from_pretrained(source), matrix_gflops()
    exact_geo = Geolocator(
        plonk.plain(geo.network), schedule="few-steps"
    )  # the network without averaging
    print(
        f"{machine()}, torch {torch.__version__}, float32 matrix products {rate:.0f} GFLOP/s; {points} points of one image"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("config.json", "model.safetensors"):
            (folder / file).symlink_to((source / file).resolve())
        noise = sphere.uniform(points, torch.Generator().manual_seed(0))
        fine = geo.sample(cond=cond, noise=noise[None], steps=32)[0]
        save_file({"noise": noise, "cond": cond, "places": fine}, folder / "given.safetensors")
        with FlopCounterMode(display=False) as counter:
            geo.network(noise[None], torch.tensor(0.5), cond)
        flop = counter.get_total_flops()

        for task in [task for task in ("sample", "guided") if task in tasks]:
            guidance = 2.0 if task == "guided" else 0.0
            fine_options = dict(steps=512, solver="rk4", guidance=guidance)  # 2,048 evaluations
            exact = exact_geo.sample(cond=cond, noise=noise[None, :REFERENCES], **fine_options)[0]
            reference = sphere.from_latlon(exact).double()
            theirs, a = fastest(other, "official", folder, task)
            print(
                f"{task}: official, 250 steps: {a['seconds']:.1f} s, {distances(theirs, reference)}, {a['peak_gb']:.2f} GB"
            )
            same = geo.sample(
                cond=cond, noise=noise[None, :PARITY], steps=250, solver="plonk", guidance=guidance
            )[0]
            apart = sphere.distance(sphere.from_latlon(same), theirs[:PARITY]).max()
            print(
                f"  solver='plonk' on {PARITY} of the points: at most {apart:.1e} rad from the official ends",
                flush=True,
            )
            for solver, n in SOLVED_BY:
                ours, b = fastest(sys.executable, "geoflow", folder, f"{task}:{solver}:{n}")
                calls = samplers.evaluations(solver, n)
                print(
                    f"  {solver}, {n} steps: {b['seconds']:.1f} s, {a['seconds'] / b['seconds']:.1f} times faster, "
                    f"{a['seconds'] / 250 / (b['seconds'] / calls):.2f} times per evaluation ({calls}), {distances(ours, reference)}, "
                    f"{b['peak_gb']:.2f} GB, {calls * flop * (2 if task == 'guided' else 1) / b['seconds'] / 1e9 / rate:.0%} of the matrix rate",
                    flush=True,
                )
        if "train" in tasks:
            _, a = run(other, "official", folder, "train")
            _, b = run(sys.executable, "geoflow", folder, "train")
            print(
                f"training step of {points}, LAMB: official {a['seconds'] / TRAINING_STEPS:.2f} s, {a['peak_gb']:.2f} GB; geoflow "
                f"{b['seconds'] / TRAINING_STEPS:.2f} s, {a['seconds'] / b['seconds']:.2f} times faster, {b['peak_gb']:.2f} GB", flush=True,
            )  # fmt: skip
        if "likelihood" in tasks or "map" in tasks:
            _, a = run(other, "official", folder, "likelihood")
        if "likelihood" in tasks:
            how = f"{a['seconds']:.0f} s (calls as for {LIKELIHOOD_POINTS}), {a['peak_gb']:.2f} GB"
            print(f"log p of {points} places: official {how}", flush=True)
            tight = exact_geo.log_prob(
                fine[:LIKELIHOOD_POINTS], cond=cond, steps=800, solver="rk4"
            )[0]
            for solver, n in SOLVED_BY:
                ours, b = run(sys.executable, "geoflow", folder, f"likelihood:{solver}:{n}")
                off = (ours[:LIKELIHOOD_POINTS] - tight).abs()
                print(
                    f"  {solver}, {n} steps: {b['seconds']:.1f} s, {a['seconds'] / b['seconds']:.1f} times faster, {b['peak_gb']:.2f} GB, off by "
                    f"{off.median():.1e} nats in the median, {off.mean():.1e} in the mean, {off.max():.1e} at most", flush=True,
                )  # fmt: skip
        if "map" in tasks:
            integral, b = run(sys.executable, "geoflow", folder, "map")
            scaled = a["seconds"] * GRID / points
            print(
                f"map of 1° or finer: official {scaled / 3600:.1f} h (scaled), geoflow {b['seconds']:.0f} s, {scaled / b['seconds']:.0f} times faster, "
                f"integral {float(integral):.4f}, {b['peak_gb']:.2f} GB"
            )


def distances(x, reference) -> str:
    from geoflow import sphere

    x = x[:REFERENCES].double()
    return f"mean error {sphere.distance_km(x, reference).mean():.2f} km, energy distance {energy_distance_km(x, reference):.4f} km"


def energy_distance_km(x, y):
    """2 E d(X, Y) − E d(X, X′) − E d(Y, Y′): 0 for equal distributions."""
    from geoflow import sphere

    def mean(a, b):
        return sphere.distance_km(a[:, None], b[None]).mean()

    return 2 * mean(x, y) - mean(x, x) - mean(y, y)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("python", help="the Python of an environment with diff-plonk")
    parser.add_argument("--points", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=1500, help="of the network's training")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    for hidden in ("--who", "--folder", "--task"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.who is None:
        compare(a.python, a.points, a.steps, a.tasks)
    else:
        {"official": official, "geoflow": geoflow}[a.who](Path(a.folder), a.task)


if __name__ == "__main__":
    main()
