"""Layers by themselves: the scan's written-out gradient, Dice, the head."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import kernels
from kernels.reference import step
from model.layers import Dice, Gru, Mlp, activation

LENGTHS = [[3, 2, 0], [0, 0], [0, 3, 1, 4], [1], [4] * 3]


def scan(
    projected: Tensor, scale: Tensor, lengths: Tensor, w_recurrent: Tensor, cell: str, inner: Tensor | None = None
) -> Tensor:
    return kernels.scan(projected, scale, lengths, w_recurrent, inner, cell=cell)


def scale_of(lengths: Tensor, steps: int, cell: str) -> Tensor:
    """0 past the lengths; on real steps 1 for a plain GRU, else something between 0 and 1."""
    real = (torch.arange(steps)[:, None] < lengths).double()
    return real if cell == "gru" else real * torch.rand(real.shape, dtype=torch.float64).clamp(0.05, 0.95)


def example(lengths: list[int], hidden: int, cell: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(len(lengths))
    of, steps = torch.tensor(lengths), max(*lengths, 1) + 1
    projected = torch.randn(steps, len(lengths), 3 * hidden, dtype=torch.float64, requires_grad=True)
    w_recurrent = torch.randn(hidden, 3 * hidden, dtype=torch.float64).mul(0.5).requires_grad_()
    return projected, scale_of(of, steps, cell).requires_grad_(), of, w_recurrent


def plain(gru: Gru, projected: Tensor, scale: Tensor, w_recurrent: Tensor, cell: str) -> Tensor:
    weights = gru.weights()._replace(w_recurrent=w_recurrent)
    state, states = projected.new_zeros(projected.shape[1], len(w_recurrent)), []
    for t in range(len(projected)):
        state = step(projected[t], state, weights, cell, scale[t].unsqueeze(-1))
        states.append(state)
    return torch.stack(states)


def gradients(states: Tensor, projected: Tensor, scale: Tensor, lengths: Tensor, w_recurrent: Tensor) -> list[Tensor]:
    """Of a fixed weighing of the states. A scale past the lengths is 0 by contract: its gradient is nobody's."""
    pull = torch.sin(torch.arange(states.numel(), dtype=states.dtype)).reshape(states.shape)
    d_projected, d_scale, d_w = torch.autograd.grad(states, (projected, scale, w_recurrent), pull)
    return [d_projected, d_scale * (torch.arange(len(scale))[:, None] < lengths), d_w]


@pytest.mark.parametrize("cell", ["gru", "augru", "agru"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_written_out_gradient_is_the_derivative(lengths: list[int], cell: str) -> None:
    projected, scale, of, w_recurrent = example(lengths, 2, cell)
    body = "agru" if cell == "agru" else "augru"
    assert torch.autograd.gradcheck(lambda x, a, w: scan(x, a, of, w, body), (projected, scale, w_recurrent))
    inner = torch.tensor([0.7, -1.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, a, w, b: scan(x, a, of, w, body, b), (projected, scale, w_recurrent, inner)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("cell", ["gru", "augru", "agru"])
@pytest.mark.parametrize(("lengths", "hidden"), [*((of, 5) for of in LENGTHS), ([0, 3, 63], 32), ([20] * 5, 108)])
def test_the_scan_is_autograd_through_the_plain_loop(
    lengths: list[int], hidden: int, cell: str, dtype: torch.dtype
) -> None:
    *tensors, of, w = example(lengths, hidden, cell)
    projected, scale, w_recurrent = (part.detach().to(dtype).requires_grad_() for part in (*tensors, w / hidden**0.5))
    gru = Gru(hidden, hidden).to(dtype)
    body = "agru" if cell == "agru" else "augru"
    got = scan(projected, scale, of, w_recurrent, body)
    expected = plain(gru, projected, scale, w_recurrent, body)
    rtol, atol = (1e-10, 1e-12) if dtype == torch.float64 else (1e-4, 1e-5)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)
    for one, other in zip(
        gradients(got, projected, scale, of, w_recurrent),
        gradients(expected, projected, scale, of, w_recurrent),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=10 * rtol, atol=10 * atol)


@pytest.mark.parametrize("cell", ["augru", "agru"])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_the_inner_bias_learns_as_by_autograd(lengths: list[int], cell: str) -> None:
    """A layer's own forward, with the gradient written out, beside the plain loop."""
    projected, scale, of, w_recurrent = example(lengths, 5, cell)
    gru = Gru(15, 5, inner_bias=True).double()
    inner = gru.bias_candidate
    assert inner is not None
    assert not inner.any()
    with torch.no_grad():
        gru.w_input.copy_(torch.eye(15))
        gru.w_recurrent.copy_(w_recurrent)
        inner.copy_(torch.linspace(-1, 1, 5))
    got, due = gru(projected, scale, of, cell), plain(gru, projected, scale, gru.w_recurrent, cell)
    torch.testing.assert_close(got, due, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(gru(projected, scale, of, cell), due.detach(), rtol=1e-10, atol=1e-12)
    pull = torch.sin(torch.arange(got.numel(), dtype=got.dtype)).reshape(got.shape)
    wanted = inner, gru.w_recurrent, projected
    found, expected = (torch.autograd.grad(states, wanted, pull) for states in (got, due))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    if max(lengths) > 1:  # the first step's too: its product with a state of zeros is 0, and the bias is not
        assert found[0].abs().min() > 0


def test_a_gru_of_torch_is_ours_with_an_inner_bias() -> None:
    """`nn.GRU` has gates r, z, n, and its z keeps the old state."""
    torch.manual_seed(0)
    peer, gru = nn.GRU(3, 4).double(), Gru(3, 4, inner_bias=True).double()
    inner = gru.bias_candidate
    assert inner is not None
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.normal_()

        def ours(rows: Tensor) -> Tensor:
            r, z, n = rows.chunk(3)
            return torch.cat([-z, r, n]).t()

        w_input, w_recurrent, bias, bias_hidden = peer.parameters()
        gru.w_input.copy_(ours(w_input))
        gru.w_recurrent.copy_(ours(w_recurrent))
        inner.copy_(bias_hidden[8:])
        gru.bias.copy_(ours(bias + torch.cat([bias_hidden[:8], torch.zeros(4).double()])))
        inputs = torch.randn(5, 2, 3, dtype=torch.float64)
        states = gru(inputs, torch.ones(5, 2).double(), torch.tensor([5, 5]))
        torch.testing.assert_close(states, peer(inputs)[0], rtol=1e-10, atol=1e-12)
        inner.zero_()
        assert (gru(inputs, torch.ones(5, 2).double(), torch.tensor([5, 5])) - states).abs().max() > 0.1


def test_rows_may_come_in_any_order() -> None:
    projected, scale, of, w_recurrent = example([0, 3, 1, 4, 2], 4, "augru")
    order = torch.argsort(of, descending=True)
    back = torch.argsort(order)
    states = scan(projected, scale, of, w_recurrent, "augru")
    moved = scan(projected[:, order], scale[:, order], of[order], w_recurrent, "augru")[:, back]
    torch.testing.assert_close(moved, states)
    for one, other in zip(
        gradients(moved, projected, scale, of, w_recurrent),
        gradients(states, projected, scale, of, w_recurrent),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_a_gru_is_its_kernel_weights() -> None:
    torch.manual_seed(0)
    gru = Gru(3, 5)
    weights = gru.weights()
    assert weights.w_input is gru.w_input
    assert weights.hidden == 5
    assert weights.bias_candidate.shape == (5,)
    assert not weights.bias_candidate.any()
    inputs, lengths = torch.randn(4, 2, 3), torch.tensor([4, 2])
    scale = (torch.arange(4)[:, None] < lengths).float()
    with torch.no_grad():
        plain_loop = gru(inputs, scale, lengths)
    torch.testing.assert_close(gru(inputs, scale, lengths), plain_loop)
    assert not plain_loop.requires_grad
    assert torch.equal(plain_loop[3, 1], plain_loop[1, 1])


@pytest.mark.parametrize("cell", ["augru", "agru"])
def test_mixed_precision_leaves_the_recurrence_alone(cell: str) -> None:
    torch.manual_seed(0)
    gru, lengths = Gru(3, 5), torch.tensor([4, 2])
    scale = (torch.arange(4)[:, None] < lengths).float()
    inputs = torch.randn(4, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        states = gru(inputs, scale, lengths, cell)
        projected = inputs @ gru.w_input + gru.bias  # this product alone has 16 bits
    assert states.dtype == projected.dtype == torch.float32
    exact = scan(projected, scale, lengths, gru.w_recurrent, cell)
    assert torch.equal(states, exact)
    assert not torch.equal(states, gru(inputs, scale, lengths, cell))
    one, other = (torch.autograd.grad(given.sum(), gru.w_recurrent, retain_graph=True)[0] for given in (states, exact))
    assert torch.equal(one, other)


def test_dice_by_hand() -> None:
    dice = Dice(2).double()
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.25, -1.0]))
        dice.mean.copy_(torch.tensor([1.0, 0.0]))
        dice.variance.copy_(torch.tensor([4.0, 1.0]))
    dice.eval()
    s = torch.tensor([[3.0, 0.0], [1.0, -2.0]], dtype=torch.float64)
    first, second = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(2.0))
    expected = [
        [first * 3 + (1 - first) * 0.25 * 3, 0.0],
        [0.5 * 1 + 0.5 * 0.25 * 1, second * -2 + (1 - second) * -1.0 * -2],
    ]
    torch.testing.assert_close(dice(s), torch.tensor(expected, dtype=torch.float64), rtol=1e-7, atol=1e-7)


def test_dice_learns_from_the_batch_and_remembers_it() -> None:
    torch.manual_seed(0)
    dice = Dice(3, momentum=0.25)
    s = torch.randn(50, 3) * torch.tensor([1.0, 3.0, 0.2]) + torch.tensor([0.0, 5.0, -1.0])
    p = torch.sigmoid((s - s.mean(0)) / (s.var(0, correction=0) + 1e-8).sqrt())
    torch.testing.assert_close(dice(s), p * s)  # α starts at 0
    torch.testing.assert_close(dice.mean, 0.25 * s.mean(0))
    torch.testing.assert_close(dice.variance, 0.75 + 0.25 * s.var(0, correction=0))
    for _ in range(60):
        dice(s)
    dice.eval()
    before = dice.mean.clone()
    torch.testing.assert_close(dice(s), p * s, rtol=1e-4, atol=1e-4)
    assert torch.equal(dice.mean, before)


def test_dice_in_mixed_precision_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    dice, s = Dice(4), (torch.randn(64, 4) * 100 + 1000).bfloat16()
    assert dice(s).dtype == torch.float32
    torch.testing.assert_close(dice.mean, 0.05 * s.float().mean(0))
    assert dice.mean.dtype == dice.variance.dtype == torch.float32


def test_activations_by_name() -> None:
    assert isinstance(activation("dice", 3), Dice)
    slopes = activation("prelu", 3)
    assert isinstance(slopes, nn.PReLU)
    assert slopes.weight.shape == (3,)


@pytest.mark.parametrize("widths", [(4,), (6, 5, 3)])
def test_the_head_from_its_first_product(widths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head, inputs = Mlp(7, widths, "prelu").eval(), torch.randn(5, 7)
    logits = head(inputs)
    assert logits.shape == (5,)
    first = head.layers[0]
    assert isinstance(first, nn.Linear)
    torch.testing.assert_close(head.after_first(inputs @ first.weight.t() + first.bias), logits)
    assert [act.weight.shape[0] for act in head.activations if isinstance(act, nn.PReLU)] == list(widths)
