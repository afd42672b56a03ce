"""What a command takes: `python -m checks.bench.spent COMMAND …` prints it as JSON, and why it failed.

In a small process of its own, since a process begins with the largest memory that the one which starts it ever had.
"""

import json
import os
import subprocess
import sys
import time

PER_MB = 1024**2 if sys.platform == "darwin" else 1024  # units of a process's largest memory, as the system counts it


def spent(command: list[str]) -> dict[str, float | str]:
    """Seconds of all processors and of the clock, and MB, that a command and its children take; `failed` if it did."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        error = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return {"failed": (error.strip().splitlines() or ["no output"])[-1]}
    return {
        "processor": usage.ru_utime + usage.ru_stime,
        "seconds": time.perf_counter() - start,
        "peak_mb": usage.ru_maxrss / PER_MB,
    }


if __name__ == "__main__":
    print(json.dumps(spent(sys.argv[1:])))
