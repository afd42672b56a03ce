"""The list of everything that a claim may read, as a page of the documentation: `python -m checks.own.metrics_page`."""

from checks.own.paths import Readable, readable

HEAD = """# Every number that a claim may read

Made by `python -m checks.own.metrics_page`. *Model*: no exact change of parameters moves it. *Stored*: one does, and the
reason says which. *Open*: no theorem says; a claim on it counts as one about the stored coordinates.

| path | over | unit | about | meaning | why |
| --- | --- | --- | --- | --- | --- |
"""
ABOUT = {True: "model", False: "stored", None: "open"}


def page() -> str:
    """The page in Markdown."""
    return HEAD + "".join(_row(one) for one in readable().values())


def _row(one: Readable) -> str:
    cells = (f"`{one.path}`", ", ".join(one.axes), one.unit, ABOUT[one.invariant], one.meaning, one.why)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    print(page(), end="")
