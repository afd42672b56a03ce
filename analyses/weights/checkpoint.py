"""A checkpoint on disk or on the hub, read tensor by tensor.

Nothing here instantiates a model or imports transformers: `config.json` is read as it is and the
weights stay on disk until one of them is asked for. `hub` finds them, `files` reads one of them, and
here they get their roles.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from analyses.errors import LEFT_OUT, InputError
from analyses.progress import Tick, silent
from analyses.weights import files, hub, latent
from analyses.weights.architectures import FAMILIES, FEED_FORWARD, Architecture
from analyses.weights.beside import predicting
from analyses.weights.config import decoder_config
from analyses.weights.files import Stored, require_finite
from analyses.weights.quantised import declared, quantised
from analyses.weights.recognise import parts, recognise
from analyses.weights.schema import STACKS, Header, Kind, Place, is_gain
from analyses.weights.shape import Shape
from analyses.weights.stacks import stack_of
from analyses.weights.upload import upload

FLOATING = ("float64", "float32", "float16", "bfloat16")
QUANTISED = "the weights are quantised ({}); give the unquantised checkpoint"
FLOATS = tuple(str(dtype).removeprefix("torch.") for dtype in files.FLOATS)


CROSSED = "its layers also read what the encoder makes of another text, which one text does not give"
"""Why no text is run through a decoder that stands behind an encoder."""
PROPORTIONAL = "proportional"  # rotary positions whose planes span the whole head, though not all of them turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights by (family, layer), with the facts of the config. Made by `open_checkpoint`."""

    altered: ClassVar[bool] = False  # True where `tensor` gives other values than the files hold
    name: str  # as given, without the revision and without the folders above
    folder: Path
    revision: str | None  # resolved commit of a hub model; None for a folder
    config: Mapping[str, Any]
    architecture: Architecture
    shape: Shape
    files: Mapping[str, Path]  # tensor's name on disk → file
    headers: Mapping[str, Header]  # tensor's name on disk → its shape and type
    prefix: str  # of the base model's names on disk: "model.", "", "transformer.", …
    places: Mapping[str, Place]  # family or further role of a layer → where this checkpoint keeps it
    lacking: Mapping[str, str]  # family that the model has not → why
    note: str | None = None  # how the architecture was recognised, where not by its model_type
    beside: frozenset[str] = frozenset()  # tensors of further predictions, which are no part of the decoder
    remarks: tuple[str, ...] = ()  # what a reader must know of its config and files
    # Layers of another kind than the record's usual one → their kinds; by the number that the files give them.
    others: Mapping[int, tuple[Kind, ...]] = field(default_factory=dict)
    numbers: Sequence[int] = ()  # of the files, of the layers here; see `view`
    left_out: tuple[str, ...] = ()  # families that the model has and this view has not
    no_pass: str | None = None  # why no text can be run through these layers

    @property
    def absent(self) -> dict[str, str]:
        """Families that this model lacks → why."""
        none = "none of these layers has it"
        elsewhere = {f: none for f in self.places if self.others and f in FAMILIES and not self.layers_with(f)}
        return dict(self.lacking) | elsewhere | dict.fromkeys(self.left_out, LEFT_OUT)

    @property
    def families(self) -> tuple[str, ...]:
        here = [f for f in FAMILIES if f in self.places and f not in self.left_out]
        return tuple(f for f in here if not self.others or self.layers_with(f))

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the architecture, and of how it was recognised."""
        return [*filter(None, [self.note]), *self.architecture.notes, *self.remarks]

    @property
    def has_qk_norm(self) -> bool:
        return "q_norm" in self.places

    @property
    def has_qk_bias(self) -> bool:
        """Whether queries or keys carry a bias, which the head metric omits."""
        return any(self.has(f, 0) and self.names(f, 0, bias=True) for f in ("q_proj", "k_proj"))

    def kinds(self, layer: int) -> tuple[Kind, ...]:
        """What tells a layer from the usual ones of this architecture."""
        return self.others.get(self.number(layer), ())

    def number(self, layer: int) -> int:
        """The number that the files give to a layer."""
        return self.numbers[layer] if self.numbers else layer

    def has(self, role: str, layer: int) -> bool:
        """Whether a layer has a role that the architecture has."""
        return role in self.places and not any(role in kind.lacks for kind in self.kinds(layer))

    def layers_with(self, *roles: str) -> tuple[int, ...]:
        """Layers that have all of these roles."""
        return tuple(layer for layer in range(self.shape.layers) if all(self.has(role, layer) for role in roles))

    def why_not(self, role: str, layer: int) -> str:
        """Why a layer lacks a role that the others have."""
        return next(kind for kind in self.kinds(layer) if role in kind.lacks).why(self.number(layer))

    def branches(self, layer: int) -> tuple[str | None, str | None]:
        """Modules whose outputs are what a layer's attention, or what stands in its place, and feed-forward add."""
        attention, feed_forward = self.architecture.branches
        for kind in self.kinds(layer):
            attention = attention if kind.attention == "" else kind.attention
            feed_forward = feed_forward if kind.feed_forward == "" else kind.feed_forward
        return attention, feed_forward

    def experts(self, family: str) -> int:
        """How many matrices of this family a layer has to choose from; 0 where it has one and no choice."""
        return self.shape.experts if family in FEED_FORWARD else 0

    def alike(self, one: int, other: int) -> tuple[bool, bool]:
        """Whether two layers' attention, and their feed-forwards, are of one kind."""
        differing = set(self.kinds(one)) ^ set(self.kinds(other))
        lacked = {role for kind in differing for role in kind.lacks}
        of_neurons = any(kind.feed_forward != "" for kind in differing) or bool(lacked & set(FEED_FORWARD))
        of_heads = any(kind.attention != "" for kind in differing) or bool(lacked & {"q_proj", "k_proj"})
        return not of_heads, not of_neurons

    def rotary_dims(self, layer: int) -> int:
        """How many of a head's dimensions are rotated by position, from the first on; 0 for other positions."""
        config, layer = self.config, self.number(layer)
        unrotated = config.get("no_rope_layers")  # a 1 for each layer with rotation
        if self.architecture.rotary is None or config.get("alibi") or (unrotated and not unrotated[layer]):
            return 0
        kinds, turned_in = config.get("layer_types"), self.architecture.turned_in
        if turned_in and kinds and config.get("sliding_window") and kinds[layer] not in turned_in:
            return 0
        if self.architecture.rotary_if_given and not config.get("rope_parameters"):
            return 0
        if self.architecture.latent:
            return config["qk_rope_head_dim"]
        if isinstance(config.get(self.architecture.rotary_key), int):
            return config[self.architecture.rotary_key]
        rope = config.get("rope_parameters") or {}
        rope = rope.get(kinds[layer] if kinds else "") or rope
        if rope.get("rope_type") == PROPORTIONAL:
            return self.shape.head_dim
        given = [rope.get("partial_rotary_factor")]
        given += [config.get(key) for key in ("partial_rotary_factor", "rotary_pct", "rope_pct")]
        fraction = next((value for value in given if value is not None), self.architecture.rotary_fraction)
        return int(self.shape.head_dim * fraction)

    def names(self, role: str, layer: int, *, bias: bool = False) -> list[str]:
        """Names on disk of the tensors that hold a layer's role: several for experts; none for a bias it lacks."""
        place = self.places[role].bias() if bias else self.places[role]
        held_in = range(parts(place, role, self.shape))
        names = [self.prefix + place.at(self.number(layer), part) for part in held_in]
        return names if not bias or names[0] in self.files else []

    def restricted(self, *, layers: range | None = None, families: Sequence[str] | None = None) -> "Checkpoint":
        """A view with these layers and families alone; its layer 0 is `layers.start` of this one.

        For weight analyses: the forward pass and changes of the weights need the whole model.
        Raises InputError for layers that the model has not, for fewer than two of them, and for
        families that are not in FAMILIES.
        """
        layers = range(self.shape.layers) if layers is None else layers
        families = FAMILIES if families is None else families
        if len(layers) < 2 or layers.step != 1 or layers.start < 0 or layers.stop > self.shape.layers:
            asked = f"{layers.start}:{layers.stop}"
            raise InputError(f"layers {asked}: expected at least two within 0:{self.shape.layers} of {self.name}")
        if unknown := [family for family in families if family not in FAMILIES]:
            raise InputError(f"no family '{unknown[0]}' (there are: {', '.join(FAMILIES)})")
        left_out = tuple(f for f in self.families if f not in families) + self.left_out
        return replace(self.view(layers), left_out=left_out)

    def view(self, layers: Sequence[int]) -> "Checkpoint":
        """These layers alone; which the files call `number` of them."""
        numbers = tuple(self.number(layer) for layer in layers)
        return replace(self, shape=replace(self.shape, layers=len(layers)), numbers=numbers)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as stored, by its name."""
        return self.part(name)

    def expert(self, name: str, number: int) -> torch.Tensor:
        """One expert's part of a tensor that holds all of a layer's, as stored."""
        return self.part(name, (number,))

    def rows(self, name: str, role: str) -> torch.Tensor:
        """What a stored tensor holds of a role, without reading the others where it lies in one piece."""
        layout, axes = self.places[role].layout, len(self.headers[name].shape)
        if not (part := layout.part(role, axes, self.shape)):
            return layout.take(self.tensor(name), role, self.shape)
        rows = self.part(name, part)
        return rows.mT if layout.transposed and axes > 1 else rows

    def part(self, name: str, part: tuple[slice | int, ...] = ()) -> torch.Tensor:
        """One tensor as the file has it, or the part of it at these indices without reading the rest."""
        return files.read(self.files[name], self.headers[name].stored or name, part)

    def weight(self, family: str, layer: int, *, expert: int | None = None, device: str = "cpu") -> torch.Tensor:
        """One layer's matrix (out, in), or effective norm gain (hidden,), upcast to float64.

        Where there are experts: the matrix of `expert`, or of all of them as (expert, out, in).
        Raises InputError if an entry is NaN or infinite.
        """
        return self.stored(family, layer, expert=expert, device=device).double()

    def stored(self, family: str, layer: int, *, expert: int | None = None, device: str = "cpu") -> torch.Tensor:
        """The same values in a narrower type where one holds them: a matrix as the file has it."""
        if self.architecture.latent and family in latent.FAMILIES:
            return latent.rows(self, family, layer, device)
        names = self.names(family, layer)
        if not self.experts(family):
            value = self._read(family, names, device)
            return value.double() + self.architecture.gain_offset if is_gain(family) else value
        stacked = self.places[family].layout.stacked
        if expert is not None:
            return self._read(family, names, device, expert) if stacked else self._read(family, [names[expert]], device)
        value = self._read(family, names, device)
        return value if stacked else value.unflatten(0, (len(names), -1))

    def factor(self, role: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """One of the stored factors of a latent attention, float64; `q_proj`, `k_proj`: the outer one."""
        return self._read(role, self.names(role, layer), device).double()

    def bias(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor | None:
        """One layer's bias, (out,) float64, of a projection or a LayerNorm; None where none is stored."""
        if self.architecture.latent and family in latent.FAMILIES:
            return None
        names = self.names(family, layer, bias=True)
        return self._read(family, names, device).double() if names else None

    def _read(self, role: str, names: Sequence[str], device: str, expert: int | None = None) -> torch.Tensor:
        """A role's stored values, those of several tensors one after the other, or of one expert."""
        values = []
        for name in names:
            if expert is None:
                stored = self.rows(name, role)
            else:
                stored = self.places[role].layout.take(self.expert(name, expert)[None], role, self.shape)[0]
            require_finite(name, stored)
            values.append(upload(name, stored, device))
        return values[0] if len(values) == 1 else torch.cat(values)

    def parameters(self) -> int:
        """Number of stored parameters, from the headers."""
        return sum(math.prod(header.shape) for header in self.headers.values() if header.shares is None)

    def head_blocks(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """Rows of q_proj, k_proj or v_proj by head: (head or kv_head, head_dim, hidden), float64."""
        return self.stored_heads(family, layer, device=device).double()

    def stored_heads(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """`head_blocks` in the type of `stored`."""
        dim = self.shape.value_dim if family == "v_proj" else self.shape.head_dim
        return self.stored(family, layer, device=device).unflatten(0, (-1, dim))

    def head_gains(self, family: str, layer: int, *, device: str = "cpu") -> torch.Tensor:
        """Gain of q_norm or k_norm by head, (head or kv_head, head_dim), float64; (1, head_dim) if all share one."""
        return self.weight(family, layer, device=device).unflatten(0, (-1, self.shape.head_dim))

    def inspect(self, tick: Tick = silent) -> dict[str, str]:
        """sha256 of every weight file, tokenizer and config, by file name; see `examine`."""
        return self.examine(tick)[0]

    def examine(self, tick: Tick = silent) -> tuple[dict[str, str], str, list[str]]:
        """(sha256 by file name, digest of the tensors whatever their files, notes); reads every weight.

        Raises InputError naming the first tensor of the decoder that holds a NaN or an infinity; one beside it is
        noted.
        """
        stored = Stored(files=self.files, headers=self.headers)
        return files.inspect(stored, self.folder, tick, matters=self.reads)

    def reads(self, name: str) -> bool:
        """Whether the decoder has this tensor: one of its layers, or one that it needs beside them."""
        if name in self.beside or not name.startswith(self.prefix):
            return False
        bare = name.removeprefix(self.prefix)
        if any(bare.startswith(place.name.partition("{}")[0]) for place in self.places.values()):
            return True
        outside = [Place(known) for names in self.architecture.outside.values() for known in names]
        return any(bare in (place.name, place.bias().name) for place in outside)

    def stored_dtype(self) -> str:
        """The type that most of the decoder's parameters are stored in."""
        count: Counter[str] = Counter()
        for name, header in self.headers.items():
            if header.shares is None and header.dtype in FLOATS and self.reads(name):
                count[header.dtype] += math.prod(header.shape)
        if not count:
            raise InputError(f"{self.name}: no weight of the decoder is a float of 16, 32 or 64 bits")
        return max(count, key=count.__getitem__)


def open_checkpoint(source: str, *, stack: str | None = None) -> Checkpoint:
    """Open a folder, a hub id or `id@revision`; reads the config and the headers, no tensor.

    Parameters
    ----------
    stack : one of STACKS, of a model that has two.

    Raises InputError in one line for what is missing, unknown, or does not fit the config.
    """
    folder, revision, name = hub.locate(source)
    config = hub.read_config(folder)
    found = files.index(folder)
    return assemble(name=name, folder=folder, revision=revision, config=config, stored=found, stack=stack)


def assemble(
    *,
    name: str,
    folder: Path,
    revision: str | None,
    config: Mapping[str, Any],
    stored: Stored,
    stack: str | None = None,
) -> Checkpoint:
    """The checkpoint that a config and the headers of its weights describe, wherever they came from.

    Raises InputError in one line for what is unknown, quantised, or does not fit the config.
    """
    if reason := declared(config):
        raise InputError(f"{name}: {QUANTISED.format(reason)}")
    # Composite models (text with vision) keep the decoder's numbers one level down.
    whole = config
    config, notes = decoder_config(config, folder / hub.CONFIG, images=stack == "vision")
    beside = predicting(config, stored.headers)
    try:
        stack, held = stack_of(config, stored.headers, folder, stack, whole)
        match = recognise(config, {n: h for n, h in stored.headers.items() if n not in beside}, folder, stack)
    except InputError as error:
        if reason := quantised(stored.headers):
            raise InputError(f"{name}: {QUANTISED.format(reason)}") from error
        # Of what could not be read, what the message names, or else the first, is the likeliest cause.
        message = str(error)
        named = sorted(stored.lost, key=lambda lost: lost not in message)
        raise InputError("; ".join([message, *(stored.lost[lost] for lost in named[:1]), *stored.notes])) from error
    layers = match.shape.layers
    remarks = (*_of_two(stack, held), *notes, *stored.notes, *_predicting(beside), *_lost(stored.lost, folder))
    checkpoint = Checkpoint(
        name=name,
        folder=folder,
        revision=revision,
        config=config,
        architecture=match.architecture,
        shape=match.shape,
        files=stored.files,
        headers=stored.headers,
        prefix=match.prefix,
        places=match.places,
        lacking=match.absent,
        note=match.note,
        beside=beside,
        remarks=remarks,
        others=match.others,
        numbers=[] if match.stored == layers else [layer * match.stored // layers for layer in range(layers)],
        no_pass=CROSSED if stack == "decoder" and "encoder" in held else match.architecture.no_pass,
    )
    if reason := quantised(stored.headers, modules=_modules(checkpoint)) or _no_floats(checkpoint):
        raise InputError(f"{name}: {QUANTISED.format(reason)}")
    return checkpoint


def _of_two(stack: str, held: Sequence[str]) -> list[str]:
    """Sentences on which of a model's two stacks this is."""
    others = [STACKS[name] for name in held if name != stack]
    return [f"The model has {STACKS[stack]} and {others[0]}: the first was read (--stack {stack})."] if others else []


def _no_floats(checkpoint: Checkpoint) -> str | None:
    """Which of the tensors that are read holds no floats, in a few words; None where none does."""
    held = itertools.product(checkpoint.families, range(checkpoint.shape.layers))
    for name in (name for role, layer in held for name in checkpoint.names(role, layer)):
        if (header := checkpoint.headers.get(name)) and header.dtype not in FLOATING:
            return f"{header.dtype} in tensor {name}"
    return None


def _predicting(beside: Set[str]) -> list[str]:
    if not beside:
        return []
    return [f"{len(beside)} tensors predict further tokens ({min(beside)}, …): no part of the decoder, not measured."]


def _lost(lost: Mapping[str, str], folder: Path) -> list[str]:
    """Sentences on what could not be read and was not needed to know the layers, without where the folder lies."""
    reasons = Counter(why.replace(f"{folder}/", "").replace(f"{folder}: ", "") for why in lost.values())
    return [
        f"Of what no layer needs, {count} tensor{'s' * (count > 1)} cannot be read: {why}."
        for why, count in reasons.items()
    ]


def _modules(checkpoint: Checkpoint) -> frozenset[str]:
    """Names of the modules whose weights are read."""
    every = itertools.product(checkpoint.families, range(checkpoint.shape.layers))
    held = [(role, layer) for role, layer in every if checkpoint.has(role, layer)]
    return frozenset(name.rpartition(".")[0] for role, layer in held for name in checkpoint.names(role, layer))
