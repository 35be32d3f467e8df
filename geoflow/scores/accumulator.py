"""Values per image, collected over batches and processes: every image exactly once."""

from itertools import chain

import torch
from torch import Tensor


class Accumulator:
    """Rows of values, one for each image of a data set.

        rows = Accumulator(len(dataset))
        for index, images, truth in loader:
            rows.update(index, predicted=predict(images), truth=truth)
        summary(**rows.compute())

    A `DistributedSampler` repeats images to give each process equally many: repeated rows that
    agree are dropped. NaN stays in its row, for `summary` and `calibration` to count as a miss.

    Args:
        images: their number N in the data set.
    """

    def __init__(self, images: int):
        self.images = images
        self.batches: list[tuple[Tensor, dict[str, Tensor]]] = []

    def update(self, index: Tensor, **values: Tensor) -> None:
        """Add a batch: the images' numbers in the data set (b,), and named values (b, ...).

        Raises:
            ValueError: shapes or names that do not fit, a number outside [0, N).
        """
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if index.ndim != 1 or any(shape[:1] != (len(index),) for shape in shapes.values()):
            expected = "expected (b,) with values of shape (b, ...)"
            raise ValueError(f"index {tuple(index.shape)} with {shapes}; {expected}")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < self.images:
            numbers = f"{int(index.min())} … {int(index.max())}"
            raise ValueError(f"image numbers {numbers}; expected 0 … {self.images - 1}")
        if self.batches and values.keys() != self.batches[0][1].keys():
            before = sorted(self.batches[0][1])
            raise ValueError(f"values {sorted(values)}; expected {before}, as before")
        rows = {name: value.detach().cpu() for name, value in values.items()}
        self.batches.append((index.detach().cpu().long(), rows))

    def compute(self) -> dict[str, Tensor]:
        """Values of all images in the order of their numbers, (N, ...): equal in every process.

        Raises:
            ValueError: an image that no process counted, or one counted with values that differ by
                more than 10⁻³.
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
                images = f"{len(clash)} images (numbers {_some(clash)})"
                raise ValueError(
                    f"{images} were counted with different {name!r}; expected one value"
                )
        return {name: value[first] for name, value in rows.items()}


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "")
