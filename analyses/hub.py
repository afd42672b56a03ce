"""Where a checkpoint is: a folder, or a repository of the hub at one revision."""

import re
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from analyses.weight_files import read_object

HUB_FILES = ["*.json", "*.safetensors", "tokenizer*", "*.model", "merges.txt", "vocab*"]


def locate(source: str) -> tuple[Path, str | None, str]:
    """(folder, resolved revision, name) of a source, fetching it from the hub where it is an id."""
    if (folder := Path(source)).exists():
        if not folder.is_dir():
            raise InputError(f"{source}: is a file; give the folder that holds config.json")
        return folder, None, folder.resolve().name
    repository, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository) or source.startswith(("./", "../", "/")):
        raise InputError(f"{source}: no such folder, and not a hub id like owner/name or owner/name@revision")
    import huggingface_hub  # only here: a folder needs no hub

    try:
        path = huggingface_hub.snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES)
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{source}: no such folder, and not to be had from the hub ({reason})") from error
    return Path(path), Path(path).name, repository


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as it is; raises InputError where there is none or it is no object."""
    if not (path := folder / "config.json").exists():
        raise InputError(f"{folder}: no config.json; expected a checkpoint in Hugging Face's layout")
    return read_object(path)
