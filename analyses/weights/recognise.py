"""Recognition of a checkpoint's architecture, and of the names under which it keeps its tensors.

The config's `model_type` names the record. A type that is not in the table is taken for a record
whose names, layouts and shapes the files show exactly, if there is one and only one. Names are
looked up role by role, behind whatever prefix they stand.
"""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from analyses.errors import InputError
from analyses.weights import latent
from analyses.weights.architectures import ARCHITECTURES, architecture
from analyses.weights.beside import TOWERS
from analyses.weights.schema import FAMILIES, FEED_FORWARD, Architecture, Header, Kind, Place, is_gain
from analyses.weights.shape import Shape, read_shape

BUFFERS = re.compile(r"(^|\.)(inv_freq|masked_bias|position_ids|token_type_ids|(attn|attention)\.bias)$")
"""Constants that old checkpoints store: rotary frequencies, causal masks, positions."""

ADVICE = "add a record to analyses/weights/architectures.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A checkpoint's record and where each role of a layer is."""

    architecture: Architecture
    shape: Shape
    prefix: str  # of the base model's names on disk
    places: Mapping[str, Place]  # families and further roles, as this checkpoint spells them
    absent: Mapping[str, str]  # family → why this checkpoint has none
    note: str | None = None  # how it was recognised, where not by its model_type
    others: Mapping[int, tuple[Kind, ...]] = field(default_factory=dict)  # layers of another kind → their kinds
    stored: int  # layers that the files have; fewer than the model's where each is run several times
    turned: int = 0  # dimensions of a head that positions turn, where attention is latent


def recognise(config: Mapping[str, Any], headers: Mapping[str, Header], folder: Path, stack: str = "") -> Match:
    """Find the record, the prefix and the places; raises InputError in one line for what does not fit.

    Parameters
    ----------
    stack : of a model with two, the one that is read.
    """
    record = architecture(config, stack)
    if record is not None:
        return _fit_one(record, config, headers, folder)
    matches, misfits = _by_names(config, headers, folder)
    model_type = config.get("model_type") or "(none)"
    unknown = f"model_type '{model_type}' is not in the architecture table"
    if len(matches) == 1:
        name = matches[0].architecture.name
        return replace(matches[0], note=f"{unknown}; its names and shapes are those of {name}, as which it was read")
    if matches:
        raise InputError(f"{folder}: {unknown} and fits {' and '.join(m.architecture.name for m in matches)}; {ADVICE}")
    known = ", ".join(sorted({n for record in ARCHITECTURES if not record.refused for n in record.model_types}))
    nearest = min(misfits, key=lambda misfit: (misfit.missing, -misfit.found), default=None)
    near = f"; nearest: {nearest}" if nearest else ""
    raise InputError(f"{unknown} (known: {known}), and its names fit no record{near}; {ADVICE}")


class _Misfit(InputError):
    """A record that does not describe a checkpoint: how many of its roles are missing there, and are found."""

    def __init__(self, message: str, missing: int = 0, found: int = 0):
        super().__init__(message)
        self.missing, self.found = missing, found


def _by_names(
    config: Mapping[str, Any], headers: Mapping[str, Header], folder: Path
) -> tuple[list[Match], list[_Misfit]]:
    """Records that describe the files exactly, but for those that read them alike; why the others do not."""
    matches: list[Match] = []
    misfits: list[_Misfit] = []
    for model_type in dict.fromkeys(record.model_types[0] for record in ARCHITECTURES if record.by_name):
        try:
            record = architecture({**config, "model_type": model_type})
            match = _fit(record, config, headers, folder)
        except _Misfit as misfit:
            misfits.append(_Misfit(f"as {record.name}: {misfit}", misfit.missing, misfit.found))
            continue
        except InputError as error:  # sizes that this record's config would give, or a family that is refused
            misfits.append(_Misfit(f"as {model_type}: {error}", len(FAMILIES)))
            continue
        lacking = [f for f in record.biases if match.prefix + match.places[f].bias().at(0) not in headers]
        if lacking or (stray := _stray(match, headers)):
            why = f"{lacking[0]} has no bias" if lacking else f"tensor {stray} has no role"
            misfits.append(_Misfit(f"as {record.name}: {why}", 1, len(match.places)))
            continue
        alike = [other for other in matches if _alike(record, other.architecture)]
        best = max([*alike, match], key=lambda m: len(m.architecture.biases))  # promises most of what is there
        matches = [other for other in matches if other not in alike] + [best]
    return matches, misfits


def _fit_one(record: Architecture, config: Mapping[str, Any], headers: Mapping[str, Header], folder: Path) -> Match:
    """The record's match, or that of the first of its variants that fits; raises what kept the record itself."""
    try:
        return _fit(record, config, headers, folder)
    except InputError:
        for variant in record.variants:
            try:
                return _fit(variant, config, headers, folder)
            except InputError:
                continue
        raise


def _alike(a: Architecture, b: Architecture) -> bool:
    """Whether two records read the same weights with the same meaning."""
    same = {"name": "", "model_types": (), "when": {}, "biases": (), "notes": ()}
    return replace(a, **same) == replace(b, **same)


def _fit(record: Architecture, config: Mapping[str, Any], headers: Mapping[str, Header], folder: Path) -> Match:
    shape = read_shape(
        config,
        folder,
        keys=record.size_keys,
        missing=record.missing_sizes,
        wide=record.wide,
        experts=record.experts,
        whole_qk_norm=record.qk_norm == "whole projection",
    )
    turned = 0
    if record.latent:
        turned, still, values = (_latent_size(config, f"{name}_head_dim", folder) for name in LATENT_SIZES)
        shape = replace(shape, head_dim=turned + still, values=values)
    asked = range(shape.layers if record.kinds else 1)  # where every layer is alike, the first shows what all have
    prefix = _prefix(record, headers, folder, asked)
    places, absent = _places(record, headers, prefix, asked)
    if record.width_shown and (place := places.get("up_proj")) is not None:
        width = headers[prefix + place.at(0)].shape[int(place.layout.transposed)] // max(1, len(place.layout.roles))
        shape = replace(shape, feed_forward=width)
    match = Match(
        architecture=record,
        shape=shape,
        prefix=prefix,
        places=places,
        absent=absent,
        others=_others(record, config, headers, prefix, shape.layers),
        stored=_stored(record, config, folder, shape.layers),
        turned=turned,
    )
    _require_shapes(match, headers, folder)
    return match


def _stored(record: Architecture, config: Mapping[str, Any], folder: Path, layers: int) -> int:
    """How many layers the files have."""
    if not record.groups:
        return layers
    groups, inside = config.get(record.groups, 1), config.get("inner_group_num", 1)
    if not isinstance(groups, int) or isinstance(groups, bool) or not 1 <= groups <= layers:
        what = f"{record.groups} must be a whole number from 1 to the number of layers, {layers}"
        raise InputError(f"{folder / 'config.json'}: {what}; got {groups!r}")
    if inside != 1:
        raise InputError(f"{folder / 'config.json'}: inner_group_num is {inside!r}; groups of one layer alone are read")
    return groups


def _spellings(record: Architecture, role: str) -> list[Place]:
    tables = ({**record.tensors, **record.further}, *record.also)
    return [table[role] for table in tables if role in table]


LATENT_SIZES = ("qk_rope", "qk_nope", "v")


def _latent_size(config: Mapping[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{folder / 'config.json'}: {key} must be a positive integer, got {value!r}")
    return value


def _others(
    record: Architecture, config: Mapping[str, Any], headers: Mapping[str, Header], prefix: str, layers: int
) -> dict[int, tuple[Kind, ...]]:
    """Layers that are not of the usual kind → their kinds."""
    found = {}
    for layer in range(layers) if record.kinds else ():
        if kinds := tuple(kind for kind in record.kinds if kind.shown(layer, prefix, headers, config)):
            found[layer] = kinds
    return found


def _prefix(record: Architecture, headers: Mapping[str, Header], folder: Path, asked: range) -> str:
    """What stands before the base model's names: "model.", nothing, or whatever this checkpoint has."""
    firsts = tuple(place.at(layer) for place in _spellings(record, "q_proj") for layer in asked)
    ends = tuple("." + first for first in firsts)
    prefixes = {name[: -len(end) + 1] for end in ends for name in headers if ("." + name).endswith(end)}
    missing = {prefix: _missing(record, headers, prefix, asked) for prefix in sorted(prefixes)}
    whole = [prefix for prefix, roles in missing.items() if not roles]
    whole = [prefix for prefix in whole if bool(TOWERS.search(prefix)) == (record.stack == "vision")] or whole
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise InputError(f"{folder}: layers of a {record.name} model stand behind {' and '.join(map(repr, whole))}")
    if not prefixes:
        raise _Misfit(
            f"{folder}: no tensor {firsts[0]}, whatever its prefix; config and weights disagree", len(FAMILIES)
        )
    prefix, roles = min(missing.items(), key=lambda item: len(item[1]))
    first = prefix + _spellings(record, roles[0])[0].at(0)
    message = f"{folder}: no tensor {first}, so there is no {', '.join(roles)}; config and weights disagree"
    raise _Misfit(message, len(roles), len(record.tensors) - len(roles))


def _missing(record: Architecture, headers: Mapping[str, Header], prefix: str, asked: range) -> list[str]:
    """Families of which these layers have nothing, though this architecture has them."""
    return [
        family
        for family in record.tensors
        if family not in record.optional
        and not any(prefix + p.at(layer) in headers for p in _spellings(record, family) for layer in asked)
    ]


def _places(
    record: Architecture, headers: Mapping[str, Header], prefix: str, asked: range
) -> tuple[dict[str, Place], dict[str, str]]:
    places = {}
    for role in (*record.tensors, *record.further):
        spellings = ((p, layer) for p in _spellings(record, role) for layer in asked)
        place = next((p for p, layer in spellings if prefix + p.at(layer) in headers), None)
        if place is not None:
            places[role] = place
    missing = {family: why for family, why in record.optional.items() if family not in places}
    absent = record.absent | missing
    return places, {family: absent[family] for family in FAMILIES if family in absent}


def parts(place: Place, role: str, shape: Shape) -> int:
    """Over how many tensors a role of one layer is spread."""
    if not place.by_part:
        return 1
    return {"q_norm": shape.heads, "k_norm": shape.kv_heads}.get(role, shape.experts)


def _require_shapes(match: Match, headers: Mapping[str, Header], folder: Path) -> None:
    """Raise InputError unless the files hold every family's tensors in the config's shapes, and no more of them."""
    for family in FAMILIES:
        if (place := match.places.get(family)) is not None:
            _require_family(match, family, place, headers, folder)
            _require_no_more(match, family, place, headers, folder)


def _require_family(match: Match, family: str, place: Place, headers: Mapping[str, Header], folder: Path) -> None:
    """Every layer's weights of a family in their shape, and its biases where any layer has one."""
    shape = match.shape
    layers = [n for n in range(match.stored) if not any(family in kind.lacks for kind in match.others.get(n, ()))]
    every = list(itertools.product(layers, range(parts(place, family, shape))))
    biased = any(match.prefix + place.bias().at(*at) in headers for at in every)
    for kind, bias in ((place, False), (place.bias(), True))[: 1 + biased]:
        expected = place.layout.stored_shape(family, shape, bias=bias)
        if match.architecture.latent and family in latent.FAMILIES:
            expected = _latent_shape(match, family, headers, bias=bias)
        for name in (match.prefix + kind.at(*at) for at in every):
            if name not in headers:
                why = "though other layers have it" if bias else f"though the config says {shape.layers} layers"
                experts = f" of {shape.experts} experts" if shape.experts else ""
                raise InputError(f"{folder}: no tensor {name}, {why}{experts}; config and weights disagree")
            if (stored := headers[name].shape) != expected:
                raise InputError(f"tensor {name}: shape {list(stored)}, but the config says {list(expected)}")


def _latent_shape(match: Match, family: str, headers: Mapping[str, Header], *, bias: bool) -> tuple[int, ...]:
    """The shape of a stored factor: its rows by the config, its columns by the factor that it is multiplied with."""
    shape, inner = match.shape, match.places.get("q_down" if family == "q_proj" else "kv_down")
    first = next((n for n in range(match.stored) if not any(family in k.lacks for k in match.others.get(n, ()))), 0)
    name = match.prefix + inner.at(first) if inner else None
    if inner and name not in headers:
        raise InputError(f"no tensor {name}, a factor of {family}; config and weights disagree")
    turned = match.turned
    rank = headers[name].shape[0] - turned * (family != "q_proj") if inner else shape.hidden
    rows = latent.stored_rows(family, shape.heads, shape.head_dim, shape.value_dim, turned)
    return (rows,) if bias else (rows, rank)


def _require_no_more(match: Match, family: str, place: Place, headers: Mapping[str, Header], folder: Path) -> None:
    """No tensor of a layer, expert or head beyond those of the config."""
    layers = match.stored
    if (beyond := match.prefix + place.at(layers)) in headers:
        raise InputError(f"{folder}: the weights hold more layers than the config's {layers} (found {beyond})")
    if place.by_part and (beyond := match.prefix + place.at(0, parts(place, family, match.shape))) in headers:
        what = "experts" if family in FEED_FORWARD else "heads"
        raise InputError(f"{folder}: the weights hold more {what} than the config says (found {beyond})")


def _stray(match: Match, headers: Mapping[str, Header]) -> str | None:
    """The first tensor of a layer that has no role in the record."""

    def has_bias(role: str) -> bool:
        return match.architecture.layer_norm or not is_gain(role)

    container = re.escape(match.prefix + match.places["q_proj"].name.partition("{}")[0]) + r"\d+\."
    for name in headers:
        if re.match(container, name) and not BUFFERS.search(name):
            bare = name.removeprefix(match.prefix)
            if not any(p.find(bare) or (p.bias().find(bare) and has_bias(r)) for r, p in match.places.items()):
                return name
    return None
