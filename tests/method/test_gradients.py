"""Gradients reach what training trains, and the hot functions never wait for a device."""

import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from perfuse.method import (
    blend,
    coordinates,
    edit,
    gate,
    locked_key_output,
    masked_loss,
    similarities,
    similarity,
)

from .cases import make


def leaves(**options: int) -> dict[str, torch.Tensor]:
    case = make(2, batch=1, positions=4, width=6, outputs=3, concepts=2, condition=20, **options)
    return {name: tensor.requires_grad_() for name, tensor in case.tensors().items()}


def test_edit_and_what_feeds_it() -> None:
    t = leaves()

    def whole(e, i, inverse, weight, o, bias):  # type: ignore[no-untyped-def]
        s = similarity(e, i, inverse)
        return edit(e @ weight.mT, weight @ i, s, gate(s, bias, 0.3), o)

    operands = (
        t["encodings"],
        t["target_inputs"][0],
        t["inverse_covariance"],
        t["weight"],
        t["target_outputs"][0],
        t["biases"][0],
    )
    assert gradcheck(whole, operands)


def test_blend_and_what_feeds_it() -> None:
    t = leaves()
    inverse = t["inverse_covariance"].detach()

    def whole(e, inputs, weight, outputs, biases, temperatures):  # type: ignore[no-untyped-def]
        gates = gate(similarities(e, inputs, inverse), biases, temperatures)
        c = coordinates(e, inputs, inverse)
        return blend(e @ weight.mT, inputs @ weight.mT, c, gates, outputs)

    operands = (
        t["encodings"],
        t["target_inputs"],
        t["weight"],
        t["target_outputs"],
        t["biases"],
        t["temperatures"],
    )
    assert gradcheck(whole, operands)


def test_locked_key_and_loss() -> None:
    t = leaves()
    assert gradcheck(locked_key_output, (t["weight"], t["target_inputs"][0]))
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 1, 2, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(masked_loss, (prediction, target, weight))


def test_a_half_precision_edit_gives_full_precision_gradients_to_its_target_output() -> None:
    torch.manual_seed(0)
    projected = torch.randn(2, 5, 4, dtype=torch.float16)
    output = torch.zeros(4, requires_grad=True)
    s = torch.rand(2, 5)
    edit(projected, projected[0, 0], s, s, output).sum().backward()
    assert output.grad is not None
    assert output.grad.dtype == torch.float32
    torch.testing.assert_close(output.grad, s.sum().expand(4), rtol=1e-6, atol=0)


class Reads(TorchDispatchMode):
    """Counts the operations whose result Python looks at: each waits for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        self.count += func in waits
        return func(*args, **(kwargs or {}))


def test_edit_and_blend_never_wait_for_a_device() -> None:
    t = make(0).tensors(torch.float16)
    e, i, inverse = t["encodings"], t["target_inputs"], t["inverse_covariance"]
    projected, inputs = e @ t["weight"].mT, i @ t["weight"].mT
    with Reads() as reads:
        s = similarity(e, i[0], inverse, check_finite=False)
        sigma = gate(s, 0.7, 0.15)
        edit(projected, inputs[0], s, sigma, t["target_outputs"][0])
        several = torch.stack([s, s, s], -1)
        blend(projected, inputs, several, several, t["target_outputs"])
    assert reads.count == 0
    with Reads() as reads:
        similarity(e, i[0], inverse)
    assert reads.count > 0


def test_autocast_around_the_method_changes_nothing() -> None:
    t = make(3).tensors(torch.float32)
    e, inputs, inverse = t["encodings"], t["target_inputs"], t["inverse_covariance"]
    projected, constants = e @ t["weight"].mT, inputs @ t["weight"].mT

    def whole() -> list[torch.Tensor]:
        s = similarities(e, inputs, inverse)
        sigma = gate(s, 0.7, 0.15)
        return [
            edit(projected, constants[0], s[..., 0], sigma[..., 0], t["target_outputs"][0]),
            blend(
                projected, constants, coordinates(e, inputs, inverse), sigma, t["target_outputs"]
            ),
            locked_key_output(t["weight"], e[0, 0]),
        ]

    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrowed = whole()
    for inside, outside in zip(narrowed, whole(), strict=True):
        assert torch.equal(inside, outside)
