"""The architecture, read from the sources: imports go one way, heavy libraries have their place, files and functions stay short."""

import ast
import collections
import fnmatch
import functools
import graphlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import geoflow

PACKAGE = Path(__file__).resolve().parent.parent / "geoflow"
TESTS = Path(__file__).resolve().parent
CORE = [  # one layer each; `data` and `scores` stand among them: the land prior is data, best places are scores
    *("runtime", "sphere", "schedules", "paths", "losses", "velocity", "vmf"),
    *("samplers", "velocity_jvp", "likelihood", "gis", "density", "baselines", "data"),
    *("encoders", "plonk", "methods", "flowmap", "checkpoint", "inputs", "scores", "geolocator"),
]
ORDER = [*CORE, "training", "viz", "paper", "cli"]
CONFINED = {
    "lightning": ["training/*"],
    "pytorch_lightning": [],
    "cartopy": ["viz/*"],
    "ipywidgets": ["viz/*"],
    "anywidget": ["viz/*"],
    "IPython": ["viz/*"],
    "typer": ["cli/*"],
    "pyarrow": ["data/*", "training/embedding.py"],
    "reverse_geocoder": [],
    "torchvision": [],
    "notebooks": [],
    "execute": [],
}
ENTRIES = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
FILES = sorted(set(PACKAGE.rglob("*.py")) - ENTRIES)
FLAT = sorted(PACKAGE.glob("*.py"))
MODULES = {
    ".".join(("geoflow", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): file
    for file in FILES
}


def name(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def layer(file: Path) -> str:
    """The layer of a file: its module, or its folder (`data`)."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@functools.cache
def imported(file: Path) -> frozenset[str]:
    """Every module or name that a file imports, anywhere in it: `geoflow.sphere`, `torch.nn`, `geoflow.runtime.choose`, …"""
    names = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{name(file)}, line {node.lineno}: a relative import; write it out"
            )
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def ours(file: Path) -> set[str]:
    """Our modules that a file imports: `geoflow.data.tiles`, …"""
    found = set()
    for path in imported(file):
        if path.startswith("geoflow."):
            path = path.replace(
                "geoflow.", f"{geoflow._HOME.get(path.removeprefix('geoflow.'), 'geoflow')}.", 1
            )
            parents = [path.rsplit(".", i)[0] for i in range(path.count(".") + 1)]
            found.add(next((parent for parent in parents if parent in MODULES), path))
    return found - {"geoflow.__version__"}


@pytest.mark.parametrize("file", FILES, ids=name)
def test_imports_go_one_way(file):
    assert layer(file) in ORDER, f"{layer(file)} has no place in the order of layers"
    allowed = set(ORDER[: ORDER.index(layer(file))]) | (
        {layer(file)} if file not in FLAT else set()
    )
    assert {module.split(".")[1] for module in ours(file)} <= allowed


def test_no_circle():
    graph = {module: ours(file) - {module} for module, file in MODULES.items()}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("file", FILES, ids=name)
def test_modules_are_imported_by_their_present_names(file):
    assert ours(file) <= MODULES.keys()


@pytest.mark.parametrize("library", CONFINED)
def test_library_stays_in_its_place(library):
    users = {
        name(file)
        for file in FILES
        if any(path.split(".")[0] == library for path in imported(file))
    }
    assert {
        user
        for user in users
        if not any(fnmatch.fnmatch(user, place) for place in CONFINED[library])
    } == set()


def test_sphere_stands_alone():
    assert ours(PACKAGE / "sphere.py") == set()


@pytest.mark.parametrize(
    "module", [module for module, file in MODULES.items() if file.name != "__init__.py"]
)
def test_every_module_has_tests(module):
    """In a file of its own, its folder's, or that of a module of its folder on which it builds."""
    *folder, _ = module.split(".")
    bases = {
        base for base in ours(MODULES[module]) if len(folder) > 1 and base.split(".")[:-1] == folder
    }
    names = {f"test_{part}.py" for path in (module, *bases) for part in path.split(".")[1:]}
    assert any((TESTS / test).exists() for test in names), (
        f"none of {', '.join(sorted(names))} exists"
    )


# Sizes


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_the_core_is_read_in_an_afternoon():
    assert sum(map(lines, FLAT)) < 3900


@pytest.mark.parametrize("file", [*FILES, *sorted(PACKAGE.rglob("*.js"))], ids=name)
def test_files_are_short(file):
    assert lines(file) <= (360 if file in FLAT else 500)


def lines_of_code(function: ast.AST, text: list[str]) -> int:
    """Lines of a function that are neither docstring nor blank nor comment."""
    skipped = set()
    for node in ast.walk(function):
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and ast.get_docstring(node):
            skipped |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    own = (
        number
        for number in range(function.lineno, function.end_lineno + 1)
        if number not in skipped
    )
    return sum(
        bool(line) and not line.startswith("#")
        for line in (text[number - 1].strip() for number in own)
    )


@pytest.mark.parametrize("file", FILES, ids=name)
def test_functions_are_short(file):
    text = file.read_text(encoding="utf-8").splitlines()
    functions = [
        node
        for node in ast.walk(tree(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    long = {
        f"{function.name}, line {function.lineno}": lines_of_code(function, text)
        for function in functions
    }
    assert {where: count for where, count in long.items() if count > 50} == {}


# One definition per idea


def shape(statement: ast.stmt) -> str:
    """A statement without its names and constants."""
    return re.sub(
        r"(id|arg|attr|name|value|asname|kind)=('[^']*'|[\w.]+)(?=[,)])", "", ast.dump(statement)
    )


def windows(block: list[ast.stmt], text: list[str]):
    """The shortest runs of statements of at least six lines, one from each statement on."""
    for i in range(len(block)):
        for j in range(i + 1, len(block) + 1):
            lines = text[block[i].lineno - 1 : block[j - 1].end_lineno]
            if sum(bool(line.strip()) for line in lines) >= 6:
                yield block[i:j]
                break


@functools.cache
def blocks(file: Path) -> list[list[ast.stmt]]:
    """The statements of every function, loop and branch, without docstrings."""
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef)]
    nodes = {id(node): node for function in functions for node in ast.walk(function)}.values()
    parts = [
        getattr(node, part, None) for node in nodes for part in ("body", "orelse", "finalbody")
    ]
    lists = [part for part in parts if isinstance(part, list)]
    return [
        [
            each
            for each in part
            if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        ]
        for part in lists
    ]


def standing_twice(files: list[Path], alike) -> set:
    found = collections.defaultdict(set)
    for file in files:
        text = file.read_text(encoding="utf-8").splitlines()
        for block in blocks(file):
            for window in windows(block, text):
                found["\n".join(map(alike, window))].add(f"{file.name}, line {window[0].lineno}")
    return {tuple(sorted(places)) for places in found.values() if len(places) > 1}


@pytest.mark.parametrize("alike", [ast.unparse, shape])
def test_no_six_lines_of_functions_stand_twice(alike):
    """Neither in the same words nor in the same shape."""
    assert standing_twice(FILES, alike) == set()


def test_six_lines_that_stand_twice_are_found(tmp_path):
    lines = [
        "    total = 0",
        "    for x in many:",
        "        total += x",
        "    return total",
        "",
        "",
    ]
    lines[3:3] = [f"    total = {number} * total" for number in range(3)]
    code = "def add(many):\n" + "\n".join(lines)
    (tmp_path / "same.py").write_text(code + code.replace("add", "sum_of"))
    (tmp_path / "alike.py").write_text(code.replace("total", "n").replace("many", "few"))
    files = sorted(tmp_path.iterdir())
    assert {len(places) for places in standing_twice(files[1:], ast.unparse)} == {2}
    assert {len(places) for places in standing_twice(files, shape)} == {3}


# Texts


@pytest.mark.parametrize("file", sorted({*ENTRIES, *FILES}), ids=name)
def test_texts_are_read_and_written_as_utf8(file):
    """A Windows machine would take its own code page, in which `tiles.yaml` is unreadable."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            modes = [
                a.value for arg in node.args for a in ast.walk(arg) if isinstance(a, ast.Constant)
            ]
            binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if called == "open" and (binary or owner in {"Image", "tarfile", "rasterio", "os"}):
                continue
            if called in {"open", "read_text", "write_text"}:
                given = {keyword.arg for keyword in node.keywords}
                assert "encoding" in given, f"{name(file)}, line {node.lineno}: no encoding="


# Imports


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def loaded_by(statement: str) -> set[str]:
    return set(run(f"import sys\n{statement}\nprint(*sys.modules)").split())


def test_import_is_light():
    loaded = loaded_by("import geoflow")
    assert "geoflow" in loaded
    assert loaded.isdisjoint(
        {
            "torch",
            "lightning",
            "matplotlib",
            "cartopy",
            "scipy",
            "transformers",
            "huggingface_hub",
            "IPython",
        }
    )


def test_evaluation_needs_neither_training_nor_figures():
    loaded = loaded_by("from geoflow import evaluate")
    assert "geoflow.scores.evaluation" in loaded
    assert loaded.isdisjoint(
        {"lightning", "transformers", "matplotlib", "cartopy", "IPython", "pyarrow", "typer"}
    )


@pytest.mark.parametrize("model", ["tiles", "tiles-vmf-mixture", "tiles-flow-map"])
def test_a_model_is_loaded_and_sampled_without_the_compiler_of_torch(model):
    use = "from geoflow import Geolocator\nfrom geoflow.data import tiles\n"
    loaded = loaded_by(use + f"Geolocator.from_pretrained({model!r}).sample(tiles.tile(0, 0), n=2)")
    assert "geoflow.samplers" in loaded
    assert "torch._dynamo" not in loaded


def test_public_names_import_without_network():
    refuse = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'): raise RuntimeError(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
    )
    use = "import geoflow\nfor name in geoflow.__all__: getattr(geoflow, name)\nprint('cartopy' in sys.modules)"
    assert run(refuse + use).strip() == "False"


@pytest.mark.parametrize("old", geoflow._MOVED)
def test_old_paths_are_the_same_modules(old):
    """`from geoflow import maps`, `import geoflow.maps` and `geoflow.viz.maps` are one module object, which keeps its own name."""
    home = importlib.import_module(f"geoflow.{geoflow._MOVED[old]}")
    assert importlib.import_module(f"geoflow.{old}") is home
    assert home.__name__ == home.__spec__.name == f"geoflow.{geoflow._MOVED[old]}"
    if "." not in old:
        assert getattr(geoflow, old) is home


def test_names_are_listed_and_found():
    listed = dir(geoflow)
    assert {"Geolocator", "evaluate", "sphere", "maps", "widgets", "metrics"} <= set(listed)
    assert {module.split(".")[1] for module in MODULES} <= set(listed)
    for public in listed:
        getattr(geoflow, public)
    with pytest.raises(AttributeError, match="no attribute 'spere'"):
        geoflow.spere  # noqa: B018


def test_old_paths_work_in_a_fresh_process():
    use = "import geoflow.maps\nfrom geoflow import widgets\nfrom geoflow.settings import by_scale\nimport geoflow.data.batches as batches"
    assert run(
        f"{use}\nprint(geoflow.maps.__name__, widgets.__name__, by_scale.__module__, batches.__name__)"
    ).split() == [
        *("geoflow.viz.maps", "geoflow.viz.widgets", "geoflow.runtime", "geoflow.training.batches")
    ]
