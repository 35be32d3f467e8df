"""Training through Lightning. Names are imported on first use: reading a recipe stays light."""

import importlib

_MODULES = {
    "modules": "Optimization EncoderModule FlowModule FlowMapModule MixtureModule network_module",
    "trainer": "WeightEMA fit seconds_per_step loss_curve",
    "runs": "train_tiles trained_on_tiles train_shards train_points distil plan",
    "recipes": "read_recipe",
}
_HOME = {name: f"geoflow.training.{m}" for m, names in _MODULES.items() for name in names.split()}
_HOME["machine"] = "geoflow.runtime"  # scripts may look for it here


def __getattr__(name):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'geoflow.training' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
