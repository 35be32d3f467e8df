"""The paper's published models: nine checkpoints on the Hugging Face hub, in the official code's layout, and that code's sampler.

The only file that knows the official names. Its networks are `VelocityTransformer`s with other names for the weights; its sampler
and its "likelihood" are kept for comparison, under names that say what they are.

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

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from geoflow import likelihood, paths, samplers, schedules, sphere
from geoflow.runtime import choose
from geoflow.velocity import VelocityTransformer

OWNER = "nicolas-dufour"
SCHEDULE = "skewed-sigmoid"
STEPS = 250
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Attributes:
        repository: on the hub.
        method: see `geoflow.methods`.
        encoder: which images → embeddings it was trained on, see `geoflow.encoders`.
    """

    repository: str
    method: str
    encoder: str


_DATA = {
    "yfcc": ("PLONK_YFCC", "dinov2"),
    "inaturalist": ("PLONK_iNaturalist", "dinov2"),
    "osv5m": ("PLONK_OSV_5M", "streetclip"),
}
_ENDINGS = {"": "riemannian", "flow": "flow", "diffusion": "diffusion"}
MODELS = {
    "-".join(filter(None, ("plonk", data, ending))): Published(
        "_".join(filter(None, (f"{OWNER}/{stem}", ending))), method, encoder
    )
    for data, (stem, encoder) in _DATA.items()
    for ending, method in _ENDINGS.items()
}


def published(name: str) -> Published | None:
    """The checkpoint of an alias or a repository's name; None if it is no such name at all.

    Raises:
        ValueError: a name in the authors' namespace, or like an alias, that does not exist; the nearest is suggested.
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
    """The checkpoint that a folder is a copy of, if it is called as on the hub (`PLONK_YFCC_flow`) or lies in the hub's cache."""
    names = {model.repository.split("/")[1]: model for model in MODELS.values()}
    names |= {f"models--{model.repository.replace('/', '--')}": model for model in MODELS.values()}
    return next((names[part] for part in reversed(folder.resolve().parts) if part in names), None)


def download(model: Published, revision: str | None = None) -> Path:
    """The folder of a checkpoint in the hub's cache, fetched if it is not there: resumable, with a progress bar.

    Args:
        model: which.
        revision: a branch, tag or commit; None is the newest.

    Raises:
        ValueError: the repository has no such revision.
        ConnectionError: it is not in the cache, and the hub cannot be reached or the environment says HF_HUB_OFFLINE.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionNotFoundError,
    )

    try:
        files = [
            Path(hf_hub_download(model.repository, name, revision=revision))
            for name in (CONFIG, WEIGHTS)
        ]
    except RevisionNotFoundError as error:
        raise ValueError(f"{model.repository} has no revision {revision!r}") from error
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        EntryNotFoundError,
        OSError,
    ) as error:
        raise ConnectionError(
            f"{model.repository} is not in the cache, and the hub gave no answer: {error}"
        ) from error
    return files[0].parent


def is_official(folder: Path) -> bool:
    """Whether a folder holds a model in the official layout, which has `input_dim` in its config."""
    try:
        return "input_dim" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def network(folder: Path, method: str) -> VelocityTransformer:
    """The network of a folder in the official layout.

    Args:
        folder: with `config.json` and `model.safetensors`.
        method: `riemannian`, `flow` or `diffusion`: the files do not say which.

    Raises:
        ValueError: files that are damaged or do not belong together; the first mismatch is named.
        FileNotFoundError: a file is missing.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a model folder: {name} is missing")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        theirs = load_file(folder / WEIGHTS)
        if config.pop("input_dim") != 3:
            raise ValueError("input_dim is not 3")
        net = VelocityTransformer(**config, tangent=paths.by_name(method).tangent)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder} is damaged or no published model: {error}") from error
    theirs.pop("time_embedder.encode_time.freqs", None)  # a constant
    wanted = {official_name(name): (name, tensor) for name, tensor in net.state_dict().items()}
    for name in sorted(wanted.keys() | theirs.keys()):
        have = tuple(theirs[name].shape) if name in theirs else "nothing"
        want = tuple(wanted[name][1].shape) if name in wanted else "nothing"
        if have != want:
            raise ValueError(f"{folder}: weight {name} has {have}, the config expects {want}")
    net.load_state_dict({wanted[name][0]: tensor.float() for name, tensor in theirs.items()})
    return net.eval()


def official_name(name: str) -> str:
    """The official name of one of our weights."""
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


# The official sampler and "likelihood", for comparison


def _raw(net: VelocityTransformer) -> VelocityTransformer:
    """The same weights as a plain function on R³: nothing normalised inside, nothing projected."""
    view = copy.copy(net)
    view.tangent = False
    return view


@torch.no_grad()
def trajectory(
    net, path, noise: Tensor, times: Tensor, cond: Tensor | None = None, guidance: float = 0.0
) -> Iterator[Tensor]:
    """States of the official samplers, step for step (`solver="plonk"`).

    Riemannian: x ← (x + Δt ψ)/|x + Δt ψ| with the network's unprojected output, from normal, unnormalised noise. Flow: x ← x + Δt ψ.
    Diffusion: DDIM from t = 10⁻⁹, whose predicted data are clamped to the cube [−1, 1]³ and the noise made to fit.

    Args:
        net: a VelocityTransformer.
        path: see `geoflow.paths`.
        noise: (B, N, 3).
        times: (steps + 1,) from 0 to 1; officially 251, by the skewed sigmoid.
        cond: (B, C) or None.
        guidance: ω.

    Yields:
        (B, N, 3), steps + 1 times; the first is `noise`.
    """
    field = samplers.guided(_raw(net), guidance)
    x = noise
    yield x
    for t, t_next in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        if path.name == "diffusion":
            t = max(t, 1e-9)
            predicted = field(x, t, cond)
            data = ((x - (1 - t) ** 0.5 * predicted) / t**0.5).clamp(-1, 1)
            predicted = (x - t**0.5 * data) / (1 - t) ** 0.5
            x = t_next**0.5 * data + (1 - t_next) ** 0.5 * predicted
        else:
            x = x + (t_next - t) * field(x, t, cond)
            x = sphere.unit(x) if path.tangent else x
        yield x


class _Ambient(paths.EuclideanFlow):
    """R³ with the constant "noise density" 1/4π."""

    def noise_log_prob(self, x: Tensor) -> Tensor:
        return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)


def ambient_trace_log_prob(
    net, x: Tensor, cond: Tensor | None = None, guidance: float = 0.0
) -> Tensor:
    """What the official code calls the log-likelihood of a Riemannian flow. **It is not the density of the model's samples.**

    The network is taken as a field on R³, neither normalised nor projected, solved back from x by dopri5 without staying on the
    sphere, and the trace of its ambient Jacobian is integrated; log 1/4π is the value at the end. On S² that integrates to 0.97
    or so for a trained network and to anything for another. `Geolocator.log_prob` is the density.

    Args:
        net: a VelocityTransformer.
        x: (B, N, 3) unit vectors.
        cond: (B, C) or None.
        guidance: ω.

    Returns:
        (B, N) nats. The official unit divides by 3 log 2.
    """
    field = samplers.guided(_raw(net), guidance)
    return likelihood.log_prob(
        field, _Ambient(), x, schedules.time_grid(schedules.linear, 1), cond, "dopri5"
    )
