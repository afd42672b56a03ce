"""Tests, mirroring the rooms. Each worker of the suite counts on one thread, which NumPy reads when it is loaded."""

from checks.machine import threads

threads.limit(1)
