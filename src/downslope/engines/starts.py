"""Where the runs of a work start, stacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from downslope.engines.work import Work
from downslope.objective import MODEL_PREFIX


def stacked_starts(work: Work, names: Sequence[str]) -> dict[str, Tensor]:
    """Parameters and buffers by name, (runs, *shape); a start that runs share is made once.

    Where all share one, the tensors are views of it and must not be written to.
    """
    group, draws = work.group, work.problem.draws_start
    keys = np.stack([group.seed if draws else np.zeros_like(group.seed), group.start], axis=1)
    device = work.problem.device
    if (keys == keys[:1]).all():
        only = _named_start(work, 0)
        return {n: only[n].to(device).expand(len(keys), *only[n].shape) for n in names}
    _, first, chosen = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    made = [_named_start(work, int(run)) for run in first]
    places = torch.from_numpy(chosen.reshape(-1))
    return {name: torch.stack([s[name] for s in made])[places].to(device) for name in names}


def _named_start(work: Work, run: int) -> dict[str, Tensor]:
    made = work.objective(run)
    named = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    return {n.removeprefix(MODEL_PREFIX): value.detach() for n, value in named.items()}
