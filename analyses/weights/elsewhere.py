"""What a folder or a repository holds where no weights can be read, with the step that helps.

Names alone are looked at, those of one level of subfolders too; of an adapter also which model it is for.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path

from analyses.errors import InputError

NAMES = 10_000  # of files looked at: a folder of training steps may hold any number
START = 512  # bytes of a file that show what it is
MOST_NAMED = 3  # folders that a line names

_MODEL = r"(?:model|pytorch_model)"
KINDS = (
    (r"adapter_(?:config\.json|model\..+)", "an adapter ({name}{base}), which changes another model: merge it into "
     "that one (merge_and_unload() of peft, then save_pretrained) and give the result"),
    (rf"{_MODEL}-\d+-of-\d+\.(?:safetensors|bin)", "shards without their index ({name}): download the index as well, "
     "model.safetensors.index.json or pytorch_model.bin.index.json"),
    (rf"{_MODEL}\.(?!index)[\w-]+\.(?:safetensors|bin)", "weights saved as a variant ({name}): rename them to what "
     "the library looks for, such as model.safetensors, or load them with variant= and save them again"),
    (r".+\.gguf", "weights for llama.cpp ({name}): give the checkpoint that they were converted from"),
    (r"consolidated.*\.(?:safetensors|pth|pt|bin)", "weights in their makers' own layout ({name}): give the version "
     "for transformers, or convert them with the library's script for this family (convert_…_weights_to_hf.py)"),
    (r"(?:.+/)?.+\.distcp", "a distributed checkpoint ({name}): join it by python -m "
     "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER pytorch_model.bin, or accelerate merge-weights"),
    (r"(?:.+/)?(?:.*model_states\.pt|.*optim_states\.pt|zero_to_fp32\.py)", "a sharded checkpoint of DeepSpeed "
     "({name}): run its zero_to_fp32.py, which writes the weights in one piece"),
    (r"(?:.+/)?(?:model_optim_rng\.pt|latest_checkpointed_iteration\.txt)", "a checkpoint of Megatron ({name}): "
     "convert it to Hugging Face's layout with Megatron's own converter"),
    (r".+\.nemo", "a model of NeMo ({name}): export it to Hugging Face's layout"),
    (r"tf_model.*\.h5|.*\.ckpt\.(?:index|meta|data.*)|saved_model\.pb|.+\.keras|.+\.tflite", "weights for TensorFlow "
     "({name}): give a version for PyTorch"),
    (r"flax_model.*\.msgpack", "weights for Flax ({name}): give a version for PyTorch"),
    (r"(?:.+/)?.+\.(?:onnx|engine|mlpackage|ot|npz)|openvino_model\..+", "a model exported for another program "
     "({name}): give the checkpoint that it was made from"),
    (r"model_index\.json", "a pipeline of several models ({name}): give the folder of one of them"),
    (r"(?:snapshots|blobs|refs)/.+", "the hub's cache ({name}): give the hub id, or a folder below snapshots"),
    (r"[^/]+\.ckpt", "a training checkpoint ({name}): save its tensors (state_dict), by the model's own names, as "
     "model.safetensors"),
    (r".+\.(?:incomplete|part|partial|crdownload|aria2|download)", "a download that broke off ({name}): "
     "download it again"),
    (r"[^/]+\.safetensors", "tensors in {name}: if these are the whole model, rename it to model.safetensors"),
    (r"(?!optimizer|scheduler|training_args|rng_state|scaler)[^/]+\.(?:pth|pt|bin)", "a file of torch.save ({name}): "
     "if it holds the model's tensors by name, rename it to pytorch_model.bin"),
)  # fmt: skip
"""(the name's pattern, what it shows and what helps), the more telling first; `{base}`: the model of an adapter."""

BELOW = re.compile(rf"([^/]+)/(?:{_MODEL}\.(?:safetensors|bin)(?:\.index\.json)?|adapter_config\.json)")
LEFT = re.compile(r"optimizer\.(?:pt|bin)|scheduler\.pt|training_args\.bin|rng_state.*\.pth")

MASKS = (
    (b"version https://git-lfs", "is a pointer of git-lfs, not the file: run `git lfs pull` where it was cloned"),
    (b"# xet version", "is a pointer of git-xet, not the file: run `git xet checkout` where it was cloned"),
    (b"<!doctype html", "is a web page, not the file: download it again"),
    (b"<html", "is a web page, not the file: download it again"),
)
"""First bytes of what stands in a file's place, in small letters → what it is."""


def instead(folder: Path) -> str:
    """"; it holds …" with the step that helps, or "" for a folder that shows nothing of the kind."""
    try:
        names = [path.name for path, _ in zip(folder.iterdir(), range(NAMES), strict=False)]
        deeper = (path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
        names += [name for name, _ in zip(deeper, range(NAMES), strict=False)]
    except OSError:
        return ""
    return shown(names, base=_base(folder / "adapter_config.json"))


def shown(names: Collection[str], *, base: str = "") -> str:
    """`instead` from names of files, with / behind a folder's; `base` is the model that an adapter is for."""
    if here := _kind([name for name in names if "/" not in name], base):
        return here
    if folders := sorted({match[1] for name in names if (match := BELOW.fullmatch(name))}):
        few = ", ".join(folders[:MOST_NAMED]) + (", …" if len(folders) > MOST_NAMED else "")
        return f"; its folders do ({few}): give one of these"
    if below := _kind(names, base):
        return below
    if left := sorted(name for name in names if LEFT.fullmatch(name)):
        return f"; it holds what a trainer keeps beside the weights ({left[0]}), and not the weights"
    return ""


def _kind(names: Collection[str], base: str) -> str:
    for pattern, sentence in KINDS:
        if found := sorted(name for name in names if re.fullmatch(pattern, name)):
            return "; it holds " + sentence.format(name=found[0], base=f", for {base}" if base else "")
    return ""


def require_itself(path: Path) -> None:
    """Raise InputError where a file is there by name only: a pointer, a web page, or nothing."""
    try:
        with open(path, "rb") as file:
            start = file.read(START)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise InputError(f"{path}: is empty; download it again")
    for mask, what in MASKS:
        if start.lower().startswith(mask):
            raise InputError(f"{path}: {what}")


def _base(config: Path) -> str:
    """The model that an adapter says it is for."""
    try:
        found = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return found if isinstance(found, str) else ""
