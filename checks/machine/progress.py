"""How far is it, and how long will it take? A bar on a terminal; nothing where nobody looks at one.

Lines of progress, which any output can show, are said by the verbs; a bar is drawn between two of
them and wiped when the next is due.
"""

import shutil
import time
from collections.abc import Callable
from typing import TextIO

from analyses.progress import Tick, silent

BLANK = "\r\x1b[K"  # to the line's beginning, and clear it
EVERY = 0.1  # seconds between two drawings
CELLS = 24

Bar = Callable[[str], Tick]
"""label → what to call with (done, of how many)"""


def bars(stream: TextIO, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> Bar:
    """Bars on a terminal; under `quiet`, or where the stream is a file or a pipe, none."""
    if quiet or not stream.isatty():
        return lambda label: silent
    return lambda label: _bar(stream, label, clock)


def _bar(stream: TextIO, label: str, clock: Callable[[], float]) -> Tick:
    start, drawn = clock(), -EVERY

    def tick(done: int, of: int) -> None:
        nonlocal drawn
        now = clock() - start
        if done >= of:
            stream.write(BLANK)
        elif now - drawn < EVERY:
            return
        else:
            drawn = now
            stream.write(BLANK + line(label, done, of, now)[: shutil.get_terminal_size().columns - 1])
        stream.flush()

    return tick


def line(label: str, done: int, of: int, seconds: float) -> str:
    """One bar with its rate and the time that is left at this rate.

    >>> line("head_grams", 6, 24, 3.0)
    'head_grams ██████░░░░░░░░░░░░░░░░░░ 6/24  2/s  9 s left'
    """
    filled = CELLS * done // of
    text = f"{label} {'█' * filled}{'░' * (CELLS - filled)} {done}/{of}"
    if not done or seconds <= 0:
        return text
    rate = done / seconds
    pace = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
    return f"{text}  {pace}  {duration((of - done) / rate)} left"


def duration(seconds: float) -> str:
    """
    >>> duration(9.4), duration(130), duration(7300)
    ('9 s', '2 min 10 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
