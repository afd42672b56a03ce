"""The heads of a large model in pieces: put together, they are one run over all layers, to the last bit."""

import pytest
from safetensors.torch import load, save

from analyses import head_grams
from analyses.head_grams import shards
from analyses.head_grams.shards import factor_work, from_tensors, measure_shard, to_tensors
from analyses.head_grams.shards import head_shards as pieces_of
from analyses.records import plain
from analyses.weights.checkpoint import open_checkpoint
from analyses.weights.shape import Shape
from tests.tiny import tiny_checkpoint

LAYERS = 5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(str(tiny_checkpoint(tmp_path_factory.mktemp("m") / "m", layers=LAYERS, tokenizer=False)))


@pytest.fixture
def large(monkeypatch):
    """As if no model were small enough to match all its layers."""
    monkeypatch.setattr(shards, "MATCH_WORK", 0)


def result(checkpoint, **options) -> tuple[dict, bytes]:
    record, arrays = head_grams.measure(checkpoint, seed=3, device="cpu", **options)
    return plain(record), save(arrays)


def test_a_model_whose_layers_are_all_matched_is_one_piece(checkpoint, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_WORK", 1)
    assert pieces_of(checkpoint.shape) == [range(LAYERS)]


def test_pieces_cover_every_layer_once_in_order_and_hold_no_more_work_than_they_may(checkpoint, large, monkeypatch):
    each = [factor_work(checkpoint.shape, layer) for layer in range(LAYERS)]
    assert pieces_of(checkpoint.shape) == [range(LAYERS)]
    for limit in (1, max(each), 2 * max(each), sum(each) / 2):
        monkeypatch.setattr(shards, "SHARD_WORK", limit)
        pieces = pieces_of(checkpoint.shape)
        assert [layer for piece in pieces for layer in piece] == list(range(LAYERS))
        assert all(len(piece) == 1 or sum(each[layer] for layer in piece) <= limit for piece in pieces)
    monkeypatch.setattr(shards, "SHARD_WORK", 1)
    assert len(pieces_of(checkpoint.shape)) == LAYERS


def test_a_model_of_405_billion_parameters_is_some_tens_of_pieces_of_like_work():
    shape = Shape(layers=126, hidden=16384, heads=128, kv_heads=8, head_dim=128, feed_forward=53248)
    works = [sum(factor_work(shape, layer) for layer in piece) for piece in pieces_of(shape)]
    assert 15 < len(works) < 50 and max(works) <= shards.SHARD_WORK
    assert min(works[:-1]) > shards.SHARD_WORK / 2  # the last is what is left


@pytest.mark.parametrize("layers", [1, 2])
def test_the_record_does_not_depend_on_the_pieces(checkpoint, large, layers, monkeypatch):
    whole = result(checkpoint)
    monkeypatch.setattr(shards, "SHARD_WORK", layers * factor_work(checkpoint.shape, 0))
    assert len(pieces_of(checkpoint.shape)) > 1
    assert result(checkpoint) == whole


def test_pieces_measured_elsewhere_and_brought_back_as_bytes_give_the_record(checkpoint, large, monkeypatch):
    whole = result(checkpoint)
    monkeypatch.setattr(shards, "SHARD_WORK", 1)
    read, shape = head_grams.reader(checkpoint, device="cpu"), checkpoint.shape
    kept = {piece: save(to_tensors(measure_shard(read, piece, shape, seed=3))) for piece in reversed(pieces_of(shape))}
    again = "a piece was measured again"
    monkeypatch.setattr(head_grams.stored_heads, "measure_shard", lambda *a, **k: pytest.fail(again))
    assert result(checkpoint, shard_of=lambda piece: from_tensors(load(kept[piece]), piece, shape)) == whole


def test_a_piece_that_is_not_there_is_measured(checkpoint, large, monkeypatch):
    whole = result(checkpoint)
    monkeypatch.setattr(shards, "SHARD_WORK", 1)
    assert result(checkpoint, shard_of=lambda piece: None) == whole
