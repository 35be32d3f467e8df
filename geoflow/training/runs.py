"""Whole trainings, from a recipe and data to a network: on Earth tiles, shards, or bare points.

Each takes a folder and continues what part of the run the folder holds.
"""

import json
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn

from geoflow import sphere
from geoflow.data import tiles
from geoflow.data.shards import SAMPLE_OVERHEAD, Shards
from geoflow.encoders import TileEncoder
from geoflow.geolocator import Geolocator
from geoflow.runtime import is_first_process, machine, sha256_of
from geoflow.training import modules
from geoflow.training.batches import Batches, Order, Rows, StreamBatches, TensorBatches
from geoflow.training.modules import Module, network_module
from geoflow.training.trainer import fit, seconds_per_step


def train_tiles(
    recipe: dict, folder, seed: int = 0, method: str = "riemannian", encoder=None, log=print
) -> tuple[nn.Module, TileEncoder, dict]:
    """Train an encoder, embed with it, train a network: the paper's pipeline in small.

    Args:
        recipe: settings from `read_recipe`, the same for every method.
        folder: folder of the run: `encoder/` and `flow/`.
        seed: seed of weights, batches and noise; the tiles are the same for every seed.
        method: one of `geoflow.methods.TRAINED`.
        encoder: a trained `TileEncoder`, in place of training one.

    Returns:
        Network, encoder and provenance.
    """
    run = {"recipe": recipe, "seed": seed, "method": method}
    width = recipe["encoder"]["dim"]
    numbers = {"train": recipe["tiles"], "validation": recipe["validation_tiles"]}
    parts = [tiles.load(part, number) for part, number in numbers.items()]
    L.seed_everything(seed, verbose=False)
    teacher = None
    if encoder is None:
        encoder = TileEncoder(width)
        classifier = modules.GeocellClassifier(encoder, recipe["encoder"]["geocells"])
        o = modules.Optimization(**recipe["encoder"]["optimization"])
        teacher = modules.EncoderModule(classifier, o, seed)
    module = network_module(recipe, method, width, seed)

    unseen = Rows((torch.zeros(len(parts[0]), 1).expand(-1, width), parts[0].x))
    text = f"{60 * _hours(module, _in_memory(module, unseen, unseen)):.1f} min ({method})"
    if teacher is not None:
        batches = _in_memory(teacher, *(Rows((part.images, part.x)) for part in parts))
        text = f"{60 * _hours(teacher, batches):.1f} min (encoder) + {text}"
    log(f"training from scratch takes about {text} on this machine")
    seconds = {}
    if teacher is not None:
        seconds["encoder"] = _fit("encoder", log, teacher, batches, Path(folder) / "encoder", run)
    batches = _in_memory(module, *(Rows((encoder.embed(part.images), part.x)) for part in parts))
    seconds["flow"] = _fit(method, log, module, batches, Path(folder) / "flow", run)
    return module.network, encoder, _provenance(run, seconds)


def trained_on_tiles(
    recipe: dict, out: Path, seed: int = 0, method: str = "riemannian", encoder=None, log=print
) -> Geolocator:
    """Return the Geolocator in out/model, after `train_tiles` (same arguments) if it is missing.

    One that was trained with another recipe, seed or method is a ValueError.
    """
    model = out / "model"
    if model.exists():
        geo = Geolocator.from_pretrained(model, method)
        if (geo.provenance.get("recipe"), geo.provenance.get("seed")) != (recipe, seed):
            other = "was trained with another recipe or seed"
            raise ValueError(f"{model} {other}; choose another folder or delete it")
        log(f"{model}: found, trained before")
        return geo
    network, encoder, provenance = train_tiles(recipe, out, seed, method, encoder, log)
    geo = Geolocator(network, method, recipe["sampling_schedule"], encoder, provenance)
    geo.save_pretrained(model)
    return geo


def train_shards(
    recipe: dict,
    data: list[Shards],
    folder,
    seed: int = 0,
    method: str = "riemannian",
    stream: bool = False,
    log=print,
    **machines,
) -> tuple[nn.Module, dict]:
    """Train a network on shards of embeddings. Other arguments are those of `train_tiles`.

    Args:
        data: folders of shards; one that is given twice counts twice in an epoch. The last shard
            of each folder validates.
        stream: whether to read shards as they are needed, in place of unpacking them once to a
            memory-mapped file. Memory and disk then do not grow with the data, but samples are
            mixed within groups of shards only.
        machines: `devices`, `nodes` and `wandb` of `fit`.

    Returns:
        Network and provenance.

    Raises:
        ValueError: embeddings of different encoders, or a folder with a single shard.
        OSError: a shard that differs from its checksum.
    """
    _check_shards(data)
    distinct = {shards.files[0]: shards for shards in data}
    if is_first_process():
        for shards in distinct.values():
            shards.verify()
    L.seed_everything(seed, verbose=False)
    module = network_module(recipe, method, data[0].dim, seed)
    o = module.optimization
    train = [shards.but_last() for shards in data]
    judged = Rows(*(shards.part(len(shards.files) - 1) for shards in distinct.values()))
    if stream:
        batches: Batches = StreamBatches(train, judged, Order(o.batch, o.steps, seed))
    else:
        batches = _in_memory(module, Rows(*(shards.mapped() for shards in train)), judged)
    images = sum(map(len, train))
    epochs, hours = o.steps * o.batch / images, _hours(module, batches)
    steps = f"{o.steps:,} steps of {o.batch:,} ({epochs:.1f} epochs)"
    log(f"{images:,} images, {steps}: {hours:.2f} h on one device")
    folders = [str(shards.files[0].parent) for shards in data]
    run = {"recipe": recipe, "seed": seed, "method": method, "data": folders, "stream": stream}
    seconds = _fit(method, log, module, batches, Path(folder) / "flow", run, **machines)
    return module.network, _provenance(run, {"flow": seconds})


def _check_shards(data: list[Shards]) -> None:
    encoders = {(s.field, s.dim, json.dumps(s.encoder.get("weights"))) for s in data}
    if len(encoders) != 1:
        found = ", ".join(f"{field} ({dim}, weights {w})" for field, dim, w in sorted(encoders))
        raise ValueError(f"embeddings of different encoders: {found}")
    for file in (shards.files[0] for shards in data if len(shards.files) < 2):
        text = f"{file.parent} has a single shard"
        raise ValueError(f"{text}; expected at least 2, as the last one validates")


def train_points(
    recipe: dict, train: Tensor, validation: Tensor, folder, seed: int = 0, log=print
) -> tuple[nn.Module, float]:
    """Train an unconditional Riemannian flow on points, unit vectors (n, 3), as `train_tiles` does.

    Returns:
        The network with the lowest loss on `validation`, and the seconds of its training.
    """
    L.seed_everything(seed, verbose=False)
    module = network_module(recipe, "riemannian", 0, seed)
    points, judged = (Rows((torch.zeros(len(x), 0), x.float())) for x in (train, validation))
    batches = _in_memory(module, points, judged, most=len(train))
    steps, minutes = module.optimization.steps, 60 * _hours(module, batches)
    log(f"{len(train):,} points, {steps:,} steps: {minutes:.1f} min on this machine")
    identity = sha256_of(torch.cat([train, validation]).double().numpy().tobytes())[:16]
    run = {"recipe": recipe, "seed": seed, "points": identity}
    return module.network, _fit("flow", log, module, batches, folder, run)


def plan(
    recipe: dict, method: str = "riemannian", devices: int = 1, width: int = 1024
) -> dict[str, float]:
    """Estimate what a training on shards takes, from some steps measured on this machine.

    Args:
        recipe: settings from `read_recipe`; its `images` is their number.
        method: one of `geoflow.methods.TRAINED`.
        devices: number of devices that share each batch, each taken to be as fast as this machine,
            and their communication to cost nothing.
        width: C, the width of the embeddings.

    Returns:
        `parameters`; `steps`; `samples` seen; `epochs`; `shards_gb` and `unpacked_gb` on disk (the
        latter is not needed for streaming); `state_gb`: weights, gradients, optimiser and average
        on each device, without activations; `seconds_per_step`; `hours`.
    """
    module = network_module(recipe, method, width)
    o, images = module.optimization, recipe["images"]
    if devices < 1 or o.batch % devices:
        text = f"a batch of {o.batch} over {devices} devices"
        raise ValueError(f"{text}; expected a multiple of at least one")
    n = o.batch // devices
    rows = Rows((torch.zeros(n, width), sphere.uniform(n, torch.Generator().manual_seed(0))))
    hours = _hours(module, _in_memory(module, rows, rows, most=n))
    parameters = sum(weight.numel() for weight in module.network.parameters())
    return {
        "parameters": parameters,
        "steps": o.steps,
        "samples": o.steps * o.batch,
        "epochs": o.steps * o.batch / images,
        "shards_gb": images * (2 * width + SAMPLE_OVERHEAD) / 1e9,
        "unpacked_gb": images * (2 * width + 12) / 1e9,
        "state_gb": parameters * 4 * (5 if o.ema else 4) / 1e9,
        "seconds_per_step": hours * 3600 / o.steps,
        "hours": hours,
    }


def _in_memory(module: Module, *parts: Rows, most: int | None = None) -> TensorBatches:
    o = module.optimization
    batch = o.batch if most is None else min(o.batch, most)
    return TensorBatches(*parts, Order(batch, o.steps, module.seed))


def _hours(module: Module, batches: Batches) -> float:
    return seconds_per_step(module, batches) * module.optimization.steps / 3600


def _fit(name: str, log, module: Module, batches, folder, run: dict, **machines) -> float:
    seconds = fit(module, batches, folder, run, **machines)
    log(f"{name}: {module.optimization.steps:,} steps, {seconds / 60:.1f} min")
    return seconds


def _provenance(run: dict, seconds: dict[str, float]) -> dict:
    whole = {name: round(value) for name, value in seconds.items()}
    return {**run, "seconds": whole, "machine": machine(), "torch": torch.__version__}
