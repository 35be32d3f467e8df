"""Training through Lightning. Names are imported on first use, so that reading a recipe stays light."""

import importlib

_HOME = {
    "Optimization": "fit",
    "EncoderModule": "fit",
    "FlowModule": "fit",
    "MixtureModule": "fit",
    "WeightEMA": "fit",
    "fit": "fit",
    "seconds_per_step": "fit",
    "loss_curve": "fit",
    "train_tiles": "fit",
    "train_shards": "fit",
    "train_points": "fit",
    "network_module": "fit",
}


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(f"geoflow.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'geoflow.training' has no attribute {name!r}")
