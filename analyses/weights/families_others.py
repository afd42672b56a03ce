"""Types that have nothing a head could be measured from, or whose layers add something else than their branches."""

from analyses.weights.schema import Architecture

_RECURRENT = "it has no attention: its layers are state spaces or recurrences, and no head has a W_q and a W_k"


def _refused(name: str, model_types: tuple[str, ...], why: str) -> Architecture:
    return Architecture(name=name, model_types=model_types, refused=why, by_name=False)


_STREAMS = "its layers keep several streams that mix with one another, and not one that each layer adds to"
RECORDS = (
    _refused("DeepSeek V4", ("deepseek_v4", "hy_v4"), _STREAMS),
    _refused("Gemma 3n", ("gemma3n_text", "gemma3n"), _STREAMS),
    _refused(
        "Inkling",
        ("inkling_text", "inkling2_text"),
        "its keys and values pass a convolution over positions, so that no W_k gives a key of one token",
    ),
    _refused(
        "ZAYA",
        ("zaya",),
        "its queries and keys pass a convolution over positions, so that no W_k gives a key of one token",
    ),
    _refused("BigBird", ("big_bird",), "its attention is sparse in blocks that are drawn at random"),
    _refused("A.X K2", ("axk2",), "its norms have gains that depend on the token, and queries are gated by pairs"),
    _refused(
        "Bailing",
        ("bailing_hybrid",),
        "its layers of attention share names with layers of linear attention, which are not told apart here yet",
    ),
    _refused("HRM", ("hrm_text",), "two stacks of layers are run in turn, several times each"),
    _refused("JetMoE", ("jetmoe",), "its heads are chosen token by token, so that a layer has no W_q of its own"),
    _refused("LongCat", ("longcat_flash",), "each layer has two attentions and two feed-forwards"),
    _refused("DiffLlama", ("diffllama",), "a head's probabilities are the difference of two softmaxes"),
    _refused("CPM-Ant", ("cpmant",), "it reads prompts of its own in front of every text"),
    _refused("ProphetNet", ("prophetnet",), "it predicts several streams of tokens at once"),
    _refused("XLM", ("xlm",), "its layers are not modules, so that nothing shows what enters one"),
    _refused("XLNet", ("xlnet",), "it reads positions in two streams, relative to one another"),
    _refused("X-MOD", ("xmod",), "its layers pass adapters, one a language, and a text does not say which"),
    _refused(
        "Zamba",
        ("zamba", "zamba2"),
        "its attention reads the stream and the embedding side by side, in one layer of weights for many depths, and "
        "what it writes goes into a state space and not into the stream",
    ),
    _refused("Mamba", ("mamba", "mamba2", "falcon_mamba"), _RECURRENT),
    _refused("RWKV", ("rwkv", "xlstm"), _RECURRENT),
)
