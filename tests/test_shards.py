"""Shards of embeddings: webdataset reads ours, we read what it writes, and nothing half-written is taken for whole."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
import synthetic
import torch
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from geoflow import runtime
from geoflow.data.shards import ShardWriter, dataset_name, key_of, open_shards, samples
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
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
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
    for use in (lambda shards: shards.read(1), lambda shards: shards.verify()):
        with pytest.raises(OSError, match=r"00001.tar differs from its checksum"):
            use(open_shards(tmp_path))
    for described in tmp_path.glob("*.json"):  # as shards of others
        described.unlink()
    with pytest.raises(OSError, match=r"00001.tar is not a whole tar archive"):
        open_shards(tmp_path)


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
    with pytest.raises(ValueError, match="the json of sample 'a' has no latitude and longitude"):
        list(samples(file, "tiles"))
    with pytest.raises(ValueError, match=r"sample 'a' has no street_clip.npy"):
        list(samples(file, "street_clip"))
    with ShardWriter(file, "tiles") as writer:
        writer.add(row(0), torch.zeros(2))
        writer.add(row(1), torch.zeros(3))
    file.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"'photo.1' has shape \(3,\), expected \(2,\)"):
        open_shards(tmp_path).read(0)


@pytest.mark.parametrize(
    "id_", ["a\0b", "a\nb", "\x01", "\x7f", "NA", "../a", "..", "a\\b", "é" * 150]
)
def test_ids_of_all_kinds_are_read_again(tmp_path, id_):
    with ShardWriter(tmp_path / "0.tar", "tiles") as writer:
        writer.add({"id": id_, "latitude": 1.0, "longitude": 2.0}, torch.ones(2))
        writer.add({"id": "b", "latitude": 3.0, "longitude": 4.0}, torch.ones(2))
    _cond, latlon, rows = open_shards(tmp_path).read(0)
    assert [described["id"] for described in rows] == [id_, "b"]
    assert latlon.tolist() == [[1, 2], [3, 4]]
    with tarfile.open(tmp_path / "0.tar") as opened:
        assert not any(set(name) & set("\0\n/\\") for name in opened.getnames())


def foreign(folder, json_=b'{"latitude": 1.0, "longitude": 2.0}', array=None, name="a"):
    """A tar of one sample as others write it."""
    folder.mkdir(parents=True, exist_ok=True)
    if array is None:
        buffer = io.BytesIO()
        np.save(buffer, np.ones(4, np.float32))
        array = buffer.getvalue()
    with tarfile.open(folder / "0.tar", "w") as opened:
        for suffix, content in (("json", json_), ("tiles.npy", array)):
            member = tarfile.TarInfo(f"{name}.{suffix}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return folder


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


PLACE, ARRAY = b'{"latitude": 1.0, "longitude": 2.0}', npy(np.ones(4, np.float32))
HEADER = (
    b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
)


@pytest.mark.parametrize(
    "array",
    [
        b"", b"PK\x03\x04", npy(np.ones(4, np.float32))[:-3], npy(np.ones(4, np.int64)), npy(np.array([{}])), npy(np.ones(4, np.complex64)),
        npy(np.array([1, 2, 3, np.nan], np.float32)), npy(np.array([1, 2, 3, 1e30])), b"\x93NUMPY\x09\x00" + b"x" * 100,
        (HEADER % b"10000000000000").ljust(127) + b"\n", (HEADER % b"-1").ljust(127) + b"\n", (HEADER % b"'4'").ljust(127) + b"\n",
    ],
)  # fmt: skip
def test_damaged_embeddings_are_one_line_that_names_the_tar(tmp_path, array):
    foreign(tmp_path, array=array)
    with pytest.raises(ValueError, match=r"0\.tar: .*'a'") as error:
        open_shards(tmp_path).read(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "row",
    [
        b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"latitude": 1.0}', b'{"latitude": "1", "longitude": 2}',
        b'{"latitude": NaN, "longitude": 2}', b'{"latitude": 91, "longitude": 2}', b'{"latitude": 1, "longitude": 361}',
        b'{"latitude": true, "longitude": 2}', b'{"latitude": 1, "longitude": Infinity}',
    ],
)  # fmt: skip
def test_damaged_rows_are_one_line_that_names_the_tar(tmp_path, row):
    foreign(tmp_path, row)
    with pytest.raises(ValueError, match=r"0\.tar: the json of sample 'a'") as error:
        open_shards(tmp_path).read(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (b'{"latitude": 1%s, "longitude": 2}' % (b"0" * 400), "'a': latitude '10{77}…; expected degrees, −90 to 90"), (b'{"latitude": 1%s, "longitude": 2}' % (b"0" * 300), "'a': latitude 10{78}…; expected"),
        (b'{"latitude": 1, "longitude": 1%s}' % (b"0" * 5000), "'a': longitude '10{77}…; expected degrees, −360 to 360"), (b'{"latitude": 1, "longitude": 1e999}', "'a': longitude '1e999'; expected"),
        (b'{"latitude": "%s", "longitude": 2}' % (b"x" * 100_000), "'a': latitude 'x{78}…; expected"), (b'{"%s": 1, "%s": 1}' % (b"x" * 100_000, b"x" * 100_000), "'a' is damaged: 'x{198}…$"),
    ],
    ids=range(6),
)  # fmt: skip
def test_long_values_of_rows_are_cut(tmp_path, row, match):
    foreign(tmp_path, row)
    with pytest.raises(ValueError, match=f"0.tar: the json of sample {match}") as error:
        open_shards(tmp_path).read(0)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("row", "array", "match"),
    [
        (b"{}", None, "the json of sample 'x{79}…' has no latitude"), (PLACE, b"", "tiles.npy of 'x{79}…' is damaged"),
        (b'{"id": "%s", "latitude": 1, "longitude": 2}' % (b"y" * 100_000), npy(np.full(4, np.nan, np.float32)), "the embedding of 'y{79}…' is not finite"),
    ],
    ids=range(3),
)  # fmt: skip
def test_long_names_of_samples_are_cut(tmp_path, row, array, match):
    foreign(tmp_path, row, array, name="x" * 100_000)
    with pytest.raises(ValueError, match=f"0.tar: {match}") as error:
        open_shards(tmp_path).read(0)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shards": {"../00000.tar": 5}}, "expected a file's name"), ({"shards": {"00000.tar": "5"}}, "expected a file's name"),
        ({"shards": {"00000.tar": -5}}, "expected a file's name"), ({"shards": ["00000.tar"]}, "expected dict"), ({"dim": 0}, "expected 1 to"),
        ({"dim": 1e9}, "expected int"), ({"dim": 10**9}, "expected 1 to"), ({"field": None}, "field = None"), ({"encoder": "tiles"}, "encoder = 'tiles'"),
        ({"sha256": "abc"}, "sha256 = 'abc'"), ({"sha256": {"00000.tar": 5}}, "sha256 of 00000.tar = 5, expected a text"), ({"dataset": 3}, "dataset = 3"),
        ({"shards": {"00000.tar": 10**30}}, "at most 1,000,000,000"), ({"shards": {"00000.tar": True}}, "expected a file's name"),
        ({"shards": {}}, "shards lists no sample"), ({"shards": {"00000.tar": 0, "00001.tar": 0}}, "shards lists no sample"),
        ({"encoder": {"model": [1]}}, r"encoder.model = \[1\], expected a text"), ({"encoder": {"model": {"a": 1}}}, "encoder.model = {'a': 1}"),
        ({"encoder": {"name": 5}}, "encoder.name = 5"), ({"encoder": {"weights": [1]}}, r"encoder.weights = \[1\]"), ({"encoder": {"preprocessing": {}}}, "encoder.preprocessing"),
        ({"encoder": {"config": "x"}}, "encoder.config = 'x', expected dict"), ({"encoder": {"config": {"source": 5}}}, "encoder.config.source = 5"),
        ({"dataset": "../../x"}, "dataset = '../../x', expected 1 to 255 characters"), ({"dataset": ""}, "dataset = ''"), ({"dataset": "/etc/x"}, "dataset = '/etc/x'"),
        ({"dataset": "x" * 5000}, "dataset = 'x{40}', expected"), ({"dataset": "a\\b"}, "dataset"), ({"dataset": "a\nb"}, "dataset"), ({"dataset": "\ud800"}, "dataset"),
        ({"field": ["x" * 5000]}, r"field = \['x{77}…, expected str"), ({"dim": 10**400}, "dim = 10{78}…, expected 1 to"), ({"shards": {"x" * 5000: 5}}, "shards has 'x{79}…': 5, expected a file's name"),
        ({"shards": {"a": "x" * 5000}}, "shards has 'a': 'x{78}…, expected"), ({"encoder": {"config": "x" * 5000}}, "encoder.config = 'x{78}…, expected dict"),
        ({"sha256": {"x" * 5000: [1]}}, r"sha256 of x{69}… = \[1\], expected a text"), ({"encoder": {"name": ["x" * 5000]}}, r"encoder.name = \['x{77}…, expected a text"),
    ],
)  # fmt: skip
def test_damaged_manifests_are_named(tmp_path, change, match):
    write(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged: .*{match}"):
        open_shards(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_manifests_that_are_none_are_named(tmp_path, content):
    write(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        open_shards(tmp_path)


def test_a_count_that_is_too_large_takes_no_memory(tmp_path):
    write(tmp_path)
    manifest = tmp_path / "manifest.json"
    described = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(described | {"shards": {"00000.tar": 10**9}}))
    with pytest.raises(OSError, match=r"00000.tar holds 5 samples, expected 1000000000;"):
        open_shards(tmp_path).read(0)


def test_tars_without_embeddings_say_what_makes_them(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w"):
        pass
    with pytest.raises(ValueError, match=r"hold no embeddings .* `geoflow embed` makes them"):
        open_shards(tmp_path)


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    """Ours and foreign ones: the same for a copy, another one when a latitude, a weight of the encoder or an embedding changes."""
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert open_shards(tmp_path / "a").fingerprint == open_shards(tmp_path / "b").fingerprint
    assert (
        open_shards(tmp_path / "a").but_last().fingerprint
        != open_shards(tmp_path / "a").fingerprint
    )
    before = {open_shards(tmp_path / "a").fingerprint}
    file = tmp_path / "b" / "manifest.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described | {"encoder": {"name": "tiles", "weights": "abc"}}))
    before.add(open_shards(tmp_path / "b").fingerprint)
    write(tmp_path / "b", dim=9)
    before.add(open_shards(tmp_path / "b").fingerprint)
    for row_ in (b'{"latitude": 1.0, "longitude": 2.0}', b'{"latitude": 1.5, "longitude": 2.0}'):
        for array in (np.ones(4, np.float32), np.zeros(4, np.float32)):
            before.add(open_shards(foreign(tmp_path / "c", row_, npy(array))).fingerprint)
    assert len(before) == 7


def test_embeddings_that_changed_at_the_same_path_are_unpacked_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    for value in (1.0, 2.0):
        folder = foreign(tmp_path / "c", array=npy(np.full(4, value, np.float32)))
        os.utime(folder / "0.tar", (0, 0))
        assert open_shards(folder).mapped()[0].tolist() == [[value] * 4]


def test_manifests_of_earlier_versions_have_checksums_beside_the_tars(tmp_path):
    write(tmp_path)
    assert "sha256" not in json.loads((tmp_path / "manifest.json").read_text())
    assert open_shards(tmp_path).recorded == tuple(
        runtime.sha256(tmp_path / f"0000{i}.tar") for i in range(2)
    )


@pytest.mark.parametrize("seed", range(30))
def test_flipped_bits_in_shards_of_others_are_one_line_or_harmless(tmp_path, seed):
    """Without checksums numbers may change; nothing but a ValueError or OSError that names the file comes of it."""
    write(tmp_path, (3,))
    for described in tmp_path.glob("*.json"):
        described.unlink()
    file, rng = tmp_path / "00000.tar", np.random.default_rng(seed)
    whole = file.read_bytes()
    for _ in range(40):
        content = bytearray(whole)
        for bit in rng.integers(8 * len(whole.rstrip(b"\0")), size=3).tolist():
            content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        said = ""
        try:
            cond, latlon, _rows = open_shards(tmp_path).read(0)
            assert (cond.shape, latlon.shape) == ((3, 8), (3, 2))
            assert cond.isfinite().all()
            assert (latlon[:, 0].abs() <= 90).all()
        except (ValueError, OSError) as error:
            said = str(error)
        assert "\n" not in said
        assert not said or str(tmp_path) in said


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_anywhere_in_a_shard_is_refused(tmp_path, seed):
    write(tmp_path)
    file = tmp_path / "00000.tar"
    content = bytearray(file.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"00000.tar differs from its checksum"):
        open_shards(tmp_path).read(0)


def test_verify_names_every_damaged_shard(tmp_path):
    """Ours by their checksums, those of others by reading them."""
    write(tmp_path, (2, 2, 2, 2))
    shards = open_shards(tmp_path)
    (tmp_path / "00001.tar").write_bytes(b"")
    (tmp_path / "00003.tar").unlink()
    with pytest.raises(
        OSError, match=r"00001.tar differs from its checksum.*; also damaged: 00003.tar"
    ):
        shards.verify()
    foreign(tmp_path / "foreign")
    shards = open_shards(tmp_path / "foreign")
    shards.verify()
    foreign(tmp_path / "foreign", b'{"latitude": 91, "longitude": 2.0}')
    with pytest.raises(
        OSError, match=r"0.tar: the json of sample 'a': latitude 91; expected degrees, −90 to 90"
    ):
        shards.verify()


def test_the_command_says_whether_shards_are_whole(tmp_path):
    write(tmp_path)
    text = synthetic.run_here(f"data verify {tmp_path}")
    assert text == f"{tmp_path}: whole: 8 embeddings (tiles) in 2 shards; as their checksums say\n"
    foreign(tmp_path / "b")
    text = synthetic.run_here(f"data verify {tmp_path / 'b'}")
    assert text.endswith("whole: 1 embedding (tiles) in 1 shard; every sample was read\n")
    (tmp_path / "00001.tar").write_bytes(b"")
    with pytest.raises(OSError, match="00001.tar differs from its checksum"):
        synthetic.run_here(f"data verify {tmp_path}")


def test_a_damaged_shard_is_refused_by_name_before_training(tmp_path):
    write(tmp_path)
    file = tmp_path / "00000.tar"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"00000.tar differs from its checksum"):
        train_shards({"flow": {}}, [open_shards(tmp_path)], tmp_path / "run")  # no network yet
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["osv5m train", "photos.csv", "My photos, 2024 (é).tsv", "..", "a" * 251 + ".csv", "写真" * 20])  # fmt: skip
def test_names_of_data_sets_that_embed_writes_are_read(tmp_path, name):
    write(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"dataset": name}))
    assert open_shards(tmp_path).name == name == dataset_name(name)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "images"),
        ("a/b\\c\0\x85\ud800", "a_b_c___"),
        ("../../x", ".._.._x"),
        ("x" * 300, "x" * 255),
    ],
)
def test_other_names_of_data_sets_become_such(text, name):
    assert dataset_name(text) == name == dataset_name(name)


def test_shards_in_the_present_folder_have_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(foreign(tmp_path))
    assert open_shards(".").name == tmp_path.name


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"shards": {"00000.tar": 4, "00001.tar": 3}}, "00000.tar holds 5 samples, expected 4"), ({"shards": {"00000.tar": 5, "00001.tar": 0}}, "00001.tar holds 3 samples, expected 0"),
        ({"shards": {"00000.tar": 6, "00001.tar": 2}}, "expected 6; .*also damaged: 00001.tar"), ({"dim": 7}, "00000.tar: its embeddings have width 8, expected 7; also damaged: 00001.tar"),
        ({"field": "street_clip"}, "00000.tar holds 0 samples, expected 5"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_its_tars_is_not_whole(tmp_path, change, match):
    """Although every checksum is right."""
    write(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(OSError, match=match):
        open_shards(tmp_path).verify()


def packed(folder, *members):
    """A tar of the given members, in this order."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as opened:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return folder


@pytest.mark.parametrize(
    ("names", "twice"),
    [
        (["a.json", "a.json", "a.tiles.npy"], "a.json"), (["a.json", "a.tiles.npy", "a.tiles.npy"], "a.tiles.npy"),
        (["a.json", "a.tiles.npy", "b.json", "b.tiles.npy", "a.json", "a.tiles.npy"], "a.json"),
    ],
)  # fmt: skip
def test_a_member_that_is_there_twice_is_refused(tmp_path, names, twice):
    """The last would win without a word, or a sample would count twice."""
    packed(tmp_path, *((name, ARRAY if name.endswith("npy") else PLACE) for name in names))
    with pytest.raises(OSError, match=rf"0.tar holds {twice} twice; which one is meant is unknown"):
        open_shards(tmp_path).read(0)


def test_a_name_that_a_json_holds_twice_is_refused(tmp_path):
    foreign(tmp_path, b'{"latitude": 1, "longitude": 2, "latitude": 50}')
    with pytest.raises(
        ValueError, match=r"0.tar: the json of sample 'a' is damaged: 'latitude' occurs twice"
    ):
        open_shards(tmp_path).read(0)
