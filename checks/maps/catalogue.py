"""All changes of parameters here that leave a model's function alone.

What a claim says of a model must not change under them; what does speaks of the parametrisation. Each
map has `name`, `sentence`, `lossless`, `undefined(checkpoint) -> reason | None`,
`tolerance(checkpoint)` and `apply(checkpoint, seed) -> TwinCheckpoint`; so has a composition.
"""

from checks.maps.exact import Composition, CoordinateMap
from checks.maps.exact import compose as compose  # one import for who makes twins
from checks.maps.experts import PERMUTE_EXPERTS, SHIFT_ROUTER
from checks.maps.gains import FOLD_GAINS, RAMP_INPUT_GAIN, RESCALE_GAINS, SCALE_INPUT_GAIN
from checks.maps.heads import MIX_VALUES, PERMUTE_GROUPS, PERMUTE_HEADS, PERMUTE_VALUES, SHIFT_VALUES
from checks.maps.neurons import PERMUTE_NEURONS, SCALE_NEURONS
from checks.maps.planes import ROTATE_PLANES, SCALE_HEADS, SCALE_PLANES, TURN_PLANES
from checks.maps.queries import MIX_QUERIES, PERMUTE_QUERIES, SHIFT_KEYS
from checks.maps.stream import PERMUTE_STREAM, ROTATE_STREAM, SCALE_STREAM, SCALE_WRITES, WRITE_CONSTANT

LOSSLESS: tuple[CoordinateMap, ...] = (
    RESCALE_GAINS,
    SCALE_INPUT_GAIN,
    PERMUTE_VALUES,
    TURN_PLANES,
    SCALE_PLANES,
    SCALE_HEADS,
    PERMUTE_QUERIES,
    SCALE_NEURONS,
    PERMUTE_NEURONS,
    PERMUTE_EXPERTS,
    PERMUTE_HEADS,
    PERMUTE_GROUPS,
    PERMUTE_STREAM,
    SCALE_WRITES,
)
"""Exact in the stored dtype, save that of gains stored less one, and free of any pattern over depth."""

MAPS: tuple[CoordinateMap | Composition, ...] = (
    *LOSSLESS,
    RAMP_INPUT_GAIN,
    FOLD_GAINS,
    MIX_VALUES,
    SHIFT_VALUES,
    ROTATE_PLANES,
    MIX_QUERIES,
    SHIFT_KEYS,
    ROTATE_STREAM,
    WRITE_CONSTANT,
    SCALE_STREAM,
    SHIFT_ROUTER,
)

SCRAMBLE = Composition(
    name="scramble",
    sentence="Every exact map that loses nothing in storage and is defined for the model, one after the other.",
    parts=LOSSLESS,
    optional=LOSSLESS,
)
