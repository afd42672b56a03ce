"""Bars of progress on a terminal, with the rate and the time that is left; nothing where the output is a file.

Lines of progress, which any output can show, are printed by the verbs; a bar is drawn between two of
them and wiped when the next is due.
"""

import shutil
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from analyses.progress import Tick, silent

EVERY = 0.1  # seconds between two drawings
FORMAT = "{desc} {bar:24} {n_fmt}/{total_fmt}  {rate_fmt}  {remaining} left"

Bar = Callable[[str], Tick]
"""label → what to call with (done, of how many)"""


class _Bar(tqdm):
    monitor_interval = 0  # no thread that looks after slow bars: workers are forked


def bars(stream: TextIO, *, quiet: bool) -> Bar:
    """Bars on a terminal; under `quiet`, or where the stream is a file or a pipe, none."""
    if quiet or not stream.isatty():
        return lambda label: silent
    return lambda label: _bar(stream, label)


def _bar(stream: TextIO, label: str) -> Tick:
    bar: tqdm | None = None

    def tick(done: int, of: int) -> None:
        nonlocal bar
        if bar is None:
            width = shutil.get_terminal_size().columns - 1  # 80 columns where a terminal names none
            look = {"bar_format": FORMAT, "ascii": "░█", "ncols": width, "nrows": 2, "leave": False}
            bar = _Bar(desc=label, total=of, file=stream, mininterval=EVERY, miniters=1, **look)
        bar.total = of
        bar.update(done - bar.n)
        if done >= of:
            bar.close()
            bar = None

    return tick
