"""Archives: what is damaged is an error that names the file, never a shorter list."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
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
        lambda b: b + bytes(512) + b"x" * 512,
        lambda b: (
            tarfile.TarInfo("empty").tobuf() + bytes(512) + b
        ),  # one block, not two: its header was overwritten
        lambda b: b"",
        lambda b: b"no tar at all" * 100,
    ],
)
def test_a_damaged_tar_is_refused(tar, damage):
    tar.write_bytes(damage(tar.read_bytes()))
    with pytest.raises(OSError, match=r"a.tar is not a whole tar archive"):
        archives.tar_members(tar)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.LNKTYPE, "'copy.jpg', a hard link"), (tarfile.SYMTYPE, "'copy.jpg', a symbolic link"), (tarfile.FIFOTYPE, "'copy.jpg', no regular file"),
        (tarfile.GNUTYPE_SPARSE, "'copy.jpg', a sparse file"), (b"V", "'copy.jpg', a volume label"),
    ],
)  # fmt: skip
def test_a_link_in_place_of_an_image_is_told(tar, kind, what):
    """It would be an image that is not there. To fetch the archive again would change nothing."""
    link = tarfile.TarInfo("copy.jpg")
    link.type, link.linkname = kind, "3.jpg"
    with tarfile.open(tar, "a") as opened:
        opened.addfile(link)
    with pytest.raises(OSError, match=f"a.tar holds {what}; expected regular files only$"):
        archives.members(tar)


def pax_sparse(_whole):
    """As `tar --sparse --format=pax` writes it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as opened:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": "1024",
        }
        member.size = 512
        opened.addfile(member, io.BytesIO(b"1\n512\n512\n".ljust(512, b"\0")))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "what"),
    [
        ("a.tar", gzip.compress, "is a gzip file by its content; expected a tar that is not compressed"), ("a.tar", lambda b: gzip.compress(b)[:100], "is a gzip file by"), ("a.tar", bz2.compress, "is a bzip2 file"), ("a.tar", lzma.compress, "is a xz file"),
        ("a.tar", lambda b: b"PK\3\4" + b, "is a zip file by its content; expected a tar that is not compressed"), ("a.zip", bytes, "is a tar file by its content; expected a zip archive"), ("a.zip", gzip.compress, "is a gzip file"),
        ("a.tar", lambda b: b + b, "holds another tar after its end at byte 27,648; expected one archive"), ("a.tar", pax_sparse, "holds 'a.jpg', a sparse file; expected regular files only"),
    ],
)  # fmt: skip
def test_a_whole_file_of_another_kind_is_told(tar, name, make, what):
    """To fetch it again would change nothing."""
    file = tar.with_name(name)
    file.write_bytes(make(tar.read_bytes()))
    with pytest.raises(OSError, match=f"{name} {what}") as error:
        archives.members(file)
    assert "fetch it again" not in str(error.value)


def test_long_names_of_members_are_cut(tmp_path):
    for names in (["x" * 100_000] * 2, ["x" * 100_000]):
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as opened:
            for name in names:
                member = tarfile.TarInfo(name)
                member.type = tarfile.REGTYPE if len(names) > 1 else tarfile.SYMTYPE
                opened.addfile(member)
        with pytest.raises(OSError, match="a.tar holds '?x{79}…") as error:
            archives.members(tmp_path / "a.tar")
        assert len(str(error.value)) < 500


def test_folders_in_a_tar_are_no_files(tar):
    folder = tarfile.TarInfo("photos")
    folder.type = tarfile.DIRTYPE
    with tarfile.open(tar, "a") as opened:
        opened.addfile(folder)
    assert list(archives.members(tar)) == NAMES


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"])  # fmt: skip
@pytest.mark.parametrize("seed", range(10))
def test_a_cut_or_a_flipped_bit_gives_all_or_an_error(tmp_path, form, seed):
    """40 cuts, and 40 bits of headers, for each format and seed."""
    rng, file = np.random.default_rng(seed), tmp_path / "a.tar"
    contents = {name: rng.bytes(int(rng.integers(1500))) for name in NAMES}
    with tarfile.open(file, "w", format=form) as opened:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    whole, errors = file.read_bytes(), 0
    with tarfile.open(file) as opened:
        headers = [member.offset for member in opened]
    for trial in range(80):
        spoilt = bytearray(whole)
        if trial % 2:
            spoilt[rng.choice(headers) + int(rng.integers(512))] ^= 1 << int(rng.integers(8))
        else:
            del spoilt[int(rng.integers(len(whole))) :]
        file.write_bytes(spoilt)
        archives._members.cache_clear()
        try:
            found = {name: get() for name, get in archives.members(file).items()}
        except OSError as error:
            errors += str(file) in str(error)
        else:
            assert found == contents
    assert errors > 60


@pytest.mark.parametrize("seed", range(10))
def test_a_cut_or_flipped_zip_gives_what_it_held_or_an_error(tmp_path, seed):
    rng, file = np.random.default_rng(seed), tmp_path / "a.zip"
    contents = {name: rng.bytes(int(rng.integers(1500))) for name in NAMES}
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in contents.items():
            opened.writestr(name, content)
    whole, errors = file.read_bytes(), 0
    for trial in range(80):
        spoilt = bytearray(whole)
        if trial % 2:
            spoilt[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        else:
            del spoilt[int(rng.integers(len(whole))) :]
        file.write_bytes(spoilt)
        archives._members.cache_clear()
        try:
            found = {name: archives.read(file / name) for name in NAMES}
        except OSError as error:
            errors += str(file) in str(error)
        else:
            assert found == contents
    assert errors > 60


def test_the_state_of_a_file_changes_with_it(tmp_path, tar):
    assert archives.state(tar / "3.jpg") == archives.state(tar / "4.jpg") == archives.state(tar)
    (tmp_path / "a.jpg").write_bytes(b"1")
    before = archives.state(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"22")
    assert archives.state(tmp_path / "a.jpg") != before
    assert archives.state(tmp_path / "b.jpg") is None
    assert archives.state(tmp_path / "b.tar" / "c.jpg") is None


def test_zips_are_read_and_damaged_ones_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("00/1.jpg", b"123")
    assert archives.read(tmp_path / "a.zip" / "00" / "1.jpg") == b"123"
    assert not archives.exists(tmp_path / "a.zip" / "00" / "2.jpg")
    assert not archives.exists(tmp_path / "b.zip" / "00" / "2.jpg")
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    with pytest.raises(OSError, match=r"a.zip is not a whole zip archive"):
        archives.exists(tmp_path / "a.zip" / "00" / "1.jpg")


def test_a_changed_archive_is_listed_anew(tmp_path):
    for name in ("1.jpg", "2.jpg2"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, b"123")
        assert list(archives.members(tmp_path / "a.zip")) == [name]


@pytest.mark.parametrize("path", ["n" * 300 + ".jpg", "n" * 300 + ".zip/1.jpg", "a/" * 3000 + "1.jpg", "é" * 130 + ".jpg"])  # fmt: skip
def test_a_name_too_long_for_a_file_is_not_there(tmp_path, tar, path):
    assert not archives.exists(tmp_path / path)
    assert not archives.exists(tar / path)
    assert archives.state(tmp_path / path) is None


def test_a_path_that_cannot_be_looked_up_is_not_taken_for_missing(tmp_path, monkeypatch):
    """As when a network drive does not answer: its images are not gone."""

    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.is_file", broken)
    with pytest.raises(OSError, match="Input/output error"):
        archives.exists(tmp_path / "1.jpg")
