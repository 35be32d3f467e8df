"""One's own data: settings that fit the number of images, the images that judge, the encoder."""

import copy
import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.data.shards import FIELDS, Shards
from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder, TileEncoder, from_config
from geoflow.geolocator import Geolocator, shipped_models
from geoflow.runtime import count

# Images: fewer than the first number are refused, fewer than the others are warned of.
FEWEST, VERY_FEW, FEW = 20, 100, 1000
PASSES = 20  # over the images
MOST_JUDGED = 10_000
MOST_SCORED = 256  # validation images whose likelihood is computed in the end


def verdict(geo: Geolocator, judged) -> tuple[float, str]:
    """The mean NLL of validation images in nats over uniform, and in words what it says.

    Args:
        geo: the trained model.
        judged: rows (embedding, place) of the images that validate.
    """
    rows = torch.arange(min(len(judged), MOST_SCORED))
    cond, x = judged[rows]
    log_p = geo.log_prob(sphere.to_latlon(x)[:, None], cond=cond)
    nats = sphere.LOG_UNIFORM - float(log_p.mean())
    judges = count(len(rows), "validation image")
    text = f"NLL of {judges}: {nats:+.2f} nats over the uniform guess"
    if nats >= 0:
        text += ". WARNING: that is not better; more images or another --lr may help"
    return nats, text


def count_judged(images: int, share: float) -> int:
    """How many of the images judge a network: a share, but at least 20 unless that is a third.

    >>> [count_judged(images, 0.1) for images in (20, 300, 5_000_000)]
    [6, 30, 10000]
    """
    return min(max(round(share * images), FEWEST), MOST_JUDGED, images // 3)


def fitted(recipe: dict, images: int, given: dict | None = None) -> tuple[dict, list[str]]:
    """Choose the settings of a training by the number n of its images.

    ===============  ==================================================================
    batch            the power of two below n / 8, at least 8
    steps            20 passes over the images, at least 100
    width            the power of two below 4 √n, at least 32; depth = log₂ width − 3
    learning rate    0.25 / width
    draws            512 / batch noisy places of an image in each step, at most 16
    ===============  ==================================================================

    The recipe's own are the largest; of the draws, the fewest.

    Args:
        recipe: what fits a large data set, from `read_recipe`.
        images: n, that train.
        given: `steps`, `batch`, `lr` or `patience` that the user wants; None stands for a choice.

    Returns:
        The recipe with these settings, and why they were chosen, a line each.

    Raises:
        ValueError: a number that is given makes no sense for so many images.
    """
    recipe, given = copy.deepcopy(recipe), _checked(given or {}, images)
    o, network = recipe["flow"]["optimization"], recipe["flow"]["network"]
    largest = network["dim"]
    batch = given.get("batch") or min(max(_power_of_two(images / 8), 8), o["batch"], images)
    steps = given.get("steps") or min(max(math.ceil(PASSES * images / batch), 100), o["steps"])
    width = min(max(_power_of_two(4 * math.sqrt(images)), 32), largest)
    if width < largest:
        network |= {"dim": width, "depth": min(network["depth"], int(math.log2(width)) - 3)}
    lr = given.get("lr") or max(o["lr"], 0.25 / width)
    draws = max(recipe["flow"]["draws"], min(512 // batch, 16))
    recipe["flow"]["draws"] = draws
    ema = min(o["ema"], max(0.0, 1 - 12 / steps))
    o |= {"batch": batch, "steps": steps, "lr": lr, "ema": ema, "warmup": max(1, steps // 20)}
    o["patience"] = given.get("patience", o["patience"])
    early = (
        f"it ends early if {count(o['patience'], 'validation')} of 20 in a row bring no lower loss"
        if o["patience"]
        else "it does not end early"
    )
    why = {
        "steps": f"{steps * batch / images:.0f} passes over the images",
        "batch": "about an eighth of the images",
        "lr": "0.25 / width",
    }
    why |= {name: f"by --{name}" for name in given}
    return recipe, [
        f"{count(steps, 'step')}: {why['steps']}",
        f"batches of {batch:,}: {why['batch']}",
        f"width {width}, depth {network['depth']}: about 4 √images, at most {largest}",
        f"learning rate {lr:.2g}: {why['lr']}",
        f"{count(draws, 'noisy place')} of each image in a step: about 512 / batch",
        f"{early} (--patience); the weights of the lowest validation loss are kept",
    ]


def overridden(recipe: dict, images: int, given: dict) -> dict:
    """The recipe with those of `steps`, `batch`, `lr`, `patience` that are given; see `fitted`."""
    recipe = copy.deepcopy(recipe)
    o = recipe["flow"]["optimization"]
    o |= _checked(given, images)
    if o["batch"] > images:
        text = f"the recipe takes batches of {o['batch']:,} of {count(images, 'image')} to train on"
        fits = (
            "" if "validation" in recipe else "for data of your own there is recipe 'photos', or "
        )
        raise ValueError(f"{text}; {fits}choose --batch")
    return recipe


def _checked(given: dict, images: int) -> dict:
    """What is given, without None."""
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not (value >= 0 if name == "patience" else 0 < value < math.inf):
            least = "of at least 0" if name == "patience" else "above 0"
            raise ValueError(f"--{name} {value}; expected a number {least}")
    if given.get("batch", 0) > images:
        text = f"--batch {given['batch']:,}, and there are {count(images, 'image')} to train on"
        raise ValueError(f"{text}; expected at most as many as there are")
    return given


def _power_of_two(most: float) -> int:
    return 2 ** int(math.log2(max(most, 1)))


def warning(images: int) -> str:
    """What a data set of this size cannot give, in words; empty if it is large enough.

    Raises:
        ValueError: there are too few images to train on.
    """
    if images < FEWEST:
        there = count(images, "image")
        raise ValueError(f"{there} to train on: too few; expected at least {FEWEST}")
    if images >= FEW:
        return ""
    text = f"{images} images are few (below {FEW:,}): a network soon knows them by heart"
    if images < VERY_FEW:
        return f"{text}, and below {VERY_FEW} its answers can be worse than none at all"
    return f"{text}; expect it to tell regions, not places"


# Which images judge


def judging_share(data: Sequence[Shards], share: float | None, stream: bool) -> float | None:
    """The share of all images that judge, or None if the last shard of each folder does.

    Args:
        data: folders of shards.
        share: by the recipe; None: last shards, unless a folder has only one.
        stream: whether shards are read as they are needed; then last shards judge.

    Raises:
        ValueError: a single shard is to be streamed.
    """
    single = [shards for shards in data if len(shards.files) < 2]
    if stream and single:
        text = f"{single[0].files[0].parent} has a single shard"
        raise ValueError(f"{text}, and with --stream the last one judges; leave --stream out")
    return None if stream or (share is None and not single) else share or 0.1


def count_training(data: Sequence[Shards], share: float | None) -> int:
    """Number of training images; those of a folder that is given twice count twice."""
    total = sum(map(len, data))
    if share is None:
        return total - sum(shards.counts[-1] for shards in data)
    return total - count_judged(total, share)


def split(tables: Sequence[Tensor], share: float) -> list[Tensor]:
    """Which rows judge a network; their order and their files make no difference.

    They are those whose embeddings have the smallest checksums, so that copies of an image are on
    the same side.

    Args:
        tables: embeddings (n, C) float16 of each folder.
        share: of all rows, see `count_judged`.

    Returns:
        For each table (n,), whether a row judges.

    Raises:
        ValueError: all images have the same embedding.
    """
    sums = [_checksums(table) for table in tables]
    every = np.concatenate(sums)
    limit = np.sort(every)[count_judged(len(every), share) - 1]
    if (every <= limit).all():
        raise ValueError("the images have the same embedding; expected different images")
    return [torch.from_numpy(part <= limit) for part in sums]


def _checksums(table: Tensor, rows: int = 100_000) -> np.ndarray:
    """A number for each row, by its first 32 values."""
    found = np.empty(len(table), np.uint64)
    for start in range(0, len(table), rows):
        part = table[start : start + rows, :32].numpy().copy()
        digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in part)
        found[start : start + rows] = np.frombuffer(b"".join(digests), np.uint64)
    return found


# Which encoder comes along


def check_same_encoder(data: list[Shards]) -> None:
    """A ValueError if shards were embedded by different encoders."""
    encoders = {(s.field, s.dim, json.dumps(s.encoder.get("weights"))) for s in data}
    if len(encoders) != 1:
        found = ", ".join(f"{field} ({dim}, weights {w})" for field, dim, w in sorted(encoders))
        raise ValueError(f"embeddings of different encoders: {found}")


def encoder_of(shards: Shards, given: str = "", log=print) -> TileEncoder | PhotoEncoder | None:
    """The encoder that made some shards, which a model trained on them needs.

    Args:
        shards: what they say of it is in their manifest.
        given: a model that has it; empty: the photo encoder, or a shipped model's.
        log: is told if it is not found, and None is returned.

    Raises:
        ValueError: the encoder that is given is not that of the shards.
    """
    weights = shards.encoder.get("weights")
    if given:
        found = Geolocator.from_pretrained(given).encoder
        if found is None:
            raise ValueError(f"--encoder {given}: this model has no encoder")
        if not made_by(found, shards):
            made = f"the shards hold {shards.field} of width {shards.dim}, weights {weights}"
            raise ValueError(f"--encoder {given} is not the encoder of the shards: {made}")
        return found
    for photo in PHOTO_ENCODERS:
        if shards.field == FIELDS[photo]:
            config = shards.encoder.get("config") or {}
            try:
                return from_config({**config, "name": photo})
            except TypeError as error:
                text = f"the shards name an encoder {photo!r} with config = {config}"
                raise ValueError(f"{text}, which fits none: {error}") from error
    named = shards.encoder.get("model")
    for model in dict.fromkeys([named, *shipped_models()] if named else shipped_models()):
        try:
            found = Geolocator.from_pretrained(model).encoder
        except (ValueError, OSError) as error:
            log(f"the model that the shards name cannot be read: {error}")
            continue
        if found is not None and made_by(found, shards):
            return found
    about = f"encoder {shards.encoder.get('name', shards.field)!r}, weights {weights}"
    log(
        f"WARNING: no model here has the encoder of the shards ({about}): the model is saved "
        "without one and answers no images, only embeddings; --encoder MODEL brings it along"
    )
    return None


def made_by(encoder: TileEncoder | PhotoEncoder, shards: Shards) -> bool:
    """Whether an encoder made the embeddings, as far as the shards say."""
    if FIELDS[encoder.name] != shards.field:
        return False
    if isinstance(encoder, PhotoEncoder):  # its weights would have to be fetched
        return True
    weights = shards.encoder.get("weights")
    same = weights in (None, runtime.sha256_of_weights(encoder)[:16])
    return encoder.dim == shards.dim and same
