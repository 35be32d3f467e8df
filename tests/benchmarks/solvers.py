"""Which solver suits published networks? Errors and evaluations on networks trained for different times, the worst of which counts:

python tests/benchmarks/solvers.py [--steps 150 500 1500 5000] [--seeds 2]     # an hour or two on one CPU thread, most of it training

The networks have the published layout and size of iNaturalist (256 wide, 12 blocks, 9 million parameters) and are trained on the embedded
tiles; they are kept in outputs/published-size. `official` is the official code's sampler of 250 steps, to which solver="plonk" is equal. Errors
are distances from a solution of the network as it is (RK4, 512 steps), means over 4 images × 16 points; those of log p are from RK4, 400 steps.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from geoflow import (
    Geolocator,
    likelihood,
    losses,
    paths,
    plonk,
    runtime,
    samplers,
    schedules,
    sphere,
)
from geoflow.data import tiles
from geoflow.velocity import VelocityTransformer

FOLDER = Path("outputs/published-size")
IMAGES, POINTS, PLACES = 4, 16, 8
CANDIDATES = (("ab3", 32), ("ab3", 48), ("ab3", 64), ("midpoint", 32), ("rk4", 16), ("rk4", 32))
PATH = paths.RiemannianFlow()


def embeddings(n: int = 20_000) -> tuple[torch.Tensor, tiles.Tiles]:
    """Embeddings of n tiles, padded to the published width, and the tiles."""
    encoder = Geolocator.from_pretrained("tiles").encoder
    data = tiles.load("train", n)
    return torch.nn.functional.pad(
        encoder.embed(data.images), (0, 1024 - encoder.config["dim"])
    ), data


def train(folder: Path, steps: int, seed: int, cond: torch.Tensor, data, dim: int = 256) -> None:
    """A network trained for so many steps of 512 tiles, written in the published layout, once."""
    if folder.exists():
        return
    torch.manual_seed(seed)
    device = runtime.device()
    net = VelocityTransformer(cond_dim=1024, dim=dim, depth=12, tangent=False).to(device)
    cond, places = cond.to(device), data.x.to(device)
    optimizer, generator = (
        torch.optim.AdamW(net.parameters(), lr=1e-3),
        torch.Generator(device).manual_seed(seed),
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.05)
    for _ in runtime.progress(range(steps), desc=f"training {folder.name}"):
        rows = torch.randint(len(data), (512,), generator=generator, device=device)
        loss = losses.flow_matching_loss(
            net,
            PATH,
            places[rows],
            cond[rows],
            schedule=schedules.by_name(plonk.SCHEDULE),
            generator=generator,
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        rate.step()
    config = {
        "input_dim": 3,
        **{key: net.config[key] for key in ("cond_dim", "dim", "depth", "expansion")},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with runtime.replacing(folder) as partial:
        partial.mkdir()
        (partial / "config.json").write_text(json.dumps(config))
        save_file(
            {plonk.official_name(name): weight for name, weight in net.state_dict().items()},
            partial / "model.safetensors",
        )


@torch.no_grad()
def judge(folder: Path, cond: torch.Tensor) -> dict[str, dict[str, float]]:
    """For each solver the mean errors: `plain` and `guided` samples in km, `log p` in nats."""
    averaged = plonk.network(folder, "riemannian")
    exact = plonk.plain(averaged)
    noise = (
        PATH.noise((POINTS,), torch.Generator().manual_seed(0))
        .expand(len(cond), -1, -1)
        .contiguous()
    )

    def grid(steps):
        return schedules.time_grid(schedules.few_steps, steps)

    found: dict[str, dict[str, float]] = {}
    for kind, omega in (("plain", 0.0), ("guided", 2.0)):
        fine = samplers.sample(samplers.guided(exact, omega), PATH, noise, grid(512), cond)
        times = schedules.time_grid(schedules.by_name(plonk.SCHEDULE), plonk.STEPS)
        *_, official = plonk.trajectory(averaged, PATH, noise, times, cond, omega)
        ends = {"official": official}
        for solver, steps in CANDIDATES:
            ends[f"{solver} {steps}"] = samplers.sample(
                samplers.guided(averaged, omega), PATH, noise, grid(steps), cond, solver
            )
        for name, x in ends.items():
            found.setdefault(name, {})[kind] = float(
                sphere.distance_km(x.double(), fine.double()).mean()
            )
        if kind == "plain":
            places = fine[:, :PLACES]
    log_p = likelihood.log_prob(exact, PATH, places, grid(400), cond)
    for solver, steps in CANDIDATES:
        few = likelihood.log_prob(averaged, PATH, places, grid(steps), cond, solver)
        found[f"{solver} {steps}"]["log p"] = float((few - log_p).abs().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 500, 1500, 5000])
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    cond, data = embeddings()
    networks = {}
    for steps in arguments.steps:
        for seed in range(arguments.seeds):
            folder = FOLDER / f"{steps}-{seed}"
            train(folder, steps, seed, cond, data)
            networks[folder.name] = judge(folder, cond[:IMAGES])
            print(
                folder.name,
                json.dumps(
                    {
                        k: {n: round(v, 4) for n, v in e.items()}
                        for k, e in networks[folder.name].items()
                    }
                ),
                flush=True,
            )
    print(f"{runtime.machine()}, torch {torch.__version__}; networks: {', '.join(networks)}")
    for name in next(iter(networks.values())):
        solver, _, steps = name.partition(" ")
        calls = plonk.STEPS if name == "official" else samplers.evaluations(solver, int(steps))
        columns = []
        for kind in ("plain", "guided"):
            ratios = [errors[name][kind] / errors["official"][kind] for errors in networks.values()]
            columns.append(f"{kind}: {min(ratios):.2f} to {max(ratios):.2f} of the official error")
        if name != "official":
            nats = [errors[name]["log p"] for errors in networks.values()]
            columns.append(f"log p: off by {min(nats):.4f} to {max(nats):.4f} nats")
        print(
            f"{name:12}{calls:4d} evaluations, {plonk.STEPS / calls:.1f} times fewer; {'; '.join(columns)}"
        )


if __name__ == "__main__":
    main()
