"""The same diagrams for windows that slide along a path: what a window shares with the last is not computed again.

The state is what `planar` builds and throws away: the cover of every point, candidate edges, the graph with its edges
in order around every point, and the faces with their fillings. All of it is local: in a path of 660 points one new
point joins about six covers and changes about five edges and three faces.

- *A point leaves.* Covers that held it are made anew (about five). Candidates that it blocked look for another witness.
- *A point comes.* It joins the covers in which nobody blocks it; that keeps them covers. Edges whose lune it lies in
  leave the graph.
- *An edge comes or goes.* The faces at its ends are opened: their half-edges lose their label. Reading walks around
  open faces only, and only these get a new filling. What is left, pairing faces from the longest edge to the shortest,
  is linear in the number of edges.

Neither covers nor the places that points have in memory decide a diagram: any covers lead to the same graph, and the
graph to the same bars. So the diagram of a window is the same to the last bit however one came there. Where the drawing
breaks in floats (see `planar`), the window is computed from scratch, and the state is filled anew for the next one.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cmat_lib.tda.filling import INFINITE, filling, kernel, vector
from cmat_lib.tda.persistence import Bars, diagrams_batch
from cmat_lib.tda.planar import CLOSEST, DEGREE, angle_rank, face_walk, mark_face, pair, shorter
from cmat_lib.tda.point_cloud import LARGEST

BUILT_ON = "bf72fecfa77ed2e7"  # see `planar.BUILT_ON`

FAR = 1e200  # where unused places lie: at an infinite squared distance from everything
TINY = 2.0**-480  # squares of shorter lengths lose digits: windows that small are made from scratch, which scales them
BLOCK = 64  # windows whose bars are in memory at once: about a megabyte, which stays in the cache
RELOAD = 16  # from one sixteenth of the points on, a window from scratch costs less than the changes
NONE, UNUSED = -1, -2  # witness of an edge of the graph; of an unused edge
POINTS, EDGES, FREE_EDGES, FREE_FACES, BEGIN, END, HOLDS, TOP_EDGE, TOP_FACE = range(9)  # entries of `count`
COPIES, PLACE, SIZE, EDGES_HERE, MEMBER, LINK, RING = 0, 1, 2, 3, 4, 4 + DEGREE, 4 + 2 * DEGREE  # columns of `point`
REACH, ANGLE = 0, DEGREE  # columns of `span`
ORDER, FREE_EDGE, FREE_FACE = range(3)  # rows of `lists`


class _State(NamedTuple):
    """P places for points, E for candidate edges, F for faces; few arrays, since each costs at every call."""

    x: np.ndarray  # (P,)
    y: np.ndarray  # (P,)
    point: np.ndarray  # (P, 4 + 3 DEGREE), columns above
    span: np.ndarray  # (P, 2 DEGREE) squared distances of the members, angles of the half-edges
    ends: np.ndarray  # (E, 2)
    length2: np.ndarray  # (E,)
    witness: np.ndarray  # (E,) a point that blocks the edge, NONE or UNUSED
    following: np.ndarray  # (2E,) next half-edge around the face
    face: np.ndarray  # (2E,) label, or -1 where the face is open
    death: np.ndarray  # (F,) squared filling
    lists: np.ndarray  # (3, E) edges of the graph, from short to long; unused edges; unused labels of faces
    count: np.ndarray  # (9,)


def _new_state(points: int) -> _State:
    """A state with room for `points`; `_fill` puts the rest in order."""
    edges, whole = DEGREE * points // 2 + 16, np.int32  # no point has more than DEGREE candidates
    return _State(
        x=np.full(points, FAR),
        y=np.full(points, FAR),
        point=np.zeros((points, RING + DEGREE), whole),
        span=np.empty((points, 2 * DEGREE)),
        ends=np.empty((edges, 2), whole),
        length2=np.empty(edges),
        witness=np.empty(edges, whole),
        following=np.empty(2 * edges, whole),
        face=np.empty(2 * edges, whole),
        death=np.empty(edges),
        lists=np.empty((3, edges), whole),
        count=np.zeros(9, np.int64),
    )


# -- distances from one point to all -----------------------------------------------------------------------------------


@vector
def _distances(x, y, px, py, d2):
    for i in range(len(x)):
        dx, dy = x[i] - px, y[i] - py
        d2[i] = dx * dx + dy * dy


@vector
def _least(bits):
    least = INFINITE
    for i in range(len(bits)):
        least = min(least, bits[i])
    return least


@vector
def _block(x, y, vx, vy, d2):
    """Set to infinity what lies nearer to (vx, vy) than its distance says."""
    for i in range(len(x)):
        dx, dy = x[i] - vx, y[i] - vy
        d2[i] = np.inf if dx * dx + dy * dy < d2[i] else d2[i]


@vector
def _block_equal(x, y, vx, vy, d2):
    for i in range(len(x)):
        dx, dy = x[i] - vx, y[i] - vy
        d2[i] = np.inf if dx * dx + dy * dy <= d2[i] else d2[i]


@kernel
def _greedy_cover(s, p, member, reach):
    """A cover of p: the nearest point that none of the members blocks, until none is left; returns its size."""
    px, py, size = s.x[p], s.y[p], 0
    d2 = np.empty(len(s.x))
    bits = d2.view(np.int64)
    s.x[p] = FAR  # p is not among its own neighbours
    _distances(s.x, s.y, px, py, d2)
    s.x[p] = px
    least = _least(bits)
    while least < INFINITE and size < DEGREE:
        v = 0
        while bits[v] != least:  # the first of equals, so that it precedes the others
            v += 1
        member[size], reach[size] = v, d2[v]
        size += 1
        if v < p:
            _block_equal(s.x, s.y, s.x[v], s.y[v], d2)
        else:
            _block(s.x, s.y, s.x[v], s.y[v], d2)
        least = _least(bits)
    if least < INFINITE:
        s.count[HOLDS] = 0
    return size


@vector
def _count_in_lens(x, y, px, py, qx, qy, limit):
    count = 0
    for i in range(len(x)):
        ax, ay, bx, by = x[i] - px, y[i] - py, x[i] - qx, y[i] - qy
        count += max(ax * ax + ay * ay, bx * bx + by * by) <= limit
    return count


@kernel
def _find_witness(s, p, q, pq2):
    """A point that blocks the edge (p, q), or NONE."""
    px, py, qx, qy = s.x[p], s.y[p], s.x[q], s.y[q]
    if _count_in_lens(s.x, s.y, px, py, qx, qy, pq2) == 2:  # p and q themselves
        return NONE
    for v in range(len(s.x)):
        ax, ay, bx, by = s.x[v] - px, s.y[v] - py, s.x[v] - qx, s.y[v] - qy
        if v != p and v != q and shorter(ax * ax + ay * ay, v, pq2, q) and shorter(bx * bx + by * by, v, pq2, p):
            return v
    return NONE


# -- edges of the graph ------------------------------------------------------------------------------------------------


@kernel
def _open_face(s, h):
    """Take the label from the face of a half-edge; until it is walked again, its edges may change."""
    label = s.face[h]
    if label >= 0:
        mark_face(s.following, s.face, h, -1)
        s.lists[FREE_FACE, s.count[FREE_FACES]] = label
        s.count[FREE_FACES] += 1


@kernel
def _order_place(s, length2):
    """Where edges of this length begin in the order."""
    low, high = 0, s.count[EDGES]
    while low < high:
        middle = (low + high) // 2
        if s.length2[s.lists[ORDER, middle]] < length2:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _ring(s, p, k):
    """Half-edge number k around p, counted around and around."""
    return s.point[p, RING + k % s.point[p, EDGES_HERE]]


@kernel
def _draw_half(s, h):
    """Put a half-edge into the ring of the point that it leaves."""
    p, q = s.ends[h >> 1, h & 1], s.ends[h >> 1, ~h & 1]
    angle, k = angle_rank(s.x[q] - s.x[p], s.y[q] - s.y[p]), s.point[p, EDGES_HERE]
    while k > 0 and s.span[p, ANGLE + k - 1] > angle:
        s.span[p, ANGLE + k], s.point[p, RING + k] = s.span[p, ANGLE + k - 1], s.point[p, RING + k - 1]
        k -= 1
    s.span[p, ANGLE + k], s.point[p, RING + k], s.face[h] = angle, h, -1
    s.point[p, EDGES_HERE] += 1
    before, after = _ring(s, p, k - 1), _ring(s, p, k + 1)
    if before != h:
        _open_face(s, before)  # the face in whose corner the edge is drawn
    s.following[h ^ 1], s.following[after ^ 1] = before, h


@kernel
def _erase_half(s, h):
    """Take a half-edge out of the ring of its point."""
    p, k = s.ends[h >> 1, h & 1], 0
    while s.point[p, RING + k] != h:
        k += 1
    s.point[p, EDGES_HERE] -= 1
    for i in range(k, s.point[p, EDGES_HERE]):
        s.point[p, RING + i], s.span[p, ANGLE + i] = s.point[p, RING + i + 1], s.span[p, ANGLE + i + 1]
    if s.point[p, EDGES_HERE] > 0:
        s.following[_ring(s, p, k) ^ 1] = _ring(s, p, k - 1)


@kernel
def _draw(s, e):
    """Add an edge to the graph."""
    _draw_half(s, 2 * e)
    _draw_half(s, 2 * e + 1)
    place = _order_place(s, s.length2[e])
    for k in range(s.count[EDGES], place, -1):
        s.lists[ORDER, k] = s.lists[ORDER, k - 1]
    s.lists[ORDER, place] = e
    s.count[EDGES] += 1


@kernel
def _erase(s, e):
    """Take an edge out of the graph."""
    _open_face(s, 2 * e)
    _open_face(s, 2 * e + 1)
    _erase_half(s, 2 * e)
    _erase_half(s, 2 * e + 1)
    place = _order_place(s, s.length2[e])
    while s.lists[ORDER, place] != e:
        place += 1
    s.count[EDGES] -= 1
    for k in range(place, s.count[EDGES]):
        s.lists[ORDER, k] = s.lists[ORDER, k + 1]


# -- covers ------------------------------------------------------------------------------------------------------------


@kernel
def _judge(s, e):
    """Look for a witness against a candidate; without one it is an edge of the graph."""
    p, q = s.ends[e]
    s.witness[e] = _find_witness(s, p, q, s.length2[e])
    if s.witness[e] == NONE:
        if max(s.point[p, EDGES_HERE], s.point[q, EDGES_HERE]) == DEGREE:
            s.witness[e], s.count[HOLDS] = p, 0  # rounding gave p or q an edge too many: leave it out, and say so
        else:
            _draw(s, e)


@kernel
def _link(s, p, k):
    """Make a candidate of p and its member number k, if p is a member of the other's cover too."""
    q = s.point[p, MEMBER + k]
    for i in range(s.point[q, SIZE]):
        if s.point[q, MEMBER + i] == p:
            s.count[FREE_EDGES] -= 1
            e = s.lists[FREE_EDGE, s.count[FREE_EDGES]]
            s.count[TOP_EDGE] = max(s.count[TOP_EDGE], e + 1)
            s.ends[e, 0], s.ends[e, 1], s.length2[e] = p, q, s.span[p, REACH + k]
            s.point[p, LINK + k] = s.point[q, LINK + i] = e
            _judge(s, e)
            return


@kernel
def _unlink(s, e):
    """Forget a candidate."""
    if s.witness[e] == NONE:
        _erase(s, e)
    s.witness[e] = UNUSED
    s.lists[FREE_EDGE, s.count[FREE_EDGES]] = e
    s.count[FREE_EDGES] += 1
    for p in s.ends[e]:
        for k in range(s.point[p, SIZE]):
            if s.point[p, LINK + k] == e:
                s.point[p, LINK + k] = -1


@kernel
def _renew_cover(s, p):
    """Make the cover of p anew; candidates to members that stay are kept."""
    member, reach = np.empty(DEGREE, np.int32), np.empty(DEGREE)
    size = _greedy_cover(s, p, member, reach)
    link = np.full(DEGREE, -1, np.int32)
    for k in range(s.point[p, SIZE]):
        for i in range(size):
            if member[i] == s.point[p, MEMBER + k]:
                link[i], s.point[p, LINK + k] = s.point[p, LINK + k], -1
        if s.point[p, LINK + k] >= 0:
            _unlink(s, s.point[p, LINK + k])
    s.point[p, SIZE] = size
    for k in range(DEGREE):
        s.point[p, MEMBER + k] = member[k] if k < size else -1
        s.span[p, REACH + k], s.point[p, LINK + k] = reach[k], link[k]
    for k in range(size):
        if link[k] < 0:
            _link(s, p, k)


@kernel
def _is_covered(s, p, v, d2):
    """Whether a member of p's cover blocks (p, v); `d2` are the squared distances from v."""
    for k in range(s.point[p, SIZE]):
        q = s.point[p, MEMBER + k]
        if shorter(s.span[p, REACH + k], q, d2[p], v) and shorter(d2[q], q, d2[p], p):
            return True
    return False


# -- points ------------------------------------------------------------------------------------------------------------


@vector
def _count_equal(x, y, px, py):
    count = 0
    for i in range(len(x)):
        count += int(x[i] == px) & int(y[i] == py)
    return count


@kernel
def _place_point(s, px, py):
    """The place of a point: where an equal one lies, or a free one, and whether it is new there."""
    if s.count[POINTS] > 0 and _count_equal(s.x, s.y, px, py) > 0:
        p = 0
        while s.x[p] != px or s.y[p] != py:
            p += 1
        s.point[p, COPIES] += 1
        return p, False
    p = 0
    while s.point[p, COPIES] > 0:
        p += 1
    s.point[p, COPIES] = 1
    s.count[POINTS] += 1
    return p, True


@kernel
def _insert(s, v, px, py):
    d2, joins, joined = np.empty(len(s.x)), np.empty(len(s.x), np.int32), 0
    _distances(s.x, s.y, px, py, d2)
    for p in range(len(s.x)):
        if d2[p] < np.inf and not _is_covered(s, p, v, d2):
            joins[joined] = p
            joined += 1
    nearest = _order_place(s, d2[np.argmin(d2)])  # a shorter edge has no room for v in its lune
    blocked, lost = np.empty(s.count[EDGES] - nearest, np.int32), 0
    for e in s.lists[ORDER, nearest : s.count[EDGES]]:
        p, q, pq2 = s.ends[e, 0], s.ends[e, 1], s.length2[e]
        if shorter(d2[p], v, pq2, q) and shorter(d2[q], v, pq2, p):
            blocked[lost] = e
            lost += 1
    s.x[v], s.y[v] = px, py
    for e in blocked[:lost]:
        _erase(s, e)
        s.witness[e] = v
    for p in joins[:joined]:
        k = s.point[p, SIZE]
        if k == DEGREE:
            _renew_cover(s, p)
        else:
            s.point[p, MEMBER + k], s.span[p, REACH + k], s.point[p, LINK + k] = v, d2[p], -1
            s.point[p, SIZE] = k + 1
    _renew_cover(s, v)


@kernel
def _delete(s, v):
    for k in range(s.point[v, SIZE]):
        if s.point[v, LINK + k] >= 0:
            _unlink(s, s.point[v, LINK + k])
    s.point[v, SIZE] = 0
    s.x[v] = s.y[v] = FAR
    s.count[POINTS] -= 1
    for p in range(len(s.x)):
        held = False
        for k in range(DEGREE):
            held |= s.point[p, MEMBER + k] == v
        if held and s.point[p, SIZE] > 0:
            _renew_cover(s, p)
    for e in range(s.count[TOP_EDGE]):
        if s.witness[e] == v:
            _judge(s, e)


@kernel
def _fill(s, series, delay, begin, end):
    """Forget everything and take in the points [begin, end) of the path; covers follow when all of them are there."""
    places, edges = len(s.x), len(s.length2)
    for p in range(places):
        s.x[p] = s.y[p] = FAR
        s.point[p, COPIES] = s.point[p, SIZE] = s.point[p, EDGES_HERE] = 0
    for e in range(edges):
        s.witness[e], s.face[2 * e], s.face[2 * e + 1] = UNUSED, -1, -1
        s.lists[FREE_EDGE, e] = s.lists[FREE_FACE, e] = edges - 1 - e
    s.count[POINTS] = s.count[EDGES] = s.count[TOP_EDGE] = s.count[TOP_FACE] = 0
    s.count[FREE_EDGES], s.count[FREE_FACES], s.count[HOLDS] = edges, edges, 1
    for i in range(begin, end):
        px, py = series[i] + 0.0, series[i + delay] + 0.0  # no negative zero
        p, _ = _place_point(s, px, py)
        s.x[p], s.y[p], s.point[i % places, PLACE] = px, py, p
    for p in range(places):
        if s.point[p, COPIES] > 0:
            _renew_cover(s, p)
    s.count[BEGIN], s.count[END] = begin, end


@kernel
def _move(s, series, delay, begin, end):
    """Drop the points before `begin` and append those up to `end`."""
    while s.count[BEGIN] < begin:
        p = s.point[s.count[BEGIN] % len(s.x), PLACE]
        s.point[p, COPIES] -= 1
        if s.point[p, COPIES] == 0:
            _delete(s, p)
        s.count[BEGIN] += 1
    while s.count[END] < end:
        i = s.count[END]
        px, py = series[i] + 0.0, series[i + delay] + 0.0
        p, is_new = _place_point(s, px, py)
        if is_new:
            _insert(s, p, px, py)
        s.point[i % len(s.x), PLACE] = p
        s.count[END] += 1


# -- diagrams ----------------------------------------------------------------------------------------------------------


@kernel
def _walk_face(s, h, is_outer):
    """Label an open face and find its filling."""
    if s.count[FREE_FACES] == 0:
        s.count[HOLDS] = 0
        return
    s.count[FREE_FACES] -= 1
    label = s.lists[FREE_FACE, s.count[FREE_FACES]]
    s.count[TOP_FACE] = max(s.count[TOP_FACE], label + 1)
    steps = mark_face(s.following, s.face, h, label)
    if is_outer:
        s.death[label] = np.inf
    else:
        walk = face_walk(s.ends, s.following, h, steps)
        s.death[label] = filling(s.x[walk], s.y[walk])


@kernel
def _walk_open_faces(s):
    leftmost = np.argmin(s.x)
    outer = _ring(s, leftmost, -1)
    if s.face[outer] < 0:
        _walk_face(s, outer, True)
    for e in s.lists[ORDER, : s.count[EDGES]]:
        for h in (2 * e, 2 * e + 1):
            if s.face[h] < 0 and s.count[HOLDS]:
                _walk_face(s, h, False)
    faces = len(s.death) - s.count[FREE_FACES]
    if faces != s.count[EDGES] - s.count[POINTS] + 2 or s.death[s.face[outer]] < np.inf:
        s.count[HOLDS] = 0


@kernel
def _read(s, deaths, bars):
    """Write the bars of the window; returns their numbers. Where the state does not hold, they mean nothing."""
    points = s.count[POINTS]
    if points < 2 or not s.count[HOLDS]:
        return 0, 0
    _walk_open_faces(s)
    if not s.count[HOLDS]:
        return 0, 0
    order, death, h0 = s.lists[ORDER, : s.count[EDGES]], s.death[: s.count[TOP_FACE]], deaths[: points - 1]
    count1 = pair(order, s.length2, s.face, death, h0, bars, np.empty(points, np.int32))
    # The extent is at most the sum of the tree's edges: a cheap bound for what `planar` would round, or scale.
    if h0[0] < math.ldexp(points, CLOSEST + 1) * h0[-1] or h0[0] < TINY:
        s.count[HOLDS] = 0
    return points - 1, count1


@kernel
def _slide(s, series, begins, points, delay):
    """Bars of N windows, flat: deaths and offsets, bars and offsets; and which windows are missing.

    Missing are windows without a neighbour close enough to share points with, and those on which the drawing broke. The
    last window always fills the state, for what may come after it.
    """
    deaths, bars = np.empty(len(begins) * points), np.empty((len(begins) * points, 2))
    offsets0, offsets1 = np.zeros(len(begins) + 1, np.int64), np.zeros(len(begins) + 1, np.int64)
    missing = np.zeros(len(begins), np.bool_)
    for w in range(len(begins)):
        begin, end, count0, count1 = begins[w], begins[w] + points, 0, 0
        near = s.count[HOLDS] and s.count[BEGIN] <= begin and 0 <= end - s.count[END] <= points // RELOAD
        if near:
            _move(s, series, delay, begin, end)
        elif w + 1 == len(begins) or begins[w + 1] - begin <= points // RELOAD:
            _fill(s, series, delay, begin, end)
            near = True
        if near:
            count0, count1 = _read(s, deaths[offsets0[w] :], bars[offsets1[w] :])
        if not near or not s.count[HOLDS]:
            count0, count1, missing[w] = 0, 0, True
        offsets0[w + 1], offsets1[w + 1] = offsets0[w] + count0, offsets1[w] + count1
    return deaths[: offsets0[-1]], offsets0, bars[: offsets1[-1]], offsets1, missing


def _checked(series: ArrayLike) -> np.ndarray:
    values = np.ascontiguousarray(series, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"a series has shape (T,), got {values.shape}")
    usable = np.abs(values) < LARGEST
    if not usable.all():
        row = int(np.argmin(usable))
        raise ValueError(f"value {row} of the series is {values[row]}: values must be finite and below {LARGEST:g}")
    return values


def _path_bars(series: np.ndarray, begins: np.ndarray, points: int, delay: int, state: _State) -> list[Bars]:
    """H0 and H1 of the windows of `points` points that begin at `begins`; the state stays behind the last of them."""
    deaths, offsets0, bars, offsets1, missing = _slide(state, series, begins, points, delay)
    found = [Bars(np.column_stack([np.zeros_like(deaths), deaths]), offsets0), Bars(bars, offsets1)]
    if missing.any():
        starts = begins[missing][:, None] + np.arange(points)  # (M, P)
        scratch = diagrams_batch(np.stack([series[starts], series[starts + delay]], axis=2))
        found = [_merged(slid, new, missing) for slid, new in zip(found, scratch, strict=True)]
    return found


def _merged(slid: Bars, scratch: Bars, missing: np.ndarray) -> Bars:
    counts = np.diff(slid.offsets)
    counts[missing] = np.diff(scratch.offsets)
    owner = np.repeat(missing, counts)
    bars = np.empty((counts.sum(), 2))
    bars[owner], bars[~owner] = scratch.bars, slid.bars
    return Bars(bars, np.concatenate([[0], np.cumsum(counts)]))


def path_diagrams(series: ArrayLike, ends: np.ndarray, window: int, delay: int) -> Iterator[tuple[slice, list[Bars]]]:
    """Diagrams of the windows of one series, a block at a time: which windows, and their H0 and H1.

    They are the same, bit for bit, whatever windows come before or after. `series` is (T,), `ends` (N,) are the last
    rows of the windows, ascending; where windows share most of their values, each is made from the last one.

    Raises
    ------
    ValueError
        If a value is not finite or exceeds 1e150, a window does not fit, or the delay is not between 1 and the window.
    """
    series, begins, points = _checked(series), np.asarray(ends, dtype=np.int64) - (window - 1), window - delay
    if delay < 1 or points < 1:
        raise ValueError(f"delay must be at least 1 and below the window, got delay={delay}, window={window}")
    if len(begins) and not 0 <= begins.min() <= begins.max() <= len(series) - window:
        raise ValueError(f"a window of {window} values reaches beyond the series of {len(series)}")
    state = _new_state(points)
    for first in range(0, len(begins), BLOCK):
        block = slice(first, min(first + BLOCK, len(begins)))
        yield block, _path_bars(series, begins[block], points, delay, state)


def sliding_diagrams(series: ArrayLike, window: int, delay: int, stride: int = 1) -> Iterator[list[np.ndarray]]:
    """Vietoris-Rips diagrams of the Takens embedding of every window of a series (T,), exact.

    Yields H0 (n, 2) and H1 (m, 2) of each window, as `cmat_lib.tda.rips_diagrams` gives them, in the unit of the
    series; `stride` is the steps from one window to the next. Errors as for `path_diagrams`.

    Examples
    --------
    >>> [len(h1) for h0, h1 in sliding_diagrams([0.0, 3.0, 3.0, 0.0, 0.0, 3.0], window=5, delay=1)]
    [1, 1]
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    for block, diagrams in path_diagrams(series, np.arange(window - 1, len(series), stride), window, delay):
        for w in range(block.stop - block.start):
            yield [bars[offsets[w] : offsets[w + 1]] for bars, offsets in diagrams]


class SlidingRips:
    """The diagram of a window whose values come and go: the state behind `sliding_diagrams`, to be kept and moved.

    Point i is ``(x[i], x[i + delay])``; a delay below 1 is a ValueError.

    Examples
    --------
    >>> window = SlidingRips(delay=1)
    >>> window.append([0.0, 3.0, 3.0, 0.0, 0.0])
    >>> window.diagram()[1]
    array([[3.        , 4.24264069]])
    >>> window.drop(1)
    >>> window.diagram()[1].shape
    (0, 2)
    """

    def __init__(self, delay: int):
        if delay < 1:
            raise ValueError(f"delay must be at least 1, got {delay}")
        self.delay = delay
        self._values, self._begin, self._state = np.empty(0), 0, _new_state(0)

    def __len__(self) -> int:
        """Values in the window."""
        return len(self._values) - self._begin

    def append(self, values: ArrayLike) -> None:
        """Add values (n,) at the end of the window; if one is not finite or exceeds 1e150, none (ValueError)."""
        self._values = np.concatenate([self._values, _checked(values)])

    def drop(self, count: int) -> None:
        """Take the oldest values out of the window; more than it has are a ValueError."""
        if not 0 <= count <= len(self):
            raise ValueError(f"{count} values cannot be dropped: the window has {len(self)}")
        self._begin += count
        if self._begin > 2 * len(self):  # forget what is past; the state counts from the first value, so it starts anew
            self._values, self._begin, self._state.count[HOLDS] = self._values[self._begin :], 0, 0

    def diagram(self) -> list[np.ndarray]:
        """H0 (n, 2) and H1 (m, 2) of the window, as `cmat_lib.tda.rips_diagrams` gives them for its points."""
        points = len(self) - self.delay
        if points < 1:
            return [np.empty((0, 2)), np.empty((0, 2))]
        if points > len(self._state.x):
            self._state = _new_state(points + points // RELOAD)
        return [bars for bars, _ in _path_bars(self._values, np.array([self._begin]), points, self.delay, self._state)]
