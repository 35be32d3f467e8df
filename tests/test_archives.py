"""Archives: what is damaged is an error that names the file, never a shorter list."""

import io
import tarfile
import zipfile

import pytest

from geoflow.data import archives

NAMES = [f"{i}.jpg" for i in range(18)]


@pytest.fixture
def tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as opened:
        for name in NAMES:
            member = tarfile.TarInfo(name)
            member.size = 700
            opened.addfile(member, io.BytesIO(name.encode().ljust(700, b"x")))
    return tmp_path / "a.tar"


def test_every_member_of_a_tar_is_found_and_read(tar):
    assert [name for name, _start, _size in archives.tar_members(tar)] == NAMES
    for name in NAMES:
        assert archives.read(tar / name) == name.encode().ljust(700, b"x")
    assert archives.exists(tar / "3.jpg")
    assert not archives.exists(tar / "18.jpg")
    with pytest.raises(OSError, match=r"18.jpg cannot be read from .*a.tar"):
        archives.read(tar / "18.jpg")


HEADER = 11 * (512 + 1024)  # of the twelfth member


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:HEADER] + b"?" + b[HEADER + 1 :],  # tarfile takes this for the end
        lambda b: b[:HEADER] + bytes(512) + b[HEADER + 512 :],
        lambda b: b[:HEADER],  # cut off before a header, in it, in a content, before the end blocks
        lambda b: b[: HEADER + 100],
        lambda b: b[: HEADER + 600],
        lambda b: b.rstrip(b"\0"),
        lambda b: b[: 18 * (512 + 1024)],
        lambda b: b + b"rest",
        lambda b: b"",
        lambda b: b"no tar at all" * 100,
    ],
)
def test_a_damaged_tar_is_refused(tar, damage):
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(OSError, match=r"a.tar is no whole tar archive"):
        archives.tar_members(tar)


def test_zips_are_read_and_damaged_ones_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("00/1.jpg", b"123")
    assert archives.read(tmp_path / "a.zip" / "00" / "1.jpg") == b"123"
    assert not archives.exists(tmp_path / "a.zip" / "00" / "2.jpg")
    assert not archives.exists(tmp_path / "b.zip" / "00" / "2.jpg")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    with pytest.raises(OSError, match=r"a.zip is no whole zip archive"):
        archives.exists(tmp_path / "a.zip" / "00" / "1.jpg")


def test_a_changed_archive_is_listed_anew(tmp_path):
    for name in ("1.jpg", "2.jpg2"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, b"123")
        assert list(archives.members(tmp_path / "a.zip")) == [name]
