"""Files inside zip and tar archives: checked to be whole, and read without unpacking.

A path may lead into an archive: `images/test/00.zip/00/1.jpg`, `0000.tar/1.jpg`. Whatever is
missing, damaged or truncated raises an `OSError` that names it.
"""

import errno
import functools
import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from geoflow.data.typed import brief

KINDS = {  # how a file begins → what it is
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\3\4": "zip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}
IRREGULAR = {  # type of a member of a tar → what it is
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    b"V": "a volume label",
}


def exists(path: Path) -> bool:
    """Whether a file is there, in a folder or in an archive."""
    archive, member = _split(path)
    try:
        there = (archive or path).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False  # no file has such a name
    return there and (archive is None or member in members(archive))


def read(path: Path) -> bytes:
    """The bytes of a file in a folder or in an archive."""
    archive, member = _split(path)
    if archive is None:
        return path.read_bytes()
    try:
        return members(archive)[member]()
    except Exception as error:  # what zipfile and its decoders raise has no common base
        raise OSError(f"{member} cannot be read from {archive}: {error}") from error


def state(path: Path) -> tuple[int, int] | None:
    """Size and date of a file, or of the archive that holds it: other ones after a change.

    None if it is gone.
    """
    archive, _member = _split(path)
    try:
        found = (archive or path).stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def members(archive: Path) -> dict:
    """What an archive holds: name of each file → function that returns its bytes.

    An archive is listed once by each process, because processes must not share a file position.
    """
    status = archive.stat()
    return _members(archive, os.getpid(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=128)
def _members(archive: Path, _process: int, _size: int, _date: int) -> dict:
    listed = _list_tar(archive) if archive.suffix == ".tar" else _list_zip(archive)
    # without the ./ that `tar -c .` writes
    listed = [(PurePosixPath(name).as_posix(), get) for name, get in listed]
    check_unrepeated(archive, [name for name, _get in listed])
    return dict(listed)


def check_unrepeated(archive: Path, names: list[str]) -> None:
    """An OSError if an archive holds two files of one name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise OSError(f"{archive} holds {brief(name)} twice; which one is meant is unknown")
        seen.add(name)


def _list_tar(archive: Path) -> list:
    spans = tar_members(archive)
    return [(name, functools.partial(read_span, archive, *span)) for name, *span in spans]


def _list_zip(archive: Path) -> list:
    try:
        opened = zipfile.ZipFile(archive)
    except Exception as error:  # a damaged list of members raises more than BadZipFile
        raise _refused(archive, "zip", error) from error
    names = [each.filename for each in opened.infolist() if not each.is_dir()]
    return [(name, functools.partial(opened.read, name)) for name in names]


def tar_members(file: Path) -> list[tuple[str, int, int]]:
    """Name, first byte and size of each file in an uncompressed tar archive, in its order.

    `tarfile` checks the sum in every header, but takes a damaged one for the end of the archive. So
    whatever follows the last member must be the zeros that close an archive, two blocks at least.
    """
    try:
        with tarfile.open(file, "r:") as opened, file.open("rb") as raw:
            listed = [each for each in opened if not each.isdir()]
            for each in listed:
                if not each.isfile() or each.issparse():
                    kind = tarfile.GNUTYPE_SPARSE if each.issparse() else each.type
                    what = f"{brief(each.name)!r}, {IRREGULAR.get(kind, 'no regular file')}"
                    raise OSError(f"{file} holds {what}; expected regular files only")
            raw.seek(opened.offset)
            blocks = iter(functools.partial(raw.read, 1 << 20), b"")
            zeros = all(not block.strip(b"\0") for block in blocks)  # up to the first that is not
            if not zeros or raw.tell() < opened.offset + 2 * tarfile.BLOCKSIZE:
                at = f"byte {opened.offset:,}"
                if _goes_on(raw, opened.offset):
                    raise OSError(
                        f"{file} holds another tar after its end at {at}; expected one archive"
                    )
                raise tarfile.TarError(f"its list of members breaks off at {at}")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise _refused(file, "tar", error) from error
    return [(each.name, each.offset_data, each.size) for each in listed]


def _goes_on(raw: BinaryIO, end: int) -> bool:
    """Whether another tar follows the two blocks of zeros, or more, that close one."""
    raw.seek(end)
    blocks = enumerate(iter(functools.partial(raw.read, tarfile.BLOCKSIZE), b""))
    number, header = next((pair for pair in blocks if pair[1].strip(b"\0")), (0, b""))
    try:
        return number > 1 and bool(tarfile.TarInfo.frombuf(header, "utf-8", "replace"))
    except tarfile.TarError:
        return False


def _refused(file: Path, kind: str, error: Exception) -> OSError:
    """What to say of a file that is no zip or tar archive: another kind of file, or damaged."""
    with file.open("rb") as opened:
        head = opened.read(tarfile.BLOCKSIZE)
    found = next((found for mark, found in KINDS.items() if head.startswith(mark)), kind)
    found = "tar" if head[257:262] == b"ustar" else found
    if found != kind:
        expected = {"tar": "a tar that is not compressed", "zip": "a zip archive"}[kind]
        return OSError(f"{file} is a {found} file by its content; expected {expected}")
    return OSError(f"{file} is not a whole {kind} archive ({error}); fetch it again")


def read_span(file: Path, start: int, size: int) -> bytes:
    """Some bytes of a file, such as a member that `tar_members` lists."""
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _split(path: Path) -> tuple[Path | None, str]:
    """A path into an archive → the archive and the member; (None, "") for an ordinary path."""
    for parent in path.parents:
        if parent.suffix in (".zip", ".tar"):
            return parent, path.relative_to(parent).as_posix()
    return None, ""
