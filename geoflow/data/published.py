"""The paper's published models: nine checkpoints on the Hugging Face hub, and their layout.

======================  =======================================  ==========  =======================
alias                   repository                               method      photos go through
======================  =======================================  ==========  =======================
``plonk-yfcc``          ``nicolas-dufour/PLONK_YFCC``            riemannian  DINOv2-L/14, registers
``plonk-inaturalist``   ``nicolas-dufour/PLONK_iNaturalist``     riemannian  DINOv2-L/14, registers
``plonk-osv5m``         ``nicolas-dufour/PLONK_OSV_5M``          riemannian  StreetCLIP
``…-flow``              ``…_flow``                               flow        the same
``…-diffusion``         ``…_diffusion``                          diffusion   the same
======================  =======================================  ==========  =======================
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geoflow.runtime import choose, read_json

OWNER = "nicolas-dufour"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Published:
    """A published checkpoint."""

    repository: str  # on the hub
    method: str  # see `geoflow.methods`
    encoder: str  # see `geoflow.encoders`


_DATA = {
    "yfcc": ("PLONK_YFCC", "dinov2"),
    "inaturalist": ("PLONK_iNaturalist", "dinov2"),
    "osv5m": ("PLONK_OSV_5M", "streetclip"),
}


def _models() -> Iterator[tuple[str, Published]]:
    for data, (stem, encoder) in _DATA.items():
        yield f"plonk-{data}", Published(f"{OWNER}/{stem}", "riemannian", encoder)
        for method in ("flow", "diffusion"):
            published = Published(f"{OWNER}/{stem}_{method}", method, encoder)
            yield f"plonk-{data}-{method}", published


MODELS = dict(_models())


def published(name: str) -> Published | None:
    """The checkpoint of an alias or a repository's name; None if it is no such name at all.

    Raises:
        ValueError: a name in the authors' namespace, or like an alias, that does not exist; the
            nearest is suggested.
    """
    by_repository = {model.repository: model for model in MODELS.values()}
    if name in MODELS:
        return MODELS[name]
    if name.startswith(f"{OWNER}/"):
        return by_repository[choose("published model", name, by_repository)]
    if name.startswith("plonk"):
        return MODELS[choose("published model", name, MODELS)]
    return None


def named_after(folder: Path) -> Published | None:
    """The checkpoint that a folder is a copy of; None if its path does not tell.

    It is called as on the hub (`PLONK_YFCC_flow`), or lies in the hub's cache.
    """
    names = {model.repository.split("/")[1]: model for model in MODELS.values()}
    names |= {f"models--{model.repository.replace('/', '--')}": model for model in MODELS.values()}
    return next((names[part] for part in reversed(folder.resolve().parts) if part in names), None)


def download(model: Published, revision: str | None = None) -> Path:
    """The folder of a checkpoint in the hub's cache, fetched if it is not there.

    The revision is a branch, tag or commit; None is the newest.

    Raises:
        ValueError: the repository has no such revision.
        ConnectionError: it is not in the cache, and the hub cannot be reached.
    """
    from huggingface_hub import errors, hf_hub_download

    silent = hub_is_silent()
    get = functools.partial(hf_hub_download, local_files_only=silent)
    try:
        names = (CONFIG, WEIGHTS)
        files = [get(model.repository, name, revision=revision) for name in names]
    except errors.RevisionNotFoundError as error:
        raise ValueError(f"{model.repository} has no revision {revision!r}") from error
    except (errors.HfHubHTTPError, errors.EntryNotFoundError, OSError) as error:
        text = f"{model.repository} is not in the cache, and the hub gave no answer"
        advice = "load it once with a network, or give a folder with a copy of"
        text = f"{text}; {advice} https://huggingface.co/{model.repository}"
        raise ConnectionError(
            text if silent else f"{text} ({' '.join(str(error).split())})"
        ) from error
    return Path(files[0]).parent


@functools.cache
def hub_is_silent() -> bool:
    """Whether the hub cannot be reached; its client would try for half a minute before it fails."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False  # the client knows
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # of whichever HTTP library the client uses
        return True
    return False


def is_official(folder: Path) -> bool:
    """Whether a folder holds a model in the official layout, with `input_dim` in its config."""
    try:
        return "input_dim" in read_json(folder / CONFIG, dict)
    except (OSError, ValueError):
        return False


def official_name(name: str) -> str:
    """The official name of one of our weights.

    >>> official_name("embed_cond.weight")
    'cond_mapper.weight'
    """
    for ours, theirs in (
        ("embed_location.", "initial_mapper."),
        ("embed_time.mlp.", "time_embedder.map_time."),
        ("embed_cond.", "cond_mapper."),
        ("head.", "final_linear."),
        ("modulation.", "final_adaln.1."),
    ):
        if name.startswith(ours):
            return name.replace(ours, theirs)
    return name.replace(".mlp.2.", ".mlp.3.").replace(".modulation.", ".ada_map.1.")
