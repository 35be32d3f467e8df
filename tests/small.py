"""Small things that many tests need: points, pictures, random networks and models."""

import copy

import numpy as np
import torch
from PIL import Image

from geoflow import inputs, sphere
from geoflow.velocity import VelocityTransformer


def points(*shape, seed=0):
    """Uniform points on the sphere in float64, (*shape, 3)."""
    generator = torch.Generator().manual_seed(seed)
    return sphere.project(torch.randn(*shape, 3, generator=generator, dtype=torch.float64))


def around(x, km, n, seed=0):
    """n Gaussian draws around each x (B, 3), on the tangent plane."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(len(x), n, 3, generator=generator, dtype=torch.float64)
    x = x[:, None].expand(-1, n, -1)
    return sphere.exp(x, sphere.to_tangent(x, v * km / sphere.EARTH_RADIUS_KM))


def place(lat, lon):
    return sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))


def picture(size=32, seed=0):
    """Noise in colours, `size` pixels wide and high, or (width, height)."""
    width, height = size if isinstance(size, tuple) else (size, size)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def network(seed=0, **options):
    """A small velocity network none of whose weights are zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = VelocityTransformer(**{"cond_dim": 8, "dim": 32, "depth": 2, **options})
        for name, weight in net.named_parameters():
            if "modulation" in name:
                torch.nn.init.normal_(weight, std=0.2)
    return net.eval()


def model(cond_dim=8, schedule="linear", encoder=True, seed=0):
    """A small random flow on the sphere, smooth enough for few steps."""
    from geoflow import Geolocator
    from geoflow.encoders import TileEncoder

    net = network(seed, cond_dim=cond_dim, time_scale=3.0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tiles = TileEncoder(cond_dim, width=4) if encoder and cond_dim else None
    return Geolocator(net, "riemannian", schedule, tiles, {"seed": seed})


def samples_in_double(geo, cond, n, steps, solver, guidance):
    """Samples of seed 0 as unit vectors (B, n, 3), computed by a copy of the model in double precision.

    In single precision rounding moves the worst of a hundred samples by tens of metres; here by less than a millimetre.
    """
    options = inputs.solver_options(geo.model, steps, solver, guidance)
    noise = inputs.starting_points(geo.model, len(cond), n, 0, None, options)
    geo = copy.deepcopy(geo)
    geo.network.double()
    return geo.model.sample(noise.double(), cond.double(), options)
