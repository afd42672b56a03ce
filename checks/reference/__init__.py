"""The reference model that ships with the project, its recorded result, and the script that trains it."""

from pathlib import Path

REFERENCE = Path(__file__).parent
RECORDED = REFERENCE / "recorded"


def source_of(model: str) -> str:
    """The folder of the reference model for its name or its path, where no other folder has the name."""
    named = model == REFERENCE.name and not Path(model).exists()
    return str(REFERENCE) if named or Path(model).resolve() == REFERENCE.resolve() else model
