"""The report's style sheet and script, as they stand in the page."""

from __future__ import annotations

from importlib.resources import files


def part(name: str) -> str:
    """One of the files here, as text: ``report.css`` or ``report.js``."""
    return (files(__name__) / name).read_text(encoding="utf-8")
