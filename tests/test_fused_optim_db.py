"""torch's own database of optimizers: every valid input that has a rule, compiled."""

from __future__ import annotations

import inspect

import pytest
from beside import assert_as_looped
from cases import problem_named
from test_optim_db import STEPS, _valid

from downslope.optimizers import RULES

INPUTS = [given for given in _valid() if given.values[0] in RULES]


@pytest.mark.parametrize(("optimizer", "kwargs"), INPUTS)
def test_every_valid_input_descends_as_looped_does(optimizer, kwargs):
    base = kwargs.get("lr", inspect.signature(optimizer).parameters["lr"].default)
    rates = [0.3 * float(base), float(base), 1.7 * float(base)]
    rest = {name: value for name, value in kwargs.items() if name != "lr"}
    asked = {"lr": rates, **rest, "steps": STEPS, "divergence": None}
    assert_as_looped(problem_named("line"), optimizer, **asked)
