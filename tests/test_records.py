"""Readers of located images: what they find in small copies of the real layouts, and what they say of spoilt ones."""

import bz2
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import synthetic
import torch

from geoflow.data import inat21, osv5m, yfcc
from geoflow.data.records import Records, clean, read_ids, read_table, read_tars, write_ids


def places(seed, n):
    return torch.tensor([[lat, lon] for lat, lon, _jpg in synthetic.pictures(n, seed)])


@pytest.mark.parametrize("zipped", [True, False])
def test_osv5m(tmp_path, zipped):
    root = synthetic.osv5m(tmp_path, zipped=zipped)
    records = osv5m.read(root, "test")
    assert str(records) == "osv5m test: 20 listed; 20 usable"
    assert torch.allclose(records.latlon.float(), places(5_000_000, 20))
    row = records.rows.slice(3, 1).to_pylist()[0]
    assert (row["country"], row["region"], row["city"]) == ("CL", "Chatham Islands_NZ", None)
    namibia = root / "test.csv"
    namibia.write_text(namibia.read_text().replace(",CL", ",NA"))
    assert set(osv5m.read(root, "test").rows["country"].to_pylist()) == {"NA"}
    assert records.read(row["path"]) == synthetic.pictures(20, 5_000_000)[3][2]


def test_a_long_value_of_osv5m_is_cut(tmp_path):
    file = synthetic.osv5m(tmp_path) / "test.csv"
    file.write_text("id,latitude,longitude\na," + "x" * 100_000 + ",2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"test\.csv cannot be read: .*'x+…$") as error:
        osv5m.read(tmp_path, "test")
    assert len(str(error.value)) < 500


def test_osv5m_of_a_partial_copy(tmp_path):
    root = synthetic.osv5m(tmp_path)
    (root / "images" / "train" / "01.zip").unlink()
    records = osv5m.read(root, "train")
    assert str(records) == "osv5m train: 40 listed, 20 whose image is missing; 20 usable"
    assert all("00.zip" in path for path in records.rows["path"].to_pylist())


def test_tars_of_images(tmp_path):
    root = synthetic.tars(tmp_path / "train")
    records = read_tars(root)
    assert str(records) == "train: 20 listed, 2 whose image is missing; 18 usable"
    pictures = {str(i): jpg for i, (_lat, _lon, jpg) in enumerate(synthetic.pictures(20, 5))}
    for row in records.rows.to_pylist():
        assert records.read(row["path"]) == pictures[row["id"]]
        assert row["country"] == "CL"
    (root / "0001.tar").write_bytes((root / "0001.tar").read_bytes()[:20_000])
    with pytest.raises(OSError, match=r"0001\.tar is not a whole tar archive"):
        read_tars(root)
    with pytest.raises(FileNotFoundError, match="no tars of images"):
        read_tars(tmp_path)


def pack(file, contents, prefix=""):
    with tarfile.open(file, "w") as opened:
        for name, content in contents:
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))


PLACE = b'{"latitude": 1.5, "longitude": 2.5}'


def test_tars_written_with_a_dot_and_other_image_formats(tmp_path):
    names = ["a.JPG", "b.png", "c.webp", "d.jpeg"]
    contents = [(n, c) for i in names for n, c in ((i, i.encode()), (f"{i[0]}.json", PLACE))]
    pack(tmp_path / "0.tar", [*contents, ("readme.txt", b"")], "./")
    records = read_tars(tmp_path)
    assert [records.read(path).decode() for path in records.rows["path"].to_pylist()] == names
    assert records.rows["id"].to_pylist() == ["a", "b", "c", "d"]


def test_images_of_tars_that_nothing_describes_are_counted(tmp_path):
    pack(tmp_path / "0.tar", [("a.jpg", b""), ("a.json", PLACE), ("b.jpg", b""), ("c.json", PLACE)])
    assert str(read_tars(tmp_path)).endswith(
        ": 3 listed, 1 image without a json of its place, 1 whose image is missing; 1 usable"
    )


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        ([("a.jpg", b""), ("a.json", b"{")], "0.tar: a.json is not the json of a sample"), ([("a.jpg", b""), ("a.json", b"[]")], "a list, not an object"),
        ([("a.json", b'{"latitude": "x", "longitude": 1}')], "0.tar: a.json .* latitude 'x'; expected degrees, −90 to 90$"), ([("a.json", b"[" * 100_000)], "0.tar: a.json is not the json"),
        ([("a.jpg", b""), ("a.json", b'{"latitude": 1, "longitude": 2, "latitude": 50}')], "0.tar: a.json is not the json .*'latitude' occurs twice"),
        ([("a.json", b'{"id": "\\ud800", "latitude": 1, "longitude": 1}')], "0.tar: a.json is not the json of a sample: .*surrogates"),
        ([("a.json", b'{"id": "\\u0000", "latitude": 1, "longitude": 1}')], r"the id '\\x00' holds a control character"),
        ([("a.jpg", b"")], "hold no .json, which says where"),
        ([("a.json", b'{"latitude": 1%s, "longitude": 1}' % (b"0" * 400))], "0.tar: a.json is not the json of a sample: latitude '10{77}…; expected degrees, −90 to 90$"),
        ([("a.json", b'{"latitude": 1, "longitude": -1%s}' % (b"0" * 5000))], "0.tar: a.json .*: longitude '-10{76}…; expected degrees, −180 to 180$"),
        ([("a.json", b'{"latitude": 1e999, "longitude": 1}')], "0.tar: a.json .*: latitude '1e999'; expected degrees"),
        ([("a.json", b'{"latitude": 1, "longitude": "%s"}' % (b"x" * 100_000))], "0.tar: a.json .*: longitude 'x{78}…; expected degrees"),
        ([("a.json", b'{"%s": 1, "%s": 1}' % (b"x" * 100_000, b"x" * 100_000))], "0.tar: a.json .* 'x{198}…$"),
        ([("a.json", b'{"city": "\\ud800", "latitude": 1, "longitude": 1}')], "0.tar: a.json is not the json of a sample: .*surrogates"),
        ([("a.json", b'{"latitude": 1%s, "longitude": 1}' % (b"0" * 25))], "not on Earth: 1 of 1 place, the first of them 'a' with latitude 1e"),
        ([("a.json", b'{"id": "%s\\u0000", "latitude": 1, "longitude": 1}' % (b"x" * 100_000))], "the id 'x{79}…' holds a control character"),
        ([("a.json", b'{"id": "%s", "latitude": 91, "longitude": 1}' % (b"x" * 100_000))], "the first of them 'x{79}…' with latitude 91"),
    ],
    ids=range(17),
)  # fmt: skip
def test_spoilt_jsons_of_tars_are_named(tmp_path, contents, match):
    pack(tmp_path / "0.tar", contents)
    with pytest.raises(ValueError, match=match) as error:
        read_tars(tmp_path)
    assert len(str(error.value)) < 500


def test_an_id_of_many_digits_is_kept(tmp_path):
    for number, id_ in enumerate(("1" + "0" * 5000, "1" + "0" * 30)):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = b'{"id": %s, "latitude": 1, "longitude": 2}' % id_.encode()
        pack(folder / "0.tar", [("a.jpg", b""), ("a.json", place)])
        assert read_tars(folder).rows["id"].to_pylist() == [id_]


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    pack(tmp_path / "0.tar", [("a.jpg", b"1"), ("a.json", PLACE), ("a.jpg", b"2")])
    with pytest.raises(OSError, match=r"0.tar holds a.jpg twice"):
        read_tars(tmp_path)


def test_inat21(tmp_path):
    records = inat21.read(synthetic.inat21(tmp_path), "test")
    assert str(records) == "inat21 test: 20 listed, 2 without coordinates; 18 usable"
    assert torch.allclose(records.latlon.float(), places(2, 20)[torch.arange(20) % 10 != 0])
    assert records.read(records.rows["path"][0].as_py()) == synthetic.pictures(20, 2)[1][2]


@pytest.mark.parametrize("numbered", [False, True], ids=["23 columns", "24 columns"])
def test_yfcc(tmp_path, numbered):
    root = synthetic.yfcc(tmp_path, numbered=numbered)
    train, test = yfcc.read(root, "train"), yfcc.read(root, "test")
    assert str(train) == (
        "yfcc train: 60 listed, 4 videos, 20 of the other split, 4 of accuracy below 12, 4 without coordinates; 28 usable"
    )
    assert str(test) == "yfcc test: 60 listed, 4 videos, 36 of the other split; 20 usable"
    assert torch.allclose(test.latlon.float(), places(3, 60)[40:])
    by_id = {row["id"]: row for row in train.rows.to_pylist()}
    assert train.read(by_id["6985418914"]["path"]) == synthetic.pictures(60, 3)[3][2]


def test_yfcc_counts_a_photo_once(tmp_path):
    """Of the hash list: lines that are there twice, two hashes of one photo, none of another."""
    root = synthetic.yfcc(tmp_path)
    before = yfcc.read(root, "test")
    file = root / "yfcc100m_hash"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, *lines, lines[-1]]) + "\n")
    again = yfcc.read(root, "test")
    assert str(again) == str(before)
    assert again.rows.sort_by("id").equals(before.rows.sort_by("id"))
    ids = [line.partition("\t")[0] for line in lines]
    spoilt = [*lines[:-2], f"{ids[-2]}\t", lines[-1], f"{ids[-1]}\tabcdef", f"{ids[-3]}\t"]
    file.write_text("\n".join(spoilt) + "\n")
    assert str(yfcc.read(root, "test")).endswith(
        "36 of the other split, 1 with two different hashes, 1 without a hash; 18 usable"
    )


@pytest.mark.parametrize("name", ["yfcc100m_dataset", "yfcc100m_hash"])
@pytest.mark.parametrize("seed", range(20))
def test_a_cut_or_flipped_bz2_of_yfcc_is_named(tmp_path, name, seed):
    root = synthetic.yfcc(tmp_path)
    whole = bz2.compress((root / name).read_bytes())
    (root / name).unlink()
    rng = np.random.default_rng(seed)
    flipped = bytearray(whole)
    flipped[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
    for spoilt in (whole[: int(rng.integers(len(whole)))], bytes(flipped)):
        (root / f"{name}.bz2").write_bytes(spoilt)
        with pytest.raises(ValueError, match=rf"{name}\.bz2 (cannot be read|has .* or damaged)"):
            yfcc.read(root, "test")
    (root / f"{name}.bz2").write_bytes(whole)
    assert len(yfcc.read(root, "test")) == 20


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet"])
def test_own_tables(tmp_path, kind):
    file = synthetic.table(tmp_path)
    found = read_table(file)
    if kind == "csv.gz":
        (tmp_path / "photos.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
    elif kind == "tsv":
        (tmp_path / "photos.tsv").write_text("id\tlatitude\tlongitude\tpath\n" + "\n".join(
            f"{row['id']}\t{row['latitude']}\t{row['longitude']}\t{row['path']}" for row in found.rows.to_pylist()))  # fmt: skip
    elif kind == "parquet":
        pa.parquet.write_table(found.rows, tmp_path / "photos.parquet")
    again = read_table(tmp_path / f"photos.{kind}").with_images()
    assert len(again) == 20
    assert torch.equal(again.latlon, found.latlon)
    assert torch.allclose(again.latlon.float(), places(4, 20))
    assert again.rows["id"][7].as_py() == "photo.7"


def test_rows_without_a_path_have_no_image(tmp_path):
    with pytest.raises(
        ValueError,
        match="x: no column of path, which says where each image is; expected one called path, file",
    ):
        Records("x", table(), tmp_path).with_images()
    (tmp_path / "1.jpg").write_bytes(b"")
    some = Records("x", table(path=["1.jpg", None, "2.jpg", "1.jpg"]), tmp_path).with_images()
    assert str(some) == "x: 4 listed, 2 whose image is missing; 2 usable"
    assert "2 missing: b, 2.jpg" in some.describe()


def table(**columns):
    return pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "latitude": [1.0, 2.0, 3.0, 4.0],
            "longitude": [5.0, 6.0, 7.0, 8.0],
            **columns,
        }
    )


def test_spoilt_rows_are_counted():
    spoilt = table(id=["a", "b", "a", "d"], latitude=[1.0, None, 3.0, float("nan")])
    assert (
        str(clean("x", spoilt, "."))
        == "x: 4 listed, 2 without coordinates, 1 with the id of an earlier row; 1 usable"
    )
    many = pa.concat_tables(
        [table(id=[f"{i}{c}" for c in "abcd"]) for i in range(50)]
        + [table(latitude=[91.0, 2.0, 3.0, 4.0])]
    )
    assert str(clean("x", many, ".")) == "x: 204 listed, 1 not on Earth; 203 usable"


@pytest.mark.parametrize("id_", ["a\0b", "a\nb", "\x7f"])
def test_ids_with_control_characters_are_refused(id_):
    with pytest.raises(ValueError, match=r"x: the id '.*\\x?.*' holds a control character"):
        clean("x", table(id=["a", "b", id_, "c"]), ".")


def test_rows_without_an_id_are_counted():
    spoilt = table(id=["a", None, "", "d"])
    assert str(clean("x", spoilt, ".")) == "x: 4 listed, 2 without an id; 2 usable"


def test_spoilt_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no column 'latitude'.*found id, lat"):
        clean("x", pa.table({"id": ["a"], "lat": [1.0], "longitude": [1.0]}), ".")
    with pytest.raises(
        ValueError,
        match=r"not on Earth: 1 of 4 places, the first of them 'b' with latitude 139.7.*swapped",
    ):
        clean("x", table(latitude=[1.0, 139.7, 3.0, 4.0]), ".")
    with pytest.raises(ValueError, match=r"latitude should be degrees, but .*'48°N'"):
        clean("x", table(latitude=["1", "48°N", "3", "4"]), ".")
    with pytest.raises(ValueError, match=r"latitude should be degrees, but .*'x+…$"):
        clean("x", table(latitude=["1", "x" * 1000, "3", "4"]), ".")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"a.parquet cannot be read"):
        read_table(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="should end in"):
        read_table(synthetic.table(tmp_path / "t").rename(tmp_path / "t" / "photos.doc"))
    with pytest.raises(FileNotFoundError, match="no table at"):
        read_table(tmp_path / "b.csv")


def test_spoilt_copies_are_refused(tmp_path):
    root = synthetic.osv5m(tmp_path / "osv5m")
    with pytest.raises(ValueError, match="unknown split 'val'"):
        osv5m.read(root, "val")
    archive = root / "images" / "train" / "00.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"00.zip is not a whole zip archive"):
        osv5m.read(root, "train")
    for file in (root / "images" / "test").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="none of 20 images is in"):
        osv5m.read(root, "test")
    with pytest.raises(FileNotFoundError, match=r"no train.csv in"):
        osv5m.read(tmp_path, "train")
    for images in (
        '[{"id": 1}]',
        "3",
        "[3]",
        "{}",
        "null",
        '[{"id": 1, "file_name": 3}]',
        '[{"id": 1, "file_name": "a", "latitude": "x"}]',
    ):
        (tmp_path / "train.json").write_text(f'{{"images": {images}}}')
        with pytest.raises(
            ValueError, match=r"train\.json is no COCO-style json|inat21 train: (none|0 listed)"
        ):
            inat21.read(tmp_path, "train")
    root = synthetic.yfcc(tmp_path / "yfcc")
    (root / "yfcc4k_ids.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match="no yfcc4k_ids.txt in .*expected the test photos, an id per line"
    ):
        yfcc.read(root, "train")
    (root / "yfcc4k_ids.txt").write_text("")
    (root / "yfcc100m_dataset").write_text("1\t2\t3\n")
    with pytest.raises(ValueError, match="has 3 columns; expected 23"):
        yfcc.read(root, "train")


def test_a_damaged_image_in_an_archive_is_an_oserror(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.jpg", b"123")
    records = Records("x", table(), tmp_path)
    assert records.read("a.zip/1.jpg") == b"123"
    with pytest.raises(OSError, match=r"2.jpg cannot be read"):
        records.read("a.zip/2.jpg")


def test_ids_are_read_as_they_were_written(tmp_path):
    ids = pa.chunked_array([["a", "b"], ["é"]])
    write_ids(tmp_path / "ids.parquet", ids)
    assert read_ids(tmp_path / "ids.parquet") == ids


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": ["a"]}, r"x \(string\)"), ({"id": [1, 2]}, r"id \(int64\)"), ({}, "no column"), ({"id": [b"a"]}, r"id \(binary\)"), ({"id": ["a"], "x": [1]}, r"id \(string\), x"),
        ({"id": ["a", "b", "a", "a"]}, "2 rows without an id or with that of another row"), ({"id": ["a", None]}, "1 row without an id"), ({"id": pa.nulls(2)}, r"id \(null\)"),
    ],
)  # fmt: skip
def test_other_tables_than_lists_of_ids_are_named(tmp_path, columns, said):
    file = tmp_path / "ids.parquet"
    pa.parquet.write_table(pa.table(columns), file)
    with pytest.raises(ValueError, match=rf"ids.parquet is damaged: it holds {said}.*; expected"):
        read_ids(file)


def test_tars_in_the_present_folder_have_its_name(tmp_path, monkeypatch):
    pack(tmp_path / "0.tar", [("a.jpg", b""), ("a.json", PLACE)])
    monkeypatch.chdir(tmp_path)
    assert read_tars(".").name == tmp_path.name
