"""The three statements of the environment agree: pyproject.toml (ranges), constraints.txt (the lock), environment.yml (conda)."""

import re
from pathlib import Path

import pytest
import rattler
import tomli
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
LOCKED = [Requirement(line) for line in LOCK]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
DIRECT = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]
MACHINES = [
    {"python_version": minor, "python_full_version": f"{minor}.9", **machine}
    for minor in ("3.10", "3.11", "3.12", "3.13")
    for machine in (
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    )
]


def pins(package: str, machine: dict[str, str]) -> list[Version]:
    """Versions that the lock gives a package on a machine."""
    ours = [r for r in LOCKED if canonicalize_name(r.name) == canonicalize_name(package)]
    return [
        Version(str(r.specifier).removeprefix("=="))
        for r in ours
        if r.marker is None or r.marker.evaluate(machine)
    ]


def test_lock_is_exact_pins_and_nothing_else():
    pin = re.compile(
        r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [^#@]+)?"
    )  # so: no hash, no address, no local version such as +cpu
    assert [line for line in LOCK if not pin.fullmatch(line)] == []


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_lock_pins_each_dependency_once_within_its_range(requirement):
    for machine in MACHINES:
        (version,) = pins(requirement.name, machine)
        assert version in requirement.specifier


def test_lock_pins_the_torch_of_the_measurements():
    assert all(pins("torch", machine) == [Version("2.13.0")] for machine in MACHINES)


def test_ranges_pin_nothing():
    assert [str(r) for r in DIRECT if not r.specifier or "==" in str(r.specifier)] == []


def test_no_torchvision():
    names = {canonicalize_name(r.name) for r in DIRECT + LOCKED}
    assert names.isdisjoint({"torchvision", "timm", "litdata", "open-clip-torch"})


def test_conda_environment_is_python_and_this_project():
    assert CONDA["channels"] == ["conda-forge"]
    *conda, pip = CONDA["dependencies"]
    names = [rattler.MatchSpec(line, strict=True).name.normalized for line in conda]
    assert names == ["python", "pip"]
    python = rattler.MatchSpec(conda[0], strict=True)
    assert str(python.version).removesuffix(".*") in {"3.10", "3.11", "3.12", "3.13"}
    extras = ",".join(sorted(PROJECT["optional-dependencies"]))
    assert pip == {"pip": ["-c constraints.txt", f"-e .[{extras}]"]}
