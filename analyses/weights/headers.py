"""What a weight file says of one tensor before any of it is read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Shape and type of a stored tensor."""

    shape: tuple[int, ...]
    dtype: str  # torch's name; a safetensors type that torch has no name for keeps its own
    bytes: int
    shares: str | None = None  # an earlier tensor of the file that is the same memory, as a tied head in a pickle
