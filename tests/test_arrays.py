"""Arrays in the cache: written once, whole or not there."""

import threading

import numpy as np
import pytest

from geoflow.data.arrays import cached

LAYOUT = {"a": (np.float16, (4, 3)), "b": (np.int64, (4,))}


def fill(a, b):
    a[:] = 1.5
    b[:] = range(4)


def test_one_of_several_writes_and_all_find_it(tmp_path):
    written = []

    def count(**arrays):
        written.append(threading.get_ident())
        fill(**arrays)

    folder = tmp_path / "new" / "folder"
    threads = [threading.Thread(target=cached, args=(folder, LAYOUT, count)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    a, b = (np.load(folder / f"{name}.npy") for name in LAYOUT)
    assert a.dtype == np.float16
    assert (a == 1.5).all()
    assert b.tolist() == [0, 1, 2, 3]


def test_an_error_leaves_nothing_and_leftovers_are_removed(tmp_path):
    folder = tmp_path / "folder"
    (tmp_path / "folder.99999.partial").mkdir()  # of a process that was killed
    with pytest.raises(ZeroDivisionError):
        cached(folder, LAYOUT, lambda a, b: 1 / 0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.lock"]
    cached(folder, LAYOUT, fill)
    assert np.load(folder / "b.npy").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-3]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\0" * 200),
        lambda file: file.unlink(),
        lambda file: np.save(file, np.zeros((4, 3), np.float32)),
        lambda file: np.save(file, np.zeros((4, 2), np.float16)),
        lambda file: np.save(file, np.array([{"a": 1}]), allow_pickle=True),
    ],
)
def test_a_damaged_array_is_named(tmp_path, damage):
    arrays = cached(tmp_path / "folder", LAYOUT, fill)
    assert (arrays["a"] == 1.5).all()
    damage(tmp_path / "folder" / "a.npy")
    with pytest.raises(OSError, match=r"a\.npy is missing or damaged .* it is built again"):
        cached(tmp_path / "folder", LAYOUT, fill)


def test_a_full_disk_is_told_with_advice(tmp_path):
    huge = {"a": (np.float64, (10**9, 10**6))}
    with pytest.raises(OSError, match=r"8,000,000,000.0 MB are needed in .*; stream"):
        cached(tmp_path / "folder", huge, fill, "stream")


@pytest.mark.parametrize("at", [-1, -9, 130])
def test_a_flipped_bit_is_named(tmp_path, at):
    cached(tmp_path / "folder", LAYOUT, fill)
    file = tmp_path / "folder" / "a.npy"
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"a\.npy is missing or damaged \(it differs from its check"):
        cached(tmp_path / "folder", LAYOUT, fill)


def test_a_cache_of_an_earlier_version_is_made_anew(tmp_path):
    cached(tmp_path / "folder", LAYOUT, fill)
    for sums in (tmp_path / "folder").glob("*.sha256"):
        sums.unlink()
    (tmp_path / "folder" / "a.npy").write_bytes(b"as it was")
    assert (cached(tmp_path / "folder", LAYOUT, fill)["a"] == 1.5).all()
