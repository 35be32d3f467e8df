"""Models on disk: folders of `config.json` and `model.safetensors`, shipped or published.

Weights are plain tensors and settings plain JSON: nothing from a file is executed.
"""

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from geoflow import baselines, encoders, flowmap, methods, plonk, runtime, schedules
from geoflow.data import model_files
from geoflow.data.published import CONFIG, MODELS, WEIGHTS, is_official
from geoflow.runtime import choose
from geoflow.schedules import FEW_STEPS
from geoflow.velocity import VelocityTransformer

FORMAT = 1
ENTRIES = dict(method="a text", schedule="a text", network="an object", provenance="an object")
ENTRIES |= dict(encoder="an object, a text or null", averaged="true or false")


@dataclass(frozen=True)
class Checkpoint:
    """What a model is made of; see `Geolocator`."""

    network: Any
    method: str
    schedule: str = "linear"
    encoder: encoders.TileEncoder | encoders.PhotoEncoder | None = None
    provenance: dict = field(default_factory=dict)


def shipped_models() -> list[str]:
    """Names of the models in the repository's `data/models`."""
    return sorted(file.parent.name for file in (runtime.DATA / "models").glob(f"*/{CONFIG}"))


def load(name_or_dir, method: str | None = None, revision: str | None = None) -> Checkpoint:
    """A model by its name, or from a folder. See `Geolocator.from_pretrained`."""
    if not isinstance(name_or_dir, (str, Path)) or not str(name_or_dir):
        raise ValueError(f"model {name_or_dir!r}; expected a name such as 'tiles', or a folder")
    folder = Path(name_or_dir)
    if folder.is_file():
        raise ValueError(f"{folder} is a file; expected a folder of {CONFIG} and {WEIGHTS}")
    if not folder.is_dir():
        if (published := plonk.published(str(name_or_dir))) is not None:
            _check_method(repr(str(name_or_dir)), published.method, method)
            provenance = {"repository": published.repository, "revision": revision}
            return _published(plonk.download(published, revision), published, provenance)
        if folder.is_absolute() or len(folder.parts) > 1:
            models = ", ".join((*shipped_models(), *MODELS))
            raise FileNotFoundError(f"no model folder at {folder}; models by name: {models}")
        known = (*shipped_models(), *methods.REFERENCES, *MODELS)
        if choose("model", str(name_or_dir), known) in methods.REFERENCES:
            return Checkpoint(None, str(name_or_dir))
        folder = runtime.DATA / "models" / folder
    if revision is not None:
        raise ValueError(f"revision {revision!r} of {name_or_dir}: only models on a hub have one")
    if is_official(folder):
        published = plonk.named_after(folder) or plonk.Published("", "riemannian", "")
        method = choose("method", method or published.method, methods.GENERATIVE)
        return _published(folder, replace(published, method=method), {"folder": folder.name})
    return _ours(folder, method)


def _published(folder: Path, published: plonk.Published, provenance: dict) -> Checkpoint:
    network = plonk.network(folder, published.method)
    encoder = encoders.PhotoEncoder(published.encoder) if published.encoder else None
    return Checkpoint(network, published.method, FEW_STEPS, encoder, provenance)


def _check_method(what: str, found: str, asked: str | None) -> None:
    if asked is not None and choose("method", asked, flowmap.NETWORKS) != found:
        raise ValueError(f"{what} is a {found!r} model; method={asked!r} was asked for")


def _ours(folder: Path, method: str | None) -> Checkpoint:
    """A folder that `save` wrote."""
    config, weights = model_files.read(folder)
    file = folder / CONFIG
    if type(config.get("format")) is not int or config["format"] != FORMAT:
        raise ValueError(f"{file} has format {config.get('format')!r}; this version reads {FORMAT}")
    model_files.check_keys(file, config, set(ENTRIES) - {"averaged"}, {"format", "averaged"})
    _check_method(str(folder), config["method"], method)
    _check(file, config)

    def part(prefix: str, make, *arguments):
        own = {name: weights.pop(name) for name in list(weights) if name.startswith(prefix)}
        return model_files.build(folder, functools.partial(make, *arguments), own, prefix.__add__)

    make = plonk.averaged_network if config.get("averaged") else flowmap.network_for
    network, encoder = part("network.", make, config["method"], config["network"]), None
    model_files.check_keys(file, config["network"], set(network.config) - {"tangent"})
    if isinstance(config["encoder"], str):  # the encoder of another shipped model
        encoder = load(config["encoder"]).encoder
    elif config["encoder"] is not None:
        encoder = part("encoder.", encoders.from_config, config["encoder"])
    gives, takes = getattr(encoder, "dim", None), config["network"]["cond_dim"]
    if gives and takes and gives != takes:
        wide = f"the encoder gives {gives} numbers, the network takes {takes}"
        raise ValueError(f"{file} does not fit together: {wide}")
    if weights:
        raise ValueError(f"{folder / WEIGHTS} has weights that the config lacks: {min(weights)}")
    return Checkpoint(network, config["method"], config["schedule"], encoder, config["provenance"])


def _check(file: Path, config: dict[str, Any]) -> None:
    """A `ValueError` that names the first entry of a config that no model of ours has."""
    try:
        model_files.check_kinds(config, ENTRIES)
        model_files.check_kinds(config["provenance"], dict(recipe="an object"), "provenance.")
        network, encoder = config["network"], config["encoder"]
        schedules.by_name(config["schedule"])
        if choose("method", config["method"], flowmap.NETWORKS) in flowmap.FLOWS:
            path = flowmap.path_of(config["method"])
            if network.get("tangent", True) is not path.tangent:
                raise ValueError(f"tangent = {network.get('tangent')}; expected {path.tangent}")
            if network.get("guess", "") not in ("", path.name):
                raise ValueError(f"guess = {network['guess']!r}; expected {path.name!r}")
        if isinstance(encoder, dict):
            choose("encoder", encoder.get("name", ""), encoders.ENCODERS)
        elif encoder is not None:
            choose("model whose encoder is used", encoder, shipped_models())
    except ValueError as error:
        raise ValueError(f"{file} does not fit this version: {error}") from error
    kind = VelocityTransformer if config["method"] in flowmap.FLOWS else baselines.MixtureNetwork
    model_files.check_numbers(file, network, kind, ())
    if isinstance(encoder, dict):
        model_files.check_numbers(file, encoder, encoders.ENCODERS[encoder["name"]], ("name",))


def save(model: Checkpoint, folder, encoder_of: str | None = None) -> Path:
    """Write a model to a folder, whole or not at all. See `Geolocator.save_pretrained`."""
    folder = Path(folder)
    if model.network is None:
        text = f"method {model.method!r} has no weights to save; expected one of"
        raise ValueError(f"{text} {', '.join(flowmap.NETWORKS)}")
    if folder.exists() and any(file.name not in (WEIGHTS, CONFIG) for file in folder.iterdir()):
        raise FileExistsError(f"{folder} holds other files than a model; choose another folder")
    encoder: dict | str | None = None
    parts: dict[str, nn.Module] = {"network.": model.network}
    if encoder_of is not None:
        _check_same(model.encoder, load(encoder_of).encoder, encoder_of)
        encoder = encoder_of
    elif model.encoder is not None:
        encoder = {"name": model.encoder.name, **model.encoder.config}
        if model.encoder.saved_with_models:
            parts["encoder."] = model.encoder
    config = {
        "format": FORMAT,
        "method": model.method,
        "schedule": model.schedule,
        "network": model.network.config,
        "encoder": encoder,
        "provenance": model.provenance,
        **({"averaged": True} if isinstance(model.network, plonk.TimeAveraged) else {}),
    }
    weights = {
        prefix + name: tensor.contiguous()
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }
    with runtime.replacing(folder) as partial:
        partial.mkdir()
        save_file(weights, partial / WEIGHTS)
        runtime.write_json(partial / CONFIG, config)
        # Safetensors makes its file readable by its owner only.
        (partial / WEIGHTS).chmod((partial / CONFIG).stat().st_mode)
    return folder


def _check_same(encoder: nn.Module | None, other: nn.Module | None, name: str) -> None:
    mine, theirs = (e and runtime.sha256_of_weights(e) for e in (encoder, other))
    if mine != theirs:
        raise ValueError(f"the encoder is not that of {name!r}; save it with the model")
