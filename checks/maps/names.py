"""Names of the exact maps, and the kinds of model that they are for; read without torch.

The modules beside this one apply the maps; the invariance table and the page only name them.
"""

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "opt", "gemma2")
"""Those on which the maps were proved: a norm before each branch, rotary halves or learned positions."""

RESCALE, SCALE, RAMP, FOLD = "gain rescaling", "input gain scaling", "input gain ramp", "gain folding"
VALUES = PERMUTE_VALUES, MIX_VALUES = "value permutation", "value mixing"
TURNS = QUARTER_TURNS, ROTATE_PLANES = "quarter turns", "plane rotation"
PLANES, QUERY_KEY = "plane scaling", "query and key scaling"
QUERIES = PERMUTE_QUERIES, MIX_QUERIES = "query permutation", "query mixing"
SHIFT = "key shift"
SIGNS, NEURONS = "neuron scaling", "neuron permutation"
ORDER = HEADS, GROUPS = "head permutation", "group permutation"
CHANNELS, ROTATION = "stream permutation", "stream rotation"
CONSTANT, WRITES = "constant writes", "write scaling"

MAPS = (
    *(RESCALE, SCALE, RAMP, FOLD),  # a gain's factor may sit in the matrices that read it
    *VALUES,  # values meet the output matrix only
    *(*TURNS, PLANES, QUERY_KEY),  # queries and keys meet only in q·k, after their rotation by position
    *(*QUERIES, SHIFT),  # in what no position turns they have no basis, and a softmax has no zero
    *(SIGNS, NEURONS),  # a neuron's up row and down column share a factor; neurons have no order
    *ORDER,  # a sum over heads has none either
    *(CHANNELS, ROTATION),  # the stream's basis is free; to rotate it, the gains are folded first
    *(CONSTANT, WRITES),  # LayerNorm takes off a constant, a norm behind a branch the branch's scale
)
"""In the order of the page."""
