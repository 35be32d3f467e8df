"""Training steps as CUDA graphs: what a small network needs to keep a GPU busy.

Python takes some 20 µs to start an operation, and a training step has hundreds of them, each of
which takes a GPU a few µs. A graph records the operations of a computation once and starts them all
together afterwards. What was recorded reads and writes the same memory each time, so shapes may not
change, and no value may decide what is computed.
"""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn

WARM_UP = 3  # times that a computation runs before it is recorded


@contextlib.contextmanager
def warming_up() -> Generator[None]:
    """Compute on a stream of its own, as is needed before a graph is recorded."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)


def record(compute: Callable, *generators: torch.Generator) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A graph of a computation, and the tensors that it writes to when it is replayed.

    The generators are those that the computation draws from.
    """
    with warming_up():
        for _ in range(WARM_UP):
            compute()
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        return graph, compute()


class Recorded:
    """A computation without gradients, recorded for inputs of fixed shapes.

    >>> given = {"options": geo.model.defaults}  # doctest: +SKIP
    >>> samples = Recorded(lambda x, c: geo.model.sample(x, c, **given), x, cond)  # doctest: +SKIP
    >>> samples(x, cond)  # doctest: +SKIP

    Args:
        compute: inputs → a tensor.
        inputs: tensors of the shapes and types that the calls will have.
    """

    def __init__(self, compute: Callable[..., Tensor], *inputs: Tensor):
        self.inputs = tuple(tensor.to("cuda", copy=True) for tensor in inputs)
        with torch.no_grad():
            self.graph, self.result = record(lambda: compute(*self.inputs))

    def __call__(self, *inputs: Tensor) -> Tensor:
        torch._foreach_copy_(self.inputs, inputs)
        self.graph.replay()
        return self.result.clone()


class _Loss(nn.Module):
    """The loss of a module as a module of its own, whose weights can be exchanged."""

    module: Any

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, batch, generator: torch.Generator) -> Tensor:
        return self.module.loss(batch, generator)


def loss_and_gradients(module: nn.Module, batch, generator) -> tuple[Tensor, list[Tensor]]:
    """A module's loss, and the gradients of its weights, which keeps no trace of others.

    Weights are replaced by leaves that share their memory: a weight may still belong to the graph
    of an earlier loss, which was computed on another stream.
    """
    loss = _Loss(module)
    learnt = {name: w for name, w in loss.named_parameters() if w.requires_grad}
    leaves = {name: w.detach().requires_grad_() for name, w in learnt.items()}
    value = torch.func.functional_call(loss, leaves, (batch, generator))
    return value.detach(), list(torch.autograd.grad(value, list(leaves.values())))


class RecordedLoss:
    """The loss of a module and its gradients, recorded for batches of one shape.

    A call gives the loss of a batch; its `backward()` adds the gradients as any other does.

    Args:
        module: with `loss(batch, generator)`, which may neither look at values nor make tensors on
            the CPU; the memory of its weights must stay where it is.
        batch: a batch of the shapes and types that all will have.
        generator: of the GPU, the source of the loss's randomness.
    """

    def __init__(self, module: nn.Module, batch, generator: torch.Generator):
        self.weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.generator = generator
        self.batch = tuple(column.clone() for column in batch)

        def compute() -> tuple[Tensor, list[Tensor]]:
            return loss_and_gradients(module, self.batch, generator)

        self.graph, (self.value, self.gradients) = record(compute, generator)

    def fits(self, batch) -> bool:
        """Whether a batch has the recorded shapes."""
        return [column.shape for column in batch] == [column.shape for column in self.batch]

    def __call__(self, batch, seed: int) -> Tensor:
        """The loss of a batch, with the randomness of a generator of that seed."""
        torch._foreach_copy_(self.batch, batch)
        self.generator.manual_seed(seed)
        self.graph.replay()
        return _Replayed.apply(self.value, self.gradients, *self.weights)


class _Replayed(torch.autograd.Function):
    """A value whose gradients are known."""

    @staticmethod
    def forward(ctx, value, gradients, *weights):
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, *outputs):
        return None, None, *torch._foreach_mul(ctx.gradients, outputs[0])
