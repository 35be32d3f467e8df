"""Recorded training steps: the same gradients as others. What needs a GPU is skipped where there is none."""

import copy

import pytest
import torch

from geoflow import runtime, sphere
from geoflow.training import fit, graphs, modules, read_recipe, trainer
from geoflow.training.batches import Order, Rows, TensorBatches

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
WIDTH, BATCH = 8, 32


def made(what: str):
    """A module, and rows to train it with."""
    recipe = read_recipe("tiles", "smoke")
    generator = torch.Generator().manual_seed(0)
    x = sphere.uniform(8 * BATCH, generator)
    torch.manual_seed(0)
    if what == "encoder":
        pixels = torch.randint(256, (8 * BATCH, 3, 32, 32), generator=generator, dtype=torch.uint8)
        classifier = modules.GeocellClassifier(modules.TileEncoder(16), 50)
        o = modules.optimization_of(recipe["encoder"]["optimization"] | {"batch": BATCH})
        return modules.EncoderModule(classifier, o), Rows((pixels, x))
    recipe["flow"]["optimization"] |= {"batch": BATCH, "steps": 40}
    module = modules.network_module(recipe, what, WIDTH)
    return module, Rows((torch.randn(8 * BATCH, WIDTH, generator=generator), x))


def gradients(module) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in module.parameters()])


def test_a_replayed_value_has_the_gradients_that_it_was_given():
    weights = [torch.ones(2, requires_grad=True), torch.ones((), requires_grad=True)]
    known = (torch.tensor([3.0, 4.0]), torch.tensor(5.0))
    for _ in range(2):  # gradients add up, and what was recorded is not changed by them
        (2 * graphs._Replayed.apply(torch.tensor(7.0), known, *weights)).backward()
    assert [w.grad.tolist() for w in weights] == [[12.0, 16.0], 20.0]
    assert [k.tolist() for k in known] == [[3.0, 4.0], 5.0]


@pytest.mark.parametrize("what", ["riemannian", "vmf-mixture", "encoder"])
def test_loss_and_gradients_are_those_of_backward(what):
    module, rows = made(what)
    batch, before = rows[torch.arange(BATCH)], copy.deepcopy(module)
    value, found = graphs.loss_and_gradients(module, batch, module.generator(0))
    assert all(weight.grad is None for weight in module.parameters())
    (expected := before.loss(batch, before.generator(0))).backward()
    assert value == expected
    assert torch.equal(torch.cat([g.flatten() for g in found]), gradients(before))
    for name, kept in module.state_dict().items():  # running means of the encoder too
        assert torch.equal(kept, before.state_dict()[name])


def test_without_a_gpu_nothing_is_recorded():
    module, rows = made("riemannian")
    batch = rows[torch.arange(BATCH)]
    assert module.loss_of_step(batch, 3) == module.loss(batch, module.generator(3))
    assert module.recorded is None


def test_an_interrupted_training_keeps_no_recording(tmp_path, monkeypatch):
    """A module with one could not be copied, as the next training does for its average."""

    def interrupted(module, *_):
        module.recorded = "a recording"
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_train", interrupted)
    module, rows = made("riemannian")
    with pytest.raises(KeyboardInterrupt):
        fit(module, TensorBatches(rows, rows, Order(BATCH, 40)), tmp_path, {})
    assert module.recorded is None


@on_gpu
@pytest.mark.parametrize(
    "what", ["riemannian", "flow", "diffusion", "vmf", "vmf-mixture", "encoder"]
)
def test_recorded_gradients_are_those_of_the_loss(what):
    module, rows = made(what)
    module.cuda()
    plain = copy.deepcopy(module)
    for step in (0, 1, 7):
        batch = tuple(c.cuda() for c in rows[torch.arange(BATCH) + 3 * step])
        module.zero_grad()
        plain.zero_grad()
        recorded = module.loss_of_step(batch, step)
        recorded.backward()
        expected = plain.loss(batch, plain.generator(step))
        expected.backward()
        torch.testing.assert_close(recorded.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
        off = (gradients(module) - gradients(plain)).norm() / gradients(plain).norm()
        assert off < 1e-4
    smaller = tuple(column[:5] for column in batch)
    torch.testing.assert_close(
        module.loss_of_step(smaller, 1).detach(), plain.loss(smaller, plain.generator(1)).detach()
    )


@on_gpu
def test_a_training_is_the_same_with_and_without_recordings(tmp_path):
    found = []
    for recordable in (True, False):
        module, rows = made("riemannian")
        module.recordable = recordable
        o = module.optimization
        fit(
            module,
            TensorBatches(rows, rows, Order(o.batch, o.steps)),
            tmp_path / f"{recordable}",
            {},
        )
        found.append(torch.cat([weight.flatten() for weight in module.parameters()]).detach())
    assert (found[0] - found[1]).norm() < 1e-3 * found[1].norm()


@on_gpu
def test_a_recorded_computation_gives_what_it_computes():
    x = torch.randn(5, 3, device="cuda")
    recorded = graphs.Recorded(lambda a, b: sphere.unit(a) @ b, x, torch.eye(3, device="cuda"))
    y, b = torch.randn(5, 3, device="cuda"), torch.randn(3, 3, device="cuda")
    first = recorded(y, b)
    recorded(x, b)
    torch.testing.assert_close(first, sphere.unit(y) @ b)
    assert runtime.device() == "cuda"
