"""geoflow: generative geolocation with flows on the sphere.

Given an image, a flow on the sphere turns random points into places where the image could have been taken: a
distribution over the Earth, not a pin.

Conventions, the same in every file:

======================  ==================================================================  ============
``x``                   point on S², unit vector (x axis to 0°N 0°E, z axis to the north    (..., 3)
                        pole)
``latlon``              latitude in [-90, 90] and longitude in [-180, 180), degrees         (..., 2)
``t``                   time: 0 is noise, 1 is data                                         scalar, (B,), (B, N)
``cond``                image embedding; ``None`` is the null condition (unconditional)     (B, C)
``velocity(x, t, cond)``  the one model interface                                           (B, N, 3) → (B, N, 3)
``guidance`` ω          v(c) + ω (v(c) − v(∅)); 0 is none                                   scalar
log-density             nats with respect to area on the unit sphere (uniform: −2.5310)
======================  ==================================================================  ============

B counts images, N points per image.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoflow import sphere
    from geoflow.evaluation import evaluate
    from geoflow.geolocator import Geolocator

__version__ = "0.1.0"
__all__ = ["Geolocator", "evaluate", "sphere"]

_HOME = {"Geolocator": "geoflow.geolocator", "evaluate": "geoflow.evaluation"}


def __getattr__(name):
    """Import the public names, and any module of the package, on first use: `import geoflow` itself stays light."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    try:
        return importlib.import_module(f"geoflow.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"geoflow.{name}":
            raise
        raise AttributeError(f"module 'geoflow' has no attribute {name!r}") from None
