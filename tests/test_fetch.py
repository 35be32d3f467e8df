"""Downloads from a server on this machine that answers, breaks off and lies as real ones do."""

import hashlib
import http.server
import io
import json
import tarfile
import threading

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from geoflow import runtime
from geoflow.data import fetch

CONTENT = bytes(range(256)) * 5000  # more than one chunk
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
        if self.command == "GET":
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
        self.send_header("ETag", checksum(content)[7:])  # as the hub has it for large files
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[start:][: server.cut.pop(0)] if server.cut else content[start:])

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as s:
        threading.Thread(target=s.serve_forever, args=(0.01,), daemon=True).start()
        s.files["/file"] = CONTENT
        yield s
        s.shutdown()


def download(server, root, path, content=CONTENT, kind="sha256"):
    fetch.download(fetch.Part(f"{server.url}/file", path, checksum(content, kind)), root)
    assert (root / path).read_bytes() == content


def test_whole_and_under_its_name_only_when_right(server, tmp_path):
    download(server, tmp_path, "sub/file")
    with pytest.raises(
        OSError,
        match="has changed or was damaged on its way: md5:.*it was not kept",
    ):
        download(server, tmp_path, "other", b"", "md5")
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


def test_a_transfer_that_breaks_off_is_continued(server, tmp_path):
    server.cut = [300_000, 0, 500_000]
    download(server, tmp_path, "file", kind="md5")
    kept = [None, *(f"bytes={blocks * fetch.BLOCK}-" for blocks in (4, 4, 11))]  # whole blocks
    assert [wanted for _, wanted in server.asked] == kept
    server.cut = [100_000] * 5
    left = len(CONTENT) - 4 * fetch.BLOCK - 100_000
    with pytest.raises(
        OSError, match=f"cannot be fetched: .*{left} more expected.*what was fetched is kept"
    ):
        download(server, tmp_path, "again")
    download(server, tmp_path, "again")
    assert server.asked[-1][1] == f"bytes={5 * fetch.BLOCK}-"
    (tmp_path / "last.partial").write_bytes(CONTENT)  # killed after the last byte
    download(server, tmp_path, "last")
    assert not list(tmp_path.glob("*.partial"))


def test_no_server_and_no_file_are_told(server, tmp_path):
    with pytest.raises(OSError, match="404"):
        fetch.download(fetch.Part(f"{server.url}/nothing", "file", checksum(b"")), tmp_path)
    with pytest.raises(OSError, match="cannot be fetched.*refused"):
        fetch.download(fetch.Part("http://127.0.0.1:9/file", "file", checksum(b"")), tmp_path)


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
    parts = [fetch.Part(f"{server.url}/val.tar.gz", "val.tar.gz", checksum(packed, "md5"))]
    said = []
    fetch.fetch_parts(parts, tmp_path, said.append)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        ".lock",
        "fetched.json",
        "val/a/1.jpg",
        "val/b/2.jpg",
    ]
    asked = len(server.asked)
    fetch.fetch_parts(parts, tmp_path, said.append)
    assert len(server.asked) == asked
    assert "1 files, 1 of them here and checked" in said[-2]


def test_a_folder_that_merely_exists_proves_nothing(server, tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(OSError, match="val is there, but this command did not fetch it"):
        fetch.fetch_parts([fetch.Part(f"{server.url}/val.tar.gz", "val.tar.gz", "md5:0")], tmp_path)
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
    with pytest.raises(OSError, match=r"1,000,000,000\.0 MB are needed"):
        fetch.fetch_parts(
            [fetch.Part(f"{server.url}/file", "file", "md5:0", size=10**15)], tmp_path
        )
    assert not server.asked


def test_osv5m_from_the_hub_by_the_command(server, tmp_path, monkeypatch):
    """The hub's listing names sizes and checksums; the licence comes before the first byte."""
    served = {
        "test.csv": b"id,latitude,longitude\n",
        "images/test/00.zip": CONTENT,
        "images/train/00.zip": b"no",
        "train.csv": b"no",
    }
    siblings = [
        {"rfilename": name, "size": len(content), "blobId": "0", "lfs": {"sha256": checksum(content)[7:], "size": len(content), "pointerSize": 1}}
        for name, content in served.items()
    ]  # fmt: skip
    listing = {
        "id": "osv5m/osv5m",
        "sha": COMMIT,
        "siblings": siblings,
        "private": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
    }
    server.files["/api/datasets/osv5m/osv5m?blobs=true"] = json.dumps(listing).encode()
    server.files |= {
        f"/datasets/osv5m/osv5m/resolve/{COMMIT}/{name}": content
        for name, content in served.items()
    }
    from geoflow.cli import app

    monkeypatch.setattr(fetch, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for fetched in (2, 0):
        before = len(server.asked)
        command = ["data", "fetch", "osv5m", "--split", "test", "--root", str(tmp_path)]
        lines = CliRunner().invoke(app, command, catch_exceptions=False).stdout.splitlines()
        assert "CC BY-SA 4.0" in lines[0]
        assert f"{2 - fetched} of them here and checked" in lines[1]
        assert sum("/resolve/" in path for path, _ in server.asked[before:]) == fetched
    assert (tmp_path / "images" / "test" / "00.zip").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "fetched.json",
        "images",
        "test.csv",
    ]


def test_what_cannot_be_fetched_says_why(tmp_path):
    with pytest.raises(ValueError, match="YFCC-100M cannot be fetched"):
        fetch.fetch("yfcc", "train", tmp_path)
    with pytest.raises(ValueError, match="imagenet"):
        fetch.fetch("imagenet", "train", tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_damaged_receipts_are_named(tmp_path, content):
    (tmp_path / "fetched.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"fetched\.json is damaged"):
        fetch.fetch_parts([], tmp_path)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'{"sha": "1", "siblings": [{"rfilename": "test.csv"}]}'])  # fmt: skip
def test_a_hub_that_answers_nonsense_is_told_in_one_line(server, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(fetch, "ENDPOINT", server.url)
    server.files[f"/api/datasets/{fetch.HUB}?blobs=true"] = answer
    with pytest.raises(
        OSError, match=rf"{fetch.HUB}\?blobs=true (gave no list|cannot be read)"
    ) as error:
        fetch.fetch("osv5m", "test", tmp_path, lambda _: None)
    assert "\n" not in str(error.value)


def test_no_network_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"cannot be read: no answer, is there a network\?") as error:
        fetch.fetch("osv5m", "test", tmp_path, lambda _: None)
    assert "\n" not in str(error.value)


def test_two_downloads_into_one_folder_do_not_mix(tmp_path):
    with runtime.alone(tmp_path), pytest.raises(OSError, match="another geoflow command writes to"):
        fetch.fetch_parts([], tmp_path)
