"""What users call: an image in; places, densities and scores out."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from geoflow import checkpoint, density, encoders, inputs, methods, runtime, schedules, sphere
from geoflow.checkpoint import CONFIG, WEIGHTS, Checkpoint, shipped_models
from geoflow.flowmap import by_name, solved
from geoflow.runtime import whole
from geoflow.samplers import SolverOptions
from geoflow.scores import metrics

__all__ = ["CONFIG", "WEIGHTS", "Geolocator", "Places", "shipped_models"]

ON_S2 = {"steps": 64, "solver": "ab3", "schedule": schedules.FEW_STEPS}  # of density maps


@dataclass(frozen=True)
class Places:
    """The k best places of each image, most probable first."""

    latlon: Tensor  # (B, k, 2) degrees
    mass: Tensor  # (B, k) share of the samples for which this is the nearest of the k places
    radius_km: Tensor  # (B, k) distance within which half of those samples lie


class Geolocator:
    """An encoder and a method: a distribution over the Earth for each image.

    >>> from geoflow import Geolocator
    >>> from geoflow.data import tiles
    >>> geo = Geolocator.from_pretrained("tiles")
    >>> geo
    Geolocator('riemannian', encoder 'tiles', 1.0 million parameters, on cpu)
    >>> image = tiles.tile(24, 6)  # around 24° N 6° E
    >>> geo.embed(image).shape, geo.localizability(image, n=10).shape
    (torch.Size([1, 256]), torch.Size([1]))
    >>> geo.sample(image, n=1000, seed=0).shape, geo.predict(image, k=3, n=50).latlon.shape
    (torch.Size([1, 1000, 2]), torch.Size([1, 3, 2]))
    >>> geo.trajectories(image, n=10, steps=4).shape
    torch.Size([5, 1, 10, 2])

    Every method takes `images` (a PIL image, a path, an array or tensor (H, W, 3) of uint8, or a
    list of them) or `cond`, their embeddings (B, C): exactly one of the two. A network without a
    condition (cond_dim 0) takes neither; `uniform` and `land`, which look at no image, take any.

    Attributes:
        method: its name, such as "riemannian".
        model: what computes it, see `geoflow.methods`.
        network: its network: a VelocityTransformer, a MixtureNetwork, or None.
        encoder: images → embeddings, or None.
        provenance: how the weights came to be.

    A flow also has `velocity`, the field (x (B, N, 3), t, cond) → (B, N, 3) that is integrated;
    its `path`, see `geoflow.paths`; and its `schedule`, a function [0, 1] → [0, 1].
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
        self.model = by_name(method, network, schedule)
        self.encoder = encoder.eval() if encoder is not None else None
        self.provenance = provenance or {}

    def __repr__(self) -> str:
        parts = [repr(self.method)]
        if self.encoder is not None:
            parts.append(f"encoder {self.encoder.name!r}")
        if self.network is not None:
            millions = sum(weight.numel() for weight in self.network.parameters()) / 1e6
            parts.append(f"{millions:.1f} million parameters")
        return f"Geolocator({', '.join(parts)}, on {self.device})"

    def to(self, device) -> "Geolocator":
        """Compute on this device from now on; results come back to the CPU."""
        device = inputs.device(device)
        for module in (self.network, self.encoder):
            if module is not None:
                module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.network.head.weight.device if self.network is not None else torch.device("cpu")

    velocity = property(lambda self: self._flow("velocity field").velocity)
    path = property(lambda self: self._flow("path").path)
    schedule = property(lambda self: self._flow("schedule").schedule)

    def _flow(self, what: str) -> methods.Flow:
        if not isinstance(self.model, methods.Flow):
            raise ValueError(f"method {self.method!r} has no {what}; it is a closed form")
        return self.model

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls, name_or_dir, method: str | None = None, revision: str | None = None, device=None
    ) -> "Geolocator":
        """Load a model.

        Args:
            name_or_dir: a name of `shipped_models()`, `uniform` or `land`; a published model, such
                as `plonk-yfcc` or `nicolas-dufour/PLONK_YFCC`, which is downloaded once; or a
                folder that `save_pretrained` wrote or that holds a published model.
            method: refuse a model of another method; None takes any. A folder of a published model
                does not say its method: it is this one, else that of the model the folder is called
                after (`PLONK_YFCC_flow`), else `riemannian`. `uniform` and `land` ignore it.
            revision: of a published model: a branch, tag or commit.
            device: where to compute; None: on a GPU if there is one. `to` changes it.

        Raises:
            ValueError: unknown name, revision or device, another method, damaged files.
            FileNotFoundError, ConnectionError: a file is missing, or the hub does not answer.
        """
        found = checkpoint.load(name_or_dir, method, revision)
        parts = found.network, found.method, found.schedule, found.encoder, found.provenance
        return cls(*parts).to(runtime.device() if device is None else device)

    def save_pretrained(self, folder, encoder_of: str | None = None) -> Path:
        """Write model.safetensors and config.json to a folder, whole or not at all, and return it.

        Args:
            folder: where to.
            encoder_of: a shipped model with the same encoder, which is then not written again.

        Raises:
            FileExistsError: the folder exists and holds something else than a model.
            ValueError: a method without weights, or an encoder that is not `encoder_of`'s.
        """
        schedule = self.model.schedule_name if isinstance(self.model, methods.Flow) else "linear"
        parts = Checkpoint(self.network, self.method, schedule, self.encoder, self.provenance)
        return checkpoint.save(parts, folder, encoder_of)

    # Conditions, starting points, options

    def embed(self, images) -> Tensor:
        """Embeddings of images: (B, C)."""
        if self.encoder is None:
            raise ValueError("this model has no image encoder; give `cond`, its embeddings")
        return self.encoder.embed(images)

    def _options(self, steps=None, solver=None, guidance: float = 0.0) -> SolverOptions:
        return inputs.solver_options(self.model, steps, solver, guidance)

    def _request(
        self, images, cond, n, steps=None, solver=None, guidance=0.0, seed=None, noise=None
    ):
        """Starting points (B, n, 3), condition and solver options of a call."""
        batch, cond = inputs.condition(self, images, cond)
        options = self._options(steps, solver, guidance)
        points = inputs.starting_points(self.model, batch, n, seed, noise, options)
        return points.to(self.device), cond, options

    def _sample(self, noise: Tensor, cond, options: SolverOptions) -> Tensor:
        """Unit vectors (B, n, 3)."""
        return inputs.by_parts(lambda x, c: self.model.sample(x, c, options), noise, cond)

    # Samples

    def sample(
        self,
        images=None,
        cond=None,
        n: int = 1024,
        steps: int | None = None,
        solver: str | None = None,
        guidance: float = 0.0,
        seed=None,
        noise=None,
    ) -> Tensor:
        """Places drawn from each image's distribution.

        The images of one call share their n starting points, so none depends on the others.

        Args:
            images, cond: see the class.
            n: samples per image.
            steps: solver steps, placed by the model's schedule; None: its `model.defaults`.
            solver: `euler`, `midpoint`, `heun`, `rk4`, `ab3`, the adaptive `dopri5`, `bosh3`,
                `ddim` for diffusion, `jump` for a flow map, or `plonk`, the official code's (with
                steps=250); None: `rk4`, published `ab3`, flow map `jump`. Closed forms: neither.
            guidance: ω; 0 samples the distribution, larger values prefer what the image adds.
            seed: an integer makes the result repeatable.
            noise: (B, n, 3) starting points, in place of n and seed; for closed forms numbers in
                [0, 1).

        Returns:
            (B, n, 2) latitude and longitude, degrees.

        Raises:
            ValueError: unknown solver, steps or n < 1, wrong shapes, guidance of a closed form.
        """
        request = self._request(images, cond, n, steps, solver, guidance, seed, noise)
        return sphere.to_latlon(self._sample(*request))

    def trajectories(self, images=None, cond=None, n: int = 1024, **options) -> Tensor:
        """The way of samples from noise to place: (steps + 1, B, n, 2) degrees, noise first.

        States in R³ are projected from the centre of the Earth. Arguments and options as in
        `sample`: steps, solver, guidance, seed, noise.

        Raises:
            ValueError: as `sample`, or a closed form, whose samples do not move.
        """
        flow = self._flow("trajectories")
        noise, cond, options = self._request(images, cond, n, **options)

        def states(x: Tensor, c: Tensor | None) -> Tensor:
            return torch.stack(list(flow.states(x, c, options)), dim=2)  # (B, N, steps + 1, 3)

        return sphere.to_latlon(inputs.by_parts(states, noise, cond).movedim(2, 0))

    def sample_likeliest(
        self, images=None, cond=None, n=32, steps=None, solver=None, guidance=0.0, seed=None
    ) -> Tensor:
        """Ensemble sampling: of n samples, the one of highest density (PLONK, table A).

        On S² samples and densities are of one solution. As `sample`; no `noise`, `ddim` or `plonk`.

        Returns:
            (B, 2) degrees.
        """
        request = self._request(images, cond, n, steps, solver, guidance, seed)
        x, log_prob = self._sample_with_log_prob(*request)
        return sphere.to_latlon(x[torch.arange(len(x)), log_prob.argmax(-1)])

    def _sample_with_log_prob(self, noise: Tensor, cond, options: SolverOptions):
        """Unit vectors (B, n, 3) and their log-densities (B, n)."""
        return self._by_place(self.model.sample_with_log_prob, noise, cond, options)

    # Densities

    def log_prob(
        self, latlon, images=None, cond=None, guidance: float = 0.0, steps=None, solver=None
    ) -> Tensor:
        """Log-density of places, in nats with respect to area on the unit sphere.

        The uniform density has −2.531; add −17.52 for nats per km². With guidance it is the density
        of the guided field.

        >>> Geolocator.from_pretrained("uniform").log_prob([[48.9, 2.4]])
        tensor([[-2.5310]])

        Args:
            latlon: (B, N, 2), or (N, 2) for the same places under each image, degrees.
            images, cond, guidance: see `sample`.
            steps, solver: of the backward solution.

        Returns:
            (B, N).

        Raises:
            ValueError: places that are not on Earth, wrong shapes.
        """
        options = self._options(steps, solver, guidance)
        return self._log_prob(self.model.log_prob, latlon, images, cond, options)

    def ambient_log_prob(self, latlon, images=None, cond=None, steps=None, solver=None) -> Tensor:
        """Log-density where a flow's states live; for R³ methods with respect to volume.

        This is the paper's number for them. It is no density on S², and has no upper bound, since
        the states may come ever nearer to the sphere. Arguments as in `log_prob`, no `guidance`.

        >>> geo = Geolocator.from_pretrained("tiles-flow")
        >>> geo.ambient_log_prob([[48.9, 2.4]], cond=torch.zeros(1, 256), steps=4).shape
        torch.Size([1, 1])
        """
        options = self._options(steps, solver, 0.0)
        compute = self._flow("states").ambient_log_prob
        return self._log_prob(compute, latlon, images, cond, options)

    def _log_prob(self, compute: Callable, latlon, images, cond, options: SolverOptions) -> Tensor:
        batch, cond = inputs.condition(self, images, cond)
        return self._by_place(compute, inputs.places(latlon, batch).to(self.device), cond, options)

    def _by_place(self, compute: Callable, x: Tensor, cond, options: SolverOptions):
        """compute(x, cond, options) in calls of bounded size."""
        states = self.model.points_per_place
        return inputs.by_parts(lambda x, c: compute(x, c, options), x, cond, states)

    def density(
        self, images=None, cond=None, resolution=1.0, guidance: float = 0.0, coarser: int = 1
    ) -> density.DensityMap:
        """Density map of one image; its `integral` says how exact it is.

        With strong guidance peaks are too narrow for grid and solver, and the integral falls short.

        >>> uniform = Geolocator.from_pretrained("uniform").density(resolution=10.0)
        >>> uniform.log_density.shape, round(uniform.entropy, 3)
        (torch.Size([18, 36]), 2.531)

        Args:
            images, cond, guidance: one image or embedding, and ω, see `sample`.
            resolution: pixel size of the raster, degrees.
            coarser: factor of the largest mass of a cell; 10 is quick, and errs by some per cent.

        Raises:
            ValueError: more than one image, or a resolution outside [0.05, 30].
        """
        density.raster_axes(resolution)  # a bad resolution is refused before any work
        batch, cond = inputs.condition(self, images, cond)
        if batch != 1:
            raise ValueError(f"{batch} images; a density map is made of one at a time")
        n = max(8192 // whole(f"coarser={coarser!r}", coarser), 256)
        noise, cond, options = self._request(None, cond, n, guidance=guidance, seed=0)
        options = solved(options)  # samples show where to look, and jumps miss some of the mass
        samples = self._sample(noise, cond, options)[0]
        in_r3 = self.model.points_per_place > 1  # a place costs more there, so the grid is coarser
        fine = replace(options, **({"steps": max(options.steps, 32)} if in_r3 else ON_S2))

        def log_prob(x: Tensor) -> Tensor:
            return self._by_place(self.model.log_prob, x[None].to(self.device), cond, fine)[0]

        return density.density_map(log_prob, samples, resolution, coarser / (120 if in_r3 else 240))

    def localizability(self, images=None, cond=None, n: int = 1024, seed: int = 0) -> Tensor:
        """Negative entropy ∫ p log₂ p in bits, by n samples (PLONK, section 3.4): (B,).

        It is −3.65 for uniform, and each bit more halves the area where the image could be.
        """
        _, log_prob = self._sample_with_log_prob(*self._request(images, cond, n, seed=seed))
        return log_prob.mean(-1) / math.log(2)

    def predict(
        self, images=None, cond=None, k: int = 1, n: int = 1024, guidance=0.0, seed: int = 0
    ) -> Places:
        """The k places that together answer best.

        Of n samples they maximise, nearly if k > 1, the expected GeoScore of the nearest one. With
        k = 1 this is the best sample for GeoScore.

        Args:
            images, cond, guidance, seed: see `sample`.
            k, n: places and samples per image.

        Raises:
            ValueError: k below 1 or above n.
        """
        text = f"k={k!r} places from {n!r} samples"
        if whole(text, k) > whole(text, n):
            raise ValueError(f"{text}; expected 1 ≤ k ≤ n")
        samples = self.sample(images, cond, n=n, guidance=guidance, seed=seed)
        found = [metrics.best_places(points, int(k)) for points in sphere.from_latlon(samples)]
        x, mass, radius = (torch.stack(parts) for parts in zip(*found, strict=True))
        return Places(sphere.to_latlon(x), mass, radius)
