"""What findings say, in English: a sentence for each verdict, cause and advice, with named slots."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        "advice.lr": "Try lr = {lr}.",
    }
)
