"""The environment's settings, and errors that name the nearest match."""

from pathlib import Path

import pytest

from geoflow import settings
from geoflow.checks import choose


def test_choose_returns_a_known_name():
    assert choose("solver", "rk4", ["euler", "rk4"]) == "rk4"


def test_choose_accepts_an_iterator():
    assert choose("solver", "rk4", iter(["euler", "rk4"])) == "rk4"


def test_choose_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown solver 'eular' \(did you mean 'euler'\?\); expected one of 'euler', 'rk4'"):
        choose("solver", "eular", ["euler", "rk4"])


@pytest.mark.parametrize("name", ["zzz", "", None, 3])
def test_choose_suggests_nothing_far_fetched(name):
    with pytest.raises(ValueError, match="expected one of 'euler'") as error:
        choose("solver", name, ["euler"])
    assert "did you mean" not in str(error.value)


def test_scale_is_laptop_unless_told(monkeypatch):
    monkeypatch.delenv("GEOFLOW_SCALE", raising=False)
    assert settings.scale() == "laptop"


@pytest.mark.parametrize(("scale", "expected"), [("smoke", 1), ("laptop", 2), ("gpu", 3)])
def test_by_scale(monkeypatch, scale, expected):
    monkeypatch.setenv("GEOFLOW_SCALE", scale)
    assert settings.by_scale(1, 2, 3) == expected


def test_unknown_scale_names_the_nearest(monkeypatch):
    monkeypatch.setenv("GEOFLOW_SCALE", "laptp")
    with pytest.raises(ValueError, match=r"GEOFLOW_SCALE 'laptp' \(did you mean 'laptop'\?\)"):
        settings.scale()


def test_cache_is_created_where_told(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "a" / "b"))
    assert settings.cache_dir() == tmp_path / "a" / "b"
    assert settings.cache_dir().is_dir()


def test_data_is_the_projects():
    root = Path(__file__).resolve().parent.parent
    assert root / "data" == settings.DATA


def test_progress_is_silent_in_ci(monkeypatch, capsys):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert not settings.show_progress()
    assert list(settings.progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_progress_shows_to_a_person(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert settings.show_progress()
