"""Embedding a data set: complete, in order, and killed at any moment without a loss."""

import csv
import io
import json
import multiprocessing
import os
import re
import signal
import struct
import subprocess
import sys
import tarfile
import time
from dataclasses import replace

import pyarrow as pa
import pytest
import synthetic
import torch
from PIL import Image
from small import picture

from geoflow import Geolocator, runtime
from geoflow.data import osv5m
from geoflow.data.records import Records, read_ids, read_table, write_ids
from geoflow.data.shards import ShardWriter, dataset_name, open_shards
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
    text = capsys.readouterr().out
    manifest = tmp_path / "out" / "manifest.json"
    first = "the first: pictures/photo 3.jpg cannot be read as an image: "
    assert f"2 images could not be read ({manifest} names all), {first}" in text
    assert set(json.loads(manifest.read_text())["skipped"]) == {
        "photo.3",
        "photo.4",
    }


def test_another_encoder_or_data_set_is_refused(tmp_path, encoder, records):
    embed(records, encoder, tmp_path, shard=20)
    other = type(encoder)(**encoder.config)
    with pytest.raises(ValueError, match="by the encoder 'tiles' with other weights or settings"):
        embed(records, other, tmp_path, shard=20)
    with pytest.raises(ValueError, match="made in shards of 20, not 10 .--shard.; choose another"):
        embed(records, encoder, tmp_path, shard=10)
    with pytest.raises(ValueError, match="0 images; expected at least 1"):
        embed(Records(records.name, records.rows.slice(0, 0), records.root), encoder, tmp_path)
    run = tmp_path / "run.json"
    run.write_text(run.read_text().replace('"tiles"', '"dinov2"'))
    with pytest.raises(ValueError, match="made by the encoder 'dinov2', not 'tiles'; choose"):
        embed(records, encoder, tmp_path, shard=20)


def some(records, rows, name=None):
    """Some rows of a data set, by their numbers."""
    return Records(name or records.name, records.rows.take(list(rows)), records.root)


@pytest.mark.parametrize(
    ("before", "now", "counts", "anew", "said"),
    [
        (range(17), range(20), (8, 8, 4), "00002", "3 new (the first: photo.17)"),
        (range(3, 20), range(20), (8, 8, 4), "00002", "3 new (the first: photo.0)"),
        (range(16), range(20), (8, 8, 4), "", "4 new (the first: photo.16)"),
        (range(20), [*range(5), *range(6, 20)], (7, 8, 4), "00000", "1 no longer listed (the first: photo.5)"),
        (range(20), range(16), (8, 8), "00002", "4 no longer listed (the first: photo.16)"),
        (range(20), range(8, 20), (8, 4), "00000", "8 no longer listed (the first: photo.0)"),
        (range(19), [*range(9), *range(10, 20)], (8, 7, 4), "00001, 00002", "1 no longer listed (the first: photo.9), 1 new (the first: photo.19)"),
        (range(20), range(19, -1, -1), (8, 8, 4), "", ""),
    ],
)  # fmt: skip
def test_rows_may_come_and_go(tmp_path, encoder, before, now, counts, anew, said, capsys):
    """Only the shards concerned are made anew, and a table of another name or order is the same."""
    records, out = own(tmp_path), tmp_path / "out"
    embed(some(records, before), encoder, out, shard=8)
    dates = {file.stem: file.stat().st_mtime_ns for file in out.glob("*.tar")}
    capsys.readouterr()
    shards = embed(some(records, now, "renamed.csv"), encoder, out)
    text = capsys.readouterr().out
    changed = [
        stem for stem, date in dates.items() if date != (out / f"{stem}.tar").stat().st_mtime_ns
    ]
    assert sorted(changed) == [stem for stem in anew.split(", ") if stem]
    assert said in text
    assert ("compared with renamed.csv" in text) == bool(said)
    assert shards.counts == counts
    assert sorted(ids(shards)) == sorted(some(records, now).rows["id"].to_pylist())
    for number in range(len(shards.files)):
        cond, latlon, rows = shards.read(number)
        at = [int(row["id"].removeprefix("photo.")) for row in rows]
        assert torch.equal(latlon, records.latlon[at])
        pixels = torch.stack([encoder.preprocess(image(records, i)) for i in at])
        assert torch.allclose(cond.float(), encoder.embed(pixels), atol=2e-3)
    embed(some(records, now), encoder, out)
    assert f"shards there: {len(list(out.glob('*.tar')))} of" in capsys.readouterr().out


def test_a_table_without_most_of_the_rows_is_another_data_set(tmp_path, encoder):
    records, out = own(tmp_path), tmp_path / "out"
    before = embed(some(records, range(15)), encoder, out)
    with pytest.raises(
        ValueError,
        match=r"of the 15 rows in .*out, compared with photos.csv: 10 no longer listed .the first: photo.0., 5 new .the first: photo.15.: this is another data set; choose another --out, or delete",
    ):
        embed(some(records, range(10, 20)), encoder, out)
    before.verify()


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"PAR1" * 9])
def test_a_damaged_order_of_ids_is_named(tmp_path, encoder, damage):
    records = own(tmp_path)
    embed(records, encoder, tmp_path / "out")
    (tmp_path / "out" / "ids.parquet").write_bytes(damage)
    with pytest.raises(ValueError, match=r"ids\.parquet cannot be read"):
        embed(records, encoder, tmp_path / "out")


def test_a_folder_of_an_earlier_version_goes_on(tmp_path, encoder, records, capsys):
    """It had the name and the ids of the data set in `run.json`, and no list of ids."""
    embed(records, encoder, tmp_path, shard=20)
    (tmp_path / "ids.parquet").unlink()
    run = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(
        json.dumps({"dataset": "x", "images": 40, "ids": "0", **run})
    )
    capsys.readouterr()
    embed(records, encoder, tmp_path)
    assert "shards there: 2 of 2, 0 images to embed" in capsys.readouterr().out


def own(folder, n=20):
    """A table of one's own photos, read."""
    return read_table(synthetic.table(folder, n)).with_images()


def edit_row(folder, number, **changes):
    """Change some values of a row of the table, and read it again."""
    file = folder / "photos.csv"
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    rows[number] |= changes
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return read_table(file).with_images()


def test_a_corrected_place_makes_its_shard_anew(tmp_path, encoder, capsys):
    before = embed(own(tmp_path), encoder, tmp_path / "out", shard=8)
    dates = [file.stat().st_mtime_ns for file in before.files]
    records = edit_row(tmp_path, 10, latitude="12.5", longitude="-13.25")
    capsys.readouterr()
    after = embed(records, encoder, tmp_path / "out", shard=8)
    text = capsys.readouterr().out
    assert (
        "shards made anew, as they are damaged, or their rows or image files have changed: 1 of 3: 00001.tar"
        in text
    )
    assert "shards there: 2 of 3, 8 images to embed" in text
    assert after.read(1)[1][2].tolist() == [12.5, -13.25]
    changed = [a != b.stat().st_mtime_ns for a, b in zip(dates, after.files, strict=True)]
    assert changed == [False, True, False]
    assert after.fingerprint != before.fingerprint
    after.verify()
    embed(records, encoder, tmp_path / "out", shard=8)
    assert "shards there: 3 of 3, 0 images to embed" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["path", "country", "replaced", "date only"])
def test_whatever_a_shard_was_made_of_makes_it_anew(tmp_path, encoder, change, capsys):
    """Another path, another label, another photo under the same name, even one that may be the same."""
    records = own(tmp_path)
    embed(records, encoder, tmp_path / "out", shard=8)
    photo = tmp_path / "pictures" / "photo 3.jpg"
    if change == "path":
        photo.rename(tmp_path / "moved.jpg")
        records = edit_row(tmp_path, 3, path="moved.jpg")
    elif change == "country":
        rows = records.rows.append_column("country", pa.array(["NA"] * 20))
        records = Records(records.name, rows, records.root)
    elif change == "replaced":
        photo.write_bytes((tmp_path / "pictures" / "photo 4.jpg").read_bytes())
    else:
        os.utime(photo, (1, 1))
    capsys.readouterr()
    shards = embed(records, encoder, tmp_path / "out", shard=8)
    assert (
        "have changed: " + ("3 of 3" if change == "country" else "1 of 3")
    ) in capsys.readouterr().out
    first = shards.read(0)
    expected = encoder.embed(
        encoder.preprocess(Image.open(records.root / records.rows["path"][3].as_py()))[None]
    )
    assert torch.allclose(first[0][3].float(), expected[0], atol=2e-3)
    assert first[2][3].get("country") == ("NA" if change == "country" else None)


def test_an_unfinished_folder_has_no_manifest_while_a_shard_is_made_anew(
    tmp_path, encoder, monkeypatch
):
    embed(own(tmp_path), encoder, tmp_path / "out", shard=8)
    records = edit_row(tmp_path, 10, latitude="12.5")

    def killed(*_):
        raise OSError("the power went out")

    monkeypatch.setattr("geoflow.data.shards.ShardWriter.add", killed)
    with pytest.raises(OSError, match="power went out"):
        embed(records, encoder, tmp_path / "out", shard=8)
    with pytest.raises(OSError, match="was not finished"):
        open_shards(tmp_path / "out")


def exif(orientation=6, resolution=b"72"):
    """A JPEG whose EXIF block holds a resolution as ASCII, on which Pillow's transpose fails."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack(
        "<HHI4s", 0x011A, 2, 3, resolution + b"\0"
    )
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<I", 0)
    jpg = io.BytesIO()
    picture().save(jpg, "JPEG", exif=block)
    return jpg.getvalue()


class Unreadable(Exception):
    """What no decoder is expected to raise."""


BAD = {
    "no jpg": b"no jpg",
    "empty": b"",
    "cut": lambda jpg: jpg[:200],
    "only the header": lambda jpg: jpg[:20],
    "bad EXIF": lambda jpg: exif(),
    "a text": b"id,latitude,longitude\n",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_one_bad_photo_is_named_once_and_mended_later(tmp_path, encoder, bad, capsys):
    records = own(tmp_path)
    photo = tmp_path / "pictures" / "photo 3.jpg"
    whole = photo.read_bytes()
    photo.write_bytes(bad(whole) if callable(bad) else bad)
    shards = embed(records, encoder, tmp_path / "out", shard=8)
    skipped = json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"]
    if callable(bad) and not skipped:
        assert shards.counts == (8, 8, 4)  # it can be read after all
    else:
        assert list(skipped) == ["photo.3"]
        assert shards.counts == (7, 8, 4)
    capsys.readouterr()
    embed(records, encoder, tmp_path / "out", shard=8)
    assert "shards there: 3 of 3, 0 images to embed" in capsys.readouterr().out
    photo.write_bytes(whole)
    shards = embed(records, encoder, tmp_path / "out", shard=8)
    assert "have changed: 1 of 3: 00000.tar" in capsys.readouterr().out
    assert shards.counts == (8, 8, 4)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["skipped"] == {}


@pytest.mark.parametrize("error", [Unreadable("odd"), TypeError("t"), struct.error("s"), MemoryError(), ZeroDivisionError(), KeyError("k"), RecursionError(), AssertionError()])  # fmt: skip
def test_whatever_a_decoder_raises_skips_one_photo(tmp_path, encoder, error, monkeypatch):
    records = own(tmp_path)
    preprocess, seen = encoder.preprocess, []

    def failing(image):
        seen.append(image)
        if len(seen) == 5:
            raise error
        return preprocess(image)

    monkeypatch.setattr(encoder, "preprocess", failing)
    shards = embed(records, encoder, tmp_path / "out", shard=10)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(shards) == 19
    assert (
        type(error).__name__ in manifest["skipped"]["photo.3"]
    )  # the first image measures the width


def test_a_photo_that_comes_back_is_embedded(tmp_path, encoder):
    records = own(tmp_path)
    photo = tmp_path / "pictures" / "photo 3.jpg"
    photo.rename(tmp_path / "away")
    assert embed(records, encoder, tmp_path / "out", shard=8).counts == (7, 8, 4)
    (tmp_path / "away").rename(photo)
    assert embed(records, encoder, tmp_path / "out", shard=8).counts == (8, 8, 4)


def test_no_readable_image_at_all_is_an_error(tmp_path, encoder):
    records = own(tmp_path, 3)
    for file in (tmp_path / "pictures").iterdir():
        file.write_bytes(b"no jpg")
    with pytest.raises(
        ValueError, match="none of 3 images could be read, the first: pictures/photo 0.jpg"
    ):
        embed(records, encoder, tmp_path / "out", shard=2)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_manifest_names_the_encoder_and_its_weights(tmp_path, encoder, records):
    embed(records, encoder, tmp_path / "a", shard=20, model="tiles")
    described = open_shards(tmp_path / "a").encoder
    assert (described["name"], described["model"]) == ("tiles", "tiles")
    assert described["weights"] == runtime.sha256_of_weights(encoder)[:16]


def test_an_interruption_says_what_is_kept(tmp_path, encoder, records, monkeypatch, capsys):
    add, added = ShardWriter.add, []

    def interrupted(self, *arguments):
        added.append(arguments)
        if len(added) > 25:
            raise KeyboardInterrupt
        add(self, *arguments)

    monkeypatch.setattr(ShardWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match=f"2 whole shards in {tmp_path} kept"):
        embed(records, encoder, tmp_path, shard=10)
    monkeypatch.undo()
    assert ids(embed(records, encoder, tmp_path, shard=10)) == records.rows["id"].to_pylist()
    assert "shards there: 2 of 4, 20 images to embed" in capsys.readouterr().out


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_damaged_shard_is_made_anew(tmp_path, encoder, records, position, capsys):
    shards = embed(records, encoder, tmp_path, shard=20)
    file = shards.files[1]
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 4
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"00001.tar differs from .* the same command makes it anew"):
        shards.verify()
    again = embed(records, encoder, tmp_path, shard=20)
    assert (
        "shards made anew, as they are damaged, or their rows or image files have changed: 1 of 2"
        in capsys.readouterr().out
    )
    again.verify()
    assert again.fingerprint == shards.fingerprint


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", None])
def test_a_shard_without_its_description_is_made_anew(tmp_path, encoder, records, damage):
    embed(records, encoder, tmp_path, shard=20)
    file = tmp_path / "00001.json"
    file.unlink() if damage is None else file.write_bytes(damage)
    shards = embed(records, encoder, tmp_path, shard=20)
    assert ids(shards) == records.rows["id"].to_pylist()
    shards.verify()


SLOW = """
import sys, time
from geoflow import Geolocator
from geoflow.data.records import read_table
from geoflow.training.embedding import embed
encoder = Geolocator.from_pretrained("tiles").encoder
preprocess = encoder.preprocess
encoder.preprocess = lambda image: time.sleep(0.2) or preprocess(image)
embed(read_table(sys.argv[1]).with_images(), encoder, sys.argv[2], shard=5, batch=2, workers=2)
"""


def test_two_at_once_the_second_refuses_and_a_killed_one_is_no_obstacle(
    tmp_path, encoder, monkeypatch
):
    """The first reads its images in two processes of its own, which outlive it for some seconds."""
    records, out = own(tmp_path), tmp_path / "out"
    command = [sys.executable, "-c", SLOW, str(tmp_path / "photos.csv"), str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not list(out.glob("*.partial")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.002)
        with monkeypatch.context() as patch:
            patch.setattr("geoflow.training.embedding.PATIENCE", 0.0)
            with pytest.raises(OSError, match=f"another geoflow command writes to {out}; wait"):
                embed(records, encoder, out, shard=5)
        process.kill()
    assert ids(embed(records, encoder, out, shard=5)) == records.rows["id"].to_pylist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ("photos.csv --encoder uniform", "model 'uniform' has no image encoder"), ("photos.csv --encoder tiles --weights w", "--weights is for dinov2 and streetclip; 'tiles' has its own"),
        ("photos.csv --encoder tiles --split test", "--split is for osv5m, inat21, yfcc; .* has no splits"), ("pictures --encoder tiles --root x", "--root is for tables and data sets"),
        ("pictures --encoder tiles", "no tars of images in .*; a folder of photos needs a table"), ("fotos --encoder tiles", "unknown table, folder or data set"),
        ("fotos.csv --encoder tiles", "no table at"), ("photos.csv --encoder tiles --shard 0", "expected at least 1"), ("photos.csv --encoder tyles", "unknown model 'tyles'"),
    ],
)  # fmt: skip
def test_options_that_do_not_apply_are_errors(tmp_path, options, match):
    synthetic.table(tmp_path, 2)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        synthetic.run_here(f"embed {tmp_path}/{options} --out {tmp_path}/out")
    with pytest.raises(ValueError, match="photos.csv is a file; expected a folder for the shards"):
        synthetic.run_here(
            f"embed {tmp_path}/photos.csv --encoder tiles --out {tmp_path}/photos.csv"
        )


def killed(image):
    """As a decoder that ends its process: a fault in its code, or too little memory."""
    if multiprocessing.parent_process() is not None:
        os._exit(9)
    return torch.zeros(3, 32, 32, dtype=torch.uint8)


def test_readers_that_are_killed_are_told(tmp_path, encoder, monkeypatch):
    records = own(tmp_path, 4)
    monkeypatch.setattr(encoder, "preprocess", killed)
    with pytest.raises(OSError, match="a process that reads images was killed; fewer --workers"):
        embed(records, encoder, tmp_path / "out", workers=1)


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
        ".lock",
        "00000.json",
        "00000.tar",
        "ids.parquet",
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


def test_a_folder_of_other_files_stays_as_it_is(tmp_path, encoder, records):
    (tmp_path / "photos.csv").write_text("id\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds other files than shards; expected a folder of"):
        embed(records, encoder, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["photos.csv"]


WEB = {"manifest.json": '{"name": "my web app"}', "index.html": "x", "big.iso.partial": "half"}
RUN = '{"shard": 5, "field": "tiles", "dim": 256, "encoder": %s}'


@pytest.mark.parametrize(
    "files",
    [
        WEB, {".lock": "", "thesis.tex": "x"}, {"run.json": '{"recipe": {}, "seed": 0}'}, {"run.json": "{}"}, {"run.json.x.partial": ""}, {"00000.tar": "x"},
        {"big.iso.7.partial": ""}, {"run.json": '{"shard": 5}', "manifest.json": "{}"}, {"manifest.json": "no json"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("shard", [None, 5])
def test_a_folder_that_only_looks_like_one_of_shards_stays_as_it_is(
    tmp_path, encoder, records, files, shard
):
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path} holds other files than shards; expected a"):
        embed(records, encoder, tmp_path, shard=shard)
    assert {file.name: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == files


def test_only_what_a_killed_process_was_writing_is_removed(tmp_path, encoder, records):
    left = ["run.json.7.partial", "00001.tar.8.partial", "00001.json.9.partial"]
    for name in [".lock", *left]:  # all that one leaves which is killed before its first shard
        (tmp_path / name).write_text("half", encoding="utf-8")
    shards = embed(records, encoder, tmp_path, shard=20)
    assert not list(tmp_path.glob("*.partial"))
    others = ["big.iso.partial", "photos.csv.7.partial", "notes.txt"]
    for name in others:
        (tmp_path / name).write_text("mine", encoding="utf-8")
    assert embed(records, encoder, tmp_path).fingerprint == shards.fingerprint
    assert all((tmp_path / name).read_text(encoding="utf-8") == "mine" for name in others)


@pytest.mark.parametrize("about", ['"x"', "[1]", "null", "5"])
def test_a_run_that_names_no_encoder_is_damaged(tmp_path, encoder, records, about):
    (tmp_path / "run.json").write_text(RUN % about, encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json is damaged: encoder = .*, expected dict"):
        embed(records, encoder, tmp_path)


@pytest.mark.parametrize("shard", ["-5", "true", '"15"', "0"])
def test_a_run_with_an_impossible_shard_is_named(tmp_path, encoder, records, shard):
    run = RUN.replace('"shard": 5', f'"shard": {shard}') % '{"name": "tiles"}'
    (tmp_path / "run.json").write_text(run, encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds embeddings made in shards of .*, not 2 .--shard"):
        embed(records, encoder, tmp_path)


def test_a_folder_without_its_run_is_known_by_its_manifest(tmp_path, encoder, records):
    shards = embed(records, encoder, tmp_path, shard=15)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="by the encoder 'tiles' with other weights"):
        embed(records, type(encoder)(**encoder.config), tmp_path)
    assert embed(records, encoder, tmp_path).fingerprint == shards.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"count": None}, {"count": "15"}, {"count": 5}, {"count": 15.0}, {"count": True}, {"skipped": None}, {"skipped": ["a"]}, {"skipped": {"a": 5}},
        {"skipped": {"a": "b"}}, {"sha256": 5}, {"rows": None},
    ],
)  # fmt: skip
def test_a_shard_whose_description_is_damaged_is_made_anew(
    tmp_path, encoder, records, change, capsys
):
    shards = embed(records, encoder, tmp_path, shard=15)
    file = tmp_path / "00000.json"
    whole = runtime.read_json(file, dict)
    runtime.write_json(file, {**whole, **change})
    assert embed(records, encoder, tmp_path).fingerprint == shards.fingerprint
    assert "shards made anew, as they are damaged, or" in capsys.readouterr().out
    assert runtime.read_json(file, dict) == whole
    for name in change:
        runtime.write_json(file, {key: value for key, value in whole.items() if key != name})
    embed(records, encoder, tmp_path)
    assert runtime.read_json(file, dict) == whole


def test_an_order_of_ids_with_one_twice_is_refused(tmp_path, encoder, records):
    """It would count more embeddings than there are images."""
    embed(records, encoder, tmp_path)
    order = read_ids(tmp_path / "ids.parquet")
    write_ids(tmp_path / "ids.parquet", pa.chunked_array([*order.chunks, order[:3].chunk(0)]))
    with pytest.raises(ValueError, match=r"ids\.parquet is damaged: it holds 3 rows without an id"):
        embed(records, encoder, tmp_path)


def test_a_path_too_long_for_a_file_is_a_missing_image(tmp_path, encoder):
    own(tmp_path)
    records = edit_row(tmp_path, 3, path="n" * 300 + ".jpg")
    assert str(records) == "photos.csv: 20 listed, 1 whose image is missing; 19 usable"
    assert len(embed(records, encoder, tmp_path / "out")) == 19


@pytest.mark.parametrize("name", ["", "../../x", "a\\b\n.csv", "x" * 300])
def test_a_data_set_has_a_name_that_its_manifest_may_hold(tmp_path, encoder, records, name):
    shards = embed(replace(records, name=name), encoder, tmp_path, shard=20)
    assert shards.name == open_shards(tmp_path).name == dataset_name(name)


def test_fewer_than_no_workers(tmp_path, encoder, records):
    with pytest.raises(ValueError, match=r"--workers -1; expected 0"):
        embed(records, encoder, tmp_path, workers=-1)


COMMAND = """
import time
from geoflow.cli import main
from geoflow.encoders import TileEncoder
preprocess = TileEncoder.preprocess
TileEncoder.preprocess = lambda self, image: time.sleep(0.1) or preprocess(self, image)
main()
"""


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [(signal.SIGTERM, True, 143), (signal.SIGHUP, False, 143), (signal.SIGINT, True, 130)],
)
def test_a_signal_says_what_is_kept(tmp_path, number, group, status):
    """Sent to the command, or, as a terminal does, to its readers of images too: one last line and no traceback."""
    table, out = synthetic.table(tmp_path, 100), tmp_path / "out"
    options = ["--encoder", "tiles", "--out", str(out), "--shard", "5", "--batch", "2"]
    line = [sys.executable, "-c", COMMAND, "embed", str(table), *options, "--workers", "2"]
    default = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=default) as process:  # fmt: skip
        while process.poll() is None and not list(out.glob("*.tar")):
            time.sleep(0.01)
        (os.killpg if group else os.kill)(process.pid, number)
        said = process.communicate()[0]
    assert process.returncode == status
    assert "Traceback" not in said
    expected = r"geoflow: interrupted; \d+ whole shards? in .*out kept. To go on: geoflow embed "
    assert re.match(expected, said.splitlines()[-1])
