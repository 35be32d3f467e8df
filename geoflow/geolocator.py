"""What users call: an image in, places, densities and scores out."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from geoflow import (
    encoders,
    likelihood,
    methods,
    metrics,
    plonk,
    runtime,
    samplers,
    schedules,
    sphere,
)
from geoflow.methods import How
from geoflow.runtime import choose

FORMAT = 1
POINTS_PER_CALL = 1024  # what a processor's cache holds: 8192 take twice as long; accelerators get 64 times as many
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Places:
    """The k best places of each image, most probable first.

    Attributes:
        latlon: (B, k, 2) degrees.
        mass: (B, k) share of the samples for which this is the nearest of the k places.
        radius_km: (B, k) distance within which half of those samples lie.
    """

    latlon: Tensor
    mass: Tensor
    radius_km: Tensor


class Geolocator:
    """An encoder and a method: a distribution over the Earth for each image.

    >>> from geoflow import Geolocator
    >>> from geoflow.data import tiles
    >>> geo = Geolocator.from_pretrained("tiles")
    >>> geo.sample(tiles.tile(24, 6), n=1000, seed=0).shape
    torch.Size([1, 1000, 2])

    Every method takes `images` (a PIL image, a path, or a list of them) or `cond`, their embeddings (B, C): exactly one of the
    two. A network without a condition (cond_dim 0) takes neither; `uniform` and `land`, which look at no image, take any.

    Attributes:
        method: its name, such as "riemannian".
        model: what computes it, see `geoflow.methods`.
        network: its network: a VelocityTransformer, a MixtureNetwork, or None.
        encoder: images → embeddings, or None.
        provenance: how the weights came to be.

    A flow also has `velocity`, (x (B, N, 3), t, cond) → (B, N, 3); its `path`, see `geoflow.paths`; and its `schedule`, where
    samplers place their steps, a function [0, 1] → [0, 1].
    """

    def __init__(
        self,
        network,
        method: str = "riemannian",
        schedule: str = "skewed-sigmoid",
        encoder: encoders.TileEncoder | encoders.PhotoEncoder | None = None,
        provenance: dict | None = None,
    ):
        self.method = method
        self.network = network.eval() if isinstance(network, nn.Module) else None
        self.model = methods.by_name(method, network, schedule)
        self.encoder = encoder.eval() if encoder is not None else None
        self.provenance = provenance or {}

    def to(self, device) -> "Geolocator":
        """Compute on this device from now on; results come back to the CPU."""
        for module in (self.network, self.encoder):
            if module is not None:
                module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.network.head.weight.device if self.network is not None else torch.device("cpu")

    @property
    def velocity(self):
        return self._flow("velocity field").velocity

    @property
    def path(self):
        return self._flow("path").path

    @property
    def schedule(self):
        return self._flow("schedule").schedule

    def _flow(self, what: str) -> methods.Flow:
        if not isinstance(self.model, methods.Flow):
            raise ValueError(f"method {self.method!r} has no {what}; it is a closed form")
        return self.model

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls, name_or_dir, method: str | None = None, revision: str | None = None
    ) -> "Geolocator":
        """Load a model.

        Args:
            name_or_dir: a name of `shipped_models()`, `uniform` or `land`; a published model, such as `plonk-yfcc` or
                `nicolas-dufour/PLONK_YFCC` (see `geoflow.plonk`), which is downloaded once; or a folder that `save_pretrained`
                wrote or that holds a published model.
            method: refuse a model of another method; None takes any. The files of published models do not say theirs: it, and the
                encoder, are those of the published model that the folder is called after (`PLONK_YFCC_flow`); None is else `riemannian`,
                without an encoder (set `encoder`, or give `cond`).
            revision: of a published model: a branch, tag or commit.

        Raises:
            ValueError: unknown name or revision (with the nearest), a model of another method, or files that are damaged or do
                not match.
            FileNotFoundError: the folder lacks a file.
            ConnectionError: a published model is not in the cache, and the hub gives no answer.
        """
        folder = Path(name_or_dir)
        if not folder.is_dir():
            if (published := plonk.published(str(name_or_dir))) is not None:
                if method not in (None, published.method):
                    raise ValueError(
                        f"{str(name_or_dir)!r} is a {published.method!r} model; method={method!r} was asked for"
                    )
                provenance = {"repository": published.repository, "revision": revision}
                return cls._published(
                    plonk.download(published, revision),
                    published.method,
                    published.encoder,
                    provenance,
                )
            if folder.is_absolute() or len(folder.parts) > 1:
                raise FileNotFoundError(
                    f"no model folder at {folder}; shipped models: {', '.join(shipped_models())}"
                )
            name = choose("model", str(name_or_dir), (*shipped_models(), *methods.REFERENCES))
            if name in methods.REFERENCES:
                return cls(None, name)
            folder = runtime.DATA / "models" / name
        if revision is not None:
            raise ValueError(
                f"revision {revision!r} of {name_or_dir}: only models on a hub have revisions"
            )
        if plonk.is_official(folder):
            published = plonk.named_after(folder)
            method = choose(
                "method",
                method or (published.method if published else "riemannian"),
                methods.GENERATIVE,
            )
            return cls._published(
                folder, method, published.encoder if published else None, {"folder": folder.name}
            )
        config, weights = _read_folder(folder)
        if method is not None and choose("method", method, methods.TRAINED) != config["method"]:
            raise ValueError(
                f"{folder} holds a {config['method']!r} model; method={method!r} was asked for"
            )
        shared = isinstance(config["encoder"], str)  # the encoder of another shipped model
        try:
            network = methods.network_for(config["method"], config["network"])
            encoder = (
                encoders.from_config(config["encoder"])
                if config["encoder"] and not shared
                else None
            )
        except TypeError as error:
            raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
        _load(network, weights, "network.", folder)
        if encoder is not None and encoder.saved_with_models:
            _load(encoder, weights, "encoder.", folder)
        if shared:
            encoder = cls.from_pretrained(config["encoder"]).encoder
        return cls(network, config["method"], config["schedule"], encoder, config["provenance"])

    @classmethod
    def _published(
        cls, folder: Path, method: str, encoder: str | None, provenance: dict
    ) -> "Geolocator":
        photos = encoders.PhotoEncoder(encoder) if encoder else None
        return cls(plonk.network(folder, method), method, schedules.FEW_STEPS, photos, provenance)

    def save_pretrained(self, folder, encoder_of: str | None = None) -> Path:
        """Write model.safetensors and config.json to a folder, whole or not at all, and return it.

        Args:
            folder: where to.
            encoder_of: a shipped model with the same encoder, which is then not written again.

        Raises:
            FileExistsError: the folder exists and holds something else than a model.
            ValueError: a method without weights, or an encoder that differs from that of `encoder_of`.
        """
        folder = Path(folder)
        if self.network is None:
            raise ValueError(
                f"method {self.method!r} has no weights to save; expected one of {', '.join(methods.TRAINED)}"
            )
        if folder.exists() and any(file.name not in (WEIGHTS, CONFIG) for file in folder.iterdir()):
            raise FileExistsError(f"{folder} holds other files than a model; choose another folder")
        encoder: dict | str | None = (
            {"name": self.encoder.name, **self.encoder.config} if self.encoder is not None else None
        )
        parts: dict[str, nn.Module] = {"network.": self.network}
        if encoder_of is not None:
            _check_same(self.encoder, Geolocator.from_pretrained(encoder_of).encoder, encoder_of)
            encoder = encoder_of
        elif self.encoder is not None and self.encoder.saved_with_models:
            parts["encoder."] = self.encoder
        config = {
            "format": FORMAT,
            "method": self.method,
            "schedule": self.model.schedule_name
            if isinstance(self.model, methods.Flow)
            else "linear",
            "network": self.network.config,
            "encoder": encoder,
            "provenance": self.provenance,
        }
        weights = {
            prefix + name: tensor.contiguous()
            for prefix, part in parts.items()
            for name, tensor in part.state_dict().items()
        }
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(weights, partial / WEIGHTS)
        (partial / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
        return folder

    # Conditions and starting points

    def embed(self, images) -> Tensor:
        """Embeddings of a PIL image, a path or a list of them: (B, C).

        Raises:
            ValueError: the model has no encoder, the list is empty, or something is no image.
        """
        if self.encoder is None:
            raise ValueError("this model has no image encoder; give `cond`, its embeddings")
        images = list(images) if isinstance(images, (list, tuple)) else [images]
        if not images:
            raise ValueError("an empty list of images; expected at least one")
        return self.encoder.embed(torch.stack([self.encoder.preprocess(image) for image in images]))

    def _condition(self, images, cond) -> tuple[int, Tensor | None]:
        """Number of images, and what the method is conditioned on."""
        if self.method in methods.REFERENCES:
            images = (
                [images] if images is not None and not isinstance(images, (list, tuple)) else images
            )
            return len(cond if cond is not None else images if images is not None else [None]), None
        width = (
            self.network.config["cond_dim"]
            if self.network is not None
            else self.model.gallery.shape[1]
        )
        if width == 0:
            if images is not None or cond is not None:
                raise ValueError("this model is unconditional; give neither images nor cond")
            return 1, None
        if (images is None) == (cond is None):
            raise ValueError(
                f"give exactly one of images and cond; got {'both' if images is not None else 'neither'}"
            )
        cond = (
            self.embed(images) if images is not None else torch.as_tensor(cond, dtype=torch.float32)
        )
        if cond.ndim != 2 or cond.shape[1] != width or not len(cond):
            raise ValueError(f"cond has shape {tuple(cond.shape)}; expected (B, {width})")
        if not bool(cond.isfinite().all()):
            raise ValueError("cond holds NaN or infinite values; expected finite embeddings")
        return len(cond), cond.to(self.device)

    def _noise(
        self, batch: int, n: int, seed: int | None, noise: Tensor | None, how: How
    ) -> Tensor:
        if noise is None:
            if int(n) != n or n < 1:
                raise ValueError(f"n={n} samples; expected a whole number of at least 1")
            generator = torch.Generator().manual_seed(seed) if seed is not None else None
            return self.model.noise((int(n),), generator).expand(batch, -1, -1).to(self.device)
        if noise.ndim != 3 or noise.shape[0] != batch or noise.shape[-1] != 3 or not noise.shape[1]:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}; expected ({batch}, n, 3), n ≥ 1"
            )
        return (
            noise.to(self.device)
            if how.solver == samplers.PLONK
            else self.model.prepare(noise.to(self.device))
        )

    def _how(self, steps: int, solver: str, guidance: float) -> How:
        if not math.isfinite(guidance):
            raise ValueError(f"guidance of {guidance}; expected a finite number, 0 for none")
        if guidance and not self.model.guidable:
            raise ValueError(
                f"guidance of {guidance} with method {self.method!r}, which has none; expected 0"
            )
        choose("solver", solver, samplers.NAMES)
        return How(steps, solver, guidance)

    # Samples

    def sample(
        self,
        images=None,
        cond=None,
        n: int = 1024,
        steps: int = 16,
        solver: str = "rk4",
        guidance: float = 0.0,
        seed=None,
        noise=None,
    ) -> Tensor:
        """Places drawn from each image's distribution.

        The images of one call share their n starting points, so an image's samples do not depend on its company.

        Args:
            images, cond: see the class.
            n: samples per image.
            steps: solver steps, placed by the model's schedule.
            solver: `euler`, `midpoint`, `heun`, `rk4`, `ab3`, the adaptive `dopri5`, `bosh3`, `ddim` for diffusion, or `plonk`, the
                official code's own sampler (with 250 steps there). Closed forms have no steps.
            guidance: ω; 0 samples the distribution, larger values prefer what the image adds to the prior.
            seed: an integer makes the result repeatable.
            noise: (B, n, 3) starting points, in place of n and seed; for closed forms numbers in [0, 1). `plonk` takes them as
                they are, normalised or not.

        Returns:
            (B, n, 2) latitude and longitude, degrees.

        Raises:
            ValueError: unknown solver, steps or n below 1, wrong shapes, NaN, guidance with a method that has none.
        """
        batch, cond = self._condition(images, cond)
        how = self._how(steps, solver, guidance)
        noise = self._noise(batch, n, seed, noise, how)
        results = [
            self.model.sample(points, _rows(cond, rows), how) for rows, points in _parts(noise)
        ]
        return sphere.to_latlon(_assemble(results, noise))

    def trajectories(
        self,
        images=None,
        cond=None,
        n: int = 1024,
        steps: int = 16,
        solver: str = "rk4",
        guidance: float = 0.0,
        seed=None,
        noise=None,
    ) -> Tensor:
        """The samples' whole way, from noise to place: (steps + 1, B, n, 2) degrees; the first are the starting points.

        States in R³ are seen from the centre of the Earth. Arguments as in `sample`.

        Raises:
            ValueError: as `sample`, or a closed form, whose samples do not move.
        """
        flow = self._flow("trajectories")
        batch, cond = self._condition(images, cond)
        how = self._how(steps, solver, guidance)
        noise = self._noise(batch, n, seed, noise, how)
        results = [
            sphere.to_latlon(
                torch.stack(list(flow.states(points, _rows(cond, rows), how)))
            ).movedim(0, 2)
            for rows, points in _parts(noise)
        ]
        return _assemble(results, noise).movedim(2, 0)

    def sample_likeliest(
        self,
        images=None,
        cond=None,
        n: int = 32,
        steps: int = 16,
        solver: str = "rk4",
        guidance: float = 0.0,
        seed=None,
    ) -> Tensor:
        """Ensemble sampling: of n samples, the one of highest density (PLONK, table A).

        Samples and densities come from one solution, and the n points share the image's conditioning.

        Returns:
            (B, 2) degrees.
        """
        batch, cond = self._condition(images, cond)
        x, log_prob = self._sample_with_log_prob(
            batch, n, seed, cond, self._how(steps, solver, guidance)
        )
        return sphere.to_latlon(x[torch.arange(batch), log_prob.argmax(-1)])

    def _sample_with_log_prob(
        self, batch: int, n: int, seed: int | None, cond: Tensor | None, how: How
    ) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, n, 3) and their log-densities (B, n)."""
        noise, size = self._noise(batch, n, seed, None, how), self.model.points_per_place
        parts = [
            self.model.sample_with_log_prob(points, _rows(cond, rows), how)
            for rows, points in _parts(noise, size)
        ]
        x, log_prob = (
            _assemble(list(results), noise, size) for results in zip(*parts, strict=True)
        )
        return x, log_prob

    # Densities

    def log_prob(
        self,
        latlon,
        images=None,
        cond=None,
        guidance: float = 0.0,
        steps: int = 16,
        solver: str = "rk4",
    ) -> Tensor:
        """Log-density of places, in nats with respect to area on the unit sphere (uniform: −2.531; add −17.52 for nats per km²).

        With guidance it is the density of the guided field.

        Args:
            latlon: (B, N, 2), or (N, 2) for the same places under each image, degrees.
            images, cond, guidance: see `sample`.
            steps, solver: of the backward solution.

        Returns:
            (B, N).

        Raises:
            ValueError: places that are not on Earth, wrong shapes.
        """
        return self._log_prob(
            self.model.log_prob, latlon, images, cond, self._how(steps, solver, guidance)
        )

    def ambient_log_prob(
        self, latlon, images=None, cond=None, steps: int = 16, solver: str = "rk4"
    ) -> Tensor:
        """Log-density where a flow's states live. For R³ methods: with respect to volume, at the places on the unit sphere.

        This is the paper's number for them; it says nothing about S², since it has no bound as the states near the sphere. On S²
        it is `log_prob`. Arguments as in `log_prob`.

        Raises:
            ValueError: as `log_prob`, or a closed form.
        """
        return self._log_prob(
            self._flow("states").ambient_log_prob,
            latlon,
            images,
            cond,
            self._how(steps, solver, 0.0),
        )

    def _log_prob(self, compute, latlon, images, cond, how: How) -> Tensor:
        batch, cond = self._condition(images, cond)
        x = sphere.from_latlon(latlon).float()
        x = (x.expand(batch, -1, -1) if x.ndim == 2 else x).to(self.device)
        if x.ndim != 3 or len(x) != batch or not x.shape[1]:
            raise ValueError(
                f"latlon has shape {tuple(torch.as_tensor(latlon).shape)}; expected ({batch}, N, 2) or (N, 2), N ≥ 1"
            )
        results = [
            compute(points, _rows(cond, rows), how)
            for rows, points in _parts(x, self.model.points_per_place)
        ]
        return _assemble(results, x, self.model.points_per_place)

    def density(
        self, images=None, cond=None, resolution: float = 1.0, guidance: float = 0.0
    ) -> likelihood.DensityMap:
        """Density map of one image, refined where its mass is; `integral` says how exact it is.

        Guidance of more than a half or so makes needles that neither the grid nor the solver resolves, and the integral falls short.

        Args:
            images, cond: one image or embedding.
            resolution: pixel size of the raster, degrees.
            guidance: ω of the field whose density it is.

        Raises:
            ValueError: more than one image, or a resolution outside (0, 30].
        """
        batch, cond = self._condition(images, cond)
        if batch != 1:
            raise ValueError(f"{batch} images; a density map is made of one at a time")
        samples = sphere.from_latlon(self.sample(cond=cond, n=8192, guidance=guidance, seed=0))[0]

        def log_prob(x: Tensor) -> Tensor:
            return self.log_prob(sphere.to_latlon(x), cond=cond, guidance=guidance, steps=20)[0]

        return likelihood.density_map(log_prob, samples, resolution)

    def localizability(self, images=None, cond=None, n: int = 1024, seed: int = 0) -> Tensor:
        """How narrow the distribution is: its negative entropy ∫ p log₂ p in bits, by n samples (PLONK, section 3.4).

        Uniform: −3.65. Each bit halves the area where the image could be.

        Returns:
            (B,).
        """
        batch, cond = self._condition(images, cond)
        return self._sample_with_log_prob(batch, n, seed, cond, How())[1].mean(-1) / math.log(2)

    def predict(
        self,
        images=None,
        cond=None,
        k: int = 1,
        n: int = 1024,
        guidance: float = 0.0,
        seed: int = 0,
    ) -> Places:
        """The k places that together answer best: of n samples those that maximise the expected GeoScore of the nearest one.

        With k = 1 this is the best answer for GeoScore.

        Args:
            images, cond, guidance, seed: see `sample`.
            k: places per image.
            n: samples per image.

        Raises:
            ValueError: k below 1 or above n.
        """
        if not 1 <= k <= n:
            raise ValueError(f"k={k} places from {n} samples; expected 1 ≤ k ≤ n")
        samples = sphere.from_latlon(self.sample(images, cond, n=n, guidance=guidance, seed=seed))
        found = [metrics.best_places(points, k) for points in samples]
        x, mass, radius = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Places(sphere.to_latlon(x), mass, radius)


def shipped_models() -> list[str]:
    """Names of the models in the repository's `data/models`."""
    folder = runtime.DATA / "models"
    return (
        sorted(path.name for path in folder.iterdir() if (path / CONFIG).is_file())
        if folder.is_dir()
        else []
    )


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not a model folder: {name} is missing")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{folder / CONFIG} is damaged: it holds a {type(config).__name__}, not an object"
        )
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{folder / CONFIG} has format {config.get('format')!r}; this version reads {FORMAT}"
        )
    missing = {"method", "schedule", "network", "encoder", "provenance"} - config.keys()
    if missing:
        raise ValueError(f"{folder / CONFIG} is damaged: it lacks {', '.join(sorted(missing))}")
    try:
        return config, load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged: {error}") from error


def _load(module: nn.Module, weights: dict[str, Tensor], prefix: str, folder: Path) -> None:
    mine = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | mine.keys()):
        have, want = (tuple(d[name].shape) if name in d else "nothing" for d in (mine, wanted))
        if have != want:
            raise ValueError(
                f"{folder}: weight {prefix}{name} has {have}, the config expects {want}"
            )
    module.load_state_dict(mine)


def _check_same(encoder: nn.Module | None, other: nn.Module | None, name: str) -> None:
    mine, theirs = (
        module.state_dict() if module is not None else {} for module in (encoder, other)
    )
    if mine.keys() != theirs.keys() or not all(torch.equal(mine[key], theirs[key]) for key in mine):
        raise ValueError(f"the encoder is not that of {name!r}; save it with the model")


def _rows(cond: Tensor | None, rows: slice) -> Tensor | None:
    return None if cond is None else cond[rows]


def _parts(points: Tensor, states: int = 1):
    """Slices of (B, N, 3) that keep a network call small: (rows, points) pairs, images first, then points of one image.

    states: how many states each point becomes.
    """
    batch, n = points.shape[:2]
    size = _part_size(points, states)
    images = max(1, size // n)
    for start in range(0, batch, images):
        rows = slice(start, min(start + images, batch))
        for part in points[rows].split(size, dim=1):
            yield rows, part


def _assemble(parts: list[Tensor], points: Tensor, states: int = 1) -> Tensor:
    """The results (B', N', …) of `_parts` as one tensor (B, N, …)."""
    per_row = -(-points.shape[1] // _part_size(points, states))
    rows = [torch.cat(parts[i : i + per_row], dim=1) for i in range(0, len(parts), per_row)]
    return torch.cat(rows).cpu()


def _part_size(points: Tensor, states: int) -> int:
    return max(1, POINTS_PER_CALL * (1 if points.device.type == "cpu" else 64) // states)
