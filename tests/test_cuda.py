"""The same descents on a GPU, where there is one."""

import pytest
import torch
from torch import nn, optim

import downslope as ds

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("engine", ["looped", "stacked"])
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam])
def test_a_gpu_gives_what_the_cpu_gives(engine, optimizer):
    X = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    problem = ds.Problem.from_model(
        lambda: nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double(),
        X,
        X.sum(1, keepdim=True),
        loss=nn.MSELoss(),
    )
    asked = {"lr": [0.001, 0.01, 1e4], "seed": range(2), "batch_size": 10, "epochs": 5}
    before = torch.cuda.get_rng_state()
    here = ds.descend(problem, optimizer, **asked, engine="looped", validation=0.2)
    there = ds.descend(problem, optimizer, **asked, engine=engine, device="cuda", validation=0.2)
    assert here.table["status"].to_list() == there.table["status"].to_list()
    stable = here.where(lr=[0.001, 0.01])
    torch.testing.assert_close(
        torch.tensor(there.where(lr=[0.001, 0.01]).loss),
        torch.tensor(stable.loss),
        rtol=1e-9,
        atol=0,
    )
    assert torch.equal(before, torch.cuda.get_rng_state())
    x = torch.randn(2, 3, dtype=torch.float64)
    assert there.best.predict(x).shape == (2, 1)
