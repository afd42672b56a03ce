"""Tiny random checkpoints of the library's own model classes, with a byte-level tokenizer."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")

_ANY = dict(
    vocab_size=257,
    hidden_size=32,
    num_attention_heads=4,
    initializer_range=0.2,
    bos_token_id=None,
    eos_token_id=256,
    pad_token_id=None,
)
_WIDE = dict(_ANY, max_position_embeddings=2048, intermediate_size=48)
_GROUPED = dict(_WIDE, num_key_value_heads=2)
_WITH_HEAD_DIM = dict(_GROUPED, head_dim=8)
_WINDOWED = dict(_WITH_HEAD_DIM, query_pre_attn_scalar=8, sliding_window=16)
_GPT = dict(_ANY, n_positions=2048)
_FALCON = dict(_ANY, max_position_embeddings=2048, tie_word_embeddings=False)

TINY: dict[str, tuple[str, dict]] = {
    **{name: (name, _WITH_HEAD_DIM) for name in MODEL_TYPES},
    "qwen3_moe": (
        "qwen3_moe",
        dict(_WITH_HEAD_DIM, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True),
    ),
    "mixtral": ("mixtral", dict(_GROUPED, num_local_experts=4, num_experts_per_tok=2)),
    "gemma": ("gemma", _WITH_HEAD_DIM),
    "gemma2": ("gemma2", dict(_WINDOWED, attn_logit_softcapping=5.0)),
    "gemma3": ("gemma3_text", dict(_WINDOWED, sliding_window_pattern=2)),
    "phi3": ("phi3", _GROUPED),
    "olmo": ("olmo", _GROUPED),
    "olmo2": ("olmo2", _GROUPED),
    "smollm3": ("smollm3", dict(_GROUPED, no_rope_layer_interval=2)),
    "granite": (
        "granite",
        dict(_GROUPED, residual_multiplier=0.5, attention_multiplier=0.3, embedding_multiplier=2.0, logits_scaling=2.0),
    ),
    "stablelm": ("stablelm", dict(_GROUPED, qk_layernorm=True, use_qkv_bias=True)),
    "stablelm, parallel": ("stablelm", dict(_GROUPED, use_parallel_residual=True)),
    "phi": ("phi", _GROUPED),
    "phi, q/k norms": ("phi", dict(_GROUPED, qk_layernorm=True)),
    "gpt2": ("gpt2", _GPT),
    "gptj": ("gptj", dict(_GPT, rotary_dim=4)),
    "gpt_neox": ("gpt_neox", dict(_WIDE, rotary_pct=0.5)),
    "gpt_neox, sequential": ("gpt_neox", dict(_WIDE, rotary_pct=0.5, use_parallel_residual=False)),
    "opt": ("opt", dict(_ANY, ffn_dim=48, word_embed_proj_dim=32, init_std=0.2)),
    "opt, post-norm": ("opt", dict(_ANY, ffn_dim=48, word_embed_proj_dim=16, init_std=0.2, do_layer_norm_before=False)),
    "bloom": ("bloom", _ANY),
    "falcon": ("falcon", _FALCON),
    "falcon, many keys": ("falcon", dict(_FALCON, multi_query=False, ffn_hidden_size=48)),
    "falcon, sequential": (
        "falcon",
        dict(_FALCON, multi_query=False, parallel_attn=False, bias=True, alibi=True, ffn_hidden_size=48),
    ),
    "falcon, new decoder": ("falcon", dict(_FALCON, new_decoder_architecture=True, num_kv_heads=2)),
    "falcon, new decoder, one norm": (
        "falcon",
        dict(_FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    ),
    "bert": ("bert", _WIDE),
    "roberta": ("roberta", dict(_WIDE, max_position_embeddings=2050, pad_token_id=0)),
}
"""Name → (model_type, config entries): every record of the architecture table, some in more than one form."""


def tiny_model(name: str, *, layers: int = 3, seed: int = 0, **overrides) -> transformers.PreTrainedModel:
    """A randomly initialised model of the library, in float32, with gains away from 1 and biases away from 0.

    Hidden size 32, 4 heads of dimension 8, two key/value heads where the architecture knows groups,
    feed-forward width 48 or 128, 257 tokens.

    Parameters
    ----------
    name : one of TINY.
    overrides : entries of the config.
    """
    model_type, sizes = TINY[name]
    config = transformers.AutoConfig.for_model(model_type, **sizes | {"num_hidden_layers": layers} | overrides)
    kind = transformers.AutoModelForMaskedLM if model_type in ("bert", "roberta") else transformers.AutoModelForCausalLM
    torch.manual_seed(seed)
    model = kind.from_config(config, dtype=torch.float32)
    offset = float(model_type.startswith("gemma"))  # the stored gain w stands for 1 + w there
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # a gain of exactly 1 or a bias of 0 would hide a missing one
                is_gain = name.endswith("weight")  # no other weight is a vector
                drawn = torch.rand(parameter.shape) + 0.5 - offset if is_gain else torch.randn(parameter.shape) / 10
                parameter.copy_(drawn)
    return model.eval()


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a byte, and an end mark: no training, no file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(alphabet)} | {"<|end|>": 256}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


def tiny_checkpoint(folder: Path, name: str = "qwen3", *, tokenizer: bool = True, **sizes) -> Path:
    """Save `tiny_model` (and its tokenizer) to a folder and return the folder."""
    tiny_model(name, **sizes).save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder
