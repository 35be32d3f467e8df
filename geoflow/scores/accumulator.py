"""Values per image, collected over batches and processes: every image exactly once."""

from itertools import chain

import torch
from torch import Tensor


class Accumulator:
    """Rows of values, one for each of the `images` of a data set.

    A `DistributedSampler` repeats images to give each process equally many: repeated rows that
    agree are dropped. NaN stays in its row, for `summary` and `calibration` to count as a miss.

    >>> rows = Accumulator(images=3)
    >>> for index in (torch.tensor([2, 0]), torch.tensor([1, 2])):  # two batches
    ...     rows.update(index, error_km=100.0 * index)
    >>> rows.compute()
    {'error_km': tensor([  0., 100., 200.])}

    """

    def __init__(self, images: int):
        self.images = images
        self.batches: list[tuple[Tensor, dict[str, Tensor]]] = []

    def update(self, index: Tensor, **values: Tensor) -> None:
        """Add a batch: the images' numbers in the data set (b,), and named values (b, ...)."""
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if index.ndim != 1 or any(shape[:1] != (len(index),) for shape in shapes.values()):
            text = f"index {tuple(index.shape)} with {shapes}"
            raise ValueError(f"{text}; expected (b,) with values of shape (b, ...)")
        if len(index) and not 0 <= index.min() <= index.max() < self.images:
            numbers = f"{int(index.min())} … {int(index.max())}"
            raise ValueError(f"image numbers {numbers}; expected 0 … {self.images - 1}")
        if self.batches and values.keys() != (before := self.batches[0][1]).keys():
            raise ValueError(f"values {sorted(values)}; expected {sorted(before)}, as before")
        rows = {name: value.detach().cpu() for name, value in values.items()}
        self.batches.append((index.detach().cpu().long(), rows))

    def compute(self) -> dict[str, Tensor]:
        """Values of all images in the order of their numbers, (N, ...): equal in every process.

        A `ValueError` if an image has no values, or values v that differ by over 10⁻³ (1 + |v|).
        """
        batches = self.batches
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks: list = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, batches)
            batches = list(chain.from_iterable(ranks))
        index = torch.cat([torch.zeros(0, dtype=torch.long), *(number for number, _ in batches)])
        count = index.bincount(minlength=self.images)
        missing = (count == 0).nonzero().flatten().tolist()
        if missing or not batches:
            lost = f"{len(missing)} of {self.images} images were not counted"
            twice = f"(numbers {_some(missing)}), {int((count > 1).sum())} more than once"
            raise ValueError(f"{lost} {twice}; expected each exactly once")
        first = index.argsort(stable=True)[count.cumsum(0) - count]  # the row of each image
        rows = {name: torch.cat([v[name] for _, v in batches]) for name in batches[0][1]}
        for name, value in rows.items():
            kept = value[first[index]].double()
            same = torch.isclose(value.double(), kept, rtol=1e-3, atol=1e-3, equal_nan=True)
            if not bool(same.all()):
                clash = index[~same.reshape(len(index), -1).all(1)].unique().tolist()
                counted = f"{len(clash)} images (numbers {_some(clash)}) were counted"
                raise ValueError(f"{counted} with different {name!r}; expected one value")
        return {name: value[first] for name, value in rows.items()}


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
