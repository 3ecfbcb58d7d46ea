"""When a loop is filled: the least scale at which a closed walk of points bounds a disc made of triangles.

In the Vietoris-Rips complex at scale r a closed walk bounds as soon as it can be cut into triangles whose edges are no
longer than r. Any way of cutting will do, even one whose diagonals cross or run outside: only lengths count. So the
scale is the least, over all triangulations of an abstract polygon, of the longest edge. Klincsek's interval programme
finds it: an arc of the walk is worth the longer of its chord and its two parts, cut at the vertex where that is least.

All lengths are squared. Doubles that are not negative have the order of their bit patterns read as integers, and a
minimum over integers becomes vector instructions, one over doubles does not: hence the arrays called ``bits``.

References: Klincsek, *Minimal triangulations of polygonal domains*, 1980; that the loop around a face of the relative
neighbourhood graph dies at this very scale: arXiv 2502.20215 and 2512.17382.
"""

import numpy as np

from cmat_lib.base.numba_cache import njit

SHORT = 64  # vertices; most faces have fewer than twenty
COARSE = 48  # vertices of the polygon that gives a long walk its first bound
INFINITE = np.array([np.inf]).view(np.int64)[0]

kernel = njit(nogil=True, cache=True, error_model="numpy")
vector = njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})


@kernel
def filling(x, y):
    """Squared scale at which the closed walk over the points (x, y), three or more, is filled."""
    return _fill_short_walk(x, y) if len(x) <= SHORT else _fill_long_walk(x, y)


# -- short walks -------------------------------------------------------------------------------------------------------


@kernel
def _fill_short_walk(x, y):
    """The programme as it stands in books; ``table[i, j]`` is the arc from i to j, kept on both sides of the diagonal.

    Then the two parts of an arc cut at m lie at ``table[i, m]`` and ``table[j, m]``, next to those of m + 1.
    """
    count = len(x)
    table, chord = np.empty((count, count)), np.empty(count)
    bits, chord_bits = table.view(np.int64), chord.view(np.int64)
    for i in range(count - 2, -1, -1):
        _chords(x, y, i, chord)
        bits[i, i + 1] = bits[i + 1, i] = chord_bits[i + 1]
        for j in range(i + 2, count):
            bits[i, j] = bits[j, i] = max(chord_bits[j], _best_cut(bits[i], bits[j], i + 1, j))
    return table[0, count - 1]


@vector
def _chords(x, y, i, chord):
    for j in range(i + 1, len(x)):
        dx, dy = x[j] - x[i], y[j] - y[i]
        chord[j] = dx * dx + dy * dy


@vector
def _best_cut(left, right, first, end):
    best = INFINITE
    for m in range(first, end):
        best = min(best, max(left[m], right[m]))
    return best


# -- long walks --------------------------------------------------------------------------------------------------------


@kernel
def _fill_long_walk(x, y):
    """Arcs of at most half the walk, and one triangle in the middle that joins three of them.

    ``arcs[l, i]`` is the arc of l steps from vertex i, or infinite where it cannot beat the bound. Rows are made from
    short arcs to long ones until none is left to build on: of this memory only the front is ever touched.
    """
    count, sides, bound = len(x), _longest_side(x, y), _coarse_bound(x, y)
    if bound <= sides:
        return sides
    arcs = np.empty((count // 2 + 1, count + 1))  # the last column repeats the first
    for i in range(count + 1):
        arcs[1, i] = sides  # whatever the triangles, no arc ends below the longest side of the walk
    longest, length = 1, 2
    while length <= min(count // 2, 2 * longest):
        if _fill_row(x, y, arcs, length, sides, bound):
            longest = length
        length += 1
    return _best_triangle(arcs, count, longest, bound)


@vector
def _longest_side(x, y):
    dx, dy = x[0] - x[-1], y[0] - y[-1]
    longest = dx * dx + dy * dy
    for i in range(1, len(x)):
        dx, dy = x[i] - x[i - 1], y[i] - y[i - 1]
        longest = max(longest, dx * dx + dy * dy)
    return longest


@kernel
def _coarse_bound(x, y):
    """What one triangulation needs: the best one of a few corners, and a fan over each stretch between two of them."""
    corner = np.arange(COARSE) * len(x) // COARSE
    bound = max(_fill_short_walk(x[corner], y[corner]), _longest_side(x, y))
    for k in range(COARSE):
        for i in range(corner[k], corner[k + 1] if k + 1 < COARSE else len(x)):
            dx, dy = x[i] - x[corner[k]], y[i] - y[corner[k]]
            bound = max(bound, dx * dx + dy * dy)
    return bound


@kernel
def _fill_row(x, y, arcs, length, sides, bound):
    """Make the row of the arcs of one length; returns whether any of them beats the bound."""
    count, row = len(x), arcs[length]
    _cut_at_the_ends(x[: count - length], x[length:], y[: count - length], y[length:], arcs[length - 1], sides, row)
    later = count - length
    _cut_at_the_ends(x[later:], x[:length], y[later:], y[:length], arcs[length - 1, later:], sides, row[later:])
    alive = False
    for i in range(count):
        if row[i] < 0.0:  # no luck at the ends: the chord, negative, waits for a search
            row[i] = max(-row[i], _search_cut(arcs, count, length, i, -row[i])) if -row[i] < bound else np.inf
        if row[i] < bound:
            alive = True
        else:
            row[i] = np.inf
    row[count] = row[0]
    return alive


@vector
def _cut_at_the_ends(x0, x1, y0, y1, before, sides, row):
    """Arcs whose chord is no shorter than an arc of one step less: the chord; for the others the chord, negative."""
    for i in range(len(x0)):
        dx, dy = x1[i] - x0[i], y1[i] - y0[i]
        chord = max(dx * dx + dy * dy, sides)
        row[i] = chord if min(before[i], before[i + 1]) <= chord else -chord


@kernel
def _search_cut(arcs, count, length, start, enough):
    """The best cut of an arc, from both its ends inwards; a cut that is no worse than `enough` ends the search."""
    best = np.inf
    for step in range(1, length // 2 + 1):
        for part in (step, length - step):
            middle = start + part
            if middle >= count:
                middle -= count
            best = min(best, max(arcs[part, start], arcs[length - part, middle]))
        if best <= enough:
            break
    return best


@kernel
def _best_triangle(arcs, count, longest, bound):
    """The least, over all triangles of three arcs that make up the walk, of the largest; the longest arc is first."""
    best = bound
    for first in range((count + 2) // 3, longest + 1):
        for i in range(count):
            if arcs[first, i] >= best:
                continue
            j = (i + first) % count
            for second in range(max(1, count - 2 * first), min(first, count - first - 1) + 1):
                third = count - first - second
                larger = max(arcs[second, j], arcs[third, (j + second) % count])
                best = min(best, max(arcs[first, i], larger))
    return best
