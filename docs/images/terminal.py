#!/usr/bin/env python3
"""Draws terminal.svg: a real run of `ringest demo` in a pseudo-terminal, as a picture.

    cargo build --release
    python3 docs/images/terminal.py target/release/ringest

The text in the picture is what the program printed. Two kinds of lines are added, both marked as
such: the prompt, and a line wherever rows or tables were left out. Standard library only.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import unicodedata
from dataclasses import dataclass
from html import escape
from pathlib import Path

COLUMNS = 100
ROWS_FIRST, ROWS_LAST = 4, 2

FONT_PX, CELL_PX, LINE_PX = 14, 8.4, 19
MARGIN_PX, BAR_PX = 20, 38
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# The window has a background of its own, so it reads the same on light and on dark pages.
BACKGROUND, BAR, EDGE = "#16181d", "#22252c", "#3a3f4a"
FILLS = {
    "text": "#d5d9e0",
    "bold": "#ffffff",
    "dim": "#868e9c",
    "green": "#7fd18b",
    "red": "#f07c82",
    "yellow": "#e5c07b",
    "blue": "#7cb7ff",
    "magenta": "#cf9bf2",
    "cyan": "#6fcfd6",
}
# Numbers of "select graphic rendition" that a program may send, and the fill that each selects.
RENDITIONS = {0: "text", 1: "bold", 2: "dim", 22: "text", 39: "text"} | {
    base + number: fill
    for base in (30, 90)
    for number, fill in enumerate(
        ("dim", "red", "green", "yellow", "blue", "magenta", "cyan", "text")
    )
}

UP, DOWN, LEFT, RIGHT = 1, 2, 4, 8
# Lines of tables are drawn, so that they meet whatever font is there. Which way each one leads:
ARMS = {
    "─": LEFT | RIGHT, "│": UP | DOWN, "═": LEFT | RIGHT, "┆": UP | DOWN,
    "┌": DOWN | RIGHT, "┐": DOWN | LEFT, "└": UP | RIGHT, "┘": UP | LEFT,
    "├": UP | DOWN | RIGHT, "┤": UP | DOWN | LEFT, "╞": UP | DOWN | RIGHT, "╡": UP | DOWN | LEFT,
    "┬": LEFT | RIGHT | DOWN, "┴": LEFT | RIGHT | UP,
    "┼": UP | DOWN | LEFT | RIGHT, "╪": UP | DOWN | LEFT | RIGHT,
}  # fmt: skip

HEADING = re.compile(r"connection \d+ from ")
CONTROL = re.compile(r"\x1b\[([\d;]*)([A-Za-z])")
GOOD = re.compile(r"\bcomplete\b|\bmatch(es)?\b(?= what was sent)")
BAD = re.compile(r"\brejected\b|\bincomplete\b")


@dataclass
class Line:
    """A line of the terminal: its characters, and the name of a fill for each."""

    text: str
    fills: list[str]

    @classmethod
    def of(cls, text: str, fill: str = "text") -> "Line":
        return cls(text, [fill] * len(text))

    def part(self, start: int, end: int) -> "Line":
        return Line(self.text[start:end], self.fills[start:end])


def run_in_terminal(command: list[str]) -> tuple[str, int]:
    """What the command writes to a terminal of so many columns, and its exit code."""
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("RINGEST_")}
        inherited.pop("NO_COLOR", None)
        try:
            os.execvpe(command[0], command, inherited | {"TERM": "xterm-256color"})
        except OSError as error:
            print(f"cannot run {command[0]}: {error.strerror}")
            os._exit(127)
    received = bytearray()
    while True:
        try:
            more = os.read(terminal, 1 << 16)
        except OSError:  # EIO: the other end of the terminal is closed
            break
        if not more:
            break
        received += more
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    return received.decode(errors="replace"), os.waitstatus_to_exitcode(status)


def shown(raw: str) -> list[Line]:
    """The lines that are left on the screen: colours are followed, cleared lines are gone."""
    lines = []
    fill = "text"
    for raw_line in raw.replace("\r\n", "\n").split("\n"):
        characters: list[str] = []
        fills: list[str] = []
        at = position = 0
        while position < len(raw_line):
            if control := CONTROL.match(raw_line, position):
                position = control.end()
                numbers, kind = control.groups()
                if kind == "m":
                    for number in numbers.split(";"):
                        fill = RENDITIONS.get(int(number or 0), fill)
                elif kind == "K":
                    del characters[at:], fills[at:]
                continue
            character = raw_line[position]
            position += 1
            if character == "\r":
                at = 0
            elif unicodedata.category(character) != "Cc":
                characters[at : at + 1] = [character]
                fills[at : at + 1] = [fill]
                at += 1
        text = "".join(characters).rstrip()
        lines.append(Line(text, fills[: len(text)]))
    while lines and not lines[-1].text:
        lines.pop()
    return lines


def left_out(count: int, what: str) -> Line:
    return Line.of(f"  … {count:,} {what} left out in this picture", "dim")


def shorten_table(block: list[Line]) -> list[Line]:
    """A result with the first and last rows of its table."""
    head = next((i for i, line in enumerate(block) if line.text[:1] in ("├", "╞")), None)
    if head is None:
        return block
    foot = next(i for i, line in enumerate(block) if line.text.startswith("└"))
    rows = block[head + 1 : foot]
    count = len(rows) - ROWS_FIRST - ROWS_LAST
    if count <= 1:
        return block
    kept = rows[:ROWS_FIRST] + [left_out(count, "rows")] + rows[-ROWS_LAST:]
    return block[: head + 1] + kept + block[foot:]


def pick(lines: list[Line]) -> list[Line]:
    """The first result, shortened, and all that is not a result."""
    heads = [i for i, line in enumerate(lines) if HEADING.match(line.text)]
    if not heads:
        return lines
    lasts = [i for i, line in enumerate(lines) if line.text.startswith("latency of ")]
    first_end, results_end = lasts[0] + 1, lasts[-1] + 1
    picked = lines[: heads[0]] + shorten_table(lines[heads[0] : first_end])
    # What the program says while results are printed, such as its log.
    between = lines[first_end : heads[-1]]
    picked += [line for line in between if line.text.startswith("ringest: ")]
    if len(heads) > 1:
        picked += [Line.of(""), left_out(len(heads) - 1, "tables")]
    tail = lines[results_end:]
    while tail and not tail[0].text:
        tail.pop(0)
    return picked + [Line.of("")] + tail


def colour(line: Line) -> None:
    """Quiet colours where the program sent none: names of types, headings, verdicts."""
    if set(line.fills) - {"text"}:
        return
    text = line.text
    if text.startswith("│"):
        cells = [cell.strip() for cell in text.strip("│").split("│")]
        if all(re.fullmatch(r"u\d+|i\d+|f\d+|text|bool|bytes|", cell) for cell in cells):
            line.fills[:] = ["dim"] * len(text)
    elif HEADING.match(text):
        line.fills[:] = ["bold"] * len(text)
    for pattern, fill in ((GOOD, "green"), (BAD, "red")):
        for found in pattern.finditer(text):
            line.fills[found.start() : found.end()] = [fill] * len(found[0])


def wrap(line: Line) -> list[Line]:
    """A line of at most so many columns, broken between words."""
    parts = []
    while len(line.text) > COLUMNS:
        end = line.text.rfind(" ", 0, COLUMNS + 1)
        end = end if end > 0 else COLUMNS
        parts.append(line.part(0, end))
        start = end + (line.text[end : end + 1] == " ")
        line = line.part(start, len(line.text))
    return [*parts, line]


def runs(line: Line) -> list[tuple[int, str, str]]:
    """Neighbouring characters of one fill: where they start, the characters, the fill."""
    found: list[tuple[int, str, str]] = []
    for column, (character, fill) in enumerate(zip(line.text, line.fills, strict=True)):
        fill = "rule" if character in ARMS else fill
        if found and found[-1][2] == fill:
            start, characters, _ = found.pop()
            found.append((start, characters + character, fill))
        else:
            found.append((column, character, fill))
    # Runs of spaces need no element, and a run may start at its first visible character.
    return [
        (start + len(text) - len(text.lstrip()), text.strip(), fill)
        for start, text, fill in found
        if text.strip()
    ]


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def rules(lines: list[Line]) -> str:
    """The lines of tables as one path."""
    steps = []
    for row, line in enumerate(lines):
        y = BAR_PX + MARGIN_PX + row * LINE_PX
        middle_y = y + LINE_PX / 2
        column = 0
        while column < len(line.text):
            arms = ARMS.get(line.text[column], 0)
            x = MARGIN_PX + column * CELL_PX
            if arms & (UP | DOWN):
                top = y if arms & UP else middle_y
                bottom = y + LINE_PX if arms & DOWN else middle_y
                steps.append(f"M{number(x + CELL_PX / 2)} {number(top)}V{number(bottom)}")
            if arms & RIGHT and ARMS.get(line.text[column + 1 : column + 2], 0) & LEFT:
                end = column + 1
                while ARMS.get(line.text[end], 0) & RIGHT:
                    end += 1
                start_x, end_x = x + CELL_PX / 2, MARGIN_PX + (end + 0.5) * CELL_PX
                if not (column and ARMS.get(line.text[column - 1], 0) & RIGHT):
                    steps.append(f"M{number(start_x)} {number(middle_y)}H{number(end_x)}")
            column += 1
    return "".join(steps)


def draw(lines: list[Line], title: str) -> str:
    width = 2 * MARGIN_PX + COLUMNS * CELL_PX
    height = BAR_PX + 2 * MARGIN_PX + len(lines) * LINE_PX
    fills = "".join(f".{name}{{fill:{fill}}}" for name, fill in FILLS.items())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{number(width)}" '
        f'height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>text{{font:{FONT_PX}px {FONTS};white-space:pre}}{fills}"
        ".bold{font-weight:bold}.rule{fill:none}</style>",
        f'<rect x="0.5" y="0.5" width="{number(width - 1)}" height="{number(height - 1)}" '
        f'rx="9.5" fill="{BACKGROUND}" stroke="{EDGE}"/>',
        f'<path d="M1 {BAR_PX}V10a9 9 0 0 1 9-9H{number(width - 10)}a9 9 0 0 1 9 9V{BAR_PX}Z" '
        f'fill="{BAR}"/>',
    ]
    for place, fill in enumerate(("#f2655c", "#f5bd4f", "#5fc454")):
        parts.append(f'<circle cx="{22 + 20 * place}" cy="{BAR_PX // 2}" r="6" fill="{fill}"/>')
    parts.append(f'<path d="{rules(lines)}" fill="none" stroke="{FILLS["dim"]}" opacity="0.6"/>')
    for row, line in enumerate(lines):
        y = BAR_PX + MARGIN_PX + (row + 0.5) * LINE_PX + 0.35 * FONT_PX
        spans = [
            f'<tspan class="{fill}" x="{number(MARGIN_PX + start * CELL_PX)}" '
            f'textLength="{number(len(text) * CELL_PX)}">{escape(text, quote=False)}</tspan>'
            for start, text, fill in runs(line)
        ]
        if spans:
            parts.append(f'<text y="{number(y)}" xml:space="preserve">{"".join(spans)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw a run of `ringest demo` as an SVG picture.")
    parser.add_argument("program", nargs="?", default="target/release/ringest")
    parser.add_argument("--records", metavar="N", help="records of each connection")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, default=Path(__file__).with_name("terminal.svg")
    )
    options = parser.parse_args()
    arguments = ["demo"] + (["--records", options.records] if options.records else [])
    raw, code = run_in_terminal([options.program, *arguments])
    lines = shown(raw)
    if code != 0 or not any(HEADING.match(line.text) for line in lines):
        print(raw, end="")
        print(f"terminal.py: the demo ended with code {code}; no picture", file=sys.stderr)
        return 1
    picked = pick(lines)
    for line in picked:
        colour(line)
    command = " ".join(["ringest", *arguments])
    prompt = Line("$ " + command, ["green", "text"] + ["bold"] * len(command))
    wrapped = [part for line in [prompt, *picked] for part in wrap(line)]
    options.output.write_text(draw(wrapped, f"A terminal that runs {command}"))
    print(f"{options.output}: {len(wrapped)} lines of {len(lines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
