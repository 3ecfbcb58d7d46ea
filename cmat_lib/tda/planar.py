"""Exact Vietoris-Rips persistence (H0, H1) of points in the plane, from the relative neighbourhood graph alone.

1. *One order.* Edges are ordered by their squared length in floats, then by their indices; every decision uses this
   order, so ties and rounding cannot contradict each other. Exact duplicates are one point.
2. *The graph.* A point v blocks the edge (p, q) if (p, v) and (q, v) both precede it. Edges that nothing blocks are the
   relative neighbourhood graph (RNG); at its scale a blocked edge changes neither H0 nor H1, or only kills a class.
3. *Covers.* The cover of p are points such that every other point is blocked from p by one of them. Taken from near to
   far they lie 60 degrees apart or more, so there are at most six; an edge of the RNG joins points that are in each
   other's covers, and few other pairs are (1.06 for each edge). Boxes of a tree that lie beyond a member's bisector,
   and farther than it, are dropped as a whole.
4. *H0.* The minimum spanning tree is part of the RNG; Kruskal's walk needs no test for its edges, only for the others.
5. *H1.* The RNG is drawn without crossings, and its bounded faces are a basis of all loops. The loop around a face dies
   at its `filling`: a triangulation with edges up to r contracts the loop in the Rips complex at r, so it dies no
   later, and a geometric triangulation of the face attains the death (arXiv 2502.20215, 2512.17382).
6. *Bars.* Taking edges away, from long to short, joins faces. Where two different faces meet, the loop whose filling is
   smaller was born at this edge (elder rule, seen from the dual graph); where both sides are one face already, the edge
   was in the spanning tree and is a bar of H0. One union-find makes both diagrams.

What geometry is used holds with room for rounding, except that the drawing has no crossings: points within an ulp of
each other can break it. Euler's formula and the shortest edge tell, and then points are first rounded to a grid of
2**-44 of the extent, which moves no bar by more than that.

References: Jaromczyk and Toussaint, *Relative neighborhood graphs and their relatives*, Proc. IEEE 80, 1992;
Koyama, Memoli, Robins, Turner, *Reduced Vietoris-Rips complexes*, arXiv 2307.16333;
Edelsbrunner and Harer, *Computational Topology*, 2010, chapter VII (elder rule).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cmat_lib.tda.filling import filling, kernel
from cmat_lib.tda.point_cloud import checked_clouds

# numba's cache looks at the file of a kernel, not at those of the kernels it calls; this line makes a change of one
# change the other. tests/test_planar.py says what it must be.
BUILT_ON = "48f85eb0198b4656"

LEAF = 4  # points in a leaf of the box tree, at most
COVER = 16  # room for members of a cover while it is searched; those that turn out to be blocked leave when it is full
DEGREE = 8  # edges of the RNG at a point: six, and ties
SLACK = 1e-12  # share of the squared distance by which a box must clear a bisector: far above rounding
CLOSEST = -44  # exponent of the shortest edge, against the extent, below which points are rounded
HASH = 0x2545F4914F6CDD1D  # odd multiplier, as in xorshift64*


# -- points ------------------------------------------------------------------------------------------------------------


@kernel
def _distinct(cloud, scale):
    """Coordinates x, y of the distinct points, scaled, and the first row of the cloud that each stands in."""
    slots = 64
    while slots < 2 * len(cloud):
        slots *= 2
    slot = np.zeros(slots, np.int32)  # a hash table: sorting would cost more
    xy, row = np.empty((len(cloud), 2)), np.empty(len(cloud), np.int32)
    pattern, count = xy.view(np.int64), 0
    for i in range(len(cloud)):
        x, y = cloud[i, 0] * scale + 0.0, cloud[i, 1] * scale + 0.0  # no negative zero: it has another bit pattern
        xy[count, 0], xy[count, 1] = x, y
        place = (((pattern[count, 0] ^ (pattern[count, 1] * HASH)) * HASH) >> 29) & (slots - 1)
        while slot[place] != 0 and (xy[slot[place] - 1, 0] != x or xy[slot[place] - 1, 1] != y):
            place = (place + 1) & (slots - 1)
        if slot[place] == 0:
            row[count] = i
            count += 1
            slot[place] = count
    return xy[:count, 0].copy(), xy[:count, 1].copy(), row[:count].copy()


@kernel
def _extent(cloud):
    x, y = cloud[:, 0], cloud[:, 1]
    return max(x.max() - x.min(), y.max() - y.min())


@kernel
def _rounded(cloud):
    """The cloud from its lower left corner on, rounded to 2**-44 of its extent."""
    step = math.ldexp(1.0, math.frexp(_extent(cloud))[1] + CLOSEST)
    left, low, out = cloud[:, 0].min(), cloud[:, 1].min(), np.empty_like(cloud)
    for i in range(len(cloud)):
        out[i, 0] = np.rint((cloud[i, 0] - left) / step) * step
        out[i, 1] = np.rint((cloud[i, 1] - low) / step) * step
    return out


@kernel
def _swap(values, i, j):
    values[i], values[j] = values[j], values[i]


@kernel
def _split(x, y, row, keys, first, end, middle):
    """Reorder the points [first, end) so that no key before `middle` is above one after it (Hoare's selection)."""
    low, high = first, end - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                _swap(x, i, j)
                _swap(y, i, j)
                _swap(row, i, j)
                i, j = i + 1, j - 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@kernel
def _build_tree(x, y, row):
    """Sort the points into a k-d tree; node k has the children 2k and 2k + 1, leaf l holds a stretch of the points.

    Returns box (nodes, 4): centre and half sides, the latter rounded up; and stop (nodes,): end of the node's stretch.
    """
    n, leaves = len(x), 1
    while leaves * LEAF < n:
        leaves *= 2
    box, stop = np.empty((2 * leaves, 4)), np.empty(2 * leaves, np.int32)
    level = 1
    for node in range(1, 2 * leaves):
        level *= 1 + (node >= 2 * level)  # first node of its level, and the number of nodes there
        first, end = (node - level) * n // level, (node - level + 1) * n // level
        left, right, low, high = x[first], x[first], y[first], y[first]
        for i in range(first + 1, end):
            left, right, low, high = min(left, x[i]), max(right, x[i]), min(low, y[i]), max(high, y[i])
        cx, cy = 0.5 * (left + right), 0.5 * (low + high)
        box[node, 0], box[node, 2] = cx, max(right - cx, cx - left) * (1 + 1e-15)
        box[node, 1], box[node, 3] = cy, max(high - cy, cy - low) * (1 + 1e-15)
        stop[node] = end
        if node < leaves:
            keys = x if right - left >= high - low else y  # the longer side, so that boxes are near squares
            _split(x, y, row, keys, first, end, (2 * (node - level) + 1) * n // (2 * level))
    return box, stop


@kernel
def _gap2(box, node, px, py):
    """Squared distance from a point to a box."""
    dx = max(abs(box[node, 0] - px) - box[node, 2], 0.0)
    dy = max(abs(box[node, 1] - py) - box[node, 3], 0.0)
    return dx * dx + dy * dy


# -- covers ------------------------------------------------------------------------------------------------------------


@kernel
def shorter(d, i, e, j):
    """Whether, of two edges at one point, that to i of squared length d precedes that to j of squared length e."""
    return d < e or (d == e and i < j)


@kernel
def _is_blocked(x, y, member, d2, size, p, q, pq2, but):
    """Whether one of the members of p's cover, from near to far, other than number `but`, blocks the edge (p, q)."""
    for k in range(size):
        if d2[k] > pq2:
            return False
        v = member[k]
        if k == but or not shorter(d2[k], v, pq2, q):
            continue
        dx, dy = x[q] - x[v], y[q] - y[v]
        if shorter(dx * dx + dy * dy, v, pq2, p):
            return True
    return False


@kernel
def _join_cover(member, d2, size, q, pq2):
    """Put q among the members, in order of distance; returns their number."""
    k = size
    while k > 0 and d2[k - 1] > pq2:
        member[k], d2[k] = member[k - 1], d2[k - 1]
        k -= 1
    member[k], d2[k] = q, pq2
    return size + 1


@kernel
def _prune_cover(x, y, member, d2, size, p):
    """Drop members that others block: they are no edges, and what they block is blocked without them."""
    stays = np.empty(size, np.bool_)
    for k in range(size):
        stays[k] = not _is_blocked(x, y, member, d2, size, p, member[k], d2[k], k)
    kept = 0
    for k in range(size):
        if stays[k]:
            member[kept], d2[kept] = member[k], d2[k]
            kept += 1
    return kept


@kernel
def _is_box_blocked(x, y, box, node, member, d2, size, px, py):
    """Whether one member of the cover of (px, py) blocks every point of a box."""
    bx, by, half_x, half_y = box[node, 0] - px, box[node, 1] - py, box[node, 2], box[node, 3]
    near = _gap2(box, node, px, py) * (1 - 1e-14)
    room = SLACK * ((abs(bx) + half_x) ** 2 + (abs(by) + half_y) ** 2)
    for k in range(size):
        if d2[k] >= near:
            return False
        vx, vy = x[member[k]] - px, y[member[k]] - py  # is the whole box on the member's side of their bisector?
        if vx * bx + vy * by - abs(vx) * half_x - abs(vy) * half_y > 0.5 * d2[k] + room:
            return True
    return False


@kernel
def _search_cover(x, y, box, stop, stack, member, d2, size, p):
    """Complete the cover of p by later points; returns its size."""
    n, leaves, px, py = len(x), len(stop) // 2, x[p], y[p]
    stack[0], top = 1, 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _is_box_blocked(x, y, box, node, member, d2, size, px, py):
            continue
        if node < leaves:
            nearer = 2 * node + (_gap2(box, 2 * node + 1, px, py) < _gap2(box, 2 * node, px, py))
            for child in (nearer ^ 1, nearer):  # the nearer one is next: near members drop the most boxes
                if stop[child] > p + 1:  # points are in the order of the tree, and only later ones are looked for
                    stack[top] = child
                    top += 1
            continue
        for q in range(max(p + 1, (node - leaves) * n // leaves), stop[node]):
            dx, dy = x[q] - px, y[q] - py
            pq2 = dx * dx + dy * dy
            if not _is_blocked(x, y, member, d2, size, p, q, pq2, -1):
                if size == COVER:
                    size = _prune_cover(x, y, member, d2, size, p)
                size = _join_cover(member, d2, size, q, pq2)
    return size


@kernel
def _candidates(x, y, box, stop):
    """Pairs of points in each other's covers: ends (m, 2) and squared lengths (m,).

    One search serves both sides: p looks for later points only, beginning with the earlier ones that kept p.
    """
    n, count = len(x), 0
    kept_by, kept = np.empty((n, COVER), np.int32), np.zeros(n, np.int32)
    ends, length2 = np.empty((DEGREE * n, 2), np.int32), np.empty(DEGREE * n)
    stack, member, d2 = np.empty(64, np.int32), np.empty(COVER + 1, np.int32), np.empty(COVER + 1)
    for p in range(n):
        size = 0
        for q in kept_by[p, : kept[p]]:
            dx, dy = x[q] - x[p], y[q] - y[p]
            size = _join_cover(member, d2, size, q, dx * dx + dy * dy)
        size = _search_cover(x, y, box, stop, stack, member, d2, size, p)
        for k in range(size):
            q = member[k]
            if _is_blocked(x, y, member, d2, size, p, q, d2[k], k):
                continue
            if q > p and kept[q] < COVER - 4:  # with room left for later points; what does not fit is no loss
                kept_by[q, kept[q]] = p
                kept[q] += 1
            else:
                ends[count, 0], ends[count, 1], length2[count] = p, q, d2[k]
                count += 1
    return ends[:count], length2[:count]


# -- the graph ---------------------------------------------------------------------------------------------------------


@kernel
def _root(root, i):
    while root[i] != i:
        root[i] = root[root[i]]  # halves the path for those who come later
        i = root[i]
    return i


@kernel
def _lune_is_empty(x, y, box, stop, stack, p, q, pq2):
    """Whether no point blocks the edge (p, q)."""
    n, leaves, limit = len(x), len(stop) // 2, pq2 * (1 + 1e-14)  # a rounded gap must not drop a box that touches
    stack[0], top = 1, 1
    while top > 0:
        top -= 1
        node = stack[top]
        if _gap2(box, node, x[p], y[p]) > limit or _gap2(box, node, x[q], y[q]) > limit:
            continue
        if node < leaves:
            stack[top], stack[top + 1] = 2 * node, 2 * node + 1
            top += 2
            continue
        for v in range((node - leaves) * n // leaves, stop[node]):
            px, py, qx, qy = x[v] - x[p], y[v] - y[p], x[v] - x[q], y[v] - y[q]
            if v != p and v != q and shorter(px * px + py * py, v, pq2, q) and shorter(qx * qx + qy * qy, v, pq2, p):
                return False
    return True


@kernel
def _edge_order(ends, length2):
    """Edges in the one order: by squared length, then by the larger and the smaller index.

    Among edges at one point, which is all that `shorter` is asked about, this is the order of the other ends.
    """
    order = np.argsort(length2, kind="mergesort")
    for i in range(1, len(order)):  # candidates come nearly in the order of their indices, so few ties have to move
        k = i
        while k > 0 and length2[order[k - 1]] == length2[order[k]] and _index_before(ends, order[k], order[k - 1]):
            _swap(order, k - 1, k)
            k -= 1
    return order


@kernel
def _index_before(ends, e, f):
    later, other = max(ends[e, 0], ends[e, 1]), max(ends[f, 0], ends[f, 1])
    return later < other or (later == other and min(ends[e, 0], ends[e, 1]) < min(ends[f, 0], ends[f, 1]))


@kernel
def _graph(x, y, box, stop):
    """The RNG, edges from short to long: ends (E, 2) and squared lengths (E,)."""
    ends, length2 = _candidates(x, y, box, stop)
    root, stack, count = np.arange(len(x)), np.empty(64, np.int32), 0
    chosen = np.empty(len(length2), np.int64)
    for e in _edge_order(ends, length2):
        p, q = ends[e]
        a, b = _root(root, p), _root(root, q)
        if a != b:  # of the spanning tree, and so of the graph: no test
            root[a] = b
        elif not _lune_is_empty(x, y, box, stop, stack, p, q, length2[e]):
            continue
        chosen[count] = e
        count += 1
    return ends[chosen[:count]], length2[chosen[:count]]


# -- faces -------------------------------------------------------------------------------------------------------------
# Edge e has two sides, its half-edges: 2e leaves ends[e, 0], 2e + 1 leaves ends[e, 1]; h ^ 1 is the other side of h.


@kernel
def angle_rank(dx, dy):
    """A number in (-2, 2] that grows with the angle of a direction: edges at a point lie 60 degrees apart or more."""
    rank = dx / (abs(dx) + abs(dy))
    return 1.0 - rank if dy >= 0 else rank - 1.0


@kernel
def _walk_order(x, y, ends):
    """For each half-edge the one that follows it around the face on its left, and one half-edge of the outer face.

    A face is walked by turning, at every point, into the clockwise neighbour of the edge one came by. The outer face is
    the wedge that opens to the left at the leftmost point. Returns -1 for the latter if a point has too many edges.
    """
    n, edges = len(x), len(ends)
    ring, rank, degree = np.empty((n, DEGREE), np.int32), np.empty((n, DEGREE)), np.zeros(n, np.int32)
    following = np.empty(2 * edges, np.int32)
    for h in range(2 * edges):
        p, q = ends[h >> 1, h & 1], ends[h >> 1, ~h & 1]
        angle, k = angle_rank(x[q] - x[p], y[q] - y[p]), degree[p]
        if k == DEGREE:
            return following, -1
        while k > 0 and rank[p, k - 1] > angle:
            rank[p, k], ring[p, k] = rank[p, k - 1], ring[p, k - 1]
            k -= 1
        rank[p, k], ring[p, k] = angle, h
        degree[p] += 1
    for p in range(n):
        for k in range(degree[p]):
            following[ring[p, k] ^ 1] = ring[p, k - 1 if k > 0 else degree[p] - 1]
    leftmost = np.argmin(x)
    return following, ring[leftmost, degree[leftmost] - 1]


@kernel
def mark_face(following, face, start, label):
    """Give all half-edges around a face its label; returns their number."""
    steps, h = 0, start
    while steps == 0 or h != start:
        face[h] = label
        steps, h = steps + 1, following[h]
    return steps


@kernel
def face_walk(ends, following, start, steps):
    """The points around a face, in order; a dangling edge is walked on both sides."""
    walk, h = np.empty(steps, np.int32), start
    for k in range(steps):
        walk[k], h = ends[h >> 1, h & 1], following[h]
    return walk


@kernel
def _faces(x, y, ends, following, outer):
    """Face of each half-edge, and squared filling and first half-edge of each face; the outer face, 0, is never filled.

    Returns fewer or more faces than Euler's formula asks for, edges - points + 2, if rounding broke the drawing.
    """
    expected = len(ends) - len(x) + 2
    face, first, death = np.full(len(following), -1, np.int32), np.empty(expected, np.int32), np.empty(expected)
    mark_face(following, face, outer, 0)
    first[0], death[0], count = outer, np.inf, 1
    for h in range(len(following)):
        if face[h] >= 0:
            continue
        if count == expected:
            return face, first, death, count + 1
        walk = face_walk(ends, following, h, mark_face(following, face, h, count))
        first[count], death[count] = h, filling(x[walk], y[walk])
        count += 1
    return face, first, death, count


@kernel
def pair(order, length2, face, death, h0, h1, source):
    """Bars of both diagrams; returns the number of those of H1, of which none is so short that rounding hides it.

    Parameters are the edges from short to long, their squared lengths, the face of each half-edge and the squared
    filling of each face. `h0` gets the deaths, `h1` births and deaths, both ascending; `source` the face of each bar of
    H1. Its bars come with births descending and are turned round; where births are equal, deaths decide, as rows must
    not depend on how ties fell.
    """
    root, count0, count1 = np.arange(len(death)), len(h0), 0
    for e in order[::-1]:
        a, b = _root(root, face[2 * e]), _root(root, face[2 * e + 1])
        if a == b:
            count0 -= 1
            h0[count0] = math.sqrt(length2[e])
            continue
        if death[a] < death[b]:
            a, b = b, a
        root[b] = a  # the loop of b, which is filled first, was born at this edge; that of a is older
        h1[count1, 0], h1[count1, 1], source[count1] = math.sqrt(length2[e]), math.sqrt(death[b]), b
        count1 += h1[count1, 1] > h1[count1, 0]
    for i in range(count1 // 2):
        _swap_bars(h1, source, i, count1 - 1 - i)
    for i in range(1, count1):
        k = i
        while k > 0 and h1[k - 1, 0] == h1[k, 0] and h1[k - 1, 1] > h1[k, 1]:
            _swap_bars(h1, source, k - 1, k)
            k -= 1
    return count1


@kernel
def _swap_bars(bars, source, i, j):
    _swap(bars[:, 0], i, j)
    _swap(bars[:, 1], i, j)
    _swap(source, i, j)


# -- clouds ------------------------------------------------------------------------------------------------------------


@kernel
def _killer(x, y, walk, death2):
    """The two points of a walk whose squared distance is that of its filling; of several pairs the first."""
    best, first, second = np.inf, 0, 0
    for i in range(len(walk)):
        for j in range(i):
            dx, dy = x[walk[i]] - x[walk[j]], y[walk[i]] - y[walk[j]]
            off = abs(dx * dx + dy * dy - death2)
            if off < best:
                best, first, second = off, walk[j], walk[i]
    return first, second


@kernel
def _write_loops(x, y, row, ends, following, face, first, death, source, loops, stops, killers):
    """Rows of the loops, one after the other, where each stops, and the rows that the killing edges join."""
    size = 0
    for bar in range(len(source)):
        label = source[bar]
        walk = face_walk(ends, following, first[label], mark_face(following, face, first[label], label))
        for p in walk:
            loops[size] = row[p]
            size += 1
        p, q = _killer(x, y, walk, death[label])
        stops[bar], killers[bar, 0], killers[bar, 1] = size, row[p], row[q]


@kernel
def _try_cloud(cloud, scale, with_loops):
    """Deaths (n,) and bars (m, 2) of a scaled cloud, the loops of the bars if wanted, and whether the drawing held."""
    x, y, row = _distinct(cloud, scale)
    loops, stops, killers = np.empty(0, np.int32), np.empty(0, np.int64), np.empty((0, 2), np.int32)
    none = np.empty(0), np.empty((0, 2)), loops, stops, killers
    if len(x) < 2:
        return none, True
    box, stop = _build_tree(x, y, row)
    ends, length2 = _graph(x, y, box, stop)
    following, outer = _walk_order(x, y, ends)
    if outer < 0:
        return none, False
    face, first, death, faces = _faces(x, y, ends, following, outer)
    if faces != len(death):
        return none, False
    h0, h1, source = np.empty(len(x) - 1), np.empty((faces, 2)), np.empty(faces, np.int32)
    count = pair(np.arange(len(ends)), length2, face, death, h0, h1, source)
    if with_loops:
        loops, stops = np.empty(2 * len(ends), np.int32), np.empty(count, np.int64)
        killers = np.empty((count, 2), np.int32)
        _write_loops(x, y, row, ends, following, face, first, death, source[:count], loops, stops, killers)
    return (h0, h1[:count], loops, stops, killers), True


@kernel
def cloud_bars(cloud, with_loops):
    """Deaths (n,) of H0 and bars (m, 2) of H1 of one cloud, ascending; loops, stops, killers; whether all was made."""
    exponent = max(math.frexp(_extent(cloud))[1], -1000)
    scale = math.ldexp(1.0, -exponent)  # a power of two is exact, and squares keep their range
    (h0, h1, loops, stops, killers), held = _try_cloud(cloud, scale, with_loops)
    if not held or (len(h0) > 0 and h0[0] < math.ldexp(1.0, CLOSEST)):
        (h0, h1, loops, stops, killers), held = _try_cloud(_rounded(cloud * scale), 1.0, with_loops)
    return h0 / scale, h1 / scale, loops, stops, killers, held


@kernel
def planar_bars(clouds):
    """Deaths and offsets of H0, bars and offsets of H1 of all clouds, P >= 1, and the first that broke, or -1.

    Beside input and output, memory depends on one cloud only: under a megabyte for prices, and up to 4 bytes times the
    square of the number of points where all of them lie on one circle.
    """
    count, points = clouds.shape[:2]
    deaths, bars = np.empty(count * points), np.empty((count * points, 2))  # a planar graph without triangles has
    offsets0, offsets1 = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)  # fewer faces than points
    for i in range(count):
        h0, h1, _, _, _, held = cloud_bars(clouds[i], False)
        if not held:
            return deaths, offsets0, bars, offsets1, i
        offsets0[i + 1], offsets1[i + 1] = offsets0[i] + len(h0), offsets1[i] + len(h1)
        for k in range(len(h0)):
            deaths[offsets0[i] + k] = h0[k]
        for k in range(len(h1)):
            bars[offsets1[i] + k, 0], bars[offsets1[i] + k, 1] = h1[k, 0], h1[k, 1]
    return deaths[: offsets0[-1]], offsets0, bars[: offsets1[-1]], offsets1, -1


class Loop(NamedTuple):
    """What a bar of H1 stands for.

    Of equal points the first stands in `points`; one at which a path leads into the loop's inside and back comes more
    than once.
    """

    birth: float
    death: float
    points: np.ndarray  # (k,) int32: rows of the cloud around the loop, in order
    killer: tuple[int, int]  # the two rows that the edge joins whose length is the death; both are among the points


def planar_loops(points: ArrayLike) -> list[Loop]:
    """The loop behind each bar of H1 of (P, 2): the walk around its face of the relative neighbourhood graph.

    In the order of the bars of `cmat_lib.tda.rips_diagrams`, with its ValueErrors; P may be 0. Every class has many
    representatives. This one is what is left of it last: just before the death all other faces that the loop
    surrounded at its birth are filled.
    """
    cloud = checked_clouds(np.asarray(points, dtype=np.float64)[None], plane=True)[0]
    if not len(cloud):
        return []
    _, bars, rows, stops, killers, _ = cloud_bars(cloud, True)
    spans = zip(bars.tolist(), [0, *stops.tolist()], stops.tolist(), killers.tolist(), strict=False)
    return [Loop(birth, death, rows[start:stop], tuple(killer)) for (birth, death), start, stop, killer in spans]
