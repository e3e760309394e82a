"""Words of the command line as values: rates, hyperparameters, batch sizes, choices."""

from __future__ import annotations

from typing import Any

from downslope.errors import InputError, nearest
from downslope.grid import Grid, log_range
from downslope.optimizers import hyperparameters, optimizer_by_name
from downslope.ranges import AUTO, Range


def grids(names: list[str], lr: str, settings: list[str]) -> list[Grid]:
    """A grid for each named optimizer, with the rates and the ``--set`` settings that are its."""
    classes = [optimizer_by_name(name.strip()) for name in names]
    shared: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {cls.__name__: {} for cls in classes}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not text:
            raise InputError(f"--set takes NAME=VALUE, got {setting!r}")
        owner, dot, hyperparameter = key.rpartition(".")
        if not dot:
            shared[key] = [_value(part) for part in text.split(",")]
            continue
        by_lower = {known.lower(): known for known in own}
        if owner.lower() not in by_lower:
            raise InputError(
                f"--set {setting}: {owner!r} is not among the optimizers "
                f"{', '.join(own)}{nearest(owner, own)}"
            )
        own[by_lower[owner.lower()]][hyperparameter] = [_value(p) for p in text.split(",")]
    for cls in classes:
        for name in shared:
            if name not in hyperparameters(cls).defaults and len(classes) > 1:
                raise InputError(
                    f"{cls.__name__} has no hyperparameter {name!r}: for one optimizer alone, "
                    f"write --set OPTIMIZER.{name}="
                )
    rates = _rates(lr)
    return [Grid(cls, **{"lr": rates, **shared, **own[cls.__name__]}) for cls in classes]


def rates(text: str) -> Any:
    """The rates that `tune` searches: the word auto, a range LOW:HIGH, or values with commas."""
    text = text.strip()
    if text == AUTO:
        return text
    try:
        if ":" in text:
            low, high = text.split(":")
            return Range(float(low), float(high))
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--lr takes auto, a range LOW:HIGH (as 1e-4:1) or numbers with commas, got {text!r}"
            f"{nearest(text, [AUTO])}"
        ) from error


OPTIONS_OF_TUNE = {
    "lr": "--lr", "batch_size": "--batch-size", "order": "--order", "seed": "--seeds",
    "epochs": "--epochs", "clip_norm": "--clip-norm", "validation": "--validation",
    "engine": "--engine", "optimizer": "--optimizer",
}  # fmt: skip
"""What is no hyperparameter to ``--set``, by the option that sets it."""

NOT_SET = ("problem", "progress", "steps", "start", "every", "keep", "schedule", "tolerance",
           "patience", "divergence", "gradient", "dtype", "device", "study")  # fmt: skip
"""What `tune` takes in Python alone."""


def searched(settings: list[str]) -> dict[str, Any]:
    """What ``--set`` says to `tune`: a value, a list of them, or a `Range`, by name.

    Raises:
        InputError: where it is not NAME=VALUE, or the name is of no hyperparameter.
    """
    made: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not text or not name:
            raise InputError(f"--set takes NAME=VALUE, got {setting!r}")
        if name in OPTIONS_OF_TUNE:
            raise InputError(
                f"--set takes hyperparameters, got {setting!r}: {name} is set by the option "
                f"{OPTIONS_OF_TUNE[name]}"
            )
        if name in NOT_SET:
            raise InputError(
                f"--set takes hyperparameters, got {setting!r}: {name} can be given to "
                "downslope.tune in Python alone"
            )
        values = [_value(part) for part in text.split(",")]
        made[name] = values if len(values) > 1 else values[0]
        if ":" in text:
            ends = [_value(part) for part in text.split(":")]
            if len(ends) != 2 or any(isinstance(end, str | tuple) for end in ends):
                raise InputError(f"--set takes a range as NAME=LOW:HIGH, got {setting!r}")
            made[name] = Range(ends[0], ends[1], log=bool(ends[0] and ends[0] > 0))
    return made


def _rates(text: str) -> list[float] | str:
    if text.strip() == AUTO:
        return AUTO
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",") if part.strip()]
        low, high, count = text.split(":")
        return log_range(float(low), float(high), int(count))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--lr takes LOW:HIGH:COUNT (as 1e-4:1:25), numbers with commas, or auto, got {text!r}"
        ) from error


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.strip().lower() in words:
        return words[text.strip().lower()]
    if "/" in text:  # a pair, as betas=0.9/0.99
        return tuple(_value(part) for part in text.split("/"))
    try:
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except ValueError:
        return text.strip()


def batch_size(text: str) -> Any:
    """The word full, or a number."""
    text = text.strip()
    return text if text == "full" else _value(text)


def choice(name: str, given: str | None, allowed: tuple[str, ...]) -> Any:
    """One of the allowed words, or None."""
    if given is not None and given not in allowed:
        hint = nearest(given, allowed)
        raise InputError(f"--{name} must be one of {', '.join(allowed)}, got {given!r}{hint}")
    return given
