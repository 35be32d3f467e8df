"""Whole trainings, from a recipe and data to a network: on Earth tiles, shards, or bare points.

Each takes a folder and continues what part of the run the folder holds.
"""

from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn

from geoflow import runtime, sphere
from geoflow.data import tiles
from geoflow.data.shards import SAMPLE_OVERHEAD, Shards
from geoflow.encoders import TileEncoder
from geoflow.flowmap import MAP
from geoflow.geolocator import Geolocator
from geoflow.runtime import count
from geoflow.training import modules, own
from geoflow.training.batches import Batches, Order, Part, Rows, StreamBatches, TensorBatches
from geoflow.training.modules import (
    Module,
    distilling_module,
    network_module,
    recipe_of,
    sampling_schedule_of,
)
from geoflow.training.trainer import ended, fit, seconds_per_step


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
    run = _tiles_run(recipe, seed, method, encoder)
    done = _ended(Path(folder) / "flow", run)
    width = recipe["encoder"]["dim"]
    views = tiles.views_of(recipe)
    judged = tiles.load("validation", recipe["validation_tiles"], views)
    train = tiles.load("train", recipe["tiles"], views)
    L.seed_everything(seed, verbose=False)
    teacher = None
    if encoder is None:
        encoder = TileEncoder(width)
        classifier = modules.GeocellClassifier(encoder, recipe["encoder"]["geocells"])
        o = modules.optimization_of(recipe["encoder"]["optimization"])
        teacher = modules.EncoderModule(classifier, o, seed)
    module = network_module(recipe, method, width, seed)

    unseen = [_unseen(part, width) for part in (train, judged)]
    if teacher is not None:
        n = recipe["encoder"].get("tiles")  # of its own; otherwise it learns from the flow's tiles
        lessons = tiles.load("encoder", n, views) if n else train
        batches = _in_memory(teacher, *(Rows((p.images, p.x)) for p in (lessons, judged)))
    if not done:
        takes = f"{_estimate(module, _in_memory(module, *unseen))} ({method})"
        if teacher is not None:
            takes = f"{_estimate(teacher, batches)} (encoder) + {takes}"
        log(f"training from scratch takes {takes} on this machine")
    seconds = {}
    if teacher is not None:
        seconds["encoder"] = _fit("encoder", log, teacher, batches, Path(folder) / "encoder", run)
    batches = _in_memory(module, *(unseen if done else _embedded(encoder, train, judged)))
    seconds["flow"] = _fit(method, log, module, batches, Path(folder) / "flow", run)
    return module.network, encoder, _provenance({**run, "recipe": recipe}, seconds)


def _ended(folder: Path, run: dict) -> dict:
    """How the run in a folder ended, see `ended`; a `ValueError` if it is another run."""
    if (folder / "run.json").exists():
        runtime.claim(folder, run)
    return ended(folder)


def _unseen(part: tiles.Tiles, width: int) -> Rows:
    """Rows of tiles without their embeddings, to measure a step, or for a run that has ended."""
    return Rows((torch.zeros(len(part), 1).expand(-1, width), part.x))


def _embedded(encoder: TileEncoder, *parts: tiles.Tiles) -> list[Rows]:
    """Embeddings and places of tiles."""
    encoder.to(runtime.device())
    rows = [Rows((encoder.embed(part.images), part.x)) for part in parts]
    encoder.cpu()
    return rows


def _tiles_run(recipe: dict, seed: int, method: str, encoder) -> dict:
    """What identifies a training on tiles; with a checksum of the encoder if one is given."""
    run = {"recipe": recipe_of(recipe, method), "seed": seed, "method": method}
    given = encoder is not None
    return run | ({"encoder": runtime.sha256_of_weights(encoder)[:16]} if given else {})


def trained_on_tiles(
    recipe: dict, out: Path, seed: int = 0, method: str = "riemannian", encoder=None, log=print
) -> Geolocator:
    """Return the Geolocator in out/model, after `train_tiles` (same arguments) if it is missing.

    One that was trained with another recipe, seed, method or encoder is a ValueError.

    >>> import shutil, tempfile
    >>> from geoflow.training import read_recipe
    >>> out = Path(tempfile.mkdtemp())
    >>> model = shutil.copytree(runtime.DATA / "models" / "tiles-vmf", out / "model")
    >>> recipe = Geolocator.from_pretrained(model).provenance["recipe"]
    >>> quiet = {"log": lambda line: None}
    >>> trained_on_tiles(recipe, out, method="vmf", **quiet).method  # it is there: no training
    'vmf'
    """
    model = out / "model"
    if model.exists():
        geo = Geolocator.from_pretrained(model, method)
        now = _tiles_run(recipe, seed, method, encoder)
        before = {name: geo.provenance.get(name) for name in now}
        if before["recipe"]:
            before["recipe"] = recipe_of(before["recipe"], method)
        if encoder is not None:
            before["encoder"] = runtime.sha256_of_weights(geo.encoder)[:16]
        if other := runtime.difference(before, now):
            text = f"{model} was trained with {other}"
            raise ValueError(f"{text}; choose another folder or delete it")
        log(f"{model}: found, trained before")
        return geo
    network, encoder, provenance = train_tiles(recipe, out, seed, method, encoder, log)
    geo = Geolocator(network, method, sampling_schedule_of(recipe, method), encoder, provenance)
    geo.save_pretrained(model)
    return geo.to(runtime.device())


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
        recipe: settings from `read_recipe`; for one's own data from `own.fitted`.
        data: folders of shards; one that is given twice counts twice in an epoch. The last shard
            of each folder validates; if one has a single shard, or the recipe states a share for
            `validation`, the images of `own.split` do.
        stream: whether to read shards as they are needed, in place of unpacking them once to a
            memory-mapped file. Memory and disk then do not grow with the data, but samples are
            mixed within groups of shards only, and last shards validate.
        machines: `devices`, `nodes` and `wandb` of `fit`.

    Returns:
        Network and provenance.

    Raises:
        ValueError: embeddings of different encoders, another run in the folder, or a single shard
            to stream.
        OSError: a shard that differs from its checksum, or another process trains there.
    """
    own.check_same_encoder(data)
    folder = Path(folder) / "flow"
    distinct = {shards.fingerprint: shards for shards in data}
    run: dict = {"recipe": recipe_of(recipe, method), "seed": seed, "method": method}
    run |= {"data": _contents(data), "stream": stream}
    done = _ended(folder, run)
    _verify(list(distinct.values()), done)
    L.seed_everything(seed, verbose=False)
    module = network_module(recipe, method, data[0].dim, seed)
    o = module.optimization
    batches = _on_shards(module, data, list(distinct.values()), recipe.get("validation"), stream)
    if not done:
        images = sum(map(len, batches.train)) if stream else len(batches.train)
        epochs = o.steps * o.batch / images
        log(
            f"{count(images, 'image')} to train on, {len(batches.validation):,} to validate; "
            f"{count(o.steps, 'step')} of {o.batch:,} ({epochs:.1f} epochs): "
            f"{_estimate(module, batches)} on one device"
        )
    seconds = _fit(method, log, module, batches, folder, run, **machines)
    about: dict = {"datasets": [shards.name for shards in data]}
    if "validation" in recipe and runtime.is_first_process():
        geo = Geolocator(module.network, method, sampling_schedule_of(recipe, method))
        about["validation_nll_over_uniform"], text = own.verdict(geo, batches.validation)
        log(text)
    return module.network, _provenance({**run, **about}, {"flow": seconds})


def _verify(data: list[Shards], done: dict) -> None:
    """Compare shards with their checksums, unless the training that reads them has ended."""
    if runtime.is_first_process() and not done:
        for shards in data:
            shards.verify_recorded()


def _contents(data: list[Shards]) -> list[str]:
    """What identifies folders of shards."""
    return [f"{count(len(shards), 'image')}, {shards.fingerprint[:16]}" for shards in data]


def _on_shards(
    module: Module, data: list[Shards], distinct: list[Shards], share: float | None, stream: bool
) -> Batches:
    """Batches of some folders, of which the distinct ones validate."""
    o, share = module.optimization, own.judging_share(distinct, share, stream)
    if share is None:
        judged = Rows(*(shards.part(len(shards.files) - 1) for shards in distinct))
        train = [shards.but_last() for shards in data]
        if stream:
            return StreamBatches(train, judged, Order(o.batch, o.steps, module.seed))
        return _in_memory(module, Rows(*(shards.mapped() for shards in train)), judged)
    tables = [shards.mapped() for shards in distinct]
    judge = own.split([cond for cond, _x in tables], share)
    positions = [distinct.index(shards) for shards in data]
    every = Rows(*(tables[i] for i in positions))
    rows = Part(every, torch.cat([~judge[i] for i in positions]).nonzero()[:, 0])
    return _in_memory(module, rows, Part(Rows(*tables), torch.cat(judge).nonzero()[:, 0]))


def distil(
    teacher: Geolocator,
    recipe: dict,
    folder,
    seed: int = 0,
    data: list[Shards] | None = None,
    log=print,
    **machines,
) -> Geolocator:
    """Train a flow map that begins as a flow on S² and learns to jump along it.

    Args:
        teacher: a Riemannian flow, which stays as it is.
        recipe: settings from `read_recipe`; its network is the teacher's.
        folder: folder of the run: `flow/`.
        seed: of batches and noise.
        data: shards of the teacher's embeddings, as for `train_shards`; None: Earth tiles, which
            its encoder embeds.
        machines: `devices`, `nodes` and `wandb` of `fit`.

    Returns:
        The flow map with the teacher's encoder, on the CPU.

    Raises:
        ValueError: a teacher without a velocity on S², for tiles without an encoder of tiles, or
            shards of another width.
        OSError: a shard that differs from its checksum, or another process trains there.
    """
    L.seed_everything(seed, verbose=False)
    folder, module = Path(folder) / "flow", distilling_module(recipe, teacher, seed)
    run: dict = {"recipe": recipe_of(recipe, MAP), "seed": seed, "method": MAP}
    run["teacher"] = runtime.sha256_of_weights(teacher.network)[:16]
    if data is None:
        if not isinstance(teacher.encoder, TileEncoder):
            raise ValueError("the teacher has no encoder of tiles; expected shards (--data)")
        views, done = tiles.views_of(recipe), _ended(folder, run)
        numbers = {"train": recipe["tiles"], "validation": recipe["validation_tiles"]}
        parts = [tiles.load(split, n, views) for split, n in numbers.items()]
        unseen = [_unseen(part, module.network.config["cond_dim"]) for part in parts]
        rows = unseen if done else _embedded(teacher.encoder, *parts)
        batches: Batches = _in_memory(module, *rows)
    else:
        own.check_same_encoder(data)
        if (takes := module.network.config["cond_dim"]) != data[0].dim:
            text = f"the teacher takes embeddings of {takes} numbers, the shards have {data[0].dim}"
            raise ValueError(f"{text}; expected shards of its encoder")
        if teacher.encoder is not None and not own.made_by(teacher.encoder, data[0]):
            text = f"the teacher takes embeddings of {teacher.encoder.name!r}"
            raise ValueError(f"{text}, the shards hold {data[0].field!r} of another encoder")
        run["data"] = _contents(data)
        distinct = list({shards.fingerprint: shards for shards in data}.values())
        done = _ended(folder, run)
        _verify(distinct, done)
        batches = _on_shards(module, data, distinct, recipe.get("validation"), stream=False)
    if not done:
        steps = count(module.optimization.steps, "step")
        log(f"{steps}: {_estimate(module, batches)} on one device")
    seconds = _fit(MAP, log, module, batches, folder, run, **machines)
    provenance = _provenance(run, {"flow": seconds})
    schedule = teacher.model.schedule_name
    return Geolocator(module.network, MAP, schedule, teacher.encoder, provenance)


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
    steps = module.optimization.steps
    what = f"{count(len(train), 'point')}, {count(steps, 'step')}"
    log(f"{what}: {_estimate(module, batches)} on this machine")
    identity = runtime.sha256_of(torch.cat([train, validation]).double().numpy().tobytes())[:16]
    run = {"recipe": recipe, "seed": seed, "points": identity}
    return module.network, _fit("flow", log, module, batches, folder, run)


def plan(
    recipe: dict,
    method: str = "riemannian",
    devices: int = 1,
    width: int = 1024,
    trained: int | None = None,
) -> dict[str, float]:
    """Estimate what a training on shards takes, from some steps measured on this machine.

    Args:
        recipe: settings from `read_recipe`; its `images` is their number.
        method: one of `geoflow.methods.TRAINED`.
        devices: number of devices that share each batch, each taken to be as fast as this machine,
            and their communication to cost nothing.
        width: C, the width of the embeddings.
        trained: how many of the images train; None: all.

    Returns:
        `parameters`; `steps`; `samples` seen; `epochs`; `shards_gb` and `unpacked_gb` on disk (the
        latter is not needed for streaming); `state_gb`: weights, gradients, optimiser and average
        on each device, without activations; `seconds_per_step`; `hours`.
    """
    module = network_module(recipe, method, width)
    o, images = module.optimization, recipe["images"]
    if devices < 1 or o.batch % devices:
        text = f"a batch of {o.batch} over {count(devices, 'device')}"
        raise ValueError(f"{text}; expected a multiple of at least one")
    n = o.batch // devices
    rows = Rows((torch.zeros(n, width), sphere.uniform(n, torch.Generator().manual_seed(0))))
    seconds = _seconds(module, _in_memory(module, rows, rows, most=n))
    parameters = sum(weight.numel() for weight in module.network.parameters())
    return {
        "parameters": parameters,
        "steps": o.steps,
        "samples": o.steps * o.batch,
        "epochs": o.steps * o.batch / (trained or images),
        "shards_gb": images * (2 * width + SAMPLE_OVERHEAD) / 1e9,
        "unpacked_gb": images * (2 * width + 12) / 1e9,
        "state_gb": parameters * 4 * (5 if o.ema else 4) / 1e9,
        "seconds_per_step": seconds / o.steps,
        "hours": seconds / 3600,
    }


def _in_memory(module: Module, *parts: Rows | Part, most: int | None = None) -> TensorBatches:
    """Batches of the rows that train, and of those that validate."""
    o = module.optimization
    batch = o.batch if most is None else min(o.batch, most)
    train, judged = parts
    return TensorBatches(train, judged, Order(batch, o.steps, module.seed))


def _seconds(module: Module, batches: Batches) -> float:
    return seconds_per_step(module, batches) * module.optimization.steps


def _estimate(module: Module, batches: Batches) -> str:
    return f"about {runtime.duration(_seconds(module, batches))}"


def _fit(name: str, log, module: Module, batches, folder, run: dict, **machines) -> float:
    before = ended(folder)
    seconds = fit(module, batches, folder, run, log=log, **machines)
    steps = ended(folder).get("step", module.optimization.steps)
    when = "trained before, " if before else ""
    log(f"{name}: {when}{count(steps, 'step')}, {runtime.duration(seconds)}")
    return seconds


def _provenance(run: dict, seconds: dict[str, float]) -> dict:
    whole = {name: round(value) for name, value in seconds.items()}
    return {**run, "seconds": whole, "machine": runtime.machine(), "torch": torch.__version__}
