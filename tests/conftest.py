"""Shared by all tests: the same random examples each time; one thread, so that timings and last
bits do not depend on the machine; compiled programs in a folder of this test run's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# The same examples every time: a test that passed yesterday fails today only for a change of ours.
# `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's own compiled programs are neither read nor touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOWNSLOPE_CACHE", str(tmp_path_factory.mktemp("cache") / "programs"))
        patch.delenv("DOWNSLOPE_CACHE_LIMIT", raising=False)
        yield
