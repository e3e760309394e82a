"""How every picture looks: its colours, its letters, its legend; nothing global is touched."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from downslope.errors import InputError

# Okabe and Ito, "Color Universal Design": told apart with any colour vision. Their yellow is too
# light for a line on white.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK, GREY = "#56B4E9", "#CC79A7", "#000000", "#B0B0B0"
PALETTE = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, BLACK)

_DASHES = ("-", (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)))

SMALL, NORMAL = 9, 10
WIDTH = 5.6
"""Inches of a picture with one panel: its letters can be read when it is printed 10 cm wide."""
_DOTS_PER_INCH = 150
_LONGEST = 48
_ACROSS = 58
"""Letters of a line below a picture of one panel."""
_NO_BREAK = "\N{NO-BREAK SPACE}"
_ONE_AT_A_TIME = threading.RLock()
_CHINESE = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "SimHei",
)


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook, without pyplot.

    It looks the same whatever style the user has set, a dark one too: what matplotlib looks up
    only when it draws (ticks, the ground of a file) is looked up in its own default style.
    """

    def draw(self, renderer: Any) -> None:
        """As matplotlib draws it by default."""
        with own_style():
            super().draw(renderer)

    def savefig(self, fname: Any, **kwargs: Any) -> None:
        """To PNG, SVG or PDF, after the name's ending; see matplotlib's own.

        Raises:
            InputError: if the file cannot be written.
        """
        with own_style():
            try:
                super().savefig(fname, **kwargs)
            except OSError as error:
                raise InputError(
                    f"cannot write {str(fname)!r}: {error.strerror or error}"
                ) from error

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


@contextmanager
def own_style() -> Iterator[None]:
    """Matplotlib's default style for a while: pictures are made and drawn in it.

    By one thread at a time: the style is the process's own, and two that took turns would put back
    each other's.
    """
    with _ONE_AT_A_TIME, mpl.style.context("default"):
        yield


def picture(width: float, height: float) -> Picture:
    """An empty picture, in inches."""
    return Picture(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")


def strokes(count: int) -> list[tuple[Any, Any]]:
    """Colour and dashes of `count` lines: the palette, then again with dashes of another kind."""
    rounds = [divmod(place, len(PALETTE)) for place in range(count)]
    return [(PALETTE[place], _DASHES[turn % len(_DASHES)]) for turn, place in rounds]


def prepare(axes: Axes, x_label: str, y_label: str) -> None:
    """Labels, a light grid, and no box."""
    across = "\n".join(wrap(text(x_label, 80), _ACROSS))
    axes.set_xlabel(across, fontsize=NORMAL, fontfamily=families())
    lines = y_label.replace(" (", "\n(").split("\n") if len(y_label) > 38 else [y_label]
    wrapped = [part for line in lines for part in wrap(text(line, 80), 38)]
    axes.set_ylabel("\n".join(wrapped), fontsize=NORMAL, fontfamily=families())
    axes.tick_params(labelsize=SMALL)
    axes.grid(True, color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def title(axes: Axes, words: str) -> None:
    """A small heading, for one panel of several."""
    axes.set_title(text(words), fontsize=SMALL, fontfamily=families())


def legend(figure: Figure | SubFigure, handles: Sequence[Any], heading: str = "") -> None:
    """A legend below everything else, in as many columns as its words leave room for."""
    if not handles:
        return
    width = figure.bbox.width / figure.dpi
    longest = int(12.5 * width) - 7
    # Without the blank, "_x" would be left out.
    names = [" " + "\n ".join(_lines(str(h.get_label()), longest)) for h in handles]
    box = figure.legend(
        list(handles),
        names,
        loc="outside lower center",
        ncols=legend_columns(names, width),
        title=heading or None,
        frameon=False,
        prop={"size": SMALL, "family": families()},
        title_fontsize=SMALL,
        handlelength=1.6,
        columnspacing=1.2,
    )
    box.set_zorder(5)


def legend_columns(names: Sequence[str], width: float = WIDTH) -> int:
    """How many columns of these names fit beside each other in so many inches."""
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    return max(1, min(4, len(names), int(12.5 * width) // (longest + 7)))


def legend_height(names: Sequence[str], width: float = WIDTH) -> float:
    """The inches that a legend of these names takes."""
    columns = legend_columns(names, width)
    lines = sum(len(_lines(name, int(12.5 * width) - 7)) or 1 for name in names)
    return 0.19 * (lines if columns == 1 else -(-len(names) // columns))


def _lines(words: str, longest: int) -> list[str]:
    """Words in two lines at most, safe to draw; the second is cut where it is too long."""
    safe = text(words, 4 * longest)
    if len(safe) <= longest:
        return [safe]
    whole = re.sub(r"(?<!,) (?!\()", _NO_BREAK, safe)  # "batch size 5" stays together if it can
    if max(map(len, whole.split(" "))) > longest:
        whole = safe
    parts = wrap(whole, longest, break_on_hyphens=False)
    first, *rest = [part.replace(_NO_BREAK, " ") for part in parts]
    second = " ".join(rest)
    return [first, second if len(second) <= longest else f"{second[: longest - 1]}…"]


def text(words: str, longest: int = _LONGEST) -> str:
    r"""Words made safe to draw: names out of a table are data.

    A dollar sign would start a formula, a line break or a letter that no installed font has
    would spoil the picture; what is too long is cut.

    >>> print(text("price ($)"))
    price (\$)
    """
    cut = words if len(words) <= longest else f"{words[: longest - 1]}…"
    drawn = [c if _drawable(c) else ("\N{WHITE SQUARE}" if c.isprintable() else " ") for c in cut]
    return "".join(drawn).replace("$", r"\$")


@cache
def families() -> list[str]:
    """The fonts to take letters from, in turn: matplotlib's own, then one for Chinese."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in _CHINESE if name in installed][:1]]


@cache
def _drawable(character: str) -> bool:
    if " " <= character <= "~":
        return True
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in families()]
    return any(font.get_char_index(ord(character)) for font in fonts)
