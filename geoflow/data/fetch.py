"""Downloads of the data sets that can be downloaded: on request only, checked by size and checksum, resumed where they stopped.

A file gets its name when it is whole and right. What was checked is remembered in `fetched.json`, so that a second call looks at sizes
and dates only; a folder that merely exists proves nothing.
"""

import hashlib
import http.client
import json
import shutil
import tarfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from geoflow import runtime
from geoflow.data import earth_events
from geoflow.runtime import choose, write_atomically

CHUNK = 1 << 20


@dataclass(frozen=True)
class Part:
    """A file to fetch.

    Attributes:
        url: where it is.
        path: where it goes, relative to the data set's root.
        checksum: `md5:…` or `sha256:…`.
        size: in bytes, if it is known before.
        unpack: a tar archive, which is replaced by what is in it.
    """

    url: str
    path: str
    checksum: str
    size: int | None = None
    unpack: bool = False


LICENCES = {
    "osv5m": "OpenStreetView-5M: CC BY-SA 4.0; Mapillary's images. https://huggingface.co/datasets/osv5m/osv5m",
    "earth-events": "Earth events: volcanoes and earthquakes from NOAA NGDC, floods from the Dartmouth Flood Observatory, fires from NASA "
    "FIRMS, each under its provider's terms. https://github.com/oxcsml/riemannian-score-sde",
    "inat21": "iNaturalist 2021: non-commercial research and education only; each image has its photographer's licence, which "
    "train.json and val.json name. https://github.com/visipedia/inat_comp/tree/master/2021",
}
ELSEWHERE = {
    "yfcc": "YFCC-100M cannot be fetched: its metadata are handed out on request (https://multimediacommons.wordpress.com), the photos are "
    "their photographers'. geoflow/data/yfcc.py says which files to put where"
}
INAT21 = "https://ml-inat-competition-datasets.s3.amazonaws.com/2021"
INAT21_FILES = {
    "train": {
        "train.json": "38a7bb733f7a09214d44293460ec0021",
        "train": "e0526d53c7f7b2e3167b2b43bb2690ed",
    },
    "test": {
        "val.json": "4d761e0f6a86cc63e8f7afc91f6a8f0b",
        "val": "f6f6e0e242e3d4c9569ba56400938afc",
    },
}


def fetch(name: str, split: str, root, say=print) -> None:
    """Download a split of a data set into a folder. Again after an interruption: it goes on; when all is there: it says so.

    Args:
        name: `osv5m`, `inat21` or `earth-events`.
        split: `train` or `test`; earth events have one file each.
        root: folder of the data set; what is there already is checked, not trusted.
        say: takes lines of text; the licence is said before the first byte is fetched.

    Raises:
        ValueError: unknown data set or split, or one that cannot be fetched.
        OSError: no network, not enough disk space, or a file that differs from its checksum.
    """
    if name in ELSEWHERE:
        raise ValueError(ELSEWHERE[name])
    choose("data set", name, LICENCES)
    choose("split", split, ("train", "test"))
    say(LICENCES[name])
    parts = {"osv5m": _osv5m, "inat21": _inat21, "earth-events": _earth_events}[name](split)
    fetch_parts(parts, Path(root), say)


def fetch_parts(parts: list[Part], root: Path, say=print) -> None:
    """Download files into a folder; see `fetch`."""
    root.mkdir(parents=True, exist_ok=True)
    receipts = root / "fetched.json"
    known = json.loads(receipts.read_text()) if receipts.exists() else {}
    todo = [
        part for part in parts if part.path not in known or known[part.path] != _receipt(root, part)
    ]
    missing = sum(part.size or 0 for part in todo if not (root / part.path).exists())
    say(
        f"{len(parts)} files, {len(parts) - len(todo)} of them here and checked; {missing / 1e9:.2f} GB to fetch into {root}"
    )
    free = shutil.disk_usage(root).free
    if free < 1.05 * missing:
        raise OSError(f"{missing / 1e9:.2f} GB are needed in {root}, {free / 1e9:.2f} GB are free")
    for part in todo:
        target = root / _final(part)
        if part.unpack and target.exists():
            raise OSError(
                f"{target} is there, but this command did not fetch it, so whether it is whole is unknown; use it as it is, or move it"
            )
    for part in todo:
        download(part.url, root / part.path, part.checksum, part.size)
        if part.unpack:
            _unpack(root / part.path, root / _final(part))
        known[part.path] = _receipt(root, part)
        write_atomically(receipts, json.dumps(known, indent=1))
        if part.unpack:
            (root / part.path).unlink()
    say(f"all {len(parts)} files are in {root}, as their checksums say")


def download(url: str, file: Path, checksum: str, size: int | None = None) -> None:
    """One file: what is there already is kept if it is right, a part is continued, and nothing wrong gets the name.

    Raises:
        OSError: it cannot be fetched, or differs from its checksum or size; the message names it.
    """
    if file.exists():
        if _digest(file, checksum) == checksum:
            return
        raise OSError(
            f"{file} differs from the published one (expected {checksum}); delete it to fetch it again"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    for attempt in range(5):
        try:
            _continue(url, partial, size)
            break
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if attempt == 4:
                raise OSError(
                    f"{url} broke off five times, the last time with: {error}; what was fetched is kept, run again"
                ) from error
    found = _digest(partial, checksum)
    if found != checksum or (size is not None and partial.stat().st_size != size):
        partial.unlink()
        raise OSError(
            f"{url} has changed or was damaged on its way: {found}, expected {checksum}; it was not kept"
        )
    partial.rename(file)


def _continue(url: str, partial: Path, size: int | None) -> None:
    """Append to a file what it lacks."""
    start = partial.stat().st_size if partial.exists() else 0
    if size is not None and start >= size:
        return
    answer = _open(url, {"Range": f"bytes={start}-"} if start else {})
    if answer is None:
        return
    with answer, partial.open("ab" if answer.status == 206 else "wb") as out:
        start = start if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with runtime.progress(
            total=total, initial=start, desc=partial.stem, unit="B", unit_scale=True
        ) as bar:
            while chunk := answer.read(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
        if total is not None and out.tell() < total:
            raise ConnectionError(f"it ended after {out.tell():,} of {total:,} bytes")


def _open(url: str, headers: dict[str, str] | None = None):
    """The server's answer; None if the file ends where the wanted range begins."""
    try:
        return urllib.request.urlopen(
            urllib.request.Request(url, headers=headers or {}), timeout=60
        )
    except urllib.error.URLError as error:
        if getattr(error, "code", None) == 416:
            return None
        raise OSError(f"{url} cannot be fetched: {error}") from error


def _digest(file: Path, checksum: str) -> str:
    kind = checksum.partition(":")[0]
    digest = hashlib.new(kind, usedforsecurity=False)
    with (
        file.open("rb") as opened,
        runtime.progress(
            total=file.stat().st_size, desc=f"checking {file.name}", unit="B", unit_scale=True
        ) as bar,
    ):
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return f"{kind}:{digest.hexdigest()}"


def _final(part: Part) -> str:
    return part.path.removesuffix(".tar.gz") if part.unpack else part.path


def _unpack(archive: Path, target: Path) -> None:
    """The one file or folder that an archive holds, under its name when it is whole."""
    partial = archive.with_name(archive.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as opened:
        opened.extractall(partial, filter="data")
    if not (partial / target.name).exists():
        raise OSError(f"{archive} holds no {target.name}")
    (partial / target.name).rename(target)
    partial.rmdir()


def _receipt(root: Path, part: Part) -> list | None:
    """What tells that a checked file is still the same: checksum, size, date; of an unpacked folder, that it is there."""
    file = root / _final(part)
    if not file.exists():
        return None
    status = file.stat()
    return [part.checksum] if file.is_dir() else [part.checksum, status.st_size, status.st_mtime_ns]


def _osv5m(split: str) -> list[Part]:
    """Files of a split as the hub lists them, at the revision of this moment."""
    from huggingface_hub.constants import ENDPOINT

    repository = "datasets/osv5m/osv5m"
    listing = json.load(_open(f"{ENDPOINT}/api/{repository}?blobs=true"))
    return [
        Part(
            f"{ENDPOINT}/{repository}/resolve/{listing['sha']}/{name}",
            name,
            f"sha256:{file['lfs']['sha256']}",
            file["size"],
        )
        for file in listing["siblings"]
        if (name := file["rfilename"]) == f"{split}.csv" or name.startswith(f"images/{split}/")
    ]


def _inat21(split: str) -> list[Part]:
    files = INAT21_FILES[split]
    return [
        Part(f"{INAT21}/{name}.tar.gz", f"{name}.tar.gz", f"md5:{checksum}", unpack=True)
        for name, checksum in files.items()
    ]


def _earth_events(_split: str) -> list[Part]:
    return [
        Part(f"{earth_events.URL}/{source.file}", source.file, f"sha256:{source.sha256}")
        for source in earth_events.SOURCES.values()
    ]
