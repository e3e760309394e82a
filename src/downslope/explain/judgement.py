"""A judge's answer, before it is put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from downslope.explain.findings import Advice, Confidence, Evidence, Verdict
from downslope.explain.words import say

Said = tuple[tuple[str, Mapping[str, Any]], ...]
"""Keys of sentences, each with what fills its slots."""


@dataclass(frozen=True)
class Judgement:
    """What a run did and why.

    Attributes:
        said: the keys of the sentences that tell it, each with what fills its slots.
    """

    verdict: Verdict
    cause: str
    confidence: Confidence
    said: Said
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    advice: Advice | None = None

    def sentence(self, language: str = "en") -> str:
        """All of it in words."""
        parts = [say(key, language, **slots) for key, slots in self.said]
        if self.advice is not None:
            parts.append(self.advice.sentence)
        return " ".join(part[0].upper() + part[1:] for part in parts if part)


def advised(
    key: str,
    should: Literal["stable", "lower", "reach"],
    change: Mapping[str, Any],
    goal: float | None = None,
    **slots: Any,
) -> Advice:
    """Advice by its key in the catalogue."""
    return Advice(change, should, say(f"advice.{key}", **{**change, **slots}), goal)
