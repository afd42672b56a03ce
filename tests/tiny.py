"""Tiny random checkpoints of the library's own model classes, with a byte-level tokenizer."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")


def tiny_model(model_type: str, *, layers: int = 3, seed: int = 0, **overrides) -> transformers.PreTrainedModel:
    """A randomly initialised causal model with grouped heads and gains away from 1, in float32.

    Hidden size 32, 4 heads over 2 key/value heads of dimension 8, feed-forward width 48, 257 tokens.
    """
    sizes = dict(
        vocab_size=257,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=None,
    )
    config = transformers.AutoConfig.for_model(model_type, **sizes | overrides)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # gains and biases: a gain of exactly 1 would hide a missing one
                is_gain = name.endswith("norm.weight")
                parameter.copy_(torch.rand(parameter.shape) + 0.5 if is_gain else torch.randn(parameter.shape) / 10)
    return model.eval()


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a byte, and an end mark: no training, no file."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(alphabet)} | {"<|end|>": 256}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


def tiny_checkpoint(folder: Path, model_type: str = "qwen3", *, tokenizer: bool = True, **sizes) -> Path:
    """Save `tiny_model` (and its tokenizer) to a folder and return the folder."""
    tiny_model(model_type, **sizes).save_pretrained(folder)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder
