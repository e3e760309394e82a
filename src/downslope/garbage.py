"""When not to look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: for what makes many small objects and keeps most of them.

    Importing torch's compiler (which the first optimizer does), tracing a model and writing a
    program each set off several collections. They find nothing, and among all that torch has
    imported one takes about as long as a trace.

    >>> with uncollected():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
