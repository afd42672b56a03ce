"""Adjacent layers compared in pieces: joined, they are one walk over all layers, to the last bit."""

import json

import pytest
from safetensors.torch import load_file, save_file

from analyses import null_residual
from analyses.null_residual import pairs as pairs_of_tensors
from analyses.null_residual import shards
from analyses.numerics import lanczos
from analyses.records import plain
from analyses.weights.checkpoint import open_checkpoint
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("m") / "m", layers=6, tokenizer=False)))


def stored_bytes(checkpoint) -> int:
    return sum(header.bytes for header in checkpoint.headers.values())


def test_pieces_cover_every_pair_of_layers_once_and_follow_from_the_headers(checkpoint, monkeypatch):
    assert shards.layer_shards(checkpoint) == [range(6)]
    for limit in (stored_bytes(checkpoint), stored_bytes(checkpoint) // 3, 1):
        monkeypatch.setattr(shards, "SHARD_BYTES", limit)
        pieces = shards.layer_shards(checkpoint)
        assert [(a, a + 1) for piece in pieces for a in piece[:-1]] == [(a, a + 1) for a in range(5)]
    assert len(pieces) == 5


@pytest.mark.parametrize("spectra", ["exact", "sampled", "none"])
@pytest.mark.parametrize("pairs", [1, 2])
def test_the_record_does_not_depend_on_the_pieces(checkpoint, spectra, pairs, monkeypatch):
    monkeypatch.setattr(pairs_of_tensors, "SAMPLED_SIDE", 16)  # or matrices so small would be exact
    monkeypatch.setattr(lanczos, "TARGET", 1.0)
    monkeypatch.setattr(lanczos, "SETTLED", 1.0)
    whole = null_residual.measure(checkpoint, seed=3, device="cpu", spectra=spectra)
    errors = [p.resid_eff_rank_error for x in whole.pair_results for p in x.families.values() if p.resid_eff_rank]
    assert any(error > 0 for error in errors) == (spectra == "sampled")
    monkeypatch.setattr(shards, "SHARD_BYTES", pairs * stored_bytes(checkpoint) // 6 + 1)
    assert len(shards.layer_shards(checkpoint)) == -(-5 // pairs)
    assert plain(null_residual.measure(checkpoint, seed=3, device="cpu", spectra=spectra)) == plain(whole)


def test_experts_are_joined_too(tmp_path, monkeypatch):
    mixed = open_checkpoint(str(tiny_checkpoint(tmp_path / "m", "mixtral", layers=3, tokenizer=False)))
    whole = null_residual.measure(mixed, seed=0, device="cpu")
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    assert whole.experts and plain(null_residual.measure(mixed, seed=0, device="cpu")) == plain(whole)


def test_reasons_stand_at_their_own_pair_after_joining(tmp_path, monkeypatch):
    folder = tiny_checkpoint(tmp_path / "m", layers=4, tokenizer=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.self_attn.v_proj.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    zero = open_checkpoint(str(folder))
    whole = null_residual.measure(zero, seed=0, device="cpu")
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    assert plain(null_residual.measure(zero, seed=0, device="cpu")) == plain(whole)


def test_a_piece_written_and_read_back_is_the_piece(checkpoint, monkeypatch):
    whole = null_residual.measure(checkpoint, seed=3, device="cpu")
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)

    def through_json(layers):
        piece = shards.measure_shard(checkpoint, layers, seed=3, device="cpu", spectra="exact")
        return shards.from_plain(json.loads(json.dumps(shards.to_plain(piece))))

    joined = null_residual.measure(checkpoint, seed=3, device="cpu", shard_of=through_json)
    assert plain(joined) == plain(whole)
