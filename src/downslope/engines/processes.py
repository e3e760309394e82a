"""Independent work shared out over forked processes, where the system has them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Told = Callable[[int, int], None]


def shared_out(
    task: Callable[[int, Told], Result], count: int, tick: Told, *, worthwhile: bool
) -> list[Result]:
    """``[task(0, tick), task(1, tick), …]``, over processes if that is worthwhile.

    Workers are forked, so that a task may use what cannot be sent (a lambda, a module made in a
    notebook); only its result is sent back. An error of a task is raised here; an interruption
    ends all workers.
    """
    workers = min(count, os.cpu_count() or 1)
    if not worthwhile or workers < 2 or not _can_fork():
        return [task(place, tick) for place in range(count)]
    results: dict[int, Result] = {}
    pipes: list[Connection] = []
    processes = []
    context = multiprocessing.get_context("fork")
    try:
        for worker in range(workers):
            reading, writing = context.Pipe(duplex=False)
            places = range(worker, count, workers)
            process = context.Process(target=_work, args=(task, places, writing), daemon=True)
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
                    results.update([said])
                else:
                    raise said
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
    if len(results) < count:
        raise RuntimeError("a process that carried out runs was ended from outside")
    return [results[place] for place in range(count)]


def _can_fork() -> bool:
    # Elsewhere system libraries do not survive a fork; nor does CUDA anywhere.
    return sys.platform == "linux" and not torch.cuda.is_initialized()


def _work(task: Callable[[int, Told], Any], places: range, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    torch.set_num_threads(1)

    def send(kind: str, said: Any) -> None:
        # Plain pickle: a connection's own would pass tensors by file descriptors that die with us.
        pipe.send_bytes(pickle.dumps((kind, said)))

    try:
        for place in places:
            send("result", (place, task(place, lambda *told: send("tick", told))))
    except Exception as error:  # sent to the parent, which raises it
        send("error", error)
    finally:
        pipe.close()
