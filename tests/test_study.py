"""Studies on disk: whole or not at all, resumable after any death, and held by one process."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn, optim

import downslope as ds
from downslope.errors import DownslopeError, StudyError, StudyLockedError
from downslope.folder import Lock, write_whole
from downslope.study import Study


def problem(shift=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(40, 2, generator=generator, dtype=dtype)
    y = X.sum(1, keepdim=True) + shift
    return ds.Problem.from_model(
        lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).to(dtype),
        X,
        y,
        loss=nn.MSELoss(),
    )


def grid(**changes):
    asked = {"lr": [0.01, 0.1, 100.0], "seed": range(4), "batch_size": [10, "full"], "epochs": 4}
    return {**asked, **changes}


def test_a_study_gives_back_exactly_what_was_computed(tmp_path):
    p = problem()
    keep = ("loss", "batch_loss", "gradient_norm", "parameters")
    runs = ds.descend(p, optim.SGD, **grid(), keep=keep, validation=0.25, study=tmp_path / "s")
    loaded = ds.load(tmp_path / "s")
    assert loaded.table.equals(runs.table)
    for name in ("loss", "validation_loss", "steps", "batch_loss", "gradient_norm"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(runs, name))
    for name, value in runs.parameters.items():
        assert torch.equal(loaded.parameters[name], value)
    assert runs.path is not None and loaded.path is not None
    for name, value in runs.path.items():
        np.testing.assert_array_equal(loaded.path[name], value)


def test_loaded_with_its_problem_it_replays_to_the_bit(tmp_path):
    p = problem()
    runs = ds.descend(p, optim.Adam, **grid(), validation=0.25, study=tmp_path / "s")
    loaded = ds.load(tmp_path / "s", problem=p)
    for place in (0, 7, 23):
        again = loaded[place].replay()
        np.testing.assert_array_equal(again.loss, runs[place].loss)
    x = torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(loaded.best.predict(x), runs.best.predict(x))
    with pytest.raises(DownslopeError, match="without their problem"):
        ds.load(tmp_path / "s").best.predict(x)


def test_any_parquet_reader_opens_a_shard(tmp_path):
    import pandas

    ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    frame = pandas.concat(map(pandas.read_parquet, sorted((tmp_path / "s").glob("*.parquet"))))
    assert len(frame) == 24
    assert {"run", "lr", "seed", "status", "loss", "parameters.0.weight"} <= set(frame.columns)
    assert all(len(losses) == 5 for losses in frame["loss"])


def test_no_code_and_no_pickle_in_a_study(tmp_path):
    ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    names = {path.suffix for path in (tmp_path / "s").iterdir()}
    assert names == {".json", ".parquet", ".safetensors", ".lock"}


def test_saved_runs_are_a_study(tmp_path):
    runs = ds.descend(problem(), optim.SGD, **grid())
    runs.save(tmp_path / "s")
    assert ds.load(tmp_path / "s").table.equals(runs.table)
    with pytest.raises(DownslopeError, match="whole call of descend"):
        runs.where(lr=0.1).save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"problem": 1.0}, "training data"),
        ({"lr": [0.01, 0.1]}, "hyperparameters"),
        ({"seed": range(5)}, "seeds"),
        ({"epochs": 5}, "epochs"),
        ({"tolerance": 1e-3}, "tolerance"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, changes, said):
    ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    before = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}
    shift = changes.pop("problem", 0.0)
    with pytest.raises(StudyError, match=said):
        ds.descend(problem(shift), optim.SGD, **grid(**changes), study=tmp_path / "s")
    assert {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()} == before


def test_another_model_or_loss_or_start_is_refused(tmp_path):
    x = torch.linspace(-1, 1, 8, dtype=torch.float64)

    def ask(function, start, loss):
        p = ds.Problem.from_function(function, X=x, y=2 * x, loss=loss, start=start)
        return ds.descend(p, optim.SGD, lr=[0.1, 0.2, 0.3, 0.4], epochs=2, study=tmp_path / "s")

    one = {"w": torch.tensor(1.0, dtype=torch.float64)}
    ask(lambda x, w: w * x, one, nn.MSELoss())
    ask(lambda x, w: w * x, one, nn.MSELoss())  # the same function written twice is the same
    with pytest.raises(StudyError, match="model or function computes"):
        ask(lambda x, w: w * x * x, one, nn.MSELoss())
    with pytest.raises(StudyError, match="the loss"):
        ask(lambda x, w: w * x, one, nn.L1Loss())
    with pytest.raises(StudyError, match="starting values"):
        ask(lambda x, w: w * x, {"w": one["w"] + 1}, nn.MSELoss())
    with pytest.raises(StudyError, match="another problem"):
        ds.load(tmp_path / "s", problem=problem())


def test_folders_that_are_no_studies(tmp_path):
    with pytest.raises(StudyError, match="no study at"):
        ds.load(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match="must be a folder"):
        ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(StudyError, match="holds other files"):
        ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]
    ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    shard = next((tmp_path / "s").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(StudyError, match="is damaged"):
        ds.load(tmp_path / "s")


def test_a_missing_shard_is_computed_again(tmp_path):
    runs = ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    shards = sorted((tmp_path / "s").glob("*.parquet"))
    assert len(shards) == 2
    shards[0].unlink()
    (tmp_path / "s" / "runs-00000.parquet.part").write_bytes(b"half of a shard")
    loaded = ds.load(tmp_path / "s")
    assert len(loaded) == 12 and loaded.interrupted == 12
    again = ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    assert again.table.equals(runs.table)
    assert not list((tmp_path / "s").glob("*.part"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def fails(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fails)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_two_holders_of_a_lock(tmp_path):
    lock = Lock(tmp_path / "study.lock")
    with pytest.raises(StudyLockedError, match="another process"):
        Lock(tmp_path / "study.lock")
    lock.release()
    Lock(tmp_path / "study.lock").release()


def test_the_second_process_is_told_and_a_killed_ones_lock_does_not_block(tmp_path):
    held = "import sys, time; from pathlib import Path; from downslope.folder import Lock\n"
    held += f"lock = Lock(Path({str(tmp_path / 'study.lock')!r})); print('held', flush=True)\n"
    held += "time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StudyLockedError):
            ds.descend(problem(), optim.SGD, **grid(), study=tmp_path)
        process.send_signal(signal.SIGKILL)
    ds.descend(problem(), optim.SGD, **grid(), study=tmp_path)


def test_workers_of_a_killed_process_do_not_hold_its_study(tmp_path):
    """Killed in the middle of chunks that workers are carrying out."""
    folder = tmp_path / "s"
    code = textwrap.dedent(
        f"""
        import torch
        from torch import nn, optim
        import downslope as ds
        X = torch.randn(200, 4)
        p = ds.Problem.from_model(
            lambda: nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 1)), X,
            X.sum(1, True), loss=nn.MSELoss())
        ds.descend(p, optim.SGD, lr=ds.log_range(1e-4, 0.1, 16), seed=range(8), batch_size=10,
                   epochs=40, engine="looped", study={str(folder)!r})
        """
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not list(folder.glob("*.parquet")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert list(folder.glob("*.parquet")), "it was killed before its first shard"
    Lock(folder / "study.lock").release()


@pytest.mark.parametrize("what", ["closure", "attribute"])
def test_code_that_cannot_be_traced_is_told_apart_all_the_same(tmp_path, what):
    x = torch.linspace(-1, 1, 8)

    class Branching(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))
            self.factor = factor

        def forward(self, x):
            return self.w * x * (self.factor if self.w.item() > 0 else 1)

    def ask(factor):
        def loss(prediction, target):
            difference = ((prediction - target) ** 2).mean()
            return difference * factor if difference.item() > 0 else difference

        fixed = what == "closure"
        model = Branching(1.0 if fixed else factor)
        p = ds.Problem.from_model(model, x, 2 * x, loss=loss if fixed else nn.MSELoss())
        return ds.descend(p, optim.SGD, lr=[0.1] * 4, epochs=2, study=tmp_path / "s")

    first = ask(1.0)
    assert set(first.table["engine"]) == {"looped"}
    ask(1.0)
    with pytest.raises(StudyError, match="differ"):
        ask(3.0)


def test_an_interruption_keeps_what_is_finished(tmp_path):
    calls = []

    class Interrupts(optim.SGD):
        def step(self, closure=None):
            calls.append(0)
            if len(calls) == 20 * 8:  # within the second chunk of runs
                raise KeyboardInterrupt
            return super().step(closure)

    p = problem()
    asked = {"lr": 0.01, "seed": range(40), "epochs": 8}
    with pytest.warns(ds.InterruptedWarning, match="14 of 40 runs"):
        part = ds.descend(p, Interrupts, **asked, study=tmp_path / "s")
    assert len(part) == 14 and part.interrupted == 26
    assert (tmp_path / "s" / "model.safetensors").exists()
    whole = ds.descend(p, Interrupts, **asked, study=tmp_path / "s")
    assert len(whole) == 40
    np.testing.assert_array_equal(whole.loss[:14], part.loss)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_while_a_chunk_is_written(tmp_path, monkeypatch, when):
    write, times = Study.write, []

    def interrupted(self, *chunk):
        times.append(0)
        if len(times) == 1 and when == "before":
            raise KeyboardInterrupt
        write(self, *chunk)
        if len(times) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Study, "write", interrupted)
    with pytest.warns(ds.InterruptedWarning, match="12 of 24 runs"):
        part = ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    assert len(part) == 12 and ds.load(tmp_path / "s").table.equals(part.table)


STUDY_OF_500 = textwrap.dedent(
    """
    import sys
    import torch
    from torch import nn, optim
    import downslope as ds

    torch.manual_seed(0)
    X = torch.randn(60, 3)
    p = ds.Problem.from_model(
        lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)), X, X.sum(1, True),
        loss=nn.MSELoss())
    grids = [
        ds.Grid(optim.SGD, lr=ds.log_range(1e-3, 300, 10), momentum=[0, 0.9]),
        ds.Grid(optim.Adam, lr=ds.log_range(1e-3, 1, 5)),
        ds.Grid(optim.LBFGS, lr=ds.log_range(0.01, 1, 5), max_iter=2),
    ]
    runs = ds.descend(p, grids[:2], batch_size=[10, 20, "full"], seed=range(6), epochs=20,
                      study=sys.argv[1])
    more = ds.descend(p, grids[2], seed=range(10), epochs=4, study=sys.argv[2])
    print(len(runs) + len(more))
    """
)


def _study_process(folders):
    command = [sys.executable, "-c", STUDY_OF_500, *map(str, folders)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def _kill_and_resume(tmp_path, kills):
    whole = (tmp_path / "whole-a", tmp_path / "whole-b")
    start = time.monotonic()
    with _study_process(whole) as process:
        assert process.communicate()[0] == b"500\n"
    length = time.monotonic() - start
    rng = random.Random(1)
    shards_seen = set()
    for number in range(kills):
        folders = (tmp_path / f"a{number}", tmp_path / f"b{number}")
        with _study_process(folders) as process:
            time.sleep(rng.uniform(0.3, 1.0) * length)
            process.send_signal(signal.SIGKILL)
        kept = {p: p.stat().st_mtime_ns for f in folders for p in f.glob("*.parquet")}
        shards_seen.add(len(kept))
        with _study_process(folders) as process:
            assert process.communicate()[0] == b"500\n"
        assert all(p.stat().st_mtime_ns == written for p, written in kept.items())
        for killed, uninterrupted in zip(folders, whole, strict=True):
            a, b = ds.load(killed), ds.load(uninterrupted)
            assert a.table.equals(b.table)
            np.testing.assert_array_equal(a.loss, b.loss)
    return shards_seen


def test_kill_and_resume(tmp_path):
    _kill_and_resume(tmp_path, kills=2)


@pytest.mark.slow
def test_kill_and_resume_at_20_moments(tmp_path):
    shards_seen = _kill_and_resume(tmp_path, kills=20)
    assert len(shards_seen) > 1  # some were killed between shards


def test_a_study_says_its_versions_and_format(tmp_path):
    ds.descend(problem(), optim.SGD, **grid(), study=tmp_path / "s")
    description = json.loads((tmp_path / "s" / "study.json").read_text())
    assert description["versions"]["torch"] == str(torch.__version__)
    assert description["versions"]["polars"] == pl.__version__
    description["format"] = 99
    (tmp_path / "s" / "study.json").write_text(json.dumps(description))
    with pytest.raises(StudyError, match="format 99"):
        ds.load(tmp_path / "s")
