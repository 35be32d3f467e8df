"""Every image is counted once: over batches, repeated rows and processes."""

import math
import os
import subprocess
import sys

import pytest
import torch
from small import points

from geoflow import metrics


def test_accumulated_batches_score_as_one():
    predicted, truth = points(10), points(10, seed=1)
    predicted[4] = math.nan
    rows = metrics.Accumulator(10)
    for batch in torch.randperm(10, generator=torch.Generator().manual_seed(0)).split(4):
        rows.update(batch, predicted=predicted[batch], truth=truth[batch], name=batch)
    found = rows.compute()
    assert found.pop("name").tolist() == list(range(10))
    assert metrics.summary(**found) == metrics.summary(predicted, truth)
    assert metrics.summary(**found)["nan"] == 1


def accumulated(*batches, images=4):
    rows = metrics.Accumulator(images)
    for index, *values in batches:
        rows.update(torch.tensor(index), score=torch.tensor(*values or [[float(i) for i in index]]))
    return rows.compute()["score"]


def test_repeated_rows_count_once_if_they_agree():
    assert accumulated([[0, 3]], [[2, 1]], [[0]]).tolist() == [0, 1, 2, 3]
    assert accumulated(
        [[0, 1], [math.nan, 1.0]], [[0], [math.nan]], images=2
    ).tolist() == pytest.approx([math.nan, 1], nan_ok=True)
    with pytest.raises(
        ValueError, match=r"1 images \(numbers 0\) were counted with different 'score'"
    ):
        accumulated([[0, 1, 2, 3]], [[0], [0.5]])
    with pytest.raises(ValueError, match="different"):
        accumulated([[0, 1, 2, 3]], [[0], [math.nan]])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([[[0, 1, 1]]], r"2 of 4 images were not counted \(numbers 2, 3\), 1 more than once"),
        ([], "4 of 4 images"),
        ([[[0, 4]]], "image numbers 0 … 4; expected 0 … 3"),
        ([[[-1]]], "image numbers -1"),
        ([[[0, 1], [0.0]]], "with values of shape"),
    ],
)
def test_images_that_are_not_counted_once_are_refused(batches, message):
    with pytest.raises(ValueError, match=message):
        accumulated(*batches)


def test_batches_have_the_same_values():
    rows = metrics.Accumulator(2)
    rows.update(torch.tensor([0]), a=torch.zeros(1))
    with pytest.raises(ValueError, match=r"values \['b'\]; expected \['a'\]"):
        rows.update(torch.tensor([1]), b=torch.zeros(1))


PROCESS = """
import sys, torch
from geoflow.metrics import Accumulator
rank, file = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
for images, expected in ((7, 7), (1, 1), (5, 6)):
    rows = Accumulator(expected)
    numbers = list(torch.utils.data.DistributedSampler(range(images), 2, rank, shuffle=False))
    for index in torch.tensor(numbers).split(2) if images > 1 or rank == 0 else ():  # the other one of two may have nothing to do
        rows.update(index, score=index ** 2.0)
    try:
        print(rows.compute()["score"].tolist())
    except ValueError as error:
        print(error)
torch.distributed.destroy_process_group()
"""


def test_two_processes_count_every_image_once(tmp_path):
    """The sampler gives image 0 to both of them when their number is odd."""
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", PROCESS]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    for rank in ranks:
        whole, one, part = rank.communicate(timeout=120)[0].splitlines()
        assert whole == "[0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0]"
        assert one == "[0.0]"
        assert part.startswith("1 of 6 images were not counted (numbers 5), 1 more than once")
