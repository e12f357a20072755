# The language is Python by syntax alone: its compiler types it, wants one type of return per branch of an `if` it
# decides by itself, and knows neither sets nor conditional expressions of tensors.
# mypy: ignore-errors
"""The device code. Shapes: N behaviours, C candidates, I inputs, H hidden, P = H padded to a power of two, B rows.

A recurrent program holds the state of B rows (candidates of one user, or users) in registers in float32 for all its
time steps. Products take 16-bit operands: the state's high half times the weights, and when `exact` the two halves of
both, hi·hi + lo·hi + hi·lo in float32, which keeps 22 bits of each factor.

Gates, with everything scaled beforehand so that no gate needs a multiplication (`scales`):
exponential form, e_u = exp(-p_u), e_r = exp(-p_r), e_c = exp(2·p_c):
    u·(c - h) = ((e_c - 1) - h·(e_c + 1)) / ((1 + e_u)·(1 + e_c)),  r = 1 / (1 + e_r);
tanh form: u = (1 + tanh(p_u / 2)) / 2, r the same, c = tanh(p_c).

`machine` says which instructions stand for 2^x, 1/x and tanh: "cuda", "hip", or "plain" for the interpreter, which
knows no inline assembly.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

LOG2E = tl.constexpr(1.4426950408889634)
WIDEST = tl.constexpr(65504.0)  # the largest float16
LOWEST = tl.constexpr(-3.0e38)  # below every score, and finite: a difference of two is not NaN
SCORED_AT_ONCE = tl.constexpr(64)
CLAMP = tl.constexpr(60.0)  # 2^60: past it tanh is 1, and the product of two such factors is finite


@triton.jit
def power_of_two(x, machine: tl.constexpr):
    """2^x; what is below float32's normal range is 0 on a GPU."""
    if machine == "cuda":
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return tl.exp2(x)


@triton.jit
def reciprocal(x, machine: tl.constexpr):
    """1/x to one unit in the last place."""
    if machine == "cuda":
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    elif machine == "hip":
        return libdevice.fast_dividef(1.0, x)
    else:
        return 1.0 / x


@triton.jit
def tanh(x, machine: tl.constexpr):
    """Tanh to 2^-11 on NVIDIA, to float32 elsewhere."""
    if machine == "cuda":
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    return 1.0 - 2.0 * reciprocal(1.0 + power_of_two(x * (2.0 * LOG2E), machine), machine)


@triton.jit
def halves(x):
    """A number as a float16 and the float16 of what is left: 22 bits."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def kept(w, one, machine: tl.constexpr):
    """Weights `[P, P]` in the registers in which a product wants its second operand, for the whole time loop.

    Left alone, the compiler keeps it in shared memory and fetches it for every step. The accumulators of a product are
    laid out, transposed, as a second operand is: so multiply by one, and transpose. The move hides the transposition
    from the pass that would put it back into shared memory.
    """
    back = tl.trans(tl.dot(one, tl.trans(w)).to(tl.float16))
    if machine == "cuda":
        back = tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [back], tl.float16, is_pure=True, pack=2)
    return back


@triton.jit
def nothing(t, machine: tl.constexpr):
    """0, which for all that the compiler knows changes with t: what is read at such an offset stays in the loop."""
    if machine == "cuda":
        return tl.inline_asm_elementwise("mov.b32 $0, 0;", "=r,r", [t], tl.int32, is_pure=True, pack=1)
    else:
        return 0


@triton.jit
def scaled_halves(w, scale):
    """Weights scaled, in halves; beyond float16 the largest of it."""
    return halves(tl.minimum(tl.maximum(w * scale, -WIDEST), WIDEST))


@triton.jit
def weights_of_gate(
    weights, gate: tl.constexpr, scale, hidden: tl.constexpr, padded: tl.constexpr, turned: tl.constexpr,
    storage: tl.constexpr, machine: tl.constexpr,
):  # fmt: skip
    """`[P, P]` of the gate's columns, scaled, in halves: of `weights [H, 3H]`, or of `split_kernel`'s where it ran."""
    down = tl.arange(0, padded)[:, None]
    across = tl.arange(0, padded)[None, :]
    if storage == "shared" or storage == "memory":
        place = weights + gate * padded * padded + down * padded + across
        return tl.load(place), tl.load(place + 3 * padded * padded)
    else:
        inside = (down < hidden) & (across < hidden)
        if turned:
            place = across * (3 * hidden) + gate * hidden + down
        else:
            place = down * (3 * hidden) + gate * hidden + across
        high, low = scaled_halves(tl.load(weights + place, mask=inside, other=0.0), scale)
        if storage == "registers":
            one = tl.where(down == across, 1.0, 0.0).to(tl.float16)
            high = kept(high, one, machine)
        return high, low


@triton.jit
def all_weights(
    weights, hidden: tl.constexpr, padded: tl.constexpr, form: tl.constexpr, turned: tl.constexpr,
    storage: tl.constexpr, machine: tl.constexpr,
):  # fmt: skip
    """The recurrent weights of the three gates in halves."""
    gate_scale, state_scale, _ = scales(form)
    u_high, u_low = weights_of_gate(weights, 0, gate_scale, hidden, padded, turned, storage, machine)
    r_high, r_low = weights_of_gate(weights, 1, gate_scale, hidden, padded, turned, storage, machine)
    c_high, c_low = weights_of_gate(weights, 2, state_scale, hidden, padded, turned, storage, machine)
    return u_high, u_low, r_high, r_low, c_high, c_low


@triton.jit
def product(high, low, w_high, w_low, start, exact: tl.constexpr, turned: tl.constexpr):
    """What it starts from + h·W, in float32; of W transposed and h transposed when `turned`."""
    if turned:
        total = tl.dot(w_high, high, start)
        if exact:
            total = tl.dot(w_high, low, total)
            total = tl.dot(w_low, high, total)
    else:
        total = tl.dot(high, w_high, start)
        if exact:
            total = tl.dot(low, w_high, total)
            total = tl.dot(high, w_low, total)
    return total


@triton.jit
def per_hidden(x, block: tl.constexpr, padded: tl.constexpr, turned: tl.constexpr):
    """`x [P]` for each of B rows."""
    if turned:
        return tl.broadcast_to(x[:, None], [padded, block])
    else:
        return tl.broadcast_to(x[None, :], [block, padded])


@triton.jit
def per_row(x, block: tl.constexpr, padded: tl.constexpr, turned: tl.constexpr):
    """`x [B]` for each of P hidden columns."""
    if turned:
        return tl.broadcast_to(x[None, :], [padded, block])
    else:
        return tl.broadcast_to(x[:, None], [block, padded])


@triton.jit
def places(row, column, turned: tl.constexpr):
    """Sum of row and column of every element of a state: `row [B]`, `column [P]`."""
    if turned:
        return row[None, :] + column[:, None]
    else:
        return row[:, None] + column[None, :]


@triton.jit
def zero_state(block: tl.constexpr, padded: tl.constexpr, turned: tl.constexpr):
    """The state before the first step."""
    if turned:
        return tl.full([padded, block], 0.0, tl.float32)
    else:
        return tl.full([block, padded], 0.0, tl.float32)


@triton.jit
def scales(form: tl.constexpr):
    """What p_u and p_r, the recurrent part of p_c, and the input part of p_c are multiplied by."""
    if form == "exp":
        return -LOG2E, 2.0 * LOG2E, 2.0 * LOG2E
    return 0.5, 0.5, 1.0


@triton.jit
def moved(h, a, p_u, p_r, p_c, x_c, cell: tl.constexpr, form: tl.constexpr, machine: tl.constexpr):
    """The state after a step. `p_u`, `p_r` and the recurrent `p_c` are scaled; `a`, the attention, is as wide as h."""
    if form == "exp":
        r = reciprocal(1.0 + power_of_two(p_r, machine), machine)
        e_c = power_of_two(tl.minimum(tl.fma(r, p_c, x_c), CLAMP), machine)
        below = 1.0 + e_c
        rise = tl.fma(-h, below, e_c - 1.0)
        if cell == "augru" or cell == "agru":
            rise = a * rise
        if cell != "agru":
            # An infinite e_u gives a reciprocal of 0: the state stays.
            below = tl.fma(power_of_two(p_u, machine), below, below)
        return tl.fma(rise, reciprocal(below, machine), h)
    c = tanh(tl.fma(tanh(p_r, machine), p_c, p_c + x_c), machine)
    if cell == "agru":
        return tl.fma(a, c - h, h)
    half = tl.full(h.shape, 0.5, tl.float32)
    if cell == "augru":
        half = 0.5 * a
    return tl.fma(tl.fma(tanh(p_u, machine), half, half), c - h, h)


@triton.jit(do_not_specialize=["rows", "width"])
def project_kernel(
    inputs,
    weights,
    bias,
    out,
    rows: tl.int64,
    width: tl.int32,
    hidden: tl.constexpr,
    padded: tl.constexpr,
    form: tl.constexpr,
    with_bias: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_width: tl.constexpr,
    products: tl.constexpr,
):
    """`out [N, 3P] = scale∘(inputs [N, I] @ weights [I, 3H] + bias [3H])`, zeros in the padding.

    A program makes `[block_rows, block_columns]` of it.
    """
    per_gate: tl.constexpr = padded // block_columns
    gate = tl.program_id(1) // per_gate
    column = (tl.program_id(1) % per_gate) * block_columns + tl.arange(0, block_columns)
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)
    k = tl.arange(0, block_width)
    inside = column < hidden
    total = tl.full([block_rows, block_columns], 0.0, tl.float32)
    for start in range(0, width, block_width):
        within = start + k < width
        x = tl.load(
            inputs + row[:, None] * width + (start + k)[None, :],
            mask=(row < rows)[:, None] & within[None, :],
            other=0.0,
        )
        w = tl.load(
            weights + (start + k).to(tl.int64)[:, None] * (3 * hidden) + (gate * hidden + column)[None, :],
            mask=within[:, None] & inside[None, :],
            other=0.0,
        )
        total = tl.dot(x, w, total, input_precision=products)
    if with_bias:
        total += tl.load(bias + gate * hidden + column, mask=inside, other=0.0)[None, :]
    gate_scale, _, input_scale = scales(form)
    total *= tl.where(gate == 2, input_scale, gate_scale)
    place = out + row[:, None] * (3 * padded) + (gate * padded + column)[None, :]
    tl.store(place, total, mask=(row < rows)[:, None])


@triton.jit(do_not_specialize=["elements"])
def scale_kernel(
    inputs,
    out,
    elements: tl.int64,
    hidden: tl.constexpr,
    padded: tl.constexpr,
    form: tl.constexpr,
    block_elements: tl.constexpr,
):
    """`out [N, 3P]` as of `project_kernel` from the caller's projection `inputs [N, 3H]`; `elements` = N·3P."""
    place = tl.program_id(0).to(tl.int64) * block_elements + tl.arange(0, block_elements)
    line = place // padded
    column = place % padded
    gate_scale, _, input_scale = scales(form)
    x = tl.load(inputs + line * hidden + column, mask=(place < elements) & (column < hidden), other=0.0)
    tl.store(out + place, x * tl.where(line % 3 == 2, input_scale, gate_scale), mask=place < elements)


@triton.jit
def split_kernel(
    weights,
    out,
    hidden: tl.constexpr,
    padded: tl.constexpr,
    form: tl.constexpr,
    block_elements: tl.constexpr,
):
    """`out float16 [2, 3, P, P]`: the halves of the gates of `weights [H, 3H]`, scaled, zeros in the padding."""
    place = tl.program_id(0) * block_elements + tl.arange(0, block_elements)
    across = place % padded
    down = place // padded % padded
    gate = place // (padded * padded)
    gate_scale, state_scale, _ = scales(form)
    inside = (down < hidden) & (across < hidden)
    w = tl.load(weights + down * (3 * hidden) + gate * hidden + across, mask=inside, other=0.0)
    high, low = scaled_halves(w, tl.where(gate == 2, state_scale, gate_scale))
    tl.store(out + place, high)
    tl.store(out + 3 * padded * padded + place, low)


@triton.jit
def inputs_of_rows(x, alive, block: tl.constexpr, padded: tl.constexpr, turned: tl.constexpr):
    """The inputs of the three gates at `x [B]`, where `alive [B]`."""
    column = tl.arange(0, padded)
    mask = per_row(alive, block, padded, turned)
    x_u = tl.load(places(x, column, turned), mask=mask, other=0.0)
    x_r = tl.load(places(x, padded + column, turned), mask=mask, other=0.0)
    x_c = tl.load(places(x, 2 * padded + column, turned), mask=mask, other=0.0)
    return x_u, x_r, x_c


@triton.jit(do_not_specialize=["users"])
def gru_kernel(
    projected,
    offsets,
    order,
    weights,
    bias_candidate,
    out,
    users: tl.int32,
    hidden: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
    turned: tl.constexpr,
    storage: tl.constexpr,
    exact: tl.constexpr,
    form: tl.constexpr,
    machine: tl.constexpr,
):
    """Interest states `out [N, H]`. A program takes `block` users, `order int64 [U]` by falling length.

    `projected [N + 1, 3P]` of `project_kernel` or `scale_kernel`: the loop reads one step ahead.
    """
    column = tl.arange(0, padded)
    slot = tl.program_id(0) * block + tl.arange(0, block)
    user = tl.load(order + slot, mask=slot < users, other=0)
    begin = tl.load(offsets + user)
    length = tl.where(slot < users, tl.load(offsets + user + 1) - begin, 0).to(tl.int32)
    first = tl.load(order + tl.program_id(0) * block)
    longest = (tl.load(offsets + first + 1) - tl.load(offsets + first)).to(tl.int32)

    u_high, u_low, r_high, r_low, c_high, c_low = all_weights(weights, hidden, padded, form, turned, storage, machine)
    gate_scale, state_scale, _ = scales(form)
    start_c = state_scale * tl.load(bias_candidate + column, mask=column < hidden, other=0.0)
    start_c = per_hidden(start_c, block, padded, turned)
    inside = per_hidden(column < hidden, block, padded, turned)

    x = projected + begin * (3 * padded)
    y = out + begin * hidden
    # One step ahead, unless that would be more than the registers hold.
    ahead: tl.constexpr = padded <= 64
    x_u, x_r, x_c = inputs_of_rows(x, length > 0, block, padded, turned)
    next_u, next_r, next_c = x_u, x_r, x_c
    h = zero_state(block, padded, turned)
    for t in range(longest):
        if ahead:
            x += 3 * padded
            next_u, next_r, next_c = inputs_of_rows(x, t + 1 < length, block, padded, turned)
        else:
            x_u, x_r, x_c = inputs_of_rows(x, t < length, block, padded, turned)
            x += 3 * padded
        high, low = halves(h)
        if storage == "memory":
            again = weights + nothing(t, machine)
            u_high, u_low = weights_of_gate(again, 0, gate_scale, hidden, padded, turned, storage, machine)
        p_u = product(high, low, u_high, u_low, x_u, exact, turned)
        if storage == "memory":
            again = weights + nothing(t, machine)
            r_high, r_low = weights_of_gate(again, 1, gate_scale, hidden, padded, turned, storage, machine)
        p_r = product(high, low, r_high, r_low, x_r, exact, turned)
        if storage == "memory":
            again = weights + nothing(t, machine)
            c_high, c_low = weights_of_gate(again, 2, state_scale, hidden, padded, turned, storage, machine)
        p_c = product(high, low, c_high, c_low, start_c, exact, turned)
        h = moved(h, h, p_u, p_r, p_c, x_c, "gru", form, machine)
        tl.store(places(y, column, turned), h, mask=per_row(t < length, block, padded, turned) & inside)
        y += hidden
        if ahead:
            x_u, x_r, x_c = next_u, next_r, next_c


@triton.jit
def part_of(vectors, place, exists, start, hidden: tl.constexpr, part: tl.constexpr):
    """Columns `start`... of the rows `place` of `vectors [, H]`: `[., part]`, zeros where there is none."""
    column = start + tl.arange(0, part)
    mask = exists[:, None] & (column < hidden)[None, :]
    return tl.load(vectors + place[:, None] * hidden + column[None, :], mask=mask, other=0.0)


@triton.jit
def scored(
    q, queries, candidate, exists, states, begin, step, length, hidden: tl.constexpr, padded: tl.constexpr,
    block: tl.constexpr, steps: tl.constexpr, products: tl.constexpr,
):  # fmt: skip
    """`[B, steps]`: products of the candidates' queries and the states of `step`, times log2(e); -inf past the length.

    `q [B, P]` are the queries, unless the registers do not hold them: then they are read in parts.
    """
    scores = tl.full([block, steps], 0.0, tl.float32)
    if padded <= SCORED_AT_ONCE:
        s = part_of(states, begin + step, step < length, 0, hidden, padded)
        scores = tl.dot(q, tl.trans(s), scores, input_precision=products)
    else:
        for start in range(0, padded, 32):
            s = part_of(states, begin + step, step < length, start, hidden, 32)
            own = part_of(queries, candidate, exists, start, hidden, 32)
            scores = tl.dot(own, tl.trans(s), scores, input_precision=products)
    return tl.where((step < length)[None, :], scores * LOG2E, float("-inf"))


@triton.jit
def larger_reduced(x, y):
    """For `tl.reduce`: the language's own are interpreted or compiled, whichever it was imported for."""
    return tl.maximum(x, y)


@triton.jit
def sum_reduced(x, y):
    """For `tl.reduce`."""
    return x + y


@triton.jit
def softmax_terms(
    q, queries, candidate, exists, states, begin, length, scores, hidden: tl.constexpr, padded: tl.constexpr,
    block: tl.constexpr, steps: tl.constexpr, products: tl.constexpr, storing: tl.constexpr,
):  # fmt: skip
    """The first pass: each row's largest score and the inverse of its sum of powers, both `[B]`.

    With `storing` the scores are written to `scores [length, B]`.
    """
    row = tl.arange(0, block)
    most = tl.full([block, steps], LOWEST, tl.float32)
    total = tl.full([block, steps], 0.0, tl.float32)
    for t in range(0, length, steps):
        step = t + tl.arange(0, steps)
        s = scored(q, queries, candidate, exists, states, begin, step, length, hidden, padded, block, steps, products)
        if storing:
            place = scores + step[None, :].to(tl.int64) * block + row[:, None]
            tl.store(place, s, mask=(step < length)[None, :])
        higher = tl.maximum(most, s)
        total = total * tl.exp2(most - higher) + tl.exp2(s - higher)
        most = higher
    peak = tl.reduce(most, 1, larger_reduced)
    total = tl.reduce(total * tl.exp2(most - peak[:, None]), 1, sum_reduced)
    return peak, 1.0 / tl.where(total > 0.0, total, 1.0)  # no step, no sum


@triton.jit(do_not_specialize=["longest"])
def attention_kernel(
    states,
    queries,
    order,
    table,
    out,
    longest: tl.int32,
    hidden: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
    steps: tl.constexpr,
    products: tl.constexpr,
):
    """`out [C, longest]`: the attention, 0 past the length. A program per block of `table`; see `evolve_kernel`."""
    entry = table + tl.program_id(0) * 5
    begin, length = tl.load(entry), tl.load(entry + 1).to(tl.int32)
    first, there = tl.load(entry + 2), tl.load(entry + 3)
    slot = tl.arange(0, block)
    exists = slot < there
    candidate = tl.load(order + first + slot, mask=exists, other=0)
    q = part_of(queries, candidate, exists, 0, hidden, padded)
    peak, inverse = softmax_terms(
        q, queries, candidate, exists, states, begin, length, out, hidden, padded, block, steps, products, False
    )  # fmt: skip
    for t in range(0, longest, steps):
        step = t + tl.arange(0, steps)
        s = scored(q, queries, candidate, exists, states, begin, step, length, hidden, padded, block, steps, products)
        a = tl.where((step < length)[None, :], tl.exp2(s - peak[:, None]) * inverse[:, None], 0.0)
        place = out + candidate[:, None] * longest + step[None, :]
        tl.store(place, a, mask=exists[:, None] & (step < longest)[None, :])


@triton.jit
def evolve_kernel(
    states,
    projected,
    queries,
    order,
    table,
    weights,
    bias,
    bias_candidate,
    scores,
    out,
    hidden: tl.constexpr,
    padded: tl.constexpr,
    block: tl.constexpr,
    steps: tl.constexpr,
    products: tl.constexpr,
    cell: tl.constexpr,
    turned: tl.constexpr,
    storage: tl.constexpr,
    exact: tl.constexpr,
    form: tl.constexpr,
    machine: tl.constexpr,
):
    """The final states `out [C, H]`. A program takes one block of candidates of one user.

    `table int64 [blocks, 5]`: the user's first behaviour and number of them, the block's place in `order` and its
    number of candidates, its first row in the scratch. `projected [N + 1, 3P]` of `project_kernel`, `order int64 [C]`
    the candidates by user; scratch: `scores [rows, B]`, one row more than the user's length for each block: the loop
    reads one step ahead.
    """
    entry = table + tl.program_id(0) * 5
    begin, length = tl.load(entry), tl.load(entry + 1).to(tl.int32)
    first, there = tl.load(entry + 2), tl.load(entry + 3)
    scratch = tl.load(entry + 4)
    column = tl.arange(0, padded)
    slot = tl.arange(0, block)
    exists = slot < there
    candidate = tl.load(order + first + slot, mask=exists, other=0)
    scores += scratch * block
    q = part_of(queries, candidate, exists, 0, hidden, padded)
    peak, inverse = softmax_terms(
        q, queries, candidate, exists, states, begin, length, scores, hidden, padded, block, steps, products, True
    )  # fmt: skip
    tl.debug_barrier()  # the scores that others of this program wrote

    u_high, u_low, r_high, r_low, c_high, c_low = all_weights(weights, hidden, padded, form, turned, storage, machine)
    gate_scale, state_scale, input_scale = scales(form)
    inside = column < hidden
    start_c = state_scale * tl.load(bias_candidate + column, mask=inside, other=0.0)
    start_c = per_hidden(start_c, block, padded, turned)
    if cell == "aigru":
        b_u = gate_scale * tl.load(bias + column, mask=inside, other=0.0)
        b_r = gate_scale * tl.load(bias + hidden + column, mask=inside, other=0.0)
        b_c = input_scale * tl.load(bias + 2 * hidden + column, mask=inside, other=0.0)

    x = projected + begin * (3 * padded) + column
    s = tl.load(scores + slot)
    x_u = tl.load(x)
    x_r = tl.load(x + padded)
    x_c = tl.load(x + 2 * padded)
    h = zero_state(block, padded, turned)
    p_u = h
    for t in range(length):
        # The next step's inputs are on their way while this one computes.
        x += 3 * padded
        scores += block
        next_s = tl.load(scores + slot)
        next_u = tl.load(x)
        next_r = tl.load(x + padded)
        next_c = tl.load(x + 2 * padded)

        a = power_of_two(s - peak, machine) * inverse
        a = per_row(a, block, padded, turned)
        start_u = per_hidden(x_u, block, padded, turned)
        start_r = per_hidden(x_r, block, padded, turned)
        input_c = per_hidden(x_c, block, padded, turned)
        if cell == "aigru":
            start_u = tl.fma(a, start_u, per_hidden(b_u, block, padded, turned))
            start_r = tl.fma(a, start_r, per_hidden(b_r, block, padded, turned))
            input_c = tl.fma(a, input_c, per_hidden(b_c, block, padded, turned))
        high, low = halves(h)
        if cell != "agru":
            if storage == "memory":
                again = weights + nothing(t, machine)
                u_high, u_low = weights_of_gate(again, 0, gate_scale, hidden, padded, turned, storage, machine)
            p_u = product(high, low, u_high, u_low, start_u, exact, turned)
        if storage == "memory":
            again = weights + nothing(t, machine)
            r_high, r_low = weights_of_gate(again, 1, gate_scale, hidden, padded, turned, storage, machine)
        p_r = product(high, low, r_high, r_low, start_r, exact, turned)
        if storage == "memory":
            again = weights + nothing(t, machine)
            c_high, c_low = weights_of_gate(again, 2, state_scale, hidden, padded, turned, storage, machine)
        p_c = product(high, low, c_high, c_low, start_c, exact, turned)
        h = moved(h, a, p_u, p_r, p_c, input_c, cell, form, machine)
        s, x_u, x_r, x_c = next_s, next_u, next_r, next_c

    there = per_row(exists, block, padded, turned) & per_hidden(inside, block, padded, turned)
    tl.store(out + places(candidate * hidden, column, turned), h, mask=there)
