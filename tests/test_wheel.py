"""The wheel, built and installed into a fresh environment outside the tree, is all that a user needs.

The environment sees the packages that geoflow depends on, but neither this clone nor its data.
"""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import geoflow
from geoflow.data import tiles

ROOT = Path(__file__).resolve().parent.parent
USE = """
from geoflow import Geolocator, maps, runtime, widgets
from geoflow.data import tiles

geo = Geolocator.from_pretrained("tiles")
image = tiles.tile(24, 6)
image.save("sahara.png")
density = Geolocator.from_pretrained("tiles-vmf-mixture").density(image, resolution=10.0)
maps.density_figure(density, image).savefig("map.png")
player = widgets.explore_timesteps(geo, n=10)
player.save_html("flow.html")
print(*geo.predict(image, k=2).latlon.shape, len(tiles.load("test", 6)), runtime.DATA)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel):
    """Run a command of the fresh environment, in a folder without geoflow: (process, site-packages, home)."""
    home = wheel.parent / "home"
    home.mkdir()
    environment = wheel.parent / "environment"
    venv.create(environment)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    packages = next(environment.rglob("site-packages"))
    # A path file of a path file is not read, so the editable geoflow stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def run(*command) -> subprocess.CompletedProcess:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GEOFLOW")}
        where = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": ""}
        settings = {
            "GEOFLOW_SCALE": "smoke",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        program = python if command[0] == "python" else python.with_name(command[0])
        return subprocess.run(
            [program, *command[1:]], cwd=home, env=kept | where | settings, capture_output=True,
            encoding="utf-8",
        )  # fmt: skip

    return run, packages, home


def files_of(folder: Path) -> set[Path]:
    return {file for file in folder.rglob("*") if file.is_file()}


def test_the_wheel_carries_every_data_file_that_git_has(wheel):
    tracked = subprocess.run(["git", "ls-files", "data"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git here")
    data = {name.removeprefix("data/") for name in tracked.stdout.split()}
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if "/_data/" in name}
    left = data - {name.removeprefix("geoflow/_data/") for name in carried}
    assert left == {"README.md", "derive_land.py"}


def test_models_maps_and_widgets_work(installed):
    run, packages, home = installed
    before = files_of(packages)
    done = run("python", "-c", USE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"1 2 2 6 {packages / 'geoflow' / '_data'}\n"
    for file in ("map.png", "flow.html"):
        assert (home / file).stat().st_size > 10_000
    assert files_of(packages) == before, "nothing is written beside the code"
    assert list((home / "cache" / "geoflow" / "tiles").iterdir())


def test_locate_answers(installed):
    run, _, home = installed
    tiles.tile(24, 6).save(home / "a.png")
    done = run("geoflow", "locate", "a.png", "--model", "tiles-vmf-mixture", "--out", "found")
    assert done.returncode == 0, done.stderr
    for ending in (".png", ".geojson", ".tif"):
        assert (home / "found" / f"a{ending}").exists()


def test_doctor_finds_nothing_missing(installed):
    run, packages, home = installed
    done = run("geoflow", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"data: {packages / 'geoflow' / '_data'}" in done.stdout
    assert f"cache: {home / 'cache' / 'geoflow'}" in done.stdout
    assert "models: tiles, " in done.stdout
    assert "Chromium" not in done.stdout
    assert done.stdout.endswith("nothing is missing\n")


def test_an_installation_that_lost_its_data_is_to_be_installed_again(installed):
    run, packages, home = installed
    data = packages / "geoflow" / "_data"
    lost = data.rename(home / "lost")
    try:
        done = run("geoflow", "doctor")
    finally:
        lost.rename(data)
    assert done.returncode == 1
    assert done.stdout.count("install geoflow again") == 3
    assert "git checkout" not in done.stdout


@pytest.mark.parametrize("command", [["geoflow"], ["python", "-m", "geoflow"]])
def test_it_says_its_version(installed, command):
    done = installed[0](*command, "--version")
    assert done.stdout == f"geoflow {geoflow.__version__}\n"


def test_a_clone_named_geoflow_in_the_folder_does_not_hide_it(installed):
    run, packages, home = installed
    (home / "geoflow" / "geoflow").mkdir(parents=True)
    done = run("python", "-c", "import geoflow; from geoflow import Geolocator; print(geoflow.__file__)")  # fmt: skip
    assert done.stdout.strip() == str(packages / "geoflow" / "__init__.py"), done.stderr


def test_the_editable_installation_is_found_beside_the_clone(tmp_path):
    (tmp_path / "geoflow").mkdir()  # a folder of this name must not count as the package
    code = "import geoflow; from geoflow import Geolocator; print(geoflow.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == geoflow.__file__, done.stderr
