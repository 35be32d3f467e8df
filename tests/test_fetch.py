"""Downloads from a server on this machine that answers, breaks off and lies as real ones do."""

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from geoflow.data import fetch

CONTENT = bytes(range(256)) * 5000  # more than one chunk


def checksum(content: bytes, kind: str = "sha256") -> str:
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: list[int] = []  # break off the next answers after so many bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.cut.pop(0)] if server.cut else content[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        s.files["/file"] = CONTENT
        yield s
        s.shutdown()


def test_whole_and_under_its_name_only_when_right(server, tmp_path):
    fetch.download(f"{server.url}/file", tmp_path / "sub" / "file", checksum(CONTENT), len(CONTENT))
    assert (tmp_path / "sub" / "file").read_bytes() == CONTENT
    with pytest.raises(OSError, match="has changed or was damaged on its way: md5:.*it was not kept"):
        fetch.download(f"{server.url}/file", tmp_path / "other", "md5:0")
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


def test_a_transfer_that_breaks_off_is_continued(server, tmp_path):
    server.cut = [300_000, 0, 500_000]
    fetch.download(f"{server.url}/file", tmp_path / "file", checksum(CONTENT, "md5"))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-", "bytes=300000-", "bytes=800000-"]
    server.cut = [10] * 5
    with pytest.raises(OSError, match="broke off five times.*what was fetched is kept"):
        fetch.download(f"{server.url}/file", tmp_path / "again", checksum(CONTENT))
    fetch.download(f"{server.url}/file", tmp_path / "again", checksum(CONTENT))
    assert server.asked[-1][1] == "bytes=50-"
    assert (tmp_path / "again").read_bytes() == CONTENT
    (tmp_path / "last.partial").write_bytes(CONTENT)  # killed after the last byte
    fetch.download(f"{server.url}/file", tmp_path / "last", checksum(CONTENT))
    assert (tmp_path / "last").exists()


def test_no_server_and_no_file_are_told(server, tmp_path):
    with pytest.raises(OSError, match="404"):
        fetch.download(f"{server.url}/nothing", tmp_path / "file", checksum(b""))
    with pytest.raises(OSError, match="cannot be fetched.*refused"):
        fetch.download("http://127.0.0.1:9/file", tmp_path / "file", checksum(b""))


def archive(name: str, *members: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            info = tarfile.TarInfo(member)
            info.size = len(member)
            tar.addfile(info, io.BytesIO(member.encode()))
    return buffer.getvalue()


def test_archives_give_way_to_what_they_hold(server, tmp_path):
    server.files["/val.tar.gz"] = packed = archive("val", "val/a/1.jpg", "val/b/2.jpg")
    parts = [fetch.Part(f"{server.url}/val.tar.gz", "val.tar.gz", checksum(packed, "md5"), unpack=True)]
    said = []
    fetch.fetch_parts(parts, tmp_path, said.append)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == ["fetched.json", "val/a/1.jpg", "val/b/2.jpg"]
    asked = len(server.asked)
    fetch.fetch_parts(parts, tmp_path, said.append)
    assert len(server.asked) == asked
    assert "1 files, 1 of them here and checked" in said[-2]


def test_a_folder_that_merely_exists_proves_nothing(server, tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(OSError, match="val is there, but this command did not fetch it"):
        fetch.fetch_parts([fetch.Part(f"{server.url}/val.tar.gz", "val.tar.gz", "md5:0", unpack=True)], tmp_path)
    assert not server.asked
    part = fetch.Part(f"{server.url}/file", "file", checksum(CONTENT), len(CONTENT))
    (tmp_path / "file").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(OSError, match="differs from the published one"):
        fetch.fetch_parts([part], tmp_path)
    (tmp_path / "file").write_bytes(CONTENT)
    fetch.fetch_parts([part], tmp_path)
    assert not server.asked
    (tmp_path / "file").write_bytes(CONTENT[:10])  # after it was checked
    with pytest.raises(OSError, match="differs from the published one"):
        fetch.fetch_parts([part], tmp_path)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(server, tmp_path):
    with pytest.raises(OSError, match=r"1000000\.00 GB are needed"):
        fetch.fetch_parts([fetch.Part(f"{server.url}/file", "file", "md5:0", size=10**15)], tmp_path)
    assert not server.asked


def test_osv5m_from_the_hub_by_the_command(server, tmp_path):
    """The hub's listing names sizes and checksums; the licence comes before the first byte."""
    served = {"test.csv": b"id,latitude,longitude\n", "images/test/00.zip": CONTENT, "images/train/00.zip": b"no", "train.csv": b"no"}
    siblings = [
        {"rfilename": name, "size": len(content), "blobId": "0", "lfs": {"sha256": checksum(content)[7:], "size": len(content), "pointerSize": 1}}
        for name, content in served.items()
    ]  # fmt: skip
    listing = {"id": "osv5m/osv5m", "sha": "abc", "siblings": siblings, "private": False, "downloads": 0, "likes": 0, "tags": []}
    server.files["/api/datasets/osv5m/osv5m?blobs=true"] = json.dumps(listing).encode()
    server.files |= {f"/datasets/osv5m/osv5m/resolve/abc/{name}": content for name, content in served.items()}
    command = [Path(sys.executable).parent / "geoflow", "data", "fetch", "osv5m", "--split", "test", "--root", tmp_path]
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "CI": "1"}
    for fetched in (2, 0):
        before = len(server.asked)
        result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        lines = result.stdout.splitlines()
        assert "CC BY-SA 4.0" in lines[0]
        assert f"{2 - fetched} of them here and checked" in lines[1]
        assert sum("/resolve/" in path for path, _ in server.asked[before:]) == fetched
    assert (tmp_path / "images" / "test" / "00.zip").read_bytes() == CONTENT
    assert not (tmp_path / "train.csv").exists()


def test_what_cannot_be_fetched_says_why(tmp_path):
    with pytest.raises(ValueError, match="YFCC-100M cannot be fetched"):
        fetch.fetch("yfcc", "train", tmp_path)
    with pytest.raises(ValueError, match="imagenet"):
        fetch.fetch("imagenet", "train", tmp_path)
