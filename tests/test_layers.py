"""The architecture, read from the imports: one direction, and every heavy library in its own file."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "geoflow"
ORDER = [
    "checks",
    "files",
    "settings",
    "sphere",
    "schedules",
    "paths",
    "losses",
    "velocity",
    "vmf",
    "samplers",
    "likelihood",
    "plonk",
    "metrics",
    "places",
    "encoders",
    "photos",
    "data",
    "methods",
    "training",
    "evaluation",
    "paper",
    "geolocator",
    "recipes",
    "point_sets",
    "maps",
    "figures",
    "widgets",
    "reproduce",
    "cli",
]
CONFINED = {
    "lightning": {"training", "data"},
    "pytorch_lightning": set(),
    "cartopy": {"maps"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "IPython": {"widgets"},
    "typer": {"cli"},
    "pyarrow": {"data"},
    "reverse_geocoder": set(),
    "torchvision": set(),
    "notebooks": set(),
    "execute": set(),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def layer(file: Path) -> str:
    """The layer of a file: its module, or its folder (`data`)."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imported(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it: `geoflow.sphere`, `torch.nn`, …"""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}, line {node.lineno}: a relative import; write it out"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(file: Path) -> set[str]:
    """The layers of geoflow that a file imports."""
    parts = (name.split(".") for name in imported(file))
    return {part[1] for part in parts if part[0] == "geoflow" and len(part) > 1} - {"__version__"}


@pytest.mark.parametrize("file", [f for f in FILES if layer(f) != "__init__"], ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(file):
    assert layer(file) in ORDER, f"{layer(file)} has no place in the order of layers"
    allowed = set(ORDER[: ORDER.index(layer(file))]) | ({"data"} if layer(file) == "data" else set())
    assert ours(file) <= allowed


@pytest.mark.parametrize("library", CONFINED)
def test_library_stays_in_its_file(library):
    users = {layer(file) for file in FILES if any(name.split(".")[0] == library for name in imported(file))}
    assert users <= CONFINED[library]


def test_sphere_stands_alone():
    assert ours(PACKAGE / "sphere.py") == set()


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_is_light():
    loaded = run("import geoflow, sys; print(*sys.modules)").split()
    assert "geoflow" in loaded
    heavy = {"torch", "lightning", "matplotlib", "cartopy", "scipy", "transformers", "huggingface_hub", "IPython"}
    assert heavy.isdisjoint(loaded)


def test_public_names_import_without_network():
    refuse = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): raise RuntimeError(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
    )
    use = "import geoflow\nfor name in geoflow.__all__: getattr(geoflow, name)\nprint('cartopy' in sys.modules)"
    assert run(refuse + use).strip() == "False"
