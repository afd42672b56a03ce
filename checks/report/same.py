"""Models that hold the same tensors, or some of the same weight files, under other names."""

from collections.abc import Mapping, Sequence

from checks.report.words import sentence

WEIGHTS = (".safetensors", ".bin")  # endings of weight files


def same_tensors(models: Sequence[tuple[str, str | None]]) -> list[str]:
    """A sentence for every set of models, given as (name, digest of its tensors), whose tensors are equal.

    >>> same_tensors([("a", "1f"), ("b", "2e"), ("c", "1f"), ("d", None)])
    ['A and c hold the same tensors to the last bit.']
    """
    by_content: dict[str, list[str]] = {}
    for name, content in models:
        if content:
            by_content.setdefault(content, []).append(name)
    return [
        sentence(f"{', '.join(names[:-1])} and {names[-1]} hold the same tensors to the last bit")
        for names in by_content.values()
        if len(names) > 1
    ]


def same_shards(models: Sequence[tuple[str, str | None, Mapping[str, str]]]) -> list[str]:
    """A sentence for every set of models that share some weight files, and do not hold the same tensors.

    Parameters
    ----------
    models : (name, digest of its tensors, sha256 of its files by name).

    >>> one, two = {"a.safetensors": "1f", "b.safetensors": "2e"}, {"a.safetensors": "1f", "b.safetensors": "3d"}
    >>> same_shards([("step0", "x", one), ("step1", "y", two)])
    ['step0 and step1 share a.safetensors to the last bit, though not all of their tensors.']
    """
    holders: dict[str, dict[str, str]] = {}  # sha256 → model → name of the file
    for name, _, files in models:
        for file, digest in files.items():
            if file.endswith(WEIGHTS):
                holders.setdefault(digest, {})[name] = file
    content = {name: digest for name, digest, _ in models}
    shared: dict[tuple[str, ...], list[str]] = {}  # models → their common files
    for held in holders.values():
        if len(held) > 1 and len({content[name] for name in held}) > 1:
            shared.setdefault(tuple(held), []).append(next(iter(held.values())))
    return [
        sentence(
            f"{', '.join(names[:-1])} and {names[-1]} share {', '.join(sorted(files))} to the last bit, "
            "though not all of their tensors"
        )
        for names, files in shared.items()
    ]
