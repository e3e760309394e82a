"""Sentences out of a catalogue: another language is one more file like `english`.

A catalogue maps keys to sentences with named slots. Numbers that fill slots are written with four
digits; lists as words.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from downslope.errors import InputError, listed, nearest
from downslope.explain import english, english_loops

LANGUAGES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {"en": {**english.SENTENCES, **english_loops.SENTENCES}}
)


def say(key: str, language: str = "en", **slots: Any) -> str:
    """The catalogue's sentence, its slots filled.

    >>> say("advice.lr", lr=0.019230769)
    'Try lr = 0.01923.'
    """
    if language not in LANGUAGES:
        raise InputError(
            f"language must be one of {listed(LANGUAGES)}, got {language!r}"
            f"{nearest(language, LANGUAGES)}"
        )
    return LANGUAGES[language][key].format_map({name: written(v) for name, v in slots.items()})


def written(value: Any) -> str:
    """A value as people read it: numbers with four digits, lists as words."""
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return listed(map(written, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
