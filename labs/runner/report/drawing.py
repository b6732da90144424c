"""Where the lines and boxes of the report's pictures go: graphs from left to right, a curve, a cloud of pairs. Pure.

All numbers are pixels of an SVG whose origin is the upper left corner; paths are in SVG's own notation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

MOST_NODES = 60
"""Boxes of one picture. A student can make a pipeline of any size; a picture of more helps nobody."""

_COLUMN_GAP, _ROW_GAP, _MARGIN, _LANE = 44, 16, 4, 10
_SWEEPS = 3
_MOST_POINTS = 400

Point = tuple[float, float]
_Cell = tuple[str, int]
"""A node's name and a column: the node itself in its own, a lane of its edges in a later one."""


@dataclass(frozen=True, kw_only=True)
class Graph:
    """`corners` are the boxes' upper left corners by name, all boxes of one size; `edges` are paths."""

    width: int
    height: int
    box: tuple[int, int]
    corners: dict[str, tuple[int, int]]
    edges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A frame (left, top, right, bottom) with ticks (place, text) along it, and what is drawn in it."""

    width: int
    height: int
    frame: tuple[int, int, int, int]
    across: tuple[tuple[float, str], ...]
    upward: tuple[tuple[float, str], ...]
    points: tuple[Point, ...]
    line: str


def graph(before: Mapping[str, Sequence[str]], box: tuple[int, int]) -> Graph | None:
    """Each box of size `box` in the column after the last of those that stand `before` it, if they are known.

    An edge over several columns has a lane of its own between the boxes there. A graph that goes round is cut.
    None when it has no node or more than `MOST_NODES`.
    """
    if not 0 < len(before) <= MOST_NODES:
        return None
    columns = _columns(before)
    lanes: dict[_Cell, list[_Cell]] = {}
    paths = []
    cells: list[list[_Cell]] = [[] for _ in range(max(columns.values()) + 1)]
    for name, column in columns.items():
        cells[column].append((name, column))
    for name in columns:
        for source in dict.fromkeys(before[name]):
            if source in columns and columns[source] < columns[name]:
                # Edges of one source share their lanes.
                path = [(source, column) for column in range(columns[source], columns[name])] + [(name, columns[name])]
                for lane in path[1:-1]:
                    if lane not in cells[lane[1]]:
                        cells[lane[1]].append(lane)
                for left, right in pairwise(path):
                    lanes.setdefault(left, []).append(right)
                paths.append(path)
    _untangle(cells, lanes)
    width, height = box
    tops, total = _tops(cells, columns, height)

    def middle(cell: _Cell) -> tuple[int, int]:
        half = (height if columns[cell[0]] == cell[1] else _LANE) // 2
        return _MARGIN + cell[1] * (width + _COLUMN_GAP), tops[cell] + half

    return Graph(
        width=2 * _MARGIN + len(cells) * (width + _COLUMN_GAP) - _COLUMN_GAP,
        height=total + 2 * _MARGIN,
        box=box,
        corners={name: (middle((name, column))[0], tops[(name, column)]) for name, column in columns.items()},
        edges=tuple(_edge([middle(cell) for cell in path], width) for path in paths),
    )


def _columns(before: Mapping[str, Sequence[str]]) -> dict[str, int]:
    columns: dict[str, int] = {}
    waiting = list(before)
    while waiting:
        free = (name for name in waiting if all(b in columns or b not in before or b == name for b in before[name]))
        name = next(free, waiting[0])
        waiting.remove(name)
        columns[name] = 1 + max((columns[b] for b in before[name] if b in columns), default=-1)
    return columns


def _untangle(cells: list[list[_Cell]], after: Mapping[_Cell, Sequence[_Cell]]) -> None:
    """Order every column by where its neighbours stand in the one beside it (Sugiyama's barycentres)."""
    behind: dict[_Cell, list[_Cell]] = {}
    for left, rights in after.items():
        for right in rights:
            behind.setdefault(right, []).append(left)
    for sweep in range(_SWEEPS):
        step, neighbours = (1, behind) if sweep % 2 == 0 else (-1, after)
        for column in list(range(len(cells)))[::step][1:]:
            beside, own = _centred(cells[column - step]), _centred(cells[column])
            weights = {}
            for cell in cells[column]:
                places = [beside[n] for n in neighbours.get(cell, ()) if n in beside]
                weights[cell] = sum(places) / len(places) if places else own[cell]
            cells[column].sort(key=weights.__getitem__)


def _centred(column: Sequence[_Cell]) -> dict[_Cell, float]:
    return {cell: i - (len(column) - 1) / 2 for i, cell in enumerate(column)}


def _tops(cells: list[list[_Cell]], columns: Mapping[str, int], height: int) -> tuple[dict[_Cell, int], int]:
    """The upper end of every box and lane, each column in the middle of the tallest; and the height of that one."""
    heights = [[height if columns[name] == at else _LANE for name, at in column] for column in cells]
    totals = [sum(column) + _ROW_GAP * (len(column) - 1) for column in heights]
    tops = {}
    for column, sizes, total in zip(cells, heights, totals, strict=True):
        top = _MARGIN + (max(totals) - total) // 2
        for cell, size in zip(column, sizes, strict=True):
            tops[cell] = top
            top += size + _ROW_GAP
    return tops, max(totals)


def _edge(stops: Sequence[tuple[int, int]], width: int) -> str:
    """From the right of the first stop to shortly before the left of the last, straight through the lanes between."""
    (x, y), path = stops[0], ""
    x += width
    path = f"M{x} {y}"
    for i, (to_x, to_y) in enumerate(stops[1:], 2):
        last = i == len(stops)
        end = to_x - (6 if last else 0)
        bend = (end - x) // 2
        path += f"H{end}" if to_y == y else f"C{x + bend} {y} {end - bend} {to_y} {end} {to_y}"
        x, y = end, to_y
        if not last:
            x += width
            path += f"H{x}"
    return path


def curve(values: Sequence[float], width: int = 520, height: int = 190) -> Chart | None:
    """Values over their number (1, 2, …); of many, every so manieth. None for fewer than two."""
    if len(values) < 2:
        return None
    every = -(-len(values) // _MOST_POINTS)
    kept = [(i + 1, value) for i, value in enumerate(values) if i % every == 0 or i == len(values) - 1]
    low, high = min(values), max(values)
    steps = _steps(0.0 if 0 <= low < high / 2 else low, high, 4)
    frame = (52, 10, width - 12, height - 24)
    numbers = [n for n in _steps(1, len(values), 6) if n == int(n) and 1 <= n <= len(values)]
    place = _scale((1, len(values)), (steps[0], steps[-1]), frame)
    points = tuple(place(n, value) for n, value in kept)
    return Chart(
        width=width,
        height=height,
        frame=frame,
        across=tuple((place(n, steps[0])[0], number(n)) for n in sorted({1.0, *numbers})),
        upward=tuple((place(1, step)[1], number(step)) for step in steps),
        points=points,
        line="M" + "L".join(f"{x:g} {y:g}" for x, y in points),
    )


def cloud(pairs: Sequence[Point], side: int = 264) -> Chart | None:
    """Pairs (across, upward) on one scale; the line is where both are equal. None without a pair."""
    if not pairs:
        return None
    every = [value for pair in pairs for value in pair]
    steps = _steps(min(every), max(every), 4)
    frame = (46, 10, side - 12, side - 26)
    place = _scale((steps[0], steps[-1]), (steps[0], steps[-1]), frame)
    return Chart(
        width=side,
        height=side,
        frame=frame,
        across=tuple((place(step, 0)[0], number(step)) for step in steps),
        upward=tuple((place(0, step)[1], number(step)) for step in steps),
        points=tuple(place(*pair) for pair in pairs[:_MOST_POINTS]),
        line=f"M{frame[0]} {frame[3]}L{frame[2]} {frame[1]}",
    )


def number(value: float) -> str:
    """Four digits, as a person writes them."""
    return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e9 else f"{value:.0f}"


def _scale(across: Point, upward: Point, frame: tuple[int, int, int, int]) -> Callable[[float, float], Point]:
    left, top, right, bottom = frame

    def place(x: float, y: float) -> Point:
        return (
            round(left + (x - across[0]) / (across[1] - across[0]) * (right - left), 1),
            round(bottom - (y - upward[0]) / (upward[1] - upward[0]) * (bottom - top), 1),
        )

    return place


def _steps(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from below `low` to above `high`."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    size = 10.0 ** math.floor(math.log10((high - low) / about))
    size = next((size * by for by in (1, 2, 5) if (high - low) / (size * by) <= about), size * 10)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [round(n * size, 12) for n in range(first, last + 1)]
