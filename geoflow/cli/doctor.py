"""The command `doctor`: is this installation complete?"""

import importlib.metadata
import os
import shutil
import sys

import typer

from geoflow import runtime

PACKAGES = (
    *("torch", "lightning", "cartopy", "anywidget", "ipywidgets", "torchdiffeq", "einops"),
    *("jupytext", "jupyterlab", "basemap-data", "rasterio"),
)


def doctor() -> None:
    """Print versions, devices, where data and caches are, what is missing and the command that
    mends it.
    """
    import torch

    version = importlib.metadata.version("geoflow")
    print(f"geoflow {version}, Python {sys.version.split()[0]} at {sys.prefix}")
    problems = []
    for package in PACKAGES:
        try:
            print(f"  {package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {package} missing")
            install = "pip install -c constraints.txt -e '.[notebooks,dev]'"
            problems.append(f"{package} is not installed: {install}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    mps = "yes" if torch.backends.mps.is_available() else "none"
    cores = f"{os.cpu_count()} CPU cores ({torch.get_num_threads()} torch threads)"
    print(f"devices: {cores}, CUDA {cuda}, MPS {mps}\nscale: {runtime.scale()} (GEOFLOW_SCALE)")
    cache = runtime.cache_dir()
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    free = f"{shutil.disk_usage(cache).free / 1e9:.0f} GB free"
    print(f"data: {runtime.DATA}\ncache: {cache} ({size / 1e6:.0f} MB, safe to delete; {free})")
    for leftover in cache.rglob("*.partial"):
        problems.append(f"{leftover} is left from an interrupted run: rm -r {leftover}")
    from geoflow.data import tiles
    from geoflow.geolocator import shipped_models

    models = shipped_models()
    print(f"models: {', '.join(models) or 'none'}")
    if "tiles" not in models:
        folder = runtime.DATA / "models"
        problems.append(f"the shipped model is missing from {folder}: git checkout data/models")
    try:
        tiles.blue_marble()
    except FileNotFoundError as error:
        problems.append(str(error))
    print("\n".join(f"problem: {problem}" for problem in problems) or "nothing is missing")
    if problems:
        raise typer.Exit(1)
