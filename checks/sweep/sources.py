"""The checkpoint that a source names, to the last byte.

A revision of the hub is resolved to its commit once, when the sweep is planned: a branch that moves during
the sweep does not move the sweep. One request lists all revisions of a repository. Without a network the
revisions are those that the hub's cache on this machine knows.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analyses.errors import InputError
from checks.verify.comparable import STEP

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")  # owner/name, or one of the old names without an owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One checkpoint of a sweep."""

    given: str  # as asked for
    exact: str  # what a worker opens: a folder's absolute path, or id@commit
    name: str  # of the model, as its records will have it
    commit: str | None  # None for a folder
    slug: str  # of its folder of records
    series: str  # what it is one training step of, or its own name
    step: int | None  # that step, where its name tells one

    @property
    def short(self) -> str:
        """What tells it from the others: the folder's name, or the id with its revision."""
        return self.name if self.commit is None else self.given


def resolve(given: str) -> Source:
    """The checkpoint that a source names.

    Raises InputError where there is no such folder, repository or revision.
    """
    if (folder := Path(given)).exists():
        if not folder.is_dir():
            raise InputError(f"{given}: is a file; give the folder that holds config.json")
        folder = folder.resolve()
        series, step = _step(folder.name, f"{folder.parent.parent.name}/{folder.parent.name}".strip("/"))
        name = folder.name
        return Source(given=given, exact=str(folder), name=name, commit=None, slug=name, series=series, step=step)
    repository, _, revision = given.partition("@")
    if not HUB_ID.fullmatch(repository):
        raise InputError(f"{given}: no such folder, and not a hub id like owner/name or owner/name@revision")
    commit = _commit(repository, revision or "main", given)
    _, step = _step(revision, repository)
    return Source(
        given=given,
        exact=f"{repository}@{commit}",
        name=repository,
        commit=commit,
        slug=given.replace("/", "--"),
        series=repository,
        step=step,
    )


def _step(name: str, otherwise: str) -> tuple[str, int | None]:
    """(series, training step) that a folder's or revision's name tells.

    >>> _step("step400", "mine/steps"), _step("gpt-checkpoint-20", "mine/models"), _step("final", "mine/models")
    (('mine/steps', 400), ('gpt', 20), ('final', None))
    """
    found = STEP.search(name)
    if not found:
        return name, None
    rest = (name[: found.start()] + name[found.end() :]).strip("-_.")
    return rest or otherwise, int(found[1])


def _commit(repository: str, revision: str, given: str) -> str:
    known = revisions(repository)
    if revision in known:
        return known[revision]
    if COMMIT.fullmatch(revision):
        return revision
    few = ", ".join(list(known)[:6]) + (", …" if len(known) > 6 else "")
    raise InputError(f"{given}: {repository} has no revision {revision} (it has: {few})")


@functools.cache
def revisions(repository: str) -> Mapping[str, str]:
    """Branches and tags of a repository → commit, from the hub or else from its cache on this machine."""
    import huggingface_hub  # only here: a folder needs no hub

    try:
        refs = huggingface_hub.list_repo_refs(repository)
        return {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        if cached := _cached(repository):
            return cached
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{repository}: no such folder, and not to be had from the hub ({reason})") from error


def _cached(repository: str) -> dict[str, str]:
    from huggingface_hub import constants, file_download

    folder = Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=repository, repo_type="model")
    refs = sorted(path for path in (folder / "refs").rglob("*") if path.is_file())
    return {path.relative_to(folder / "refs").as_posix(): path.read_text().strip() for path in refs}
