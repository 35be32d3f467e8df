"""The command `doctor`: is this installation complete?"""

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator

import typer
from packaging.requirements import Requirement

from geoflow import __version__, runtime
from geoflow.data.typed import on_one_line

OPTIONAL = {  # extra: what it is for
    "notebooks": "the notebooks",
    "photos": "models of photos",
    "heic": "photos of the type HEIC",
}
IN_A_CLONE = (runtime.PACKAGE.parent / "pyproject.toml").is_file()


def doctor() -> None:
    """Print versions, devices, the folders of data and caches, and what is missing with the command
    that installs it. The exit status is 1 if something necessary is missing.
    """
    print(f"geoflow {__version__} at {runtime.PACKAGE}")
    print(f"Python {sys.version.split()[0]} at {sys.prefix}")
    problems = [*_packages(), *_devices(), *_data(), *_cache()]
    _photos()
    if IN_A_CLONE:
        browser = shutil.which("chromium") or "none, so the tests of the widgets are skipped"
        print(f"Chromium, for tests only: {browser}")
    lines = (on_one_line(f"problem: {problem}") for problem in problems)
    print("\n".join(lines) or "nothing is missing")
    if problems:
        raise typer.Exit(1)


def _packages() -> Iterator[str]:
    """Print the installed packages; yield those that are missing or too old."""
    requirements = list(map(Requirement, importlib.metadata.requires("geoflow") or ()))
    installed = []
    for requirement in _needed(requirements, extra=""):
        if fault := _fault(requirement):
            yield f"{fault}: {_install([requirement])}"
        else:
            installed.append(f"{requirement.name} {importlib.metadata.version(requirement.name)}")
    print("packages:", ", ".join(installed))
    for extra, purpose in OPTIONAL.items():
        missing = [one for one in _needed(requirements, extra) if one.marker and _fault(one)]
        names = ", ".join(requirement.name for requirement in missing)
        print(f"  for {purpose}: {f'{names} missing: {_install(missing)}' if missing else 'yes'}")


def _needed(requirements: list[Requirement], extra: str) -> list[Requirement]:
    return [one for one in requirements if not one.marker or one.marker.evaluate({"extra": extra})]


def _fault(requirement: Requirement) -> str:
    """What is wrong with an installed package; empty if nothing is."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version} is installed, {requirement.specifier} is needed"


def _install(requirements: list[Requirement]) -> str:
    names = " ".join(f"'{one.name}{one.specifier}'" for one in requirements)
    return f"python -m pip install {names}"


def _devices() -> Iterator[str]:
    import torch

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    mps = "yes" if torch.backends.mps.is_available() else "none"
    cores = runtime.count(os.cpu_count() or 1, "CPU core")
    threads = runtime.count(torch.get_num_threads(), "torch thread")
    print(f"devices: {cores} ({threads}), CUDA {cuda}, MPS {mps}")
    try:
        print(f"scale: {runtime.scale()} (GEOFLOW_SCALE)")
    except ValueError as error:
        yield str(error)


def _data() -> Iterator[str]:
    """Print where the data are; yield which of them are missing or damaged."""
    from geoflow.checkpoint import shipped_models
    from geoflow.data import tiles
    from geoflow.geolocator import Geolocator
    from geoflow.paper.tables import read_yaml
    from geoflow.viz import basemap

    models = shipped_models()
    print(f"data: {runtime.DATA}\nmodels: {', '.join(models) or 'none'}")
    again = "git checkout -- data" if IN_A_CLONE else "install geoflow again"
    checks: dict[str, Callable] = {
        "coastlines": basemap.land,
        "tables of the paper": lambda: read_yaml("tables"),
    }
    for name in models:
        checks[f"model {name}"] = functools.partial(Geolocator.from_pretrained, name)
    if "tiles" not in models:
        yield f"{runtime.DATA / 'models'} lacks the model tiles: {again}"
    for name, check in checks.items():
        try:
            check()
        except (OSError, ValueError) as error:
            yield f"{name}: {error}: {again}"
    try:
        tiles.blue_marble()
    except FileNotFoundError as error:
        yield str(error)


def _cache() -> Iterator[str]:
    try:
        cache = runtime.cache_dir()
    except OSError as error:
        yield str(error)
        return
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    free = f"{shutil.disk_usage(cache).free / 1e9:.0f} GB free"
    print(f"cache: {cache} ({size / 1e6:.0f} MB, safe to delete; {free})")
    for leftover in cache.rglob("*.partial"):
        yield f"{leftover} is left from an interrupted run: delete it"


def _photos() -> None:
    """Print which photos can be read and which encoders' weights are on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from PIL import features

    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder

    heic = "yes" if importlib.util.find_spec("pillow_heif") else "no"
    print(f"photos of the type AVIF: {'yes' if features.check('avif') else 'no'}, HEIC: {heic}")
    for name in PHOTO_ENCODERS:
        repository = PhotoEncoder(name).photo.repository
        found = isinstance(try_to_load_from_cache(repository, "config.json"), str)
        weights = "on this machine" if found else "not downloaded yet (once, when first used)"
        print(f"  weights of the encoder {name}: {weights}")
