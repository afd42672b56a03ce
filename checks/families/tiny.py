"""A tiny random model of nearly every causal type of the installed library, from small sizes under all their names.

A config class takes what it knows of `SIZES` and what `FURTHER` says of its type; nested configs likewise. Gains and
biases are drawn away from what they begin with, which would hide one that is not read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, HEADS, KEYS, HEAD, WIDTH, NARROW = 32, 4, 2, 8, 48, 24
LAYERS = 5  # as few as schedules are fitted to
MANY = 8  # of models with few layers of attention
LONGEST, VOCABULARY, END = 512, 257, 256
LIMIT = 8_000_000  # parameters: beyond, a size was not found

_NAMES = (
    (
        HIDDEN,
        "hidden_size d_model n_embd n_embed dim embed_dim hidden_dim word_embed_proj_dim embedding_size emb_dim "
        "lru_width attention_hidden_size linear_in block_dim embedding_dim",
    ),
    (
        HEADS,
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
        "attention_heads num_encoder_attention_heads num_decoder_attention_heads mamba_n_heads mamba_num_heads "
        "linear_num_value_heads num_experts num_local_experts n_routed_experts moe_num_experts num_routed_experts",
    ),
    (
        KEYS,
        "num_key_value_heads num_kv_heads multi_query_group_num num_experts_per_tok moe_topk top_k moe_top_k "
        "num_experts_per_token moe_k top_k_experts linear_num_key_heads mamba_expand index_n_heads altup_num_inputs",
    ),
    (
        HEAD,
        "head_dim attention_head_dim d_kv kv_channels head_size v_head_dim qk_nope_head_dim global_head_dim "
        "swa_head_dim swa_v_head_dim query_pre_attn_scalar linear_key_head_dim linear_value_head_dim mamba_d_state "
        "state_size ssm_state_size index_head_dim hidden_size_per_layer_input",
    ),
    (
        WIDTH,
        "intermediate_size ffn_dim ffn_hidden_size n_inner d_ff d_inner dff encoder_ffn_dim decoder_ffn_dim "
        "intermediate_size_mlp dense_intermediate_size block_ff_dim prefix_dense_intermediate_size dim_ff",
    ),
    (
        NARROW,
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
        "moe_shared_expert_intermediate_size expert_intermediate_size",
    ),
    (4, "qk_rope_head_dim rotary_dim mamba_dt_rank time_step_rank laurel_rank"),
    (
        16,
        "q_lora_rank kv_lora_rank mamba_d_head mamba_head_dim sliding_window window_size local_attention "
        "attention_window index_topk attention_window_size",
    ),
    (32, "attention_chunk_size chunk_size projection_dim"),
    (64, "mamba_d_ssm"),
    (
        1,
        "n_shared_experts num_shared_experts moe_num_shared_experts first_k_dense_replace num_dense_layers n_group "
        "topk_group mamba_n_groups n_groups n_mamba_heads",
    ),
    (28, "image_size"),
    (14, "patch_size"),
    (12, "qk_head_dim"),
    (
        LONGEST,
        "max_position_embeddings n_positions seq_length n_ctx max_seq_len max_target_positions "
        "max_sequence_length original_max_position_embeddings",
    ),
    (VOCABULARY, "vocab_size vocab_size_per_layer_input"),
)
_LAYER_KEYS = "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers " + (
    "num_decoder_layers"
)
SIZES: dict[str, Any] = {name: size for size, names in _NAMES for name in names.split()} | {
    "num_kv_shared_layers": 0,
    "zero_expert_num": 0,
    "use_mamba_kernels": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": END,
    "initializer_range": 0.2,
    "init_std": 0.2,
}

_LATENT = {"num_key_value_heads": HEADS, "head_dim": 4}
_FOURTH = ["linear_attention"] * 3 + ["full_attention"]
_WINDOWS = ["sliding_attention", "full_attention"]


def _alternating(*kinds: str, layers: int = MANY) -> list[str]:
    return [kinds[layer % len(kinds)] for layer in range(layers)]


_DELTA = {"num_hidden_layers": MANY, "layer_types": _alternating(*_FOURTH)}
_CONVOLUTIONS = {"num_hidden_layers": MANY, "layer_types": _alternating("conv", "conv", "full_attention")}
_WINDOWED = {"layer_types": _alternating(*_WINDOWS, layers=LAYERS)}
FURTHER: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "minicpm3", "youtu", "axk1"),
        _LATENT,
    ),
    **dict.fromkeys(("axk2", "longcat_flash", "hy_v4", "dots3_note_text"), _LATENT),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "olmo_hybrid"), _DELTA),
    **dict.fromkeys(("cohere2", "cohere2_moe", "exaone4", "afmoe", "flint", "gemma3_text"), _WINDOWED),
    **dict.fromkeys(("lfm2", "lfm2_moe"), _CONVOLUTIONS),
    "kimi_linear": _LATENT
    | {"num_hidden_layers": MANY, "layer_types": _alternating("linear_attention", "full_attention")}
    | {"mlp_layer_types": ["dense"] + ["sparse"] * (MANY - 1), "linear_num_heads": HEADS, "linear_head_dim": HEAD},
    "lfm3": {"num_hidden_layers": MANY, "layer_types": _alternating("conv", "conv", "full_attention")},
    "bamba": {"num_hidden_layers": MANY, "attn_layer_indices": [1, 3, 4, 7]},
    "granitemoehybrid": {
        "num_hidden_layers": MANY,
        "layer_types": _alternating("linear_attention", "full_attention"),
    },
    "jamba": {"num_hidden_layers": MANY, "attn_layer_period": 2, "attn_layer_offset": 1},
    "minimax": {"num_hidden_layers": MANY},
    "recurrent_gemma": {"num_hidden_layers": MANY},
    "nemotron_h": {
        "num_hidden_layers": MANY,
        "layers_block_type": _alternating("linear_attention", "mlp", "full_attention", "mlp"),
    },
    "falcon_h1": {"attention_out_multiplier": 0.5, "ssm_out_multiplier": 0.7},
    "cwm": {"bos_token_id": 1},
    "emu3": {"bos_token_id": 1},
    "modernbert-decoder": {"bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 2], [["global"], 1]], "num_layers": LAYERS},
    "gemma4_text": {"hidden_size_per_layer_input": 0} | _WINDOWED,
    "gemma4_unified_text": {"hidden_size_per_layer_input": 0} | _WINDOWED,
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
    "granite": {"residual_multiplier": 0.5},
    "hyperclovax": {"residual_multiplier": 0.5, "use_post_norm": True},
    "roformer": {"rotary_value": False},
    "llama4_text": {"num_hidden_layers": LAYERS, "moe_layers": [1, 3], "use_qk_norm": True},
    "mimo_v2_flash": {"layer_types": _alternating(*_WINDOWS, layers=MANY), "num_hidden_layers": MANY},
}
"""Type → what it needs besides small sizes."""

_DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_buckets": 8,
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
}
_GATED = {"feed_forward_proj": "gated-gelu"}
OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "distilbert": ("distilbert", "", {"hidden_dim": WIDTH}),
    "albert": ("albert", "", {"num_hidden_groups": 2}),
    "deberta-v2": ("deberta-v2", "", _DISENTANGLED | {"share_att_key": True}),
    "deberta-v2, keys of their own": ("deberta-v2", "", _DISENTANGLED),
    "modernbert": ("modernbert", "", {"bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2}),
    **{
        f"{name}, {stack}": (name, stack, {})
        for name in (
            "t5", "mt5", "umt5", "bart", "blenderbot-small", "marian", "mvp", "plbart", "mbart", "blenderbot",
            "pegasus", "m2m_100", "whisper",
        )
        for stack in ("encoder", "decoder")
    },
    "t5, gated, encoder": ("t5", "encoder", _GATED),
    "t5, gated, decoder": ("t5", "decoder", _GATED),
    **{f"{name}, {stack}": (name, stack, {}) for name in ("clip", "siglip") for stack in ("text", "vision")},
    "clip_text_model": ("clip_text_model", "text", {}),
    "vit": ("vit", "vision", {}),
    "deit": ("deit", "vision", {}),
}  # fmt: skip
"""Models that are no causal ones: name → (type, stack of two or "", what it needs besides small sizes)."""


def causal_types() -> list[str]:
    """`model_type` of every causal class of the installed library, in order."""
    return sorted(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny(
    model_type: str, *, seed: int = 0, layers: int = LAYERS, base: bool = False, **entries: Any
) -> transformers.PreTrainedModel:
    """A tiny model of a causal type, or the base model of any type, float32, in evaluation mode.

    Raises whatever its classes raise at sizes that do not fit them.
    """
    kind = transformers.CONFIG_MAPPING[model_type]
    depth = dict.fromkeys(_LAYER_KEYS.split(), layers)
    config = kind(**_known(kind, SIZES | depth) | FURTHER.get(model_type, {}) | entries)
    mapping = transformers.MODEL_MAPPING if base else transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    found = mapping[type(config)]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in found(config).parameters())
    if parameters > LIMIT:
        raise ValueError(f"{model_type}: {parameters} parameters, so that some size is not known here")
    torch.manual_seed(seed)
    model = found(config).float().eval()
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.4 * (torch.rand(parameter.shape, generator=drawn) - 0.5))
    return model


def _known(kind: type, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that a config class knows, and for its nested configs theirs."""
    default = kind()
    known = set(default.to_dict()) | set(kind.attribute_map or {})
    found = {name: size for name, size in sizes.items() if name in known}
    for name in kind.sub_configs or {}:
        nested = getattr(default, name, None)
        if isinstance(nested, transformers.PretrainedConfig):
            found[name] = _known(type(nested), sizes) | {"model_type": nested.model_type}
    return found


def save_other(name: str, folder: Path) -> Path:
    """One of OTHERS with a byte-level tokenizer, in a folder."""
    model_type, _, entries = OTHERS[name]
    return save(model_type, folder, base=True, **entries)


def save(model_type: str, folder: Path, **options: Any) -> Path:
    """`tiny` with a byte-level tokenizer, in a folder."""
    tiny(model_type, **options).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(alphabet)} | {"<|end|>": END}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>").save_pretrained(folder)
    return folder
