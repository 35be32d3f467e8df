"""Batches: shares of processes, any step to begin at, every sample once per epoch, tables and shards mixed."""

from collections import Counter

import pytest
import torch

from geoflow import sphere
from geoflow.data.shards import ShardWriter, open_shards
from geoflow.training.batches import Order, Rows, ShardStream, StepSampler, TensorBatches


def sampled(n, *order, **share):
    return list(StepSampler(n, Order(*order, **share)))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_step_sampler_shares_an_epoch_between_ranks(world):
    shares = [sampled(48, 8, 18, seed=3, rank=rank, world=world) for rank in range(world)]
    whole = sampled(48, 8, 18, seed=3)
    for epoch in range(3):
        steps = range(6 * epoch, 6 * epoch + 6)
        rows = torch.cat([share[step] for step in steps for share in shares])
        assert sorted(rows.tolist()) == list(range(48))
    for step in range(18):
        together = torch.cat([share[step] for share in shares])
        assert set(together.tolist()) == set(whole[step].tolist())
        assert all(len(share[step]) == 8 // world for share in shares)
    assert not torch.equal(torch.cat(whole[:6]), torch.cat(whole[6:12]))


def test_step_sampler_resumes_anywhere():
    whole = sampled(50, 8, 20, seed=3)
    for first in (0, 1, 6, 13, 20):
        rest = sampled(50, 8, 20, seed=3, first_step=first)
        assert len(rest) == 20 - first
        assert (
            len(StepSampler(50, Order(8, 20, first_step=first))) == 20
        )  # Lightning's restored count of batches includes them
        assert all(torch.equal(a, b) for a, b in zip(rest, whole[first:], strict=True))


def test_step_sampler_depends_on_its_seed():
    assert not torch.equal(sampled(50, 8, 1, seed=3)[0], sampled(50, 8, 1, seed=4)[0])


@pytest.mark.parametrize(
    ("steps", "rows"), [(40, range(0, 100, 13)), (600, range(100)), (5, range(0, 100, 25))]
)
def test_a_validation_reads_no_more_rows_than_train_until_the_next(steps, rows):
    """40 steps of 4 are validated 20 times, after 8 rows each."""
    x = torch.arange(100.0)
    loader = TensorBatches(Rows((x,)), Rows((x,)), Order(4, steps)).val_dataloader()
    assert torch.equal(torch.cat([part for (part,) in loader]), x[list(rows)])


def test_bad_batches():
    with pytest.raises(ValueError, match="a batch of 60 from 50 examples"):
        StepSampler(50, Order(60, 1))
    with pytest.raises(ValueError, match="a batch of 8 over 3 processes"):
        Order(8, 1, world=3)


def test_rows_of_several_tables():
    a = torch.arange(3.0)[:, None].half(), torch.arange(3)
    b = 10 + torch.arange(2.0)[:, None].half(), 10 + torch.arange(2)
    rows = Rows(a, b, b)
    assert len(rows) == 7
    cond, number = rows[torch.tensor([6, 0, 3, 4, 2, 5])]
    assert cond.dtype == torch.float32
    assert cond[:, 0].tolist() == number.tolist() == [11, 0, 10, 11, 2, 10]
    assert [column.tolist() for column in Rows(a)[torch.tensor([2, 1])]] == [[[2.0], [1.0]], [2, 1]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten shards of unequal size; a sample's embedding says its number."""
    folder, number = tmp_path_factory.mktemp("shards"), 0
    for shard, count in enumerate([7, 5, 6, 1, 8, 3, 4, 9, 2, 5]):
        with ShardWriter(folder / f"{shard}.tar", "tiles") as writer:
            for _ in range(count):
                writer.add(
                    {"id": str(number), "latitude": number, "longitude": -number},
                    torch.tensor([float(number), 0.0]),
                )
                number += 1
    return open_shards(folder)


def numbers(stream):
    batches = list(stream)
    for cond, x in batches:
        assert torch.allclose(sphere.to_latlon(x)[:, 0], cond[:, 0], atol=1e-3)
    return [cond[:, 0].int().tolist() for cond, _x in batches]


@pytest.mark.parametrize("world", [1, 2, 5])
@pytest.mark.parametrize("group", [1, 3, 8])
def test_a_stream_shows_every_sample_once_per_epoch(folder, world, group):
    epochs = 6
    steps = epochs * 50 // 10
    orders = [Order(10, 2 * steps, 3, rank, world) for rank in range(world)]
    seen = [numbers(ShardStream([folder], order, group)) for order in orders]
    assert all(len(batch) == 10 // world for batches in seen for batch in batches)
    for rank, batches in enumerate(
        seen
    ):  # each process: its shards, epoch after epoch, without a gap
        flat = [n for batch in batches for n in batch]
        groups = ShardStream([folder], orders[rank], group).groups()
        at = 0
        while at < len(flat) - 50:
            shards, _seed = next(groups)
            expected = {
                n
                for shards_, number in shards
                for n in shards_.read(number)[0][:, 0].int().tolist()
            }
            assert set(flat[at : at + len(expected)]) == expected
            at += len(expected)
    if world == 1:
        flat = [n for batch in seen[0] for n in batch]
        assert all(sorted(flat[50 * e : 50 * e + 50]) == list(range(50)) for e in range(epochs))
        assert flat[:50] != flat[50:100]


@pytest.mark.parametrize("world", [1, 2])
def test_a_stream_begins_at_any_step(folder, world):
    whole = numbers(ShardStream([folder], Order(6, 40, 3, world - 1, world), group=3))
    for first in (1, 7, 8, 9, 17, 39, 40):
        order = Order(6, 40, 3, world - 1, world, first)
        assert numbers(ShardStream([folder], order, group=3)) == whole[first:]


def test_what_comes_before_is_not_read(folder, monkeypatch):
    read, opened = type(folder).read, []
    monkeypatch.setattr(
        type(folder), "read", lambda self, number: opened.append(number) or read(self, number)
    )
    next(iter(ShardStream([folder], Order(10, 1000, 3, first_step=995), group=2)))
    assert len(opened) <= 6


def test_weights_of_folders(folder):
    stream = ShardStream([folder.but_last(), folder, folder], Order(29, 5))
    counts = Counter(n for batch in numbers(stream) for n in batch)
    assert {counts[n] for n in range(45)} == {3}
    assert {counts[n] for n in range(45, 50)} == {2}


def test_bad_streams(folder):
    with pytest.raises(ValueError, match="10 shards for 11 processes"):
        ShardStream([folder], Order(11, 1, world=11))
    other = folder.__class__(folder.files, folder.counts, "street_clip", 1024, {}, "")
    with pytest.raises(
        ValueError, match="embeddings of different encoders: tiles \\(2\\), street_clip \\(1024\\)"
    ):
        ShardStream([folder, other], Order(10, 1))


def test_a_shard_removed_during_training_is_an_error(folder, tmp_path):
    import shutil

    shutil.copytree(folder.files[0].parent, tmp_path / "copy")
    copy = open_shards(tmp_path / "copy")
    stream = iter(ShardStream([copy], Order(10, 100, 3), group=1))
    next(stream)
    for file in copy.files:
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.tar"):
        list(stream)


def test_memory_mapped(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path))
    cond, x = folder.mapped()
    assert cond[:, 0].tolist() == list(range(50))
    assert torch.allclose(sphere.to_latlon(x)[:, 0], torch.arange(50.0), atol=1e-3)
    monkeypatch.setattr(type(folder), "read", None)  # the second time nothing is read
    assert torch.equal(folder.mapped()[0], cond)
    monkeypatch.undo()
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match="MB are needed in"):
        folder.mapped()
    assert not list((tmp_path / "full" / "shards").glob("*[!k]"))
