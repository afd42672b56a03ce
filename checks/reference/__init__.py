"""The reference model that ships with the project, its recorded result, and the script that trains it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyses.forward.inputs import Settings

REFERENCE = Path(__file__).parent
RECORDED = REFERENCE / "recorded"
TEXT = REFERENCE / "python-text"  # functions of this project's own: the model knows Python and little else


def source_of(model: str) -> str:
    """The folder of the reference model for its name or its path, where no other folder has the name."""
    named = model == REFERENCE.name and not Path(model).exists()
    return str(REFERENCE) if named or Path(model).resolve() == REFERENCE.resolve() else model


def read_in_its_language(settings: Settings, source: str) -> Settings:
    """The settings, for the reference model with its own text, whole, where none was given."""
    if source != str(REFERENCE) or settings.calibration is not None or settings.tokens is not None:
        return settings
    return replace(settings, calibration=TEXT, tokens=0)


def text_of(sha256: str, tokens: int) -> Path | None:
    """The reference model's text, where it is the one with this digest."""
    from analyses.forward.calibration import load_calibration

    return TEXT if load_calibration(TEXT, tokens=tokens).digest == sha256 else None
