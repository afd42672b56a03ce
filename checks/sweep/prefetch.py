"""Checkpoints fetched into the hub's cache here, for workers without a network."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from analyses.errors import InputError
from checks.sweep.disk import lacking
from checks.sweep.plan import Element


def prefetch(elements: Iterable[Element], say: Callable[[str], None]) -> None:
    """Fetch every checkpoint that is not a folder, one after the other, if the disk has room for it.

    Workers started from here are then told to stay off the network.

    Raises
    ------
    InputError where the hub does not answer or the cache has no room.
    """
    import huggingface_hub
    from huggingface_hub import constants

    from analyses.weights import hub

    cache = Path(constants.HF_HUB_CACHE)
    for element in elements:
        if element.source.commit is None:
            continue
        repository, commit = element.source.name, element.source.commit
        say(f"{element.source.given}: fetching")
        try:
            facts = huggingface_hub.model_info(repository, revision=commit, files_metadata=True)
            needed = sum(file.size or 0 for file in facts.siblings if file.rfilename.endswith(".safetensors"))
            cache.mkdir(parents=True, exist_ok=True)
            if why := lacking(cache, needed, element.source.given):
                raise InputError(f"{why}; make room or set HF_HOME to another disk")
            hub.fetch(repository, commit)
        except InputError:
            raise
        except Exception as error:  # the hub's client raises a dozen unrelated classes
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(f"{element.source.given}: not to be had from the hub ({reason})") from error
    os.environ["HF_HUB_OFFLINE"] = "1"
