"""A checkpoint located in a folder, or in a repository of the hub at one revision.

Two answers for either. `locate` gives a folder with everything that a measurement reads, after
fetching it where it is not here yet. `describe` gives the config, the headers and the names of
the files, and of a repository fetches no more than that.

The hub's client does the fetching, into the cache that it shares with every other tool: whole files
that are there stay there, and a connection that breaks off is taken up where it broke. Its address
is the client's (`HF_ENDPOINT`).
"""

import re
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.errors import InputError, first_line
from analyses.weights import elsewhere, safetensors
from analyses.weights.files import FORMATS, Shard, Stored, index, merge, read_object, shard_map

CONFIG = "config.json"
NO_CONFIG = f"no {CONFIG}; expected a checkpoint in Hugging Face's layout"
SMALL_FILES = ("*.json", "tokenizer*", "*.model", "merges.txt", "vocab*", "*.py")
"""What a repository holds beside its weights that is read here; code is fetched, and not run unless told to."""

CONNECTIONS = 8  # headers asked for at a time
REASON = 200  # characters of a client's message that are worth repeating
SERVER_ERROR = 500  # status codes from here on are the hub's own trouble

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a folder or a repository says of itself before any weight is read."""

    name: str
    folder: Path  # where it is; for a repository that is not here, its name
    revision: str | None  # resolved commit; None for a folder
    config: Mapping[str, Any]
    stored: Stored  # its tensors
    names: frozenset[str]  # of all files
    remote: bool  # whether the weights would have to be fetched first

    @property
    def has_tokenizer(self) -> bool:
        return bool(self.names.intersection(TOKENIZER_FILES))


def locate(source: str) -> tuple[Path, str | None, str]:
    """(folder, resolved revision, name) of a source, fetching it from the hub where it is an id.

    Raises InputError in one line for what is neither, and for what the hub will not give.
    """
    if folder := _folder(source):
        return folder, None, folder.resolve().name
    repository, revision = _split(source)
    try:
        path = fetch(repository, revision)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise InputError(_explain(source, error)) from error
    return path, path.name, repository


def describe(source: str) -> Description:
    """Config, headers and file names of a source; downloads no weights.

    Raises InputError in one line for what is neither folder nor repository, and for a repository
    whose weights are pickles, since these have no header to ask for.
    """
    if folder := _folder(source):
        return _of_folder(folder, folder.resolve().name, None)
    repository, revision = _split(source)
    try:
        return _of_repository(repository, revision)
    except InputError:
        raise
    except Exception as error:  # the hub's client raises a dozen unrelated classes
        raise InputError(_explain(source, error)) from error


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json as it is; raises InputError where there is none or it is no object."""
    if not (path := folder / CONFIG).exists():
        raise InputError(f"{folder}: {NO_CONFIG}{elsewhere.instead(folder)}")
    return read_object(path)


# --- folders -------------------------------------------------------------------------------------


def _folder(source: str) -> Path | None:
    try:
        if not (folder := Path(source)).exists():
            return None
    except (OSError, ValueError):  # no path can be called that, so it is not one
        return None
    if not folder.is_dir():
        what = elsewhere.shown([folder.name]) or "; no weights are read from one"
        raise InputError(f"{source}: is a file{what}; expected the folder that holds {CONFIG}")
    return folder


def _of_folder(folder: Path, name: str, revision: str | None) -> Description:
    config = read_config(folder)
    return Description(
        name=name,
        folder=folder,
        revision=revision,
        config=config,
        stored=index(folder),
        names=frozenset(path.name for path in folder.iterdir()),
        remote=False,
    )


# --- repositories --------------------------------------------------------------------------------


def _split(source: str) -> tuple[str, str | None]:
    """(repository, revision) of a hub id; raises InputError for what cannot be one."""
    repository, _, revision = source.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository) or source.startswith(("./", "../", "/")):
        raise InputError(f"{source}: no such folder, and not a hub id like owner/name or owner/name@revision")
    return repository, revision or None


def _client() -> Any:
    import huggingface_hub  # only here: a folder needs no hub

    return huggingface_hub.HfApi()


def _listing(repository: str, revision: str | None) -> tuple[str, frozenset[str]] | None:
    """(commit, names of its files); None where the hub gives no answer, so that only the cache can help."""
    from huggingface_hub import errors

    try:
        info = _client().model_info(repository, revision=revision)
    except errors.HFValidationError:
        raise
    except errors.HfHubHTTPError as error:
        if error.response.status_code < SERVER_ERROR:
            raise
        return None
    except Exception:  # no connection, in whatever class the client's transport says so
        return None
    return info.sha, frozenset(sibling.rfilename for sibling in info.siblings or ())


def _cached(repository: str, revision: str | None) -> Path:
    """The folder of the cache as an earlier download left it; its weights may be missing."""
    path = _client().snapshot_download(repository, revision=revision, allow_patterns=[CONFIG], local_files_only=True)
    return Path(path)


def fetch(repository: str, revision: str | None) -> Path:
    """The folder of the cache that holds the repository's weights in one format, its config and tokenizer.

    Raises whatever the hub's client does, and InputError for a repository without weights that can be read.
    """
    client = _client()
    if (listing := _listing(repository, revision)) is None:
        return _cached(repository, revision)
    commit, names = listing
    single, sharded = _format(repository, names)
    weights = [single]
    if sharded:
        weights = sorted(set(shard_map(Path(client.hf_hub_download(repository, sharded, revision=commit))).values()))
    return Path(
        client.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[*SMALL_FILES, *weights],
            ignore_patterns=["*/*"],  # folders hold the same weights in other formats
        )
    )


def _format(repository: str, names: Set[str]) -> tuple[str | None, str | None]:
    """(single file, None) or (None, shard index), whichever the library would load."""
    if CONFIG not in names:
        raise InputError(f"{repository}: {NO_CONFIG}{elsewhere.shown(names)}")
    for single, sharded in FORMATS:
        if single in names:
            return single, None
        if sharded in names:
            return None, sharded
    expected = ", ".join(name for pair in FORMATS for name in pair)
    what = f"the repository holds no weights; expected one of {expected}"
    raise InputError(f"{repository}: {what}{elsewhere.shown(names)}")


def _of_repository(repository: str, revision: str | None) -> Description:
    client = _client()
    if (listing := _listing(repository, revision)) is None:
        path = _cached(repository, revision)
        return _of_folder(path, repository, path.name)
    commit, names = listing
    single, sharded = _format(repository, names)
    if not (single or sharded or "").startswith("model.safetensors"):
        raise InputError(f"{repository}: the weights are pickles, which only a download can read; plan on a folder")
    config = read_object(Path(client.hf_hub_download(repository, CONFIG, revision=commit)))
    promised = {}
    if sharded:
        promised = shard_map(Path(client.hf_hub_download(repository, sharded, revision=commit)))

    def header_of(shard: str) -> Shard | InputError:
        if shard not in names:
            return InputError(f"{repository}/{sharded}: names {shard}, which the repository lacks")
        found = client.parse_safetensors_file_metadata(repository, shard, revision=commit).tensors
        return {name: safetensors.header(vars(info)) for name, info in found.items()}, {}

    shards = sorted(set(promised.values())) or [single]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        stored = merge(Path(repository), dict(zip(shards, pool.map(header_of, shards), strict=True)), promised)
    return Description(
        name=repository,
        folder=Path(repository),
        revision=commit,
        config=config,
        stored=stored,
        names=names,
        remote=True,
    )


def _explain(source: str, error: Exception) -> str:
    """What the hub's client says, as one line with what to do."""
    from huggingface_hub import errors

    token = "set HF_TOKEN or run `hf auth login`"
    match error:
        case errors.GatedRepoError():
            return f"{source}: the repository is gated; it needs an accepted licence on its page, and a token: {token}"
        case errors.RevisionNotFoundError():
            return f"{source}: the repository has no revision '{source.partition('@')[2]}'"
        case errors.RepositoryNotFoundError():
            return f"{source}: no such folder, and no such repository on the hub; if it is private, {token}"
        case errors.HFValidationError():
            return f"{source}: no such folder, and not a hub id ({first_line(error)})"
        case errors.LocalEntryNotFoundError():
            return f"{source}: no such folder, not in the cache, and the hub gives no answer; check the network"
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return f"{source}: the hub refuses access ({error.response.status_code}); {token}"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{source}: not to be had from the hub ({reason[:REASON]}); run again to go on where it stopped"
