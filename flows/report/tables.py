"""Tables of text: columns side by side, or a block of lines a row where they are too wide.

Numbers are right-aligned, words left. Where there is no terminal to fit, nothing is wrapped or cut, and no
line ends in spaces: what reads it is a program.
"""

from __future__ import annotations

from collections.abc import Sequence

GAP = 2
NUMERIC = frozenset("0123456789.,-+% ")


def side_by_side(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for the header, where it has words, and one for each row."""
    rows = [[_one_line(cell) for cell in row] for row in rows]
    columns = range(len(header))
    right = numeric(header, rows)
    widths = [max(len(name), *(len(row[place]) for row in rows), 0) for place, name in enumerate(header)]

    def line(cells: Sequence[str]) -> str:
        """Cells at their widths, numbers to the right."""
        padded = (
            cells[place].rjust(widths[place]) if right[place] else cells[place].ljust(widths[place])
            for place in columns
        )
        return (" " * GAP).join(padded).rstrip()

    shown = [line(header)] if any(header) else []
    return shown + [line(row) for row in rows]


def records(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A block of lines a row: its number, then a name and a value a line."""
    longest = max(map(len, header), default=0)
    lines = []
    for number, row in enumerate(rows, start=1):
        lines.append(f"row {number}")
        lines += [f"  {name:<{longest}}  {cell}".rstrip() for name, cell in zip(header, row, strict=True)]
    return lines


def width_of(header: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Of the table side by side, in characters."""
    widths = (max([len(name), *(len(row[place]) for row in rows)]) for place, name in enumerate(header))
    return sum(width + GAP for width in widths)


def numeric(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns hold numbers alone."""
    return [_is_numeric([row[place] for row in rows]) for place in range(len(header))]


def _is_numeric(cells: Sequence[str]) -> bool:
    told = [cell for cell in cells if cell]
    return bool(told) and all(set(cell) <= NUMERIC for cell in told)


def _one_line(cell: str) -> str:
    """A row is a line: breaks in a cell are shown as Python writes them."""
    return cell.replace("\n", "\\n").replace("\t", "\\t")
