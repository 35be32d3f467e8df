"""Batches from tensors, memory-mapped files or a stream of shards.

Which rows a step sees depends on (seed, step) alone. So a run that was interrupted and resumed
sees what one that was not sees, and each process finds its share without asking the others.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from geoflow import sphere
from geoflow.data.shards import Shards
from geoflow.runtime import count

VALIDATIONS = 20  # of a run


class Rows(Dataset):
    """Rows of several tables, one after the other; half precision becomes single.

    A table is a tuple of columns of equal length, such as (cond, x). Given twice it counts twice.

    >>> rows = Rows((torch.tensor([1.0, 2.0]),), (torch.tensor([3.0]),))
    >>> len(rows), rows[torch.tensor([2, 0])]
    (3, (tensor([3., 1.]),))
    """

    def __init__(self, *tables: tuple[Tensor, ...]):
        self.tables = tables
        self.ends = torch.tensor([len(table[0]) for table in tables]).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def bytes(self) -> int:
        """What the columns take."""
        return sum(column.numel() * column.element_size() for t in self.tables for column in t)

    def to(self, device) -> "Rows":
        """The same rows on a device."""
        return Rows(*(tuple(column.to(device) for column in table) for table in self.tables))

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:
        index = index.to(self.tables[0][0].device)
        if len(self.tables) == 1:
            return tuple(_single(column[index]) for column in self.tables[0])
        table_of = torch.bucketize(index, self.ends.to(index.device), right=True)
        first = [_single(column[:1]) for column in self.tables[0]]
        found = tuple(column.new_zeros(len(index), *column.shape[1:]) for column in first)
        for number, table in enumerate(self.tables):
            here = table_of == number
            inside = index[here] - (self.ends[number] - len(table[0]))
            for whole, column in zip(found, table, strict=True):
                whole[here] = _single(column[inside])
        return found


class Part(Dataset):
    """Some of the rows of a data set.

    >>> part = Part(Rows((torch.tensor([1.0, 2.0, 3.0]),)), torch.tensor([2, 0]))
    >>> len(part), part[torch.tensor([0])]
    (2, (tensor([3.]),))
    """

    def __init__(self, rows: Rows, numbers: Tensor):
        self.rows, self.numbers = rows, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def bytes(self) -> int:
        """What the columns of the data set take."""
        return self.rows.bytes

    def to(self, device) -> "Part":
        """The same rows on a device."""
        return Part(self.rows.to(device), self.numbers)

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:
        return self.rows[self.numbers[index]]


def _single(column: Tensor) -> Tensor:
    return column.float() if column.dtype == torch.float16 else column


@dataclass(frozen=True)
class Order:
    """The order in which a run sees its data, and one process's share of it."""

    batch: int  # samples per step over all processes, a multiple of their number
    steps: int  # steps of the run
    seed: int = 0  # of all permutations
    rank: int = 0  # number of this process
    world: int = 1  # number of processes
    first_step: int = 0  # step to begin at

    def __post_init__(self):
        if self.batch % self.world:
            text = f"a batch of {self.batch} over {count(self.world, 'process', 'processes')}"
            raise ValueError(f"{text}; expected a multiple")

    @property
    def interval(self) -> int:
        """Steps from one validation to the next."""
        return max(self.steps // VALIDATIONS, 1)

    def epoch_seed(self, epoch: int) -> int:
        """Return the seed of an epoch, the same in every process."""
        return self.seed * 1_000_003 + epoch


def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed % 2**63))


class StepSampler(Sampler):
    """Batches of the indices of n rows: a new permutation in each epoch, without the last few.

    Every process draws the same global batch and keeps its share: rows rank, rank + world, …
    Fewer rows than a batch are a ValueError.
    """

    def __init__(self, n: int, order: Order):
        if order.batch > n:
            text = f"a batch of {order.batch} from {count(n, 'example')}"
            raise ValueError(f"{text}; expected at most as many as there are")
        self.n, self.order = n, order

    def __len__(self) -> int:  # Lightning ends the epoch by a count that includes earlier steps
        return self.order.steps

    def __iter__(self):
        o = self.order
        current = None
        for step in range(o.first_step, o.steps):
            epoch, number = divmod(step, self.n // o.batch)
            if epoch != current:
                current, permuted = epoch, _permutation(self.n, o.epoch_seed(epoch))
            yield permuted[number * o.batch : (number + 1) * o.batch][o.rank :: o.world]


class ShardStream(IterableDataset):
    """An endless stream of samples, cut into batches (cond (b, C), x (b, 3)), b = batch / world.

    In an epoch the shards are permuted and dealt to the processes in turn, so each sample is seen
    once, by one process. A process reads its shards in groups, which are in memory at a time, and
    permutes the samples of a group. An epoch follows the last one without a gap. What precedes the
    first step is not read. A folder that is given twice counts twice.

    Raises:
        ValueError: fewer shards than processes, or embeddings of several widths.
    """

    def __init__(self, folders: Sequence[Shards], order: Order, group: int = 8):
        self.shards = [(f, i) for f in folders for i in range(len(f.files)) if f.counts[i]]
        if len(self.shards) < order.world:
            processes = count(order.world, "process", "processes")
            text = f"{count(len(self.shards), 'shard')} for {processes}"
            raise ValueError(f"{text}; expected at least one each (smaller ones: --shard)")
        if len({(folder.field, folder.dim) for folder in folders}) != 1:
            found = ", ".join(f"{folder.field} ({folder.dim})" for folder in folders)
            raise ValueError(f"embeddings of different encoders: {found}")
        self.order, self.group = order, group

    def __len__(self) -> int:
        return self.order.steps

    def groups(self) -> Iterator[tuple[list[tuple[Shards, int]], int]]:
        """Yield this process's groups of shards, epoch after epoch, each with a seed."""
        o = self.order
        for epoch_seed in itertools.count(o.epoch_seed(0)):
            permuted = _permutation(len(self.shards), epoch_seed)
            mine = [self.shards[i] for i in permuted[o.rank :: o.world].tolist()]
            for start in range(0, len(mine), self.group):
                group_seed = (epoch_seed * 4099 + o.rank) * 65_537 + start
                yield mine[start : start + self.group], group_seed

    def __iter__(self):
        return itertools.islice(self._batches(), max(0, self.order.steps - self.order.first_step))

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Cut groups into batches; a batch may begin in one group and end in the next."""
        held: list[tuple[Tensor, Tensor]] = []
        lacking = size = self.order.batch // self.order.world
        for cond, x, index in self._read_groups(skipped=self.order.first_step * size):
            while len(index):
                here, index = index[:lacking], index[lacking:]
                held.append((cond[here].float(), x[here]))
                lacking -= len(here)
                if not lacking:
                    yield tuple(torch.cat(column) for column in zip(*held, strict=True))
                    held, lacking = [], size

    def _read_groups(self, skipped: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (cond, x, permuted index) of each group, without the first `skipped` samples."""
        for group, seed in self.groups():
            count = sum(folder.counts[number] for folder, number in group)
            if skipped >= count:
                skipped -= count
                continue
            parts = [folder.read(number) for folder, number in group]
            cond, latlon = (torch.cat([part[column] for part in parts]) for column in (0, 1))
            del parts
            yield cond, sphere.from_latlon(latlon).float(), _permutation(count, seed)[skipped:]
            skipped = 0


class Batches(L.LightningDataModule):
    """What a run needs of its data: training batches and validation rows; and the time it took."""

    def __init__(self, train, validation: Rows | Part, order: Order):
        super().__init__()
        self.train, self.validation, self.order = train, validation, order  # of the whole run
        self.seconds_before, self.started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent, over all interruptions."""
        return self.seconds_before + time.perf_counter() - self.started

    def loader(self, order: Order) -> DataLoader:
        """Load the batches of an order."""
        raise NotImplementedError(f"{type(self).__name__} has no loader")

    @property
    def device(self) -> torch.device:
        """Where the training computes; the CPU before it begins."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def example(self) -> tuple[Tensor, ...]:
        """Return the first batch, to measure how long a step takes."""
        return next(iter(self.loader(replace(self.order, steps=1, first_step=0))))

    def train_dataloader(self):
        assert self.trainer is not None
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return self.loader(replace(self.order, rank=rank, world=world))

    def val_dataloader(self):
        """The rows that validate, evenly thinned to as many as train between two validations."""
        between = self.order.batch * self.order.interval
        rows = torch.arange(0, n := len(self.validation), -(-n // between)).split(1024)
        return DataLoader(self.validation, sampler=list(rows), batch_size=None)

    def state_dict(self):
        assert self.trainer is not None
        return {"step": self.trainer.global_step, "seconds": self.seconds}

    def load_state_dict(self, state_dict):
        step, seconds = state_dict["step"], state_dict["seconds"]
        if type(step) is not int or not isinstance(seconds, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"{state_dict}; expected a step, and the seconds that it took")
        self.order, self.seconds_before = replace(self.order, first_step=step), seconds


class TensorBatches(Batches):
    """Batches of `Rows`, which lie in memory or are memory-mapped.

    A GPU keeps them if they take less than half of its free memory: then no step waits for its
    batch. Otherwise processes fetch batches ahead.
    """

    def loader(self, order):
        rows, device = self.train, self.device
        ahead: dict[str, Any] = {}
        if device.type == "cuda":
            fits = rows.bytes < torch.cuda.mem_get_info(device)[0] / 2
            rows = rows.to(device) if fits else rows
            ahead = {} if fits else {"num_workers": 4, "prefetch_factor": 4, "pin_memory": True}
        return DataLoader(rows, sampler=StepSampler(len(rows), order), batch_size=None, **ahead)


class StreamBatches(Batches):
    """Batches of folders of shards, read as they are needed: memory does not grow with the data."""

    def loader(self, order):
        stream = ShardStream(self.train, order)
        pinned = self.device.type == "cuda"
        ahead: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 8, "pin_memory": pinned}
        return DataLoader(stream, batch_size=None, **ahead)
