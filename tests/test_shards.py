"""Shards of embeddings: webdataset reads ours, we read what it writes, and nothing half-written is taken for whole."""

import json
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from geoflow.data.shards import ShardWriter, key_of, open_shards, samples
from geoflow.training.runs import train_shards


def row(i):
    return {"id": f"photo.{i}", "latitude": i / 7, "longitude": -i / 3, "country": None}


def write(folder, counts=(5, 3), dim=8, field="tiles"):
    """A folder of shards as `geoflow embed` leaves it; its embeddings, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    embeddings = torch.randn(sum(counts), dim, generator=torch.Generator().manual_seed(0)).half()
    first = 0
    for number, count in enumerate(counts):
        with ShardWriter(folder / f"{number:05d}.tar", field) as writer:
            for i in range(first, first + count):
                writer.add(row(i), embeddings[i].float())
        first += count
    shards = {f"{number:05d}.tar": count for number, count in enumerate(counts)}
    manifest = {
        "dataset": "some images",
        "shards": shards,
        "field": field,
        "dim": dim,
        "encoder": {"name": "tiles"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return embeddings


def test_what_is_written_is_read(tmp_path):
    embeddings = write(tmp_path)
    assert open_shards(tmp_path).name == "some images"
    shards = open_shards(tmp_path)
    assert (len(shards), shards.dim, shards.field) == (8, 8, "tiles")
    parts = [shards.read(number) for number in range(2)]
    assert torch.equal(torch.cat([part[0] for part in parts]), embeddings)
    assert torch.equal(
        torch.cat([part[1] for part in parts]),
        torch.tensor([[i / 7, -i / 3] for i in range(8)], dtype=torch.float64),
    )
    assert [r for part in parts for r in part[2]] == [row(i) for i in range(8)]
    shards.verify()


def test_the_same_samples_make_the_same_file(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert (tmp_path / "a" / "00000.tar").read_bytes() == (
        tmp_path / "b" / "00000.tar"
    ).read_bytes()


def test_webdataset_reads_ours(tmp_path):
    embeddings = write(tmp_path, (4,))
    dataset = (
        webdataset.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False)
        .decode()
        .to_tuple("__key__", "tiles.npy", "json")
    )
    for i, (key, embedding, described) in enumerate(dataset):
        assert key == key_of(f"photo.{i}") == f"photo%2E{i}"
        assert np.array_equal(embedding, embeddings[i].numpy())
        assert described == row(i)
    assert i == 3


@pytest.mark.parametrize(
    "form",
    [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT],
    ids=["ustar", "pax", "gnu"],
)
@pytest.mark.parametrize("length", [5, 150], ids=["short names", "long names"])
def test_we_read_official_shards(tmp_path, form, length):
    """Several embeddings and a jpg per key, float32, made by the tools that made the official ones."""
    embeddings = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    if form == tarfile.USTAR_FORMAT and length > 100:
        pytest.skip("ustar has no names of 150 characters without folders")
    with webdataset.TarWriter(str(tmp_path / "0000.tar")) as sink:
        sink.tarstream.format = form
        for i in range(6):
            sink.write(
                {"__key__": f"{i:0{length}d}", "jpg": b"\xff\xd8" * (300 + i), "street_clip.npy": embeddings[i] * 2,
                 "json": {"latitude": float(i), "longitude": -float(i)}, "dinov2_vitl14_registers.npy": embeddings[i]}
            )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"several embeddings \(dinov2_vitl14_registers, street_clip\)"
    ):
        open_shards(tmp_path)
    with pytest.raises(ValueError, match="unknown field 'street-clip'.*did you mean 'street_clip'"):
        open_shards(tmp_path, "street-clip")
    shards = open_shards(tmp_path, "street_clip")
    cond, latlon, rows = shards.read(0)
    assert (len(shards), shards.dim) == (6, 16)
    assert np.allclose(cond.numpy(), embeddings * 2, atol=2e-3)
    assert latlon[3].tolist() == [3.0, -3.0]
    assert rows[3]["id"] == f"{3:0{length}d}"


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1, max_size=200),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_id_survives(ids):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "0.tar"
        with ShardWriter(file, "tiles") as writer:
            for id_ in ids:
                writer.add({"id": id_, "latitude": 0.0, "longitude": 0.0}, torch.zeros(2))
        assert [described["id"] for described, _embedding in samples(file, "tiles")] == ids


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_shard_is_refused(tmp_path, share):
    write(tmp_path)
    file = tmp_path / "00001.tar"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content.rstrip(b"\0")) * share)])
    with pytest.raises(OSError, match=r"00001.tar is no whole tar archive"):
        open_shards(tmp_path).read(1)
    with pytest.raises(OSError, match=r"00001.tar differs from its checksum"):
        open_shards(tmp_path).verify()


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no shards"):
        open_shards(tmp_path)
    write(tmp_path)
    (tmp_path / "manifest.json").rename(tmp_path / "run.json")
    with pytest.raises(OSError, match="was not finished"):
        open_shards(tmp_path)
    (tmp_path / "run.json").rename(tmp_path / "manifest.json")
    shards = open_shards(tmp_path)
    (tmp_path / "00001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"00001.tar is gone"):
        open_shards(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"00001.tar"):
        shards.read(1)


def test_spoilt_samples_are_refused(tmp_path):
    file = tmp_path / "0.tar"
    with (
        pytest.raises(ValueError, match=r"embedding of 'photo.0' is not finite"),
        ShardWriter(file, "tiles") as writer,
    ):
        writer.add(row(0), torch.tensor([1.0, 1e6]))
    assert list(tmp_path.iterdir()) == []
    with ShardWriter(file, "tiles") as writer:
        writer.add({"id": "a", "latitude": None, "longitude": 1.0}, torch.zeros(2))
    with pytest.raises(ValueError, match="sample 'a' has no latitude and longitude"):
        list(samples(file, "tiles"))
    with pytest.raises(ValueError, match=r"sample 'a' has no street_clip.npy"):
        list(samples(file, "street_clip"))
    with ShardWriter(file, "tiles") as writer:
        writer.add(row(0), torch.zeros(2))
        writer.add(row(1), torch.zeros(3))
    file.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"'photo.1' has shape \(3,\), expected \(2,\)"):
        open_shards(tmp_path).read(0)


def test_a_damaged_shard_is_refused_by_name_before_training(tmp_path):
    write(tmp_path)
    file = tmp_path / "00000.tar"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"00000.tar differs from its checksum"):
        train_shards({}, [open_shards(tmp_path)], tmp_path / "run")  # the recipe is not read yet
    assert not (tmp_path / "run").exists()
