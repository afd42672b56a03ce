"""The verbs of the command line, one module each: `HELP`, `arguments(parser)`, `run(arguments) -> exit code`.

Heavy imports stay inside `run`, so that `--help` answers at once.
"""

VERBS = (
    "plan",
    "run",
    "measure",
    "report",
    "figures",
    "compare",
    "verify",
    "accept",
    "sweep",
    "tables",
    "claims", "export",
    "bench",
)
