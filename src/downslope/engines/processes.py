"""Independent work shared out over forked processes, where the system has them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Told = Callable[[int, int], None]

CAN_FORK = sys.platform == "linux"
"""Elsewhere, system libraries do not survive a fork."""


def shared_out(
    task: Callable[[int, Told], Result],
    places: Sequence[int],
    tick: Told,
    keep: Callable[[int, Result], None],
    *,
    worthwhile: bool,
    let_go: Callable[[], None] = lambda: None,
) -> None:
    """Do ``keep(place, task(place, tick))`` for every place, over processes if worthwhile.

    Workers are forked, so that a task may use what cannot be sent (a lambda, a module made in a
    notebook); only its result is sent back, and kept here, as soon as it is there. An error of a
    task is raised here; an interruption ends all workers. If this process is killed, they end
    when they next have something to tell.

    Args:
        let_go: called in each worker first, to close what only this process should hold open.
    """
    workers = min(len(places), os.cpu_count() or 1)
    if not worthwhile or workers < 2 or torch.cuda.is_initialized() or not CAN_FORK:
        for place in places:
            keep(place, task(place, tick))
        return
    pipes: list[Connection] = []
    processes = []
    context = multiprocessing.get_context("fork")
    kept = 0
    try:
        for worker in range(workers):
            reading, writing = context.Pipe(duplex=False)
            share = places[worker::workers]
            inherited = [*pipes, reading]
            process = context.Process(
                target=_work, args=(task, share, writing, inherited, let_go), daemon=True
            )
            with warnings.catch_warnings():
                # The children use one thread and none of the parent's locks.
                warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
                process.start()
            writing.close()
            pipes.append(reading)
            processes.append(process)
        while pipes:
            for pipe in wait(pipes):
                assert isinstance(pipe, Connection)
                try:
                    kind, said = pickle.loads(pipe.recv_bytes())
                except EOFError:
                    pipes.remove(pipe)
                    continue
                if kind == "tick":
                    tick(*said)
                elif kind == "result":
                    keep(*said)
                    kept += 1
                else:
                    raise said
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    if kept < len(places):
        raise RuntimeError("a process that carried out runs was ended from outside")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads for a while; None: as many as it does."""
    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _work(
    task: Callable[[int, Told], Any],
    places: Sequence[int],
    pipe: Connection,
    inherited: Sequence[Connection],
    let_go: Callable[[], None],
) -> None:
    for other in inherited:  # else the pipe would not break when the parent is gone
        other.close()
    let_go()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(1)

    def send(kind: str, said: Any) -> None:
        # Plain pickle: a connection's own would pass tensors by file descriptors that die with us.
        try:
            pipe.send_bytes(pickle.dumps((kind, said)))
        except BrokenPipeError:  # the parent was killed: nobody is left to tell
            os._exit(1)

    try:
        for place in places:
            send("result", (place, task(place, lambda *told: send("tick", told))))
    except Exception as error:  # sent to the parent, which raises it
        send("error", error)
    finally:
        pipe.close()
