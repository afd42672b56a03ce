"""Names of the exact maps, read without torch.

The modules beside this one apply the maps; the invariance table and the page only name them.
"""

RESCALE, SCALE, RAMP, FOLD = "gain rescaling", "input gain scaling", "input gain ramp", "gain folding"
VALUES = PERMUTE_VALUES, MIX_VALUES = "value permutation", "value mixing"
TURNS = QUARTER_TURNS, ROTATE_PLANES = "quarter turns", "plane rotation"
PLANES, QUERY_KEY = "plane scaling", "query and key scaling"
QUERIES = PERMUTE_QUERIES, MIX_QUERIES = "query permutation", "query mixing"
SHIFT, VALUE_SHIFT = "key shift", "value shift"
SIGNS, NEURONS = "neuron scaling", "neuron permutation"
ORDER = HEADS, GROUPS = "head permutation", "group permutation"
EXPERTS, ROUTER = "expert permutation", "router shift"
CHANNELS, ROTATION = "stream permutation", "stream rotation"
CONSTANT, WRITES, STREAM = "constant writes", "write scaling", "stream scaling"

MAPS = (
    *(RESCALE, SCALE, RAMP, FOLD),  # a gain's factor may sit in the matrices that read it
    *(*VALUES, VALUE_SHIFT),  # values meet the output matrix only, through rows that sum to 1
    *(*TURNS, PLANES, QUERY_KEY),  # queries and keys meet only in q·k, after their rotation by position
    *(*QUERIES, SHIFT),  # in what no position turns they have no basis, and a softmax has no zero
    *(SIGNS, NEURONS),  # a neuron's up row and down column share a factor; neurons have no order
    *ORDER,  # a sum over heads has none either
    *(EXPERTS, ROUTER),  # nor one over experts, whose router's softmax has no zero
    *(CHANNELS, ROTATION),  # the stream's basis is free; to rotate it, the gains are folded first
    *(CONSTANT, WRITES),  # LayerNorm takes off a constant, a norm behind a branch the branch's scale
    STREAM,  # and norms in front of them that of the whole stream
)
"""In the order of the page."""
