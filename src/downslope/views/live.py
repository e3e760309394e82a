"""Live views: what is recorded, shown while it is made, on a terminal, in a notebook or a window.

A view looks at records that are made anyway, between two updates or beside a compiled program. It
changes no run, and ends none: where it fails, the descents go on without it, and a warning says so
when they are done.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Protocol, get_args

import numpy as np

from downslope.engines.work import Glimpse, Onlooker
from downslope.errors import InputError, nearest
from downslope.plan import Plan
from downslope.views.data.live import Live, Seen, of_losses
from downslope.views.live_chart import live_rows

Where = Literal["terminal", "notebook", "window"]

_OFTEN = 0.1
"""Seconds between two redraws, at least."""

_SHARE = 0.1
"""Of the time, what redrawing may take, as long as there is a picture every `_SELDOM` seconds: the
first takes long, since matplotlib looks for its fonts then."""

_SELDOM = 2.0

_WINDOWLESS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


class LiveViewWarning(UserWarning):
    """A live view failed; what it looked at went on without it."""


class Screen(Protocol):
    """Somewhere to show things."""

    fits: bool
    """Whether predictions can be shown on it."""

    def show(self, data: Live) -> None:
        """Show this in place of what was shown before."""

    def close(self) -> None:
        """Nothing more comes; what was shown last stays."""


def where_to_show(live: Any) -> Where | None:
    """Which view `live` asks for, None for no view.

    True takes a notebook in a Jupyter kernel, a terminal where stderr is one, else none.

    Raises:
        InputError: for anything else, or a view that is not possible here; nothing has been
            computed then.
    """
    if isinstance(live, np.bool_):
        live = bool(live)
    if live is None or live is False:
        return None
    if live is True:
        if _in_kernel():
            return "notebook"
        return "terminal" if sys.stderr.isatty() else None
    known = get_args(Where)
    if live not in known:
        hint = nearest(str(live), known)
        raise InputError(
            f"live must be True, False or one of {', '.join(known)}, got {live!r}{hint}"
        )
    where: Where = live
    if where == "terminal" and not sys.stderr.isatty():
        raise InputError(
            "live='terminal' needs a terminal, and stderr is none; live=True shows a view only "
            "where somebody can look on"
        )
    if where == "notebook" and importlib.util.find_spec("IPython") is None:
        raise InputError(
            "live='notebook' needs IPython, which is not installed; outside a notebook use "
            "live='terminal'"
        )
    if where == "window":
        Window().close_at_once()
    return where


def _in_kernel() -> bool:
    """Whether this is a Jupyter kernel; asks IPython only where it is loaded."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def screen_for(where: Where) -> Screen:
    """A screen of this kind."""
    screens: dict[Where, Callable[[], Screen]] = {
        "terminal": Terminal,
        "notebook": Notebook,
        "window": Window,
    }
    return screens[where]()


class LiveView:
    """Shows what is seen, now and then, on a screen; used in a ``with`` block.

    Redraws at most every `_OFTEN` seconds, and less often where that would take more than `_SHARE`
    of the time, down to every `_SELDOM` seconds.
    """

    def __init__(self, screen: Screen, clock: Callable[[], float] = time.monotonic) -> None:
        self.screen, self.clock = screen, clock
        self.next = self.asked = -float("inf")
        self.newest: Callable[[], Live] | None = None
        self.broken = False
        self.seen: Seen | None = None
        self.failures: list[str] = []

    def __enter__(self) -> LiveView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.asked = self.clock()
        with suppress(KeyboardInterrupt):  # what is looked at has ended: nothing is left to stop
            self._draw()
        with suppress(KeyboardInterrupt):
            self._guarded(self.screen.close)

    def onlooker(self, plan: Plan, done: int, reached: int) -> Onlooker:
        """Somebody who looks on at the runs of a plan, of which so many were done before, the
        longest of them so many steps long."""
        try:
            seen = Seen(plan, self.screen.fits, done, reached)
        except Exception as error:  # of the user's model, which is asked for predictions
            self._failed("no prediction is shown", error)
            seen = Seen(plan, False, done, reached)
        self.seen = seen
        if done < plan.runs:
            self.newest = seen.now

        def look(glimpse: Glimpse) -> None:
            self._guarded(lambda: seen.take(glimpse))
            if not glimpse.done and self.clock() >= self.next:  # else once its outcome is held
                self._draw()

        return Onlooker(seen.wanted, self.due, look)

    def look_at(self, losses: Callable[[], list[float | None]]) -> None:
        """A watched loop has made a step; its losses so far can be asked for."""
        if not self.broken:
            self.newest = lambda: of_losses(losses())
            if self.due():
                self._draw()

    def catch_up(self, steps: int) -> None:
        """Runs of at most so many steps were looked at, and their outcome is held now."""
        if self.seen is not None:
            self.seen.ended(steps)
        if self.due():
            self._draw()

    def tell(self, stacklevel: int) -> None:
        """Warn of what failed; when nothing can be lost by it, even where warnings are errors."""
        if self.failures:
            warnings.warn("; ".join(self.failures), LiveViewWarning, stacklevel=stacklevel + 1)

    def due(self) -> bool:
        """Whether it is time to draw again."""
        now = self.clock()
        if self.broken or now < self.next:
            return False
        self.asked = now
        return True

    def _draw(self) -> None:
        newest = self.newest
        if newest is None:
            return
        self._guarded(lambda: self.screen.show(newest()))
        now = self.clock()  # gathering what is drawn began when it was due
        self.next = now + max(_OFTEN, min((now - self.asked) / _SHARE, _SELDOM))

    def _guarded(self, draw: Callable[[], None]) -> None:
        """Draw; a failure of the view must not cost the runs."""
        if self.broken:
            return
        try:
            draw()
        except Exception as error:  # whatever a terminal, a kernel or a window system raises
            self.broken = True
            self._failed("the live view ended early, what it showed went on", error)

    def _failed(self, what: str, error: Exception) -> None:
        said = " ".join(str(error).split()) or "no reason given"
        self.failures.append(f"{what}: {type(error).__name__}: {said}")


class Terminal:
    """A chart in text that is redrawn in place, on stderr.

    Args:
        console: a rich Console; by default one on stderr.
    """

    fits = False

    def __init__(self, console: Any = None) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False) if console is None else console
        self.live: Any = None

    def show(self, data: Live) -> None:
        """The words, the chart and the lines' names, in the terminal's present size."""
        from rich.live import Live as Redrawn
        from rich.text import Text

        text = Text("\n", overflow="ellipsis", no_wrap=True).join(live_rows(data, self.console))
        if self.live is None:
            self.live = Redrawn(console=self.console, auto_refresh=False)
            self.live.start()
        self.live.update(text, refresh=True)

    def close(self) -> None:
        """The last chart stays; the cursor stands below it."""
        if self.live is not None:
            self.live.stop()


class _Png:
    """A picture as a notebook shows it."""

    def __init__(self, data: bytes, words: str) -> None:
        self.data, self.words = data, words

    def _repr_png_(self) -> bytes:
        return self.data

    def __repr__(self) -> str:
        return f"<{self.words}>"


class Notebook:
    """A picture in a notebook's output that is put in place of the one before.

    Args:
        display: shows something and gives what can ``update`` it; by default IPython's.
    """

    fits = True

    def __init__(self, display: Callable[[Any], Any] | None = None) -> None:
        self.display = _displayed if display is None else display
        self.handle: Any = None
        self.picture: Any = None

    def show(self, data: Live) -> None:
        """Losses, and data with prediction where there is one."""
        from downslope.views.drawing.live import LivePicture

        if self.picture is None or (data.ground is not None and not self.picture.fits):
            self.picture = LivePicture(data)
        else:
            self.picture.show(data)
        shown = _Png(self.picture.png(), data.words)
        if self.handle is None:
            self.handle = self.display(shown)
        else:
            self.handle.update(shown)

    def close(self) -> None:
        """The last picture stays."""


def _displayed(shown: Any) -> Any:
    ipython = importlib.import_module("IPython.display")  # not there for every user
    return ipython.display(shown, display_id=True)


class Window:
    """A window of matplotlib's, the one place where pyplot is used.

    Args:
        pyplot: matplotlib's by default.

    Raises:
        InputError: if no window can be opened here.
    """

    fits = True

    def __init__(self, pyplot: Any = None) -> None:
        plt = importlib.import_module("matplotlib.pyplot") if pyplot is None else pyplot
        self.plt = plt
        backend = str(plt.get_backend())
        if backend.lower() in _WINDOWLESS:
            raise InputError(_no_window(f"matplotlib draws by {backend!r}, which has no windows"))
        try:
            self.figure = plt.figure()
        except Exception as error:  # each toolkit has errors of its own
            said = " ".join(str(error).split())
            raise InputError(_no_window(said)) from error
        self.number: int = self.figure.number
        self.picture: Any = None

    def close_at_once(self) -> None:
        """It was opened only to see whether it can be."""
        self.plt.close(self.figure)

    def show(self, data: Live) -> None:
        """Losses, and data with prediction where there is one."""
        from downslope.views.drawing.live import LivePicture
        from downslope.views.drawing.style import own_style

        if not self.plt.fignum_exists(self.number):
            return  # closed by hand: the runs go on
        if self.picture is None or (data.ground is not None and not self.picture.fits):
            self.figure.clear()
            self.picture = LivePicture(data, self.figure)
            self.plt.show(block=False)
        else:
            self.picture.show(data)
        with own_style():
            self.figure.canvas.draw()
        self.figure.canvas.flush_events()

    def close(self) -> None:
        """It stays open until it is closed by hand, or the program ends."""


def _no_window(reason: str) -> str:
    return (
        f"live='window' needs a display and a window toolkit such as Tk or Qt: {reason}; "
        "use live='terminal' or live='notebook'"
    )
