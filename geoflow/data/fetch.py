"""Downloads of published data sets, on request only: checked, and resumed where they stopped.

OpenStreetView-5M comes through `huggingface_hub`, other files through `requests`: they may have
hundreds of gigabytes, and `pooch` would begin a broken download again. A file gets its name when it
is whole and its checksum is right. `fetched.json` remembers which files were checked, so that a
second call compares sizes and dates only. A folder that merely exists proves nothing.
"""

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from huggingface_hub import hf_hub_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import HTTPError  # the base of all that a transfer raises
from requests.exceptions import ChunkedEncodingError

from geoflow import runtime
from geoflow.data import earth_events

ATTEMPTS, BLOCK = 5, 1 << 16
HUB, HUB_FOLDER = "osv5m/osv5m", ".hub"
INAT21 = "https://ml-inat-competition-datasets.s3.amazonaws.com/2021"
INAT21_MD5 = {
    ("train", "train.json"): "38a7bb733f7a09214d44293460ec0021",
    ("train", "train"): "e0526d53c7f7b2e3167b2b43bb2690ed",
    ("test", "val.json"): "4d761e0f6a86cc63e8f7afc91f6a8f0b",
    ("test", "val"): "f6f6e0e242e3d4c9569ba56400938afc",
}
LICENCES = {
    "osv5m": "OpenStreetView-5M: CC BY-SA 4.0; Mapillary's images. "
    "https://huggingface.co/datasets/osv5m/osv5m",
    "earth-events": "Earth events: volcanoes and earthquakes from NOAA NGDC, floods from the "
    "Dartmouth Flood Observatory, fires from NASA FIRMS, each under its provider's terms. "
    "https://github.com/oxcsml/riemannian-score-sde",
    "inat21": "iNaturalist 2021: non-commercial research and education only; each image has its "
    "photographer's licence, which train.json and val.json name. "
    "https://github.com/visipedia/inat_comp/tree/master/2021",
}
ELSEWHERE = {
    "yfcc": "YFCC-100M cannot be fetched: its metadata are handed out on request "
    "(https://multimediacommons.wordpress.com), the photos are their photographers'. "
    "geoflow/data/yfcc.py says which files to put where"
}


@dataclass(frozen=True)
class Part:
    """A file to fetch. A `.tar.gz` is replaced by the one file or folder in it."""

    url: str  # `hub:REVISION` for a file of the OpenStreetView-5M repository
    path: str  # where it goes, relative to the data set's root
    checksum: str  # `md5:…` or `sha256:…`
    size: int = 0  # in bytes; 0 if it is not known before

    @property
    def final(self) -> str:
        """The path of what stays, relative to the root."""
        return self.path.removesuffix(".tar.gz")


def fetch(name: str, split: str, root, log: Callable[[str], object] = print) -> None:
    """Download a split of a data set into a folder, or continue an interrupted download.

    What is there already is checked, not trusted. The licence is logged before the first byte.

    Args:
        name: `osv5m`, `inat21` or `earth-events`.
        split: `train` or `test`; earth events have one file each.

    Raises:
        ValueError: unknown data set or split, or one that cannot be fetched.
        OSError: no network, not enough disk space, or a file that differs from its checksum.
    """
    if name in ELSEWHERE:
        raise ValueError(ELSEWHERE[name])
    runtime.choose("data set", name, LICENCES)
    runtime.choose("split", split, ("train", "test"))
    log(LICENCES[name])
    parts = {"osv5m": _osv5m, "inat21": _inat21, "earth-events": _earth_events}[name](split)
    fetch_parts(parts, Path(root), log)


def fetch_parts(parts: list[Part], root: Path, log: Callable[[str], object] = print) -> None:
    """Download files into a folder, in which no other process may do so; see `fetch`."""
    with runtime.alone(root):
        _fetch_parts(parts, root, log)


def _fetch_parts(parts: list[Part], root: Path, log: Callable[[str], object]) -> None:
    receipts = root / "fetched.json"
    known = runtime.read_json(receipts, dict) if receipts.exists() else {}
    todo = [part for part in parts if known.get(part.path, []) != _receipt(root, part)]
    missing = sum(part.size for part in todo if not (root / part.path).exists())
    here = f"{len(parts)} files, {len(parts) - len(todo)} of them here and checked"
    log(f"{here}; {missing / 1e9:.2f} GB to fetch into {root}")
    runtime.require_space(root, missing)
    for part in todo:
        target = root / part.final
        if part.path != part.final and target.exists():
            unknown = "this command did not fetch it, so whether it is whole is unknown"
            raise OSError(f"{target} is there, but {unknown}; use it as it is, or move it")
    for part in todo:
        download(part, root)
        if part.path != part.final:
            _unpack(root / part.path, root / part.final)
        known[part.path] = _receipt(root, part)
        runtime.write_json(receipts, known)
        if part.path != part.final:
            (root / part.path).unlink()
    shutil.rmtree(root / HUB_FOLDER, ignore_errors=True)
    log(f"all {len(parts)} files are in {root}, as their checksums say")


def _receipt(root: Path, part: Part) -> list | None:
    """What identifies a checked file: checksum, size and date; for a folder, the checksum."""
    file = root / part.final
    if not file.exists():
        return None
    status = file.stat()
    return [part.checksum] if file.is_dir() else [part.checksum, status.st_size, status.st_mtime_ns]


def download(part: Part, root: Path) -> None:
    """Download one file. A right one is kept, a part is continued, nothing wrong gets the name."""
    file = root / part.path
    if file.exists():
        if _checksum(file, part) == part.checksum:
            return
        text = f"{file} differs from the published one (expected {part.checksum})"
        raise OSError(f"{text}; delete it to fetch it again")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial = (_from_hub if part.url.startswith("hub:") else _resumed)(part, root)
    except (requests.RequestException, HTTPError) as error:
        kept = "what was fetched is kept, run again"
        raise OSError(f"{part.url} cannot be fetched: {_why(error)}; {kept}") from error
    if (found := _checksum(partial, part)) != part.checksum:
        partial.unlink()
        text = f"{part.url} has changed or was damaged on its way"
        raise OSError(f"{text}: {found}, expected {part.checksum}; it was not kept")
    partial.replace(file)


def _why(error: Exception) -> str:
    """The message of a failed transfer, in one line."""
    lost = (requests.ConnectionError, requests.Timeout)
    text = " ".join(str(error).split())
    return f"no answer, is there a network? ({text})" if isinstance(error, lost) else text


def _checksum(file: Path, part: Part) -> str:
    """The checksum of a file, of the same kind as that of a part."""
    kind = part.checksum.partition(":")[0]
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as opened, _bar(f"checking {part.path}", file.stat().st_size) as bar:
        while block := opened.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return f"{kind}:{digest.hexdigest()}"


def _bar(text: str, total: int | None, start: int = 0):
    """A progress bar of bytes."""
    return runtime.progress(desc=text, total=total, initial=start, unit="B", unit_scale=True)


def _from_hub(part: Part, root: Path) -> Path:
    """Get a file of the repository by the hub's own client, which resumes and retries."""
    where: dict = {"revision": part.url.removeprefix("hub:"), "local_dir": root / HUB_FOLDER}
    return Path(hf_hub_download(HUB, part.path, repo_type="dataset", endpoint=ENDPOINT, **where))


def _resumed(part: Part, root: Path) -> Path:
    """Get a file, from where an interrupted transfer has stopped."""
    partial = root / f"{part.path}.partial"
    for attempt in range(ATTEMPTS):
        try:
            _continue(part.url, partial)
            break
        except (ChunkedEncodingError, requests.ConnectionError, requests.Timeout):
            if attempt == ATTEMPTS - 1:
                raise
    return partial


def _continue(url: str, partial: Path) -> None:
    """Append to a file what it lacks of what the server has."""
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is lacking
        answer.raise_for_status()
        start = start if answer.status_code == requests.codes.partial_content else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        with partial.open("ab" if start else "wb") as out, _bar(partial.stem, total, start) as bar:
            for block in answer.iter_content(BLOCK):
                bar.update(out.write(block))


def _unpack(archive: Path, target: Path) -> None:
    """Extract the one file or folder that an archive holds, whole or not at all."""
    partial = archive.with_name(f"{archive.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(archive) as opened:
        opened.extractall(partial, filter="data")
    if not (partial / target.name).exists():
        raise OSError(f"{archive} holds no {target.name}")
    (partial / target.name).rename(target)
    partial.rmdir()


def _osv5m(split: str) -> list[Part]:
    """Files of a split as the hub lists them, at the revision of this moment."""
    address = f"{ENDPOINT}/api/datasets/{HUB}?blobs=true"
    try:
        answer = requests.get(address, timeout=60)
        answer.raise_for_status()
        listing = answer.json()
        return [
            Part(f"hub:{listing['sha']}", name, f"sha256:{file['lfs']['sha256']}", file["size"])
            for file in listing["siblings"]
            if (name := file["rfilename"]) == f"{split}.csv" or name.startswith(f"images/{split}/")
        ]
    except requests.RequestException as error:
        raise OSError(f"{address} cannot be read: {_why(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{address} gave no list of files: {error!r}") from error


def _inat21(split: str) -> list[Part]:
    names = {f"{name}.tar.gz": md5 for (of, name), md5 in INAT21_MD5.items() if of == split}
    return [Part(f"{INAT21}/{name}", name, f"md5:{md5}") for name, md5 in names.items()]


def _earth_events(_split: str) -> list[Part]:
    url, sources = earth_events.URL, earth_events.SOURCES.values()
    return [Part(f"{url}/{each.file}", each.file, f"sha256:{each.sha256}") for each in sources]
