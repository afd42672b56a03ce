"""Train the reference model: a small Qwen3 that really is a language model.

The harness needs one trained model that ships with it: deep and many-headed enough that every
claim reaches its minimum n (24 layers, 8 heads), small enough to commit (3.7 M parameters in
bfloat16), and free of any downloaded data. The text is the source of the Python standard library
of the interpreter that runs this file; one file in twenty is held out.

    python -m checks.reference.train --out build/reference-model

Training again gives the same recipe's model, not the same bytes: the text changes with the
Python version and float32 sums change with the number of threads. The card says what was used.
"""

import argparse
import hashlib
import json
import math
import platform
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 1024  # byte-level BPE pieces, the end-of-text mark included
CONTEXT = 256  # tokens per training window
BATCH = 8  # windows per step
STEPS = 4800  # 9.8 M tokens, about two and a half passes over the text
PEAK_LR = 3e-3
WARMUP = 200  # steps of linear warm-up; linear decay to zero after
WEIGHT_DECAY = 0.1  # matrices only: a decayed norm gain would write the optimiser into the records
HELD_OUT = 20  # every 20th file, in sorted order
END = "<|endoftext|>"


def standard_library() -> list[tuple[str, str]]:
    """(relative name, text) of the standard library's modules: no tests, no tables of code points."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"site-packages", "test", "tests", "idle_test", "encodings", "__pycache__"}
    files = []
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if skipped.isdisjoint(name.parts):
            try:
                files.append((name.as_posix(), path.read_text(encoding="utf-8")))
            except UnicodeDecodeError:
                continue  # a few modules are kept in Latin-1 on purpose
    return files


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """One stream of token ids, int64, shape (token,), each file closed by the end-of-text mark."""
    end = tokenizer.convert_tokens_to_ids(END)
    ids: list[int] = []
    for text in texts:
        ids += tokenizer(text, verbose=False)["input_ids"] + [end]
    return torch.tensor(ids)


def build_model(end: int) -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            num_hidden_layers=24,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=16,
            intermediate_size=256,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            initializer_range=0.04,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


@torch.no_grad()
def held_out_loss(model: Qwen3ForCausalLM, stream: torch.Tensor) -> float:
    """Mean next-token loss in nats over the whole held-out stream, in windows of CONTEXT tokens."""
    model.eval()
    windows = stream[: len(stream) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    losses = [model(input_ids=w, labels=w).loss.item() * len(w) for w in windows.split(32)]
    model.train()
    return sum(losses) / len(windows)


def learning_rate(step: int) -> float:
    return PEAK_LR * min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))


def train(out: Path, *, seed: int, keep: int) -> None:
    torch.manual_seed(seed)
    files = standard_library()
    training = [text for i, (_, text) in enumerate(files) if i % HELD_OUT]
    held_out = [text for i, (_, text) in enumerate(files) if i % HELD_OUT == 0]
    tokenizer = train_tokenizer(training)
    stream, test_stream = encode(tokenizer, training), encode(tokenizer, held_out)
    model = build_model(tokenizer.convert_tokens_to_ids(END))
    print(f"{len(stream):,} tokens to train on, {len(test_stream):,} held out", flush=True)

    matrices = [p for p in model.parameters() if p.ndim == 2]
    gains = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": gains, "weight_decay": 0.0}],
        lr=PEAK_LR,
        betas=(0.9, 0.95),
    )
    start = time.monotonic()
    for step in range(STEPS):
        if keep and step % keep == 0:
            save(model, tokenizer, out / "steps" / f"step{step}")
        offsets = torch.randint(len(stream) - CONTEXT, (BATCH,))
        batch = torch.stack([stream[o : o + CONTEXT] for o in offsets])  # (window, token)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step)
        optimiser.step()
        optimiser.zero_grad()
        if step % 50 == 0:
            print(f"step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - start:6.0f} s", flush=True)
        if step % 1000 == 999:
            print(f"step {step:5d}  held-out loss {held_out_loss(model, test_stream[:65536]):.3f}", flush=True)
    seconds = time.monotonic() - start

    model = model.to(torch.bfloat16)
    save(model, tokenizer, out)
    stored = Qwen3ForCausalLM.from_pretrained(out, dtype=torch.float32)
    loss = held_out_loss(stored, test_stream)
    text_bytes = sum(len(text.encode()) for text in held_out)
    facts = {
        "held_out_loss_nats_per_token": round(loss, 4),
        "held_out_bits_per_byte": round(loss * len(test_stream) / text_bytes / math.log(2), 4),
        "chance_loss_nats_per_token": round(math.log(VOCABULARY), 4),
        "parameters": sum(p.numel() for p in stored.parameters()),
        "training_tokens_seen": STEPS * BATCH * CONTEXT,
        "training_tokens_distinct": len(stream),
        "held_out_tokens": len(test_stream),
        "files": len(files),
        "text_sha256": hashlib.sha256("".join(name + text for name, text in files).encode()).hexdigest(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "seed": seed,
        "seconds": round(seconds),
    }
    (out / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    (out / "README.md").write_text(card(facts))
    print(json.dumps(facts, indent=2))


def card(facts: dict[str, Any]) -> str:
    """The model card, from what training measured."""
    return f"""# The reference model

A Qwen3-architecture causal language model for testing Fathom, trained by this project from random weights: 24 layers,
hidden 128, 8 heads over 4 key/value heads of dimension 16, feed-forward 256, tied embeddings,
{facts["parameters"]:,} parameters in bfloat16, byte-level BPE of {VOCABULARY:,} tokens.

| | |
| --- | --- |
| held-out loss | {facts["held_out_loss_nats_per_token"]:.3f} nats per token \
(chance: ln {VOCABULARY:,} = {facts["chance_loss_nats_per_token"]:.2f}) |
| held-out bits per byte | {facts["held_out_bits_per_byte"]:.3f} |
| text | sources of the Python {facts["python"]} standard library, \
{facts["files"]:,} modules without tests and codec tables |
| held out | every {HELD_OUT}th module, {facts["held_out_tokens"]:,} tokens |
| training | {facts["training_tokens_seen"]:,} tokens in {STEPS:,} steps, \
{facts["training_tokens_distinct"]:,} of them distinct; seed {facts["seed"]} |
| optimiser | AdamW, peak learning rate {PEAK_LR:g}, linear decay to zero, weight decay {WEIGHT_DECAY:g} on matrices |
| sha256 of the text | `{facts["text_sha256"]}` |
| torch | {facts["torch"]} |

It completes Python source and little else. It exists because a harness needs one really trained model that is deep and
many-headed enough for every claim's minimum sample, and small enough to ship. What holds on it says nothing of models
a thousand times its size.

It is measured on `python-text/`: 24 functions of this project, one of a module, in the order of their hashes, in ASCII
and of 90 to 130 tokens each. The prose that other models are read on is not in its language: it predicts that at a loss
above half of ln 1,024, and such a text decides no claim.

`make reference-model` trains another by the same recipe. The bytes will differ: the text follows the Python version,
and sums in float32 follow the number of threads.

The standard library's sources are under the Python Software Foundation's licence; the weights are under this project's.
"""


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=int, default=0, metavar="STEPS", help="also keep a checkpoint every STEPS")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(arguments.out, seed=arguments.seed, keep=arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
