"""Hooks on modules that neither copies nor files of the model take along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def nothing(*_: Any) -> None:
    """What a copied hook does."""


class Hook:
    """Calls a function; a deep copy or a pickle of it (with the model it hangs on) does nothing.

    A bound method in its place would drag the whole watch, and the optimizer with it, into every
    ``copy.deepcopy(model)``.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call

    def __call__(self, *given: Any) -> None:
        """What torch calls."""
        self.call(*given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        return Hook(nothing)

    def __reduce__(self) -> tuple[Any, ...]:
        return Hook, (nothing,)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a model's output: itself, or those in tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []
