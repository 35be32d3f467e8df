"""Embedding a data set: complete, in order, and killed at any moment without a loss."""

import io
import json
import tarfile
import time

import pytest
import synthetic
import torch
from PIL import Image

from geoflow import Geolocator
from geoflow.data import osv5m
from geoflow.data.records import Records, read_table
from geoflow.data.shards import open_shards
from geoflow.training.embedding import embed


@pytest.fixture(scope="module")
def encoder():
    return Geolocator.from_pretrained("tiles").encoder


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return osv5m.read(synthetic.osv5m(tmp_path_factory.mktemp("osv5m")), "train")


def ids(shards):
    return [row["id"] for number in range(len(shards.files)) for row in shards.read(number)[2]]


def test_every_image_once_and_in_order(tmp_path, encoder, records, capsys):
    shards = embed(records, encoder, tmp_path, shard=15, batch=4, workers=2)
    assert shards.counts == (15, 15, 10)
    assert ids(shards) == records.rows["id"].to_pylist()
    cond, latlon, rows = shards.read(1)
    with torch.no_grad():
        expected = encoder.embed(
            torch.stack([encoder.preprocess(image(records, i)) for i in range(15, 30)])
        )
    assert torch.allclose(cond.float(), expected, atol=2e-3)
    assert torch.equal(latlon, records.latlon[15:30])
    assert rows[0]["country"] == "CL"
    shards.verify()
    assert shards.encoder["preprocessing"] == "whole image, bicubic to 32 × 32"
    text = capsys.readouterr().out
    assert "40 images to embed" in text
    assert "40 embeddings in 3 shards; 0 images could not be read" in text


def image(records, i):
    return Image.open(io.BytesIO(records.read(records.rows["path"][i].as_py())))


def test_a_corrupt_image_is_skipped_and_named(tmp_path, encoder, capsys):
    records = read_table(synthetic.table(tmp_path))
    (tmp_path / "pictures" / "photo 3.jpg").write_bytes(b"no jpg")
    (tmp_path / "pictures" / "photo 4.jpg").unlink()
    shards = embed(records, encoder, tmp_path / "out", shard=10, batch=3)
    assert shards.counts == (8, 10)
    assert "2 images could not be read, the first: pictures/photo 3.jpg" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"]) == {
        "photo.3",
        "photo.4",
    }


def test_another_encoder_or_data_set_is_refused(tmp_path, encoder, records):
    embed(records, encoder, tmp_path, shard=20)
    other = type(encoder)(**encoder.config)
    with pytest.raises(ValueError, match="holds embeddings with encoder"):
        embed(records, other, tmp_path, shard=20)
    with pytest.raises(ValueError, match="holds embeddings with ids = "):
        embed(
            Records(records.name, records.rows.slice(1), records.root), encoder, tmp_path, shard=20
        )
    with pytest.raises(ValueError, match="holds embeddings with shard = 20, not 10"):
        embed(records, encoder, tmp_path, shard=10)
    with pytest.raises(ValueError, match="0 images; expected at least 1"):
        embed(Records(records.name, records.rows.slice(0, 0), records.root), encoder, tmp_path)


def test_a_full_disk_is_seen_before(tmp_path, encoder, records, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="are needed in"):
        embed(records, encoder, tmp_path, shard=20)
    assert list(tmp_path.glob("*.tar*")) == []


def test_a_disk_that_fills_up_leaves_no_half_shard(tmp_path, encoder, records, monkeypatch):
    add, written = tarfile.TarFile.addfile, []

    def full(self, info, content=None):
        written.append(info)
        if len(written) > 50:
            raise OSError(28, "No space left on device")
        return add(self, info, content)

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        embed(records, encoder, tmp_path, shard=15)
    monkeypatch.undo()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "00000.json",
        "00000.tar",
        "run.json",
    ]
    assert ids(embed(records, encoder, tmp_path, shard=15)) == records.rows["id"].to_pylist()


def test_killed_at_random_moments(tmp_path, encoder, records):
    """Eight times: embed slowly in a process of its own, kill it after k shards, go on in this one."""
    delays = torch.rand(8, generator=torch.Generator().manual_seed(0)) * 0.06
    cut_short = 0
    for k, delay in enumerate(delays.tolist()):
        out = tmp_path / str(k)
        process = synthetic.FORKS.Process(
            target=synthetic.embed_slowly, args=(records, encoder, out)
        )
        process.start()
        while process.is_alive() and (not out.exists() or len(list(out.glob("*.tar"))) < k):
            time.sleep(0.002)
        time.sleep(delay)
        process.kill()
        process.join()
        cut_short += 0 < len(list(out.glob("*.tar"))) < 8
        shards = embed(records, encoder, out, shard=5)
        assert ids(shards) == records.rows["id"].to_pylist()
        shards.verify()
        assert not list(out.glob("*.partial"))
    assert cut_short >= 4


def test_two_processes_share_the_work(tmp_path, encoder, records):
    synthetic.on_two_processes(29511, embed, records, encoder, tmp_path, 5, 2, devices=2)
    assert ids(open_shards(tmp_path)) == records.rows["id"].to_pylist()
