"""What the progress line says, and that nobody sees it who does not look."""

import sys

import numpy as np
from torch import optim

import downslope as ds
from downslope.engines.work import Outcome, Status
from downslope.progress import Progress


class Terminal:
    """A stand-in for stderr that says it is a terminal."""

    encoding = "utf-8"

    def __init__(self):
        self.written = ""

    def isatty(self):
        return True

    def write(self, text):
        self.written += text
        return len(text)

    def flush(self):
        pass


def outcome(*status):
    blank = np.zeros((len(status), 1))
    return Outcome(
        status=np.array(status, dtype=np.int8), first_bad_step=blank, steps_done=blank,
        steps=blank, loss=blank, validation_loss=None, batch_loss=None, gradient_norm=None,
        parameters={}, buffers={}, path=None,
    )  # fmt: skip


def test_it_counts_runs_epochs_and_what_diverged(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(total=800, runs=4, shown=True, epochs=80) as shown:
        assert shown.bar is not None
        shown.tick(200, 1)
        shown.finished(400, outcome(Status.diverged, Status.finished))
        (task,) = shown.bar.tasks
        assert task.description == "2 of 4 runs, 40 of 80 epochs, 1 diverged"
        assert task.completed == 400 and task.total == 800
    assert "diverged" in terminal.written


def test_it_is_quiet_where_there_is_no_terminal_or_nobody_asked(monkeypatch, capfd):
    problem = ds.Problem.from_function(lambda x: x**2, start=1.0)
    ds.descend(problem, optim.SGD, lr=[0.1] * 8, steps=50)
    assert capfd.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    ds.descend(problem, optim.SGD, lr=[0.1] * 8, steps=50, progress=False)
    assert terminal.written == ""
    ds.descend(problem, optim.SGD, lr=[0.1] * 8, steps=50)
    assert "8 of 8 runs, 400 of 400 steps, 0 diverged" in terminal.written
