"""Batches for training, from tensors, memory-mapped files or a stream of shards: which rows a step sees depends on (seed, step) alone.

So a run that was interrupted and resumed at any step sees what one that was not sees, and each process finds its share without asking
the others.
"""

import time
from collections.abc import Iterator, Sequence

import lightning as L
import torch
from torch import Tensor

from geoflow import sphere
from geoflow.data.shards import Shards


class StepSampler(torch.utils.data.Sampler):
    """Batches of indices that depend on (seed, step) alone: epoch permutations, resumed at any step.

    Every process draws the same global batch and keeps its own share, rows rank, rank + world, …
    """

    def __init__(self, n: int, batch: int, steps: int, seed: int, rank: int = 0, world: int = 1):
        if batch > n:
            raise ValueError(
                f"a batch of {batch} from {n} examples; expected at most as many as there are"
            )
        if batch % world:
            raise ValueError(f"a batch of {batch} over {world} processes; expected a multiple")
        self.n, self.batch, self.steps, self.seed, self.rank, self.world = (
            n,
            batch,
            steps,
            seed,
            rank,
            world,
        )
        self.first_step = 0

    def __len__(self) -> int:
        return (
            self.steps
        )  # with those before first_step: Lightning restores their count and ends the epoch by it

    def __iter__(self):
        per_epoch = self.n // self.batch
        epoch = None
        for step in range(self.first_step, self.steps):
            if epoch != step // per_epoch:
                epoch = step // per_epoch
                order = torch.randperm(
                    self.n, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
                )
            start = step % per_epoch * self.batch
            yield order[start : start + self.batch][self.rank :: self.world]


class Rows(torch.utils.data.Dataset):
    """Rows of several tables, one after the other; half precision becomes single.

    Args:
        tables: each columns of equal length, such as (cond, x); a table given twice counts twice.
    """

    def __init__(self, *tables: tuple[Tensor, ...]):
        self.tables = tables
        self.ends = torch.tensor([len(table[0]) for table in tables]).cumsum(0)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:
        if len(self.tables) == 1:
            return tuple(_single(column[index]) for column in self.tables[0])
        of = torch.bucketize(index, self.ends, right=True)
        found = [
            _single(column[:1]).new_zeros(len(index), *column.shape[1:])
            for column in self.tables[0]
        ]
        for number, table in enumerate(self.tables):
            here = of == number
            inside = index[here] - (self.ends[number] - len(table[0]))
            for whole, column in zip(found, table, strict=True):
                whole[here] = _single(column[inside])
        return tuple(found)


def _single(column: Tensor) -> Tensor:
    return column.float() if column.dtype == torch.float16 else column


class Batches(L.LightningDataModule):
    """What a run needs of its data: training batches from any step on, validation rows, and the time spent so far.

    Args:
        validation: rows.
        batch: images per step, over all processes.
        steps: of the run.
        seed: of the order.
    """

    def __init__(self, validation: Rows, batch: int, steps: int, seed: int = 0):
        super().__init__()
        self.validation = validation
        self.batch, self.steps, self.seed = batch, steps, seed
        self.first_step = 0
        self.seconds_before, self.started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent, over all interruptions."""
        return self.seconds_before + time.perf_counter() - self.started

    def example(self) -> tuple[Tensor, ...]:
        """A batch, to measure how long a step takes."""
        raise NotImplementedError(f"{type(self).__name__} has no example")

    def val_dataloader(self):
        rows = torch.arange(len(self.validation)).split(1024)
        return torch.utils.data.DataLoader(self.validation, sampler=list(rows), batch_size=None)

    def state_dict(self):
        assert self.trainer is not None
        return {"step": self.trainer.global_step, "seconds": self.seconds}

    def load_state_dict(self, state_dict):
        self.first_step, self.seconds_before = state_dict["step"], state_dict["seconds"]


class TensorBatches(Batches):
    """Batches from tensors in memory, or memory-mapped: a new permutation of all rows in every epoch.

    Args:
        train, validation: rows.
        batch, steps, seed: see `Batches`.
    """

    def __init__(self, train: Rows, validation: Rows, batch: int, steps: int, seed: int = 0):
        super().__init__(validation, batch, steps, seed)
        self.train = train

    def example(self):
        return self.train[torch.arange(self.batch)]

    def train_dataloader(self):
        assert self.trainer is not None
        sampler = StepSampler(
            len(self.train),
            self.batch,
            self.steps,
            self.seed,
            self.trainer.global_rank,
            self.trainer.world_size,
        )
        sampler.first_step = self.first_step
        return torch.utils.data.DataLoader(self.train, sampler=sampler, batch_size=None)


class StreamBatches(Batches):
    """Batches from shards that are read as they are needed: memory does not grow with the data.

    Args:
        train: folders of shards; one given twice counts twice.
        validation: rows.
        batch, steps, seed: see `Batches`.
    """

    def __init__(
        self, train: Sequence[Shards], validation: Rows, batch: int, steps: int, seed: int = 0
    ):
        super().__init__(validation, batch, steps, seed)
        self.train = train

    def example(self):
        return next(iter(ShardStream(self.train, self.batch, 1, self.seed)))

    def train_dataloader(self):
        t = self.trainer
        assert t is not None
        stream = ShardStream(
            self.train,
            self.batch,
            self.steps,
            self.seed,
            t.global_rank,
            t.world_size,
            self.first_step,
        )
        return torch.utils.data.DataLoader(
            stream, batch_size=None, num_workers=1, prefetch_factor=8
        )


class ShardStream(torch.utils.data.IterableDataset):
    """An endless stream of samples cut into batches: (cond (b, C), x (b, 3)), b = batch / world.

    In an epoch the shards are permuted and dealt to the processes in turn, so each sample is seen once, by one process. A process reads
    its shards in groups and permutes the samples of a group. An epoch follows the last without a gap: no sample is dropped.

    Args:
        folders: of shards; one given twice counts twice.
        batch: samples per step, over all processes.
        steps: after which the stream ends.
        seed: of all permutations.
        rank, world: which process of how many.
        first_step: where to begin; what comes before is counted, not read.
        group: shards that are mixed, and in memory, at a time.

    Raises:
        ValueError: fewer shards than processes, a batch that is no multiple of the processes, or embeddings of several widths.
    """

    def __init__(
        self,
        folders: Sequence[Shards],
        batch: int,
        steps: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
        group: int = 8,
    ):
        self.shards = [
            (folder, number)
            for folder in folders
            for number in range(len(folder.files))
            if folder.counts[number]
        ]
        if len(self.shards) < world:
            raise ValueError(
                f"{len(self.shards)} shards for {world} processes; expected at least one each (smaller ones: --shard)"
            )
        if batch % world:
            raise ValueError(f"a batch of {batch} over {world} processes; expected a multiple")
        if len({(folder.field, folder.dim) for folder in folders}) != 1:
            raise ValueError(
                f"embeddings of different encoders: {', '.join(f'{f.field} ({f.dim})' for f in folders)}"
            )
        self.batch, self.steps, self.seed, self.rank, self.world = (
            batch // world,
            steps,
            seed,
            rank,
            world,
        )
        self.first_step, self.group = first_step, group

    def __len__(self) -> int:
        return self.steps

    def groups(self) -> Iterator[tuple[list[tuple[Shards, int]], int]]:
        """This process's groups of shards, epoch after epoch, each with a seed of its own."""
        epoch = 0
        while True:
            order = torch.randperm(
                len(self.shards),
                generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch),
            )
            mine = [self.shards[i] for i in order[self.rank :: self.world].tolist()]
            for start in range(0, len(mine), self.group):
                yield (
                    mine[start : start + self.group],
                    ((self.seed * 1_000_003 + epoch) * 4099 + self.rank) * 65_537 + start,
                )
            epoch += 1

    def __iter__(self):
        skipped = self.first_step * self.batch
        step = self.first_step
        rest: tuple[Tensor, ...] = ()  # less than a batch, perhaps of the group before
        for group, seed in self.groups() if step < self.steps else ():
            count = sum(folder.counts[number] for folder, number in group)
            if skipped >= count:
                skipped -= count
                continue
            parts = [folder.read(number) for folder, number in group]
            cond, latlon = (torch.cat([part[column] for part in parts]) for column in (0, 1))
            del parts
            x = sphere.from_latlon(latlon).float()
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[skipped:]
            skipped = 0
            lacking = self.batch - (len(rest[0]) if rest else 0)
            for index in (order[:lacking], *order[lacking:].split(self.batch)):
                rows = cond[index].float(), x[index]
                rest = (
                    tuple(torch.cat(pair) for pair in zip(rest, rows, strict=True))
                    if rest
                    else rows
                )
                if len(rest[0]) == self.batch:
                    yield rest
                    rest, step = (), step + 1
                    if step == self.steps:
                        return
