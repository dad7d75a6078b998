"""Attention with dropout on packed tensors: one program for each image and attention head.

Images of at most 256 tokens let one program have all keys and values of its image and head at once. Weights are
computed from whole rows, and in the backward pass a program sums the gradients of its queries in registers and writes
each number once: no memory is zeroed or added to, and the order of sums is fixed.

Packed is what the product before attention writes: query, key and value of a token lie together. The gradient is
written in the same layout, so that the products after it need no copy.

The mask of dropout is a function of a seed and of image, head, query and key: the two passes compute it alike. One
number of 128 bits from Philox with 7 rounds (Salmon et al., SC 2011) gives eight keys 16 bits each.

Logarithms are to base 2. Legend: D channels of an attention head; N tokens, padded to a power of two; M of them at a
time.
"""

import triton
import triton.language as tl


@triton.jit
def attend_forward(
    packed,  # (images, TOKENS, 3, heads, D)
    mixed,  # out: (images, TOKENS, heads, D)
    logsumexp,  # out: (images, heads, TOKENS)
    seed,  # one integer
    heads,
    scale,  # of the products of query and key, times log2(e)
    dropped,  # of 2^16
    rescale,  # of the weights that dropout keeps
    TOKENS: tl.constexpr,
    D: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
    DROPOUT: tl.constexpr,
) -> None:
    program = tl.program_id(0).to(tl.int64)
    image, head = program // heads, program % heads
    row = 3 * heads * D
    packed += image * TOKENS * row + head * D
    mixed += image * TOKENS * heads * D + head * D
    keys, channels = tl.arange(0, N), tl.arange(0, D)
    key = _rows(packed + heads * D, row, keys, channels, TOKENS, N)
    value = _rows(packed + 2 * heads * D, row, keys, channels, TOKENS, N)
    for start in range(0, TOKENS, M):
        queries = start + tl.arange(0, M)
        query = _rows(packed, row, queries, channels, TOKENS, M)
        scores = tl.dot(query, tl.trans(key)) * scale
        if TOKENS < N:
            scores = tl.where(keys[None, :] < TOKENS, scores, float("-inf"))
        highest = tl.max(scores, 1)
        weights = tl.exp2(scores - highest[:, None])
        total = tl.sum(weights, 1)
        if DROPOUT:
            weights = tl.where(_kept(seed, program, queries, 0, dropped, N, M, N), weights, 0.0)
        result = tl.dot(weights.to(value.dtype), value) * (rescale / total)[:, None]
        inside = queries < TOKENS
        places = mixed + queries[:, None] * (heads * D) + channels[None, :]
        tl.store(places, result.to(mixed.dtype.element_ty), mask=inside[:, None])
        tl.store(logsumexp + program * TOKENS + queries, highest + tl.log2(total), mask=inside)


@triton.jit
def attend_backward(
    packed,  # (images, TOKENS, 3, heads, D)
    mixed,  # (images, TOKENS, heads, D)
    by_mixed,  # (images, TOKENS, heads, D)
    logsumexp,  # (images, heads, TOKENS)
    by_packed,  # out: (images, TOKENS, 3, heads, D)
    sums,  # out with SUMS: (images, 3, heads, D), of that gradient over tokens
    seed,
    heads,
    scale,
    scale_of_gradient,  # of the products of query and key
    dropped,
    rescale,
    TOKENS: tl.constexpr,
    D: tl.constexpr,
    N: tl.constexpr,
    M: tl.constexpr,
    DROPOUT: tl.constexpr,
    SUMS: tl.constexpr,
) -> None:
    """M keys at a time, whose gradients are then complete; those of all N queries are summed in registers."""
    program = tl.program_id(0).to(tl.int64)
    image, head = program // heads, program % heads
    row, row_of_result = 3 * heads * D, heads * D
    packed += image * TOKENS * row + head * D
    by_packed += image * TOKENS * row + head * D
    mixed += image * TOKENS * row_of_result + head * D
    by_mixed += image * TOKENS * row_of_result + head * D
    queries, channels = tl.arange(0, N), tl.arange(0, D)
    by_result = _rows(by_mixed, row_of_result, queries, channels, TOKENS, N)
    result = _rows(mixed, row_of_result, queries, channels, TOKENS, N)
    along = tl.sum(by_result.to(tl.float32) * result.to(tl.float32), 1)
    normaliser = tl.load(logsumexp + program * TOKENS + queries, mask=queries < TOKENS, other=float("inf"))
    query = _rows(packed, row, queries, channels, TOKENS, N)
    by_query = tl.zeros([N, D], tl.float32)
    sum_of_values = tl.zeros([D], tl.float32)
    for start in range(0, TOKENS, M):
        keys = start + tl.arange(0, M)
        key = _rows(packed + row_of_result, row, keys, channels, TOKENS, M)
        value = _rows(packed + 2 * row_of_result, row, keys, channels, TOKENS, M)
        weights = tl.exp2(tl.dot(query, tl.trans(key)) * scale - normaliser[:, None])
        if TOKENS % M:
            weights = tl.where(keys[None, :] < TOKENS, weights, 0.0)
        by_weights = tl.dot(by_result, tl.trans(value))
        remaining = weights
        if DROPOUT:
            kept = _kept(seed, program, queries, start, dropped, N, N, M)
            remaining = tl.where(kept, weights, 0.0)
            by_weights = tl.where(kept, by_weights * rescale, 0.0)
        by_value = tl.dot(tl.trans(remaining.to(query.dtype)), by_result) * rescale
        _store(by_packed + 2 * row_of_result, by_value, row, keys, channels, TOKENS)
        by_scores = (weights * (by_weights - along[:, None])).to(query.dtype)
        by_key = tl.dot(tl.trans(by_scores), query) * scale_of_gradient
        _store(by_packed + row_of_result, by_key, row, keys, channels, TOKENS)
        by_query += tl.dot(by_scores, key)
        if SUMS:
            sum_of_values += tl.sum(by_value, 0)
    by_query *= scale_of_gradient
    _store(by_packed, by_query, row, queries, channels, TOKENS)
    if SUMS:
        sums += image * row + head * D + channels
        tl.store(sums, tl.sum(by_query, 0))
        tl.store(sums + row_of_result, tl.zeros([D], tl.float32))  # the same for all keys changes no weight
        tl.store(sums + 2 * row_of_result, sum_of_values)


@triton.jit
def _rows(base, row, tokens, channels, TOKENS: tl.constexpr, COUNT: tl.constexpr) -> tl.tensor:
    places = base + tokens[:, None] * row + channels[None, :]
    if TOKENS % COUNT:
        return tl.load(places, mask=tokens[:, None] < TOKENS, other=0.0)
    return tl.load(places)


@triton.jit
def _store(base, numbers, row, tokens, channels, TOKENS: tl.constexpr) -> None:
    places = base + tokens[:, None] * row + channels[None, :]
    tl.store(places, numbers.to(base.dtype.element_ty), mask=tokens[:, None] < TOKENS)


@triton.jit
def _kept(
    seed, program, queries, first_key, dropped, N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
) -> tl.tensor:
    """Which of the weights of these queries, and of COLUMNS keys from the first one, remain."""
    groups = first_key // 8 + tl.arange(0, COLUMNS // 8)
    draws = (queries[:, None] * (N // 8) + groups[None, :]).to(tl.uint32)
    zero = draws * 0
    of_program = zero + program.to(tl.uint32)
    first, second, third, fourth = tl.philox(tl.load(seed).to(tl.uint64), draws, of_program, zero, zero, 7)
    words = tl.reshape(tl.join(tl.join(first, second), tl.join(third, fourth)), [ROWS, COLUMNS // 2])
    numbers = tl.reshape(tl.join(words & 0xFFFF, words >> 16), [ROWS, COLUMNS])
    return numbers >= dropped
