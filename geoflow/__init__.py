"""geoflow: generative geolocation with flows on the sphere.

Given an image, a flow on the sphere turns random points into places where the image could have been
taken: a distribution over the Earth, not a single place.

Conventions, the same in every file:

=======================  ===================================================  ==================
``x``                    point on S², unit vector (x axis to 0°N 0°E, z axis   (..., 3)
                         to the north pole)
``latlon``               latitude in [-90, 90], longitude in [-180, 180),      (..., 2)
                         degrees
``t``                    time: 0 is noise, 1 is data                           scalar, (B,), …
``cond``                 image embedding; ``None`` is the null condition       (B, C)
``velocity(x, t, cond)`` the one interface of models                           (B, N, 3) → (B, N, 3)
``guidance`` ω           v(c) + ω (v(c) − v(∅)); 0 is none                     scalar
log-density              nats with respect to area on the unit sphere          (uniform: −2.5310)
=======================  ===================================================  ==================

B counts images, N points per image.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoflow import sphere
    from geoflow.geolocator import Geolocator
    from geoflow.scores.evaluation import evaluate

__version__ = "0.1.0"
__all__ = ["Geolocator", "evaluate", "sphere"]

_HOME = {"Geolocator": "geoflow.geolocator", "evaluate": "geoflow.scores.evaluation"}
_NAMES = (  # modules and folders, for dir()
    "sphere schedules paths losses velocity velocity_jvp vmf samplers likelihood density "
    "methods baselines geolocator checkpoint inputs encoders plonk runtime data scores training "
    "paper viz gis cli flowmap"
)
_FOLDERS = {"scores": "metrics evaluation", "viz": "maps widgets", "data": "photos"}
_FOLDERS |= {"paper": "figures reproduce point_sets", "training": "recipes", "gis": "healpix"}
_MOVED = {name: f"{folder}.{name}" for folder in _FOLDERS for name in _FOLDERS[folder].split()}
_MOVED |= dict.fromkeys(("settings", "checks", "files"), "runtime") | {"places": "data.towns"}
_MOVED |= {"data.batches": "training.batches", "data.embedding": "training.embedding"}


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Second import paths of modules, such as `geoflow.maps` for `geoflow.viz.maps`."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        if package == "geoflow" and name in _MOVED:
            return importlib.machinery.ModuleSpec(fullname, self)
        return None

    def create_module(self, spec):
        module = importlib.import_module(f"geoflow.{_MOVED[spec.name.partition('.')[2]]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module):
        module.__spec__ = module.__spec__.loader_state  # the module keeps its own name


sys.meta_path.append(_MovedModules())


def __getattr__(name):
    """Import public names and modules on first use, so that `import geoflow` itself stays light."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    try:
        return importlib.import_module(f"geoflow.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"geoflow.{name}":
            raise
        raise AttributeError(f"module 'geoflow' has no attribute {name!r}") from None


def __dir__():
    moved = (name for name in _MOVED if "." not in name)
    return sorted({"__version__", *__all__, *_NAMES.split(), *moved})
