"""The facts of an architecture that decide which changes of parameters leave its function alone.

Read off the architecture's record and the config, never off a list of model types, and without reading a tensor. A
function here that may say why not gives None where nothing stands in the way.
"""

from dataclasses import dataclass

from analyses.weights.checkpoint import Checkpoint
from checks.twins.roles import is_tied

ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")  # keys of a config
OTHER_FUNCTIONS = ("apply_residual_connection_post_layernorm",)
"""Switches of a config that make another function of the weights than the architecture's record says."""


def foreign(checkpoint: Checkpoint) -> str | None:
    """Why nothing is claimed of a checkpoint's function; None where its record describes it."""
    model_type = checkpoint.config.get("model_type")
    if model_type not in checkpoint.architecture.model_types:
        return f"no exact maps known here for model_type {model_type}"
    if switched := [key for key in OTHER_FUNCTIONS if checkpoint.config.get(key)]:
        return f"no exact maps known here where the config sets {switched[0]}"
    if checkpoint.architecture.groups:
        return "no exact maps known here: its layers share their weights, and a map changes each by itself"
    return None


# --- positions --------------------------------------------------------------------------------------


def planes(checkpoint: Checkpoint, layer: int) -> int:
    """How many planes of a head positions turn in a layer."""
    return checkpoint.rotary_dims(layer) // 2


def free_dimensions(checkpoint: Checkpoint, layer: int) -> int:
    """How many of a head's dimensions no position turns in a layer."""
    return checkpoint.shape.head_dim - checkpoint.rotary_dims(layer)


def distance_bias(checkpoint: Checkpoint) -> bool:
    """Whether each head's logits carry a bias of its own over distance (ALiBi), so that heads have names."""
    architecture = checkpoint.architecture
    return bool(checkpoint.config.get("alibi")) or (
        architecture.rotary is None and "positions" not in architecture.outside
    )


def some_planes(checkpoint: Checkpoint) -> str | None:
    if any(planes(checkpoint, layer) for layer in range(checkpoint.shape.layers)):
        return clipped(checkpoint)
    return "positions turn no planes of queries and keys"


def some_planes_turn(checkpoint: Checkpoint) -> str | None:
    """Why queries and keys cannot be turned along with what positions do."""
    if checkpoint.has_qk_norm and checkpoint.architecture.qk_layer_norm:
        return "queries and keys are centred before positions turn them, and a turn moves the centre"
    return some_planes(checkpoint)


def some_free_dimensions(checkpoint: Checkpoint) -> str | None:
    if checkpoint.has_qk_norm:
        return "queries and keys are normalised, which only turns and signs pass through"
    if max(free_dimensions(checkpoint, layer) for layer in range(checkpoint.shape.layers)) < 2:
        return "positions turn every dimension of queries and keys"
    return clipped(checkpoint)


# --- attention ----------------------------------------------------------------------------------------


def clipped(checkpoint: Checkpoint) -> str | None:
    if checkpoint.config.get("clip_qkv") is None:
        return None
    return "queries, keys and values are clipped entry by entry (config: clip_qkv)"


def qk_normalised(checkpoint: Checkpoint) -> str | None:
    if checkpoint.has_qk_norm:
        return None
    return "queries and keys are not normalised, so their scale matters"


def keys_have_a_free_bias(checkpoint: Checkpoint) -> str | None:
    if not checkpoint.names("k_proj", 0, bias=True):
        return "keys carry no bias"
    if checkpoint.config.get("attn_logit_softcapping"):
        return "logits are capped, so that a number added to all of a query's logits is seen"
    return some_free_dimensions(checkpoint)


def values_and_output_have_biases(checkpoint: Checkpoint) -> str | None:
    for part, what in (("v_proj", "values carry no bias"), ("o_proj", "the output of attention carries no bias")):
        if not checkpoint.names(part, 0, bias=True):
            return what
    return clipped(checkpoint)


def several_in_a_group(checkpoint: Checkpoint) -> str | None:
    if checkpoint.shape.heads == checkpoint.shape.kv_heads:
        return "every group has one query head only"
    return heads_are_alike(checkpoint)


def several_groups(checkpoint: Checkpoint) -> str | None:
    return heads_are_alike(checkpoint) if checkpoint.shape.kv_heads > 1 else "there is one key/value head only"


def heads_are_alike(checkpoint: Checkpoint) -> str | None:
    return "each head has a bias over distance of its own" if distance_bias(checkpoint) else None


# --- feed-forward -------------------------------------------------------------------------------------


def up_is_homogeneous(checkpoint: Checkpoint) -> str | None:
    activation = next((checkpoint.config[key] for key in ACTIVATIONS if key in checkpoint.config), "GELU")
    if checkpoint.architecture.gated or activation == "relu":
        return None
    return f"the feed-forward has no gate and its activation, {activation}, takes no factor through"


def has_experts(checkpoint: Checkpoint) -> str | None:
    return None if checkpoint.architecture.experts else "there is no choice of experts"


# --- norms and the stream -----------------------------------------------------------------------------


def norms_behind(checkpoint: Checkpoint) -> bool:
    """Whether a norm stands behind each branch, and the stream itself stays as it is."""
    return {"attn_out_ln", "ffn_out_ln"} <= set(checkpoint.architecture.further)


def size_of_writes_is_free(checkpoint: Checkpoint) -> str | None:
    if norms_behind(checkpoint):
        return None
    return "no norm stands behind the branches, so the size of what they write matters"


def constants_are_taken_off(checkpoint: Checkpoint) -> str | None:
    if not checkpoint.architecture.layer_norm:
        return "RMSNorm does not take off a constant"
    return "a norm behind the branches has taken it off already" if norms_behind(checkpoint) else None


def stream_turns(checkpoint: Checkpoint) -> str | None:
    """Why the stream cannot be rotated, whatever the final gain."""
    symmetry = stream_symmetry(checkpoint)
    if symmetry.channels_are_privileged and "head that is" not in symmetry.why:  # a uniform gain passes there
        return symmetry.why
    return None


def stream_has_a_free_scale(checkpoint: Checkpoint) -> str | None:
    if checkpoint.architecture.post_norm:
        return "the residual stream itself is normalised, so that its scale is given"
    scaled_embedding = not {"embedding_ln", "project_in"} & set(checkpoint.architecture.outside)
    if scaled_embedding and is_tied(checkpoint) and checkpoint.architecture.bare_norms:
        return "the head is the embedding, and no gain could take its factor off"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSymmetry:
    """Which changes of basis of the residual stream leave a model's function alone, and why no others."""

    group: str  # "rotations" | "rotations that fix 1" | "signed permutations" | "permutations"
    why: str  # one sentence

    @property
    def channels_are_privileged(self) -> bool:
        """Whether a stored channel means something, up to its place and sign."""
        return "permutations" in self.group


def stream_symmetry(checkpoint: Checkpoint) -> StreamSymmetry:
    """The symmetry of a generic checkpoint of this architecture; uniform gains, where a model has them, free more.

    Where a norm with a gain stands behind a branch, or in the stream, no matrix can take its gain up, and the channels
    of its gain are those of the stream. A gain in front of a branch is folded into what reads it; the final one is only
    if the head is its own.
    """
    architecture = checkpoint.architecture
    free, bound = "rotations", "signed permutations"
    if architecture.layer_norm:  # which takes off the mean over channels
        free, bound = "rotations that fix 1", "permutations"
    if architecture.post_norm:
        return StreamSymmetry(group=bound, why="the stream itself passes through norms with a gain for each channel")
    if norms_behind(checkpoint):
        return StreamSymmetry(group=bound, why="norms behind the branches give each channel a gain of its own")
    if "embedding_ln" in architecture.outside:
        return StreamSymmetry(group=bound, why="a norm behind the embedding gives each channel a gain of its own")
    if is_tied(checkpoint) and not architecture.bare_norms:
        return StreamSymmetry(group=bound, why="a head that is the embedding cannot take up the final gain")
    return StreamSymmetry(group=free, why="every norm's gain can be folded into the matrices that read it")
