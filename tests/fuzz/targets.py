"""What reads an input that comes from elsewhere, each with a way to make such an input odd.

A target is a function of a folder of its own and a random generator: it writes one odd input and reads it. It may
return, or raise InputError; anything else is a fault.
"""


import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from analyses import records, registry
from analyses.errors import InputError, panic, printable, received
from analyses.forward.calibration import load_calibration
from analyses.run.costs import costs
from analyses.weights.checkpoint import open_checkpoint
from checks.claims import written
from checks.claims.judge import judge, read_controls, read_records
from checks.report.comparison import render_comparison
from checks.report.index import render_index
from checks.report.page import render_model
from checks.verify import claimed
from checks.verify.compare import compare, read_side
from checks.verify.embedded import embed, links
from checks.verify.results import received as opened
from tests.fuzz import mutations

Target = Callable[[Path, random.Random], None]


def _model(model: Path, name: str, odd: Callable[[bytes, random.Random], bytes]) -> Target:
    """A checkpoint one of whose files is odd, opened and read to its last byte."""
    kept = (model / name).read_bytes()

    def read(folder: Path, draw: random.Random) -> None:
        _copied(model, folder)
        (folder / name).write_bytes(odd(kept, draw))
        checkpoint = open_checkpoint(str(folder))
        costs(checkpoint, _TEXT, dtype="float32")
        checkpoint.examine()

    return read


_TEXT = replace(load_calibration(None), texts=("a text", "and another one"))


def _copied(source: Path, folder: Path) -> None:
    if not folder.exists():
        shutil.copytree(source, folder)


def _json(kept: bytes, draw: random.Random) -> bytes:
    return mutations.text(json.loads(kept), draw)


def _header(kept: bytes, draw: random.Random) -> bytes:
    """A safetensors file of which the header alone is odd."""
    size = int.from_bytes(kept[:8], "little")
    header = mutations.text(json.loads(kept[8 : 8 + size]), draw)
    return len(header).to_bytes(8, "little") + header + kept[8 + size :]


def models(model: Path, scratch: Path) -> dict[str, Target]:
    """Targets that read a checkpoint: of one file, of shards, and of a pickle."""
    sharded, pickled = scratch / "sharded", scratch / "pickled"
    for folder in (sharded, pickled):
        shutil.copytree(model, folder)
        (folder / "model.safetensors").unlink()
    tensors = load_file(model / "model.safetensors")
    torch.save(tensors, pickled / "pytorch_model.bin")
    shutil.copy(model / "model.safetensors", sharded / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    return {
        "safetensors": _model(model, "model.safetensors", mutations.octets),
        "safetensors, header": _model(model, "model.safetensors", _header),
        "index": _model(sharded, "model.safetensors.index.json", _json),
        "config": _model(model, "config.json", _json),
        "pickle": _model(pickled, "pytorch_model.bin", mutations.octets),
        "tokenizer": _tokenizer(model),
    }


def _tokenizer(model: Path) -> Target:
    """A tokenizer that is odd, loaded and asked for the tokens of a short text."""
    from analyses.forward.tokens import sequences

    names = [name for name in ("tokenizer.json", "tokenizer_config.json") if (model / name).exists()]

    def read(folder: Path, draw: random.Random) -> None:
        _copied(model, folder)
        for name in names:
            shutil.copy(model / name, folder / name)
        name = draw.choice(names)
        (folder / name).write_bytes(_json((model / name).read_bytes(), draw))
        checkpoint = open_checkpoint(str(folder))
        try:
            sequences(checkpoint, _TEXT, False)
        except InputError:
            raise
        except BaseException as error:  # what fails in a forward pass is a line of its record, as `suite` has it
            raise InputError(printable(f"the forward pass: {panic(error)}")) from error

    return read


def results(result: Path) -> dict[str, Target]:
    """Targets that read a model's folder of records, or its page."""
    names = [f"{name}.json" for name in registry.NAMES if (result / f"{name}.json").exists()]
    trees = {path.name: json.loads(path.read_bytes()) for path in result.glob("*.json")}
    page = (result / "report.html").read_text(encoding="utf-8")
    hrefs = dict(links(page))

    def odd_record(draw: random.Random) -> tuple[str, dict[str, Any]]:
        name = draw.choice(names)
        record = mutations.tree(trees[name], draw)
        if isinstance(record, dict) and draw.random() < 0.9:
            record["checksum"] = _checksum(record)
        return name, record

    def restored(folder: Path) -> None:
        _copied(result, folder)
        for name in trees:
            (folder / name).write_bytes((result / name).read_bytes())

    def record(folder: Path, draw: random.Random) -> None:
        restored(folder)
        name, odd = odd_record(draw)
        (folder / name).write_bytes(json.dumps(odd).encode())
        if isinstance(odd, dict):
            manifest = json.loads(json.dumps(trees["manifest.json"]))
            manifest["records"][name.removesuffix(".json")] = odd.get("checksum")
            (folder / "manifest.json").write_bytes(json.dumps(manifest).encode())
        found = read_records(folder)
        with received("records"):
            records.write_json(folder / "gates.json", judge(found, read_controls(folder, found)))
            if draw.random() < 0.1:
                render_model(folder)

    def beside(folder: Path, draw: random.Random) -> None:
        restored(folder)
        name = draw.choice([name for name in written.TYPES if name in trees])
        (folder / name).write_bytes(mutations.text(trees[name], draw))
        with received("an index"):
            render_index([folder], folder.parent)
        with opened(folder) as found:
            claimed.faults(found)

    def carried(folder: Path, draw: random.Random) -> None:
        folder.mkdir(exist_ok=True)
        received_page = folder / "received.html"
        if draw.random() < 0.3:
            received_page.write_bytes(mutations.octets(page.encode(), draw))
        else:
            name = draw.choice(list(hrefs))
            data = mutations.text(trees[name], draw)
            received_page.write_text(page.replace(hrefs[name], embed(name, data)), encoding="utf-8")
        a, b = read_side(received_page), read_side(result)
        with received("two runs"):
            render_comparison(a, b, compare(a, b))
        with opened(received_page) as found:
            claimed.faults(found)

    return {"record": record, "gates, controls and manifest": beside, "page": carried}


def _checksum(record: dict[str, Any]) -> str:
    try:
        return records.checksum(record)
    except (ValueError, RecursionError, TypeError):
        return ""
