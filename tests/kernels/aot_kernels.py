"""Device code for the tests of `kernels.aot`: a recurrence with one product in each step, and ways to spoil it."""

# mypy: ignore-errors

import os

import triton
import triton.language as tl


@triton.jit
def recurrence(
    inputs,
    weights,
    out,
    steps,
    hidden: tl.constexpr,
    block: tl.constexpr,
    form: tl.constexpr,
    exact: tl.constexpr,
    unroll: tl.constexpr,
    matrix: tl.constexpr,
    gates: tl.constexpr,
    remarks: tl.constexpr,
):
    """`out [B, H]`: h <- 1 / (1 + 2^(h·W + x_t)) for each step."""
    row = tl.arange(0, block)[:, None]
    column = tl.arange(0, hidden)
    w = tl.load(weights + tl.arange(0, hidden)[:, None] * hidden + column[None, :]).to(tl.float16)
    h = tl.zeros([block, hidden], tl.float32)
    if remarks:
        tl.static_print("a remark of the compiler")
    for t in tl.range(0, steps, loop_unroll_factor=unroll):
        x = tl.load(inputs + t * hidden + column)[None, :]
        if matrix:
            p = tl.dot(h.to(tl.float16), w) + x
            if exact:
                p = tl.dot((0.5 * h).to(tl.float16), w, p)
        else:
            p = h * x
        h = 1.0 / (1.0 + tl.exp2(p)) if gates == "exp" else 0.5 * p
    tl.store(out + row * hidden + column[None, :], h)


def function_of(variant):
    if variant.kernel == "abort":
        os._exit(9)
    if variant.kernel == "raise":
        raise RuntimeError("no such kernel")
    return recurrence
