"""Models on disk: folders of `config.json` and `model.safetensors`, shipped or published.

Weights are plain tensors and settings plain JSON: nothing from a file is executed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoflow import encoders, methods, plonk, runtime
from geoflow.data.published import CONFIG, MODELS, WEIGHTS
from geoflow.runtime import choose
from geoflow.schedules import FEW_STEPS

FORMAT = 1


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
    folder = runtime.DATA / "models"
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if (path / CONFIG).is_file())


def load(name_or_dir, method: str | None = None, revision: str | None = None) -> Checkpoint:
    """A model by its name, or from a folder. See `Geolocator.from_pretrained`."""
    if not isinstance(name_or_dir, (str, Path)) or not str(name_or_dir):
        raise ValueError(f"model {name_or_dir!r}; expected a name such as 'tiles', or a folder")
    folder = Path(name_or_dir)
    if not folder.is_dir():
        if (published := plonk.published(str(name_or_dir))) is not None:
            if method not in (None, published.method):
                raise ValueError(_other_method(repr(str(name_or_dir)), published.method, method))
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
        text = "only models on a hub have revisions"
        raise ValueError(f"revision {revision!r} of {name_or_dir}: {text}")
    if plonk.is_official(folder):
        published = plonk.named_after(folder) or plonk.Published("", "riemannian", "")
        method = choose("method", method or published.method, methods.GENERATIVE)
        published = plonk.Published(published.repository, method, published.encoder)
        return _published(folder, published, {"folder": folder.name})
    return _ours(folder, method)


def _published(folder: Path, published: plonk.Published, provenance: dict) -> Checkpoint:
    network = plonk.network(folder, published.method)
    encoder = encoders.PhotoEncoder(published.encoder) if published.encoder else None
    return Checkpoint(network, published.method, FEW_STEPS, encoder, provenance)


def _other_method(what: str, is_method: str, asked: str) -> str:
    return f"{what} is a {is_method!r} model; method={asked!r} was asked for"


def _ours(folder: Path, method: str | None) -> Checkpoint:
    """A folder that `save` wrote."""
    config, weights = _read_folder(folder)
    if method is not None and choose("method", method, methods.TRAINED) != config["method"]:
        raise ValueError(_other_method(str(folder), config["method"], method))
    shared = isinstance(config["encoder"], str)  # the encoder of another shipped model
    try:
        fresh = plonk.averaged_network if config.get("averaged") else methods.network_for
        network = fresh(config["method"], config["network"])
        own = config["encoder"] and not shared
        encoder = encoders.from_config(config["encoder"]) if own else None
    except TypeError as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    _load(network, weights, "network.", folder)
    if encoder is not None and encoder.saved_with_models:
        _load(encoder, weights, "encoder.", folder)
    if shared:
        encoder = load(config["encoder"]).encoder
    return Checkpoint(network, config["method"], config["schedule"], encoder, config["provenance"])


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    plonk.check_files(folder)
    file = folder / CONFIG
    config = runtime.read_json(file)
    if not isinstance(config, dict):
        raise ValueError(f"{file} is damaged: it holds a {type(config).__name__}, not an object")
    if config.get("format") != FORMAT:
        raise ValueError(f"{file} has format {config.get('format')!r}; this version reads {FORMAT}")
    missing = {"method", "schedule", "network", "encoder", "provenance"} - config.keys()
    if missing:
        raise ValueError(f"{file} is damaged: it lacks {', '.join(sorted(missing))}")
    try:
        return config, load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged: {error}") from error


def _load(module: nn.Module, weights: dict[str, Tensor], prefix: str, folder: Path) -> None:
    """Weights with a prefix into a module, whose names and shapes they must match."""
    mine = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
    plonk.check_weights(folder, mine, module.state_dict(), prefix)
    module.load_state_dict(mine)


def save(model: Checkpoint, folder, encoder_of: str | None = None) -> Path:
    """Write a model to a folder, whole or not at all. See `Geolocator.save_pretrained`."""
    folder = Path(folder)
    if model.network is None:
        known = ", ".join(methods.TRAINED)
        text = f"method {model.method!r} has no weights to save"
        raise ValueError(f"{text}; expected one of {known}")
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
    }
    if isinstance(model.network, plonk.TimeAveraged):
        config["averaged"] = True
    weights = {
        prefix + name: tensor.contiguous()
        for prefix, part in parts.items()
        for name, tensor in part.state_dict().items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with runtime.replacing(folder) as partial:
        partial.mkdir()
        save_file(weights, partial / WEIGHTS)
        runtime.write_json(partial / CONFIG, config)
    return folder


def _check_same(encoder: nn.Module | None, other: nn.Module | None, name: str) -> None:
    mine, theirs = (e and runtime.sha256_of_weights(e) for e in (encoder, other))
    if mine != theirs:
        raise ValueError(f"the encoder is not that of {name!r}; save it with the model")
