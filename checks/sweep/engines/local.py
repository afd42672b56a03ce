"""This machine: a bounded number of processes, one an element.

Each is forked from a server process that has imported the numeric libraries and done nothing else, so a
start takes milliseconds instead of seconds, memory goes back after every checkpoint, and a process that is
killed takes nothing with it. A driver that dies leaves its running workers to finish.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from checks.sweep.engine import Job, Setup

PRELOAD = ["checks.sweep.worker"]  # imported once, by the server


def server() -> multiprocessing.context.BaseContext:
    """Where processes are forked from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def apart(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """Call a function in a process of its own; what it raises is raised here.

    What it imports is not imported here, and where the server runs has been imported already.
    """
    ours, theirs = (context := server()).Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments, keywords))
    process.start()
    theirs.close()
    try:
        result, error = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__}: its process ended with {process.exitcode}") from None
    process.join()
    if error is not None:
        raise error
    return result


def _answer(pipe: Any, function: Callable[..., Any], arguments: tuple, keywords: dict) -> None:
    try:
        answer = function(*arguments, **keywords), None
    except Exception as error:
        answer = None, error
    pipe.send(answer)


class Local:
    name = "local"
    outlives = False
    patience = 2.0  # one machine sees its own files at once; a second look costs nothing
    pause = 0.2

    def __init__(self, setup: Setup):
        self.setup = setup
        self.width = setup.workers
        self.context = server()
        self.running: dict[str, multiprocessing.Process] = {}

    def submit(self, jobs: Sequence[Job]) -> list[str]:
        names = []
        for job in jobs:
            process = self.context.Process(target=_work, args=(self.setup, job), daemon=False)
            process.start()
            self.running[str(process.pid)] = process
            names.append(str(process.pid))
        return names

    def alive(self, jobs: Sequence[str]) -> dict[str, bool]:
        return {job: job in self.running and self.running[job].is_alive() for job in jobs}

    def cause(self, job: str) -> str | None:
        process = self.running.get(job)
        return "killed" if process is not None and process.exitcode == -signal.SIGKILL else None

    def log(self, job: str) -> Path | None:
        return None

    def close(self) -> None:
        for process in self.running.values():
            if process.is_alive():
                process.terminate()
        for process in self.running.values():
            process.join()


def _work(setup: Setup, job: Job) -> None:
    """In the new process: what the libraries print goes to the element's log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt at the terminal is the driver's to handle
    from checks.sweep.plan import log_of
    from checks.sweep.worker import work

    log = log_of(setup.out, job.element, job.attempt)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    work(setup.out, job.element, job.attempt, "local", str(os.getpid()), setup.stage)
