"""Settings, errors that name the nearest match, files that are whole or not there, folders that belong to one run."""

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from geoflow import runtime
from geoflow.runtime import choose


def test_choose_returns_a_known_name():
    assert choose("solver", "rk4", ["euler", "rk4"]) == "rk4"


def test_choose_accepts_an_iterator():
    assert choose("solver", "rk4", iter(["euler", "rk4"])) == "rk4"


def test_choose_suggests_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"unknown solver 'eular' \(did you mean 'euler'\?\); expected one of 'euler', 'rk4'",
    ):
        choose("solver", "eular", ["euler", "rk4"])


@pytest.mark.parametrize("name", ["zzz", "", None, 3])
def test_choose_suggests_nothing_far_fetched(name):
    with pytest.raises(ValueError, match="expected one of 'euler'") as error:
        choose("solver", name, ["euler"])
    assert "did you mean" not in str(error.value)


def test_scale_is_laptop_unless_told(monkeypatch):
    monkeypatch.delenv("GEOFLOW_SCALE", raising=False)
    assert runtime.scale() == "laptop"


@pytest.mark.parametrize(("scale", "expected"), [("smoke", 1), ("laptop", 2), ("gpu", 3)])
def test_by_scale(monkeypatch, scale, expected):
    monkeypatch.setenv("GEOFLOW_SCALE", scale)
    assert runtime.by_scale(1, 2, 3) == expected


def test_unknown_scale_names_the_nearest(monkeypatch):
    monkeypatch.setenv("GEOFLOW_SCALE", "laptp")
    with pytest.raises(ValueError, match=r"GEOFLOW_SCALE 'laptp' \(did you mean 'laptop'\?\)"):
        runtime.scale()


def test_cache_is_created_where_told(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "a" / "b"))
    assert runtime.cache_dir() == tmp_path / "a" / "b"
    assert runtime.cache_dir().is_dir()


def test_cache_is_the_users_unless_told(monkeypatch, tmp_path):
    monkeypatch.delenv("GEOFLOW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert runtime.cache_dir() == tmp_path / "geoflow"
    assert runtime.PACKAGE.parent not in runtime.cache_dir().parents


def test_a_cache_that_cannot_be_written_names_the_variable(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/geoflow"):
        monkeypatch.setenv("GEOFLOW_CACHE", str(folder))
        with pytest.raises(OSError, match=r"cannot be written; set GEOFLOW_CACHE to a folder"):
            runtime.cache_dir()


def test_a_cache_of_an_unknown_user_names_the_variable(monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(OSError, match="GEOFLOW_CACHE = '~nobody-of-this-name/cache'"):
        runtime.cache_dir()


def test_data_is_the_projects():
    root = Path(__file__).resolve().parent.parent
    assert root / "data" == runtime.DATA


def test_progress_is_silent_in_ci(monkeypatch, capsys):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert not runtime.show_progress()
    assert list(runtime.progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_progress_shows_to_a_person(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert runtime.show_progress()


def test_progress_shows_in_a_live_notebook_only(monkeypatch):
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    monkeypatch.delenv("CI", raising=False)
    for stderr, shown in ((io.StringIO(), False), (stream(), True)):
        monkeypatch.setattr("sys.stderr", stderr)
        assert runtime.show_progress() == shown
    monkeypatch.setenv("CI", "1")
    assert not runtime.show_progress()


# Files that are whole or not there


def replace(target, write):
    with runtime.replacing(target) as partial:
        write(partial)


def break_off(target, write):
    with runtime.replacing(target) as partial:
        write(partial)
        raise RuntimeError("half-way")


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    file = tmp_path / "a.json"
    runtime.write_json(file, {"é": [1, 2]})
    assert runtime.read_json(file) == {"é": [1, 2]}
    with pytest.raises(RuntimeError, match="half-way"):
        break_off(file, lambda partial: partial.write_text("half"))
    assert runtime.read_json(file) == {"é": [1, 2]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_is_replaced_when_it_is_whole(tmp_path):
    folder = tmp_path / "model"
    for content in ("old", "new"):
        with runtime.replacing(folder) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [path.name for path in folder.iterdir()] == ["new"]
    with pytest.raises(RuntimeError, match="half-way"):
        break_off(folder, lambda partial: (partial / "deep").mkdir(parents=True))
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_folders_above_a_file_are_made(tmp_path):
    runtime.write_json(tmp_path / "a" / "b" / "c.json", 1)
    assert runtime.read_json(tmp_path / "a" / "b" / "c.json") == 1


@pytest.mark.parametrize(("letter", "count"), [("a", 251), ("é", 125), ("東", 83)])
def test_a_name_as_long_as_the_disk_allows_is_written(tmp_path, letter, count):
    name = letter * count + ".tif"  # up to 255 bytes
    runtime.write_atomically(tmp_path / name, "x")
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("x.tif", "Permission denied"),
        ("x" * 300, "File name too long"),
        ("model", "Is a directory"),
    ],
)
def test_an_error_names_the_file_that_was_asked_for(tmp_path, name, why):
    """And not the one that becomes it. Where a folder lies in the way, it stays."""
    (tmp_path / "model").mkdir()

    def write(partial):
        if name == "x.tif":  # as the system says it to users without rights
            raise PermissionError(errno.EACCES, why, str(partial))
        partial.write_text("half")

    with pytest.raises(OSError, match=why) as error:
        replace(tmp_path / name, write)
    assert type(error.value) is not OSError or error.value.errno == errno.ENAMETOOLONG
    assert (error.value.filename, error.value.filename2) == (str(tmp_path / name), None)
    assert "partial" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_an_error_within_a_folder_names_the_file_there(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        replace(tmp_path / "model", lambda partial: (partial / "a.bin").write_text("half"))
    assert error.value.filename == str(tmp_path / "model" / "a.bin")
    for other in (OSError("caught"), FileNotFoundError(errno.ENOENT, "gone", "other.txt")):
        with (
            pytest.raises(OSError, match="caught|gone") as error,
            runtime.replacing(tmp_path / "a"),
        ):
            raise other
        assert error.value is other


@pytest.mark.parametrize("name", ["new/", "a\0b", "", ".", "a/b\0/c", "/"])
def test_a_path_that_ends_in_no_name_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="cannot be written; expected a path that ends in"
    ) as error:
        runtime.write_atomically(name, "x")
    assert str(error.value).startswith(repr(name or "") if name else "''")
    assert not list(tmp_path.iterdir())


def test_a_kill_while_a_folder_is_replaced_leaves_no_half(tmp_path, monkeypatch):
    """The old folder is gone or whole at every moment: here it breaks off while it is deleted."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text("old")

    deleted = []

    def die(doomed, **_):
        deleted.append(sorted(file.name for file in doomed.iterdir()))
        raise KeyboardInterrupt

    monkeypatch.setattr(runtime.shutil, "rmtree", die)
    with pytest.raises(KeyboardInterrupt):
        replace(folder, lambda partial: partial.mkdir())
    assert deleted[0] == ["a", "b"] and not folder.exists()


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        runtime.read_json(tmp_path / "a.json")


def test_space_that_a_disk_does_not_have(tmp_path):
    runtime.require_space(tmp_path, 1)
    with pytest.raises(
        OSError, match=r"1,000,000,000,000\.0 MB are needed in .* MB are free; choose another disk"
    ):
        runtime.require_space(tmp_path, 10**18, "choose another disk")


# Checksums, and folders that belong to one run


def test_checksums_are_those_of_the_standard(tmp_path):
    """FIPS 180-2, appendix B.1: of "abc"."""
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_text("abc")
    assert runtime.sha256(tmp_path / "abc") == runtime.sha256_of("a", b"b", "c") == known


def test_checksum_of_weights_sees_every_weight_and_no_order():
    first, second = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    second.load_state_dict(dict(reversed(first.state_dict().items())))
    assert runtime.sha256_of_weights(first) == runtime.sha256_of_weights(second)
    with torch.no_grad():
        second.bias[1] += 1e-3
    assert runtime.sha256_of_weights(first) != runtime.sha256_of_weights(second)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({"seed": 0, "path": ("a",)}, ""),
        ({"seed": 1, "path": ["a"]}, "seed = 0, not 1"),
        ({"path": ["a"]}, "seed = 0, not None"),
        (
            {"path": ["a"], "seed": 0, **dict.fromkeys("abcdefgh", 1)},
            "; ".join(f"{key} = None, not 1" for key in "abcdef") + "; and 2 more",
        ),
        ({"path": ["b"], "seed": 2}, "path = ['a'], not ['b']; seed = 0, not 2"),
        ({"path": ["a"], "seed": {"a": {"b": 1}}}, "seed = 0, not None; seed.a.b = None, not 1"),
    ],
)
def test_difference_of_two_runs(now, expected):
    assert runtime.difference({"seed": 0, "path": ["a"]}, now) == expected


def test_a_folder_belongs_to_the_run_that_claimed_it(tmp_path):
    folder = tmp_path / "deep" / "run"
    for _ in range(2):
        runtime.claim(folder, {"seed": 0, "data": "abc"})
    with pytest.raises(
        ValueError,
        match="run holds embeddings with data = 'abc', not 'abd'; choose another folder or delete it",
    ):
        runtime.claim(folder, {"seed": 0, "data": "abd"}, "embeddings")
    assert runtime.read_json(folder / "run.json") == {"seed": 0, "data": "abc"}


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "3", '"a"', "\x00", "[" * 100_000])
def test_a_damaged_description_of_a_run_is_named(tmp_path, content):
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"run\.json is damaged: it (is no JSON|holds .*, expected an object$)"
    ):
        runtime.claim(tmp_path, {"seed": 0})
    assert (tmp_path / "run.json").read_text(encoding="utf-8") == content


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (0.0012, "0.0012 s"), (9.6, "9.6 s"), (59.6, "60 s"), (89, "89 s"), (90, "1.5 min"),
        (3600, "60 min"), (5400, "1.5 h"), (36_000, "10 h"), (86_400, "24 h"), (4_925_952, "57 days"),
    ],
)  # fmt: skip
def test_a_duration_has_the_unit_that_suits_it(seconds, words):
    assert runtime.duration(seconds) == words


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    """A second process is refused by name; after the end of the first, even by a kill, the next may begin."""
    code = "import pathlib, sys, time\nfrom geoflow import runtime\nwith runtime.alone(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "in\n"
        refused = "another geoflow command writes to .*run; wait for it"
        with pytest.raises(OSError, match=refused), runtime.alone(tmp_path / "run"):
            pass
        first.kill()
        first.wait()
    for _ in range(2):
        with runtime.alone(tmp_path / "run"):
            pass


def test_machine_is_named():
    assert runtime.machine()


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_one_of_several_processes_is_the_first(monkeypatch, rank):
    assert runtime.is_first_process()
    monkeypatch.setenv(rank, "0")
    assert runtime.is_first_process()
    monkeypatch.setenv(rank, "1")
    assert not runtime.is_first_process()
