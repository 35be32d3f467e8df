"""What is trained, as Lightning modules that turn a batch into a loss.

A module's randomness is keyed by (seed, step): the same in every process, which takes its rows of
it, and after every interruption. The losses themselves are in `geoflow.losses`.
"""

import math
from dataclasses import dataclass, fields

import lightning as L
import torch
from torch import Tensor, nn

from geoflow import flowmap, losses, methods, schedules, sphere
from geoflow.encoders import TileEncoder
from geoflow.flowmap.losses import cloud_loss, self_distillation_loss
from geoflow.flowmap.network import begun_as
from geoflow.geolocator import Geolocator
from geoflow.losses import WHOLE, Share
from geoflow.runtime import choose
from geoflow.training.graphs import RecordedLoss
from geoflow.training.recipes import overridden


@dataclass(frozen=True)
class Optimization:
    """Settings of an optimiser with linear warm-up and cosine decay to zero.

    >>> o = Optimization(steps=1000, batch=512, lr=4e-3, warmup=100)
    >>> [round(o.lr_factor(step), 3) for step in (0, 99, 500, 1000)]
    [0.01, 0.976, 0.5, 0.0]
    """

    steps: int  # optimiser steps
    batch: int  # images per step, over all devices
    lr: float  # peak learning rate
    weight_decay: float = 0.0  # of all weights
    warmup: int = 100  # steps to the peak
    ema: float = 0.0  # decay of the weight average; 0 keeps none
    optimizer: str = "adamw"  # or `lamb`, as in the paper
    # Validations (of 20) without a lower loss after which training ends; 0: it never ends early.
    patience: int = 0

    def optimizer_of(self, parameters) -> torch.optim.Optimizer:
        """Build the optimiser of a module's parameters, at the peak learning rate."""
        parameters = list(parameters)
        if choose("optimizer", self.optimizer, ("adamw", "lamb")) == "adamw":
            how: dict = {"lr": self.lr, "weight_decay": self.weight_decay}
            return torch.optim.AdamW(parameters, **how, fused=parameters[0].is_cuda or None)
        from pytorch_optimizer import Lamb

        foreach = None if parameters[0].is_cuda else False  # a CPU's cache holds one tensor
        # LAMB's paper adds the decay before the trust ratio
        decay: dict = {"weight_decay": self.weight_decay, "weight_decouple": False}
        return Lamb(parameters, lr=self.lr, foreach=foreach, **decay)

    def lr_factor(self, step: int) -> float:
        """Return the learning rate at a step, relative to the peak."""
        decay = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return min(1.0, (step + 1) / self.warmup) * decay


def optimization_of(settings: dict) -> Optimization:
    """`Optimization(**settings)`; an unknown setting is a ValueError."""
    for name in settings:
        choose("setting of an optimization", name, [part.name for part in fields(Optimization)])
    return Optimization(**settings)


class Module(L.LightningModule):
    """Base of all trainings: the optimiser, and randomness keyed by (seed, step).

    On one GPU a step's loss and gradients are recorded once and replayed, see
    `geoflow.training.graphs`; the numbers stay the same.
    """

    recordable = True  # whether the loss computes the same whatever the values

    def __init__(self, optimization: Optimization, seed: int):
        super().__init__()
        self.optimization, self.seed = optimization, seed
        self.recorded: RecordedLoss | None = None  # which `fit` forgets in the end

    def loss(self, batch, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
        """Return the loss of this process's share of a batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def configure_optimizers(self):
        optimizer = self.optimization.optimizer_of(self.parameters())
        factor = torch.optim.lr_scheduler.LambdaLR(optimizer, self.optimization.lr_factor)
        return [optimizer], [{"scheduler": factor, "interval": "step"}]

    def seed_of(self, step: int) -> int:
        """The seed of one step's randomness, the same in every process."""
        return (self.seed * 1_000_003 + step) * 4099

    def generator(self, step: int) -> torch.Generator:
        """Return the source of randomness of one step."""
        return torch.Generator(self.device).manual_seed(self.seed_of(step))

    def training_step(self, batch, _):
        share = (self.trainer.global_rank, self.trainer.world_size)
        loss = self.loss_of_step(batch, self.global_step, share)
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def loss_of_step(self, batch, step: int, share: Share = WHOLE) -> Tensor:
        """`loss` with the randomness of a step; on one GPU replayed, if it can be recorded."""
        if not self.recordable or self.device.type != "cuda" or share != WHOLE:
            return self.loss(batch, self.generator(step), share)
        if self.recorded is None or not self.recorded.fits(batch):
            self.recorded = RecordedLoss(self, batch, self.generator(step))
        return self.recorded(batch, self.seed_of(step))

    def validation_step(self, batch, index):
        loss = self.loss(batch, self.generator(-1 - index))
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch[1]), sync_dist=True)


class GeocellClassifier(nn.Module):
    """Trains the encoder: in which of `cells` Fibonacci cells is the image? → logits (B, cells)."""

    centers: Tensor

    def __init__(self, encoder: TileEncoder, cells: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(encoder.dim, cells))
        self.register_buffer("centers", sphere.fibonacci_grid(cells), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.encoder(pixels))

    def cell_of(self, x: Tensor) -> Tensor:
        """Number of the nearest cell: (B, 3) → (B,)."""
        return (x @ self.centers.T).argmax(-1)


class EncoderModule(Module):
    """An encoder that learns geocells. Batches are (pixels (B, 3, H, W) uint8, x (B, 3))."""

    def __init__(self, classifier: GeocellClassifier, optimization: Optimization, seed: int = 0):
        super().__init__(optimization, seed)
        self.classifier = classifier

    def loss(self, batch, generator, share=WHOLE):
        pixels, x = batch
        return nn.functional.cross_entropy(self.classifier(pixels), self.classifier.cell_of(x))


class MixtureModule(Module):
    """A network that learns vMF mixtures. Batches are (cond (B, C), x (B, 3))."""

    def __init__(self, network: nn.Module, optimization: Optimization, seed: int = 0):
        super().__init__(optimization, seed)
        self.network = network

    def loss(self, batch, generator, share=WHOLE):
        cond, x = batch
        return losses.likelihood_loss(self.network, x, cond)


class FlowModule(Module):
    """A network that learns the velocity of a path. Batches are (cond (B, C), x (B, 3)).

    The options are `schedule`, `draws` and `dropout` of `losses.flow_matching_loss`.
    """

    def __init__(self, network, path, optimization: Optimization, seed: int = 0, **options):
        super().__init__(optimization, seed)
        self.network, self.path, self.options = network, path, options

    def loss(self, batch, generator, share=WHOLE):
        cond, x = batch
        return losses.flow_matching_loss(
            self.network, self.path, x, cond, generator=generator, share=share, **self.options
        )


class FlowMapModule(FlowModule):
    """A network that learns to jump along a flow, its own or that of a teacher.

    The teacher is a velocity on S², see `geoflow.flowmap.losses.cloud_loss`, or None.
    """

    recordable = False  # each batch has other numbers of jumps and of guided images

    def __init__(
        self, network, path, optimization: Optimization, seed: int = 0, teacher=None, **options
    ):
        super().__init__(network, path, optimization, seed, **options)
        self.teacher = (teacher,)  # in a tuple, so that Lightning neither trains nor saves it

    def loss(self, batch, generator, share=WHOLE):
        cond, x = batch
        (teacher,) = self.teacher
        how: dict = {"generator": generator, "share": share, **self.options}
        if teacher is None:
            return self_distillation_loss(self.network, self.path, x, cond, **how)
        return cloud_loss(self.network, teacher.to(x.device), self.path, x, cond, **how)


def settings_for(recipe: dict, method: str) -> dict:
    """How a method is trained: the recipe's `flow`, and what its `methods` say of this one instead.

    >>> recipe = {"flow": {"draws": 2, "optimization": {"steps": 9, "lr": 1}}}
    >>> settings_for(recipe | {"methods": {"vmf": {"optimization": {"lr": 2}}}}, "vmf")
    {'draws': 2, 'optimization': {'steps': 9, 'lr': 2}}

    Raises:
        ValueError: an unknown method or setting.
    """
    for name in recipe.get("methods", {}):
        choose("method of a recipe", name, flowmap.NETWORKS)
    return overridden(recipe["flow"], recipe.get("methods", {}).get(method, {}))


def sampling_schedule_of(recipe: dict, method: str) -> str:
    """The schedule of the steps of a method's sampler: its own, or the recipe's for all methods.

    >>> recipe = {"sampling_schedule": "linear", "flow": {}}
    >>> sampling_schedule_of(recipe | {"methods": {"flow": {"sampling_schedule": "log"}}}, "flow")
    'log'
    """
    return settings_for(recipe, method).get("sampling_schedule", recipe["sampling_schedule"])


def recipe_of(recipe: dict, method: str) -> dict:
    """The part of a recipe that concerns a method: `flow` is `settings_for` it; no `methods`."""
    shared = {name: value for name, value in recipe.items() if name != "methods"}
    return {**shared, "flow": settings_for(recipe, method)}


def network_module(recipe: dict, method: str, width: int, seed=0) -> FlowModule | MixtureModule:
    """Build a method's network for embeddings of a width, with fresh weights, ready for `fit`."""
    flow = settings_for(recipe, method)
    optimization = optimization_of(flow["optimization"])
    if method in flowmap.FLOWS:
        path = flowmap.path_of(method)
        size = {"cond_dim": width, **flow["network"], "tangent": path.tangent}
        size["guess"] = path.name if size.get("guess") else ""  # each path has its own
        network = flowmap.network_for(method, size)
        kind = FlowMapModule if method == flowmap.MAP else FlowModule
        return kind(network, path, optimization, seed, **_options(flow))
    shared = ("dim", "depth", "cond_hidden")
    size = {name: value for name, value in flow["network"].items() if name in shared}
    components = 1 if method == "vmf" else recipe["components"]
    network = flowmap.network_for(method, {"cond_dim": width, "components": components, **size})
    return MixtureModule(network, optimization, seed)


def _options(flow: dict) -> dict:
    """The options of a flow's loss."""
    options = {name: flow[name] for name in ("draws", "dropout")}
    return {"schedule": schedules.by_name(flow["schedule"]), **options}


def distilling_module(recipe: dict, teacher: Geolocator, seed: int = 0) -> FlowMapModule:
    """A flow map that begins as a flow on S² and learns to jump along it, ready for `fit`.

    Raises:
        ValueError: a teacher without a velocity, or one whose states are in R³.
    """
    text = f"a flow map cannot learn from method {teacher.method!r}"
    expected = "expected a flow on S²: 'riemannian', or another flow map"
    if not isinstance(teacher.model, methods.Flow):
        raise ValueError(f"{text}, which has no velocity; {expected}")
    if not teacher.path.tangent:
        raise ValueError(f"{text}, whose states are in R³; {expected}")
    flow = settings_for(recipe, flowmap.MAP)
    optimization, options = optimization_of(flow["optimization"]), _options(flow)
    velocity = teacher.velocity
    network = begun_as(velocity)
    return FlowMapModule(network, teacher.path, optimization, seed, velocity, **options)
