"""Grey-level co-occurrence counts and what Haralick's 13 features need of them, in compiled passes over pixel pairs.

Nothing is divided until the end: counts of pairs, of sums, of differences and of single levels are integers, so p log p
becomes a table of c log₂ c, and every entropy is log₂ T − Σ c log₂ c / T. For objects, whose pairs are fewer than their
pairs of levels, no co-occurrence matrix is ever walked: Σ c² and Σ c log₂ c grow with each pair by the difference to
the count before. For whole pictures it is the other way round: pairs are only counted, and the matrix is walked once.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64
from numba import njit

N_FEATURES = 13
#: Pixel offsets of the four directions, in mahotas's order.
ROWS = np.array([0, 1, 1, 1])
COLUMNS = np.array([1, 1, 0, -1])
_TABLE = 1 << 13


def log_table() -> Float64[np.ndarray, " t"]:
    """c log₂ c for c = 0, 1, …; larger counts are computed."""
    c = np.arange(1, _TABLE)
    return np.concatenate([[0.0], c * np.log2(c)])


@njit(cache=True, nogil=True)
@no_type_check
def eight_bits(picture):
    """round(255 x), halves to even, of a float32 picture in [0, 1]."""
    out = np.empty(picture.shape, np.uint8)
    for y in range(picture.shape[0]):
        for x in range(picture.shape[1]):
            out[y, x] = np.uint8(min(max(np.rint(picture[y, x] * np.float32(255.0)), 0.0), 255.0))
    return out


@njit(inline="always")
@no_type_check
def _clog(c, table):
    return table[c] if c < table.size else c * np.log2(c)


@njit(inline="always")
@no_type_check
def _entropy(total, sum_clog):
    """log₂ T − Σ c log₂ c / T; exactly 0 where one count holds all (the difference is then rounding noise)."""
    h = np.log2(total) - sum_clog / total
    return h if h > 1e-13 else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _finish(pairs, square, clog, single, plus, minus, width, low, levels, table, row):
    """The features of one direction from the histograms; they are left empty for the next one.

    pairs: unordered pixel pairs, T = 2 pairs ordered ones. square, clog: Σ c² and Σ c log₂ c over the symmetric matrix.
    single, plus, minus: how often each level, sum of levels and difference of levels occurs, levels counted from `low`.
    """
    n, total = float(pairs), 2.0 * pairs
    mean = 0.0
    for k in range(width):
        mean += k * single[k]
    mean /= total
    variance = clog_single = 0.0
    for k in range(width):
        c = single[k]
        if c > 0:
            variance += c * (k - mean) ** 2
            clog_single += _clog(c, table)
            single[k] = 0
    variance /= total
    contrast = homogeneity = clog_minus = 0.0
    square_minus = 0
    for k in range(width):
        c = minus[k]
        if c > 0:
            contrast += float(k * k) * c
            homogeneity += c / (1.0 + k * k)
            clog_minus += _clog(c, table)
            square_minus += c * c
            minus[k] = 0
    contrast /= n
    sum_variance = clog_plus = 0.0
    for k in range(2 * width - 1):
        c = plus[k]
        if c > 0:
            sum_variance += c * (k - 2.0 * mean) ** 2
            clog_plus += _clog(c, table)
            plus[k] = 0
    sum_variance /= n
    entropy, of_single = _entropy(total, clog), _entropy(total, clog_single)
    row[0] = square / (total * total)
    row[1] = contrast
    # Cov = (Var(i + j) − E(i − j)²) / 4, as i and j have one distribution.
    row[2] = (sum_variance - contrast) / (4.0 * variance) if variance > 0.0 else 1.0
    row[3] = variance
    row[4] = homogeneity / n
    row[5] = 2.0 * (mean + low)
    row[6] = sum_variance
    row[7] = _entropy(n, clog_plus)
    row[8] = entropy
    # mahotas: the variance of the histogram's values, not of the differences; their mean is 1 / levels.
    row[9] = (levels * (square_minus / (n * n)) - 1.0) / (levels * levels)
    row[10] = _entropy(n, clog_minus)
    # The cross entropy of a symmetric matrix with its marginals is twice the entropy of one marginal.
    row[11] = (entropy - 2.0 * of_single) / of_single if of_single > 0.0 else 0.0
    row[12] = np.sqrt(max(0.0, 1.0 - np.exp(-2.0 * (2.0 * of_single - entropy))))


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def of_objects(start, ys, xs, flat, quantised, width, height, distances, rows, columns, table, out):
    """Features of each object, distance and direction; out [n, distances, 4, 13].

    flat: place of each pixel of the lists in the raveled `quantised` uint8 picture [height, width]. Level 0 counts as
    outside, as in mahotas with ignore_zeros. All 0 where one direction of a distance has no pair.
    """
    pad = 0
    for d in distances:
        pad = max(pad, d)
    stride = width + 2 * pad
    # Unsigned throughout: a signed index is asked each time whether it counts from the end. Every offset is positive.
    key = np.zeros((height + pad) * stride, np.uint32)  # object above bit 8, level below
    places = np.empty(flat.size, np.uint32)
    for k in range(start.size - 1):
        for p in range(start[k], start[k + 1]):
            places[p] = ys[p] * stride + xs[p] + pad
            level = quantised[flat[p]]
            if level > 0:
                key[places[p]] = np.uint32(((k + 1) << 8) | level)
    single, minus = np.zeros(256, np.int64), np.zeros(256, np.int64)
    plus = np.zeros(512, np.int64)
    counts = np.zeros(256 * 256, np.int32)
    # What one more pair in a cell that has c adds to Σ c log c of the symmetric matrix: off its diagonal, and on it.
    grow = np.empty((2, table.size // 2 - 1))
    for c in range(grow.shape[1]):
        grow[0, c] = 2.0 * (table[c + 1] - table[c])
        grow[1, c] = table[2 * c + 2] - table[2 * c]
    most, eight, mask = np.int32(grow.shape[1]), np.uint32(8), np.uint32(255)
    for k in range(start.size - 1):
        low, high = 256, 0
        for p in range(start[k], start[k + 1]):
            level = np.int64(key[places[p]] & mask)
            if level > 0:
                low, high = min(low, level), max(high, level)
        span = high - low + 1
        tag, least, side = np.uint32(k + 1), np.uint32(low), np.uint32(span)
        for s in range(distances.size):
            empty = high == 0
            for direction in range(4):
                if empty:
                    break
                offset = np.uint32(distances[s] * (rows[direction] * stride + columns[direction]))
                pairs = 0
                square = 0
                clog = 0.0
                for p in range(start[k], start[k + 1]):
                    here, other = key[places[p]], key[places[p] + offset]
                    if (other >> eight) != tag or here == 0:
                        continue
                    a, b = (here & mask) - least, (other & mask) - least
                    pairs += 1
                    single[a] += 1
                    single[b] += 1
                    plus[a + b] += 1
                    d = max(a, b) - min(a, b)
                    minus[d] += 1
                    cell = min(a, b) * side + max(a, b)
                    c = counts[cell]
                    counts[cell] = c + np.int32(1)
                    same = np.uint32(1) if d == 0 else np.uint32(0)
                    square += (2 + 2 * np.int64(same)) * (2 * np.int64(c) + 1)
                    if c < most:
                        clog += grow[same, np.uint32(c)]
                    elif same == 1:
                        clog += _clog(2 * c + 2, table) - _clog(2 * c, table)
                    else:
                        clog += 2.0 * (_clog(c + 1, table) - _clog(c, table))
                counts[: span * span] = 0
                if pairs == 0:
                    empty = True
                    break
                _finish(pairs, square, clog, single, plus, minus, span, low, high + 1, table, out[k, s, direction])
            if empty:
                out[k, s] = 0.0


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def of_picture(quantised, distances, rows, columns, table, out):
    """Features of the whole uint8 picture [h, w], level 0 included; out [distances, 4, 13]; whether all have pairs."""
    height, width = quantised.shape
    low, high = 255, 0
    for y in range(height):
        for x in range(width):
            low, high = min(low, quantised[y, x]), max(high, quantised[y, x])
    low, high = int(low), int(high)
    span = high - low + 1
    levels, side = np.empty(quantised.shape, np.uint8), np.uint32(span)
    for y in range(height):
        for x in range(width):
            levels[y, x] = quantised[y, x] - low
    counts = np.zeros((span, span), np.int32)
    cells = counts.ravel()
    single, minus = np.zeros(span, np.int64), np.zeros(span, np.int64)
    plus = np.zeros(2 * span, np.int64)
    for s in range(distances.size):
        for direction in range(4):
            dy, dx = rows[direction] * distances[s], columns[direction] * distances[s]
            if dy >= height or abs(dx) >= width:
                return False
            for y in range(height - dy):
                for x in range(max(0, -dx), min(width, width - dx)):
                    cells[np.uint32(levels[y, x]) * side + np.uint32(levels[y + dy, x + dx])] += 1
            pairs = (height - dy) * (width - abs(dx))
            square = 0
            clog = 0.0
            for i in range(span):
                c = counts[i, i]
                counts[i, i] = 0
                if c > 0:
                    single[i] += 2 * c
                    plus[2 * i] += c
                    minus[0] += c
                    square += 4 * c * c
                    clog += _clog(2 * c, table)
                for j in range(i):
                    c = counts[i, j] + counts[j, i]
                    if c > 0:
                        counts[i, j] = counts[j, i] = 0
                        single[i] += c
                        single[j] += c
                        plus[i + j] += c
                        minus[i - j] += c
                        square += 2 * c * c
                        clog += 2.0 * _clog(c, table)
            _finish(pairs, square, clog, single, plus, minus, span, low, high + 1, table, out[s, direction])
    return True
