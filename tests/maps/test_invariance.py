"""Each cell of a record's table is proved by applying its map: what stays stays, and what moves is seen to move."""

import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analyses import registry
from analyses.forward.calibration import load_calibration
from analyses.forward.inputs import Settings
from analyses.head_geometry.table import tabulate
from analyses.numerics.intervals import left_out
from analyses.run import suite
from analyses.weights.checkpoint import Checkpoint, open_checkpoint
from checks.claims import CLAIMS
from checks.maps import invariance, names
from checks.maps.catalogue import MAPS
from checks.maps.exact import EXACT
from checks.sections import section
from checks.twins.roles import Role
from checks.twins.twins import Twin, TwinCheckpoint, save
from tests.few_draws import few_draws
from tests.tiny import tiny_checkpoint

LAYERS = 5  # what a schedule needs
SIZES = dict(layers=LAYERS, hidden_size=36, num_attention_heads=9, tie_word_embeddings=False)
GROUPED = dict(SIZES, num_key_value_heads=3, head_dim=4)
"""Of three heads, or groups, two layers can take different orders; of two, both always swap."""
MODELS = {"llama": GROUPED, "qwen3": GROUPED, "gpt2": SIZES, "gpt_neox": SIZES, "gemma2": GROUPED, "mixtral": GROUPED}
MODELS["opt"] = dict(SIZES, word_embed_proj_dim=36)
ASKED = {f"{name}.metrics.*" for name in registry.NAMES if name != "schedule_fit"}
ASKED |= {f"schedule_fit.{path.removesuffix('.value')}" for path in invariance.STATISTICS["schedule_fit"]}
SETTINGS = Settings(device="cpu", dtype="float64", claimed=frozenset(ASKED))
"""Of schedule_fit only what the table has: its other fits are most of what it costs."""
TEXT = dataclasses.replace(load_calibration(), texts=load_calibration().texts[:2])
SEEDS = (1, 2, 3)  # further draws for a cell that says "moves" where the map's first ones leave it alone
PLANT = 13  # seed of what is planted: one where a descriptor that knows a scale predicts best
DRAWS = 1  # of each map and model type for the cells that say "stays"; one costs eight analyses

BY_WEIGHTS = 1e-9  # relative; float64 sums and products of up to a thousand terms, through one SVD
BY_FORWARD = 1e-5  # the library's norms compute in float32 whatever the model's dtype: 6e-8 a step, five layers
BY_EPS = 1e-3  # the q/k norms' eps, 1e-6, over the mean square of a query or key, 1e-2; through correlations
CLEARLY = 10  # times its bound, how far a statistic must move to have moved
FROM_FORWARD = ("attention_stats.dynamic", "attention_stats.temperature", "schedule_fit.metrics.measured")
FROM_FORWARD += ("schedule_fit.temperature.measured", "schedule_fit.metrics.write", "head_geometry", "delta_svd")
FROM_FORWARD += ("residual_stream",)

DEEPER = tuple(f"metrics.{x}" for x in ("phase_e_rank_share", "phase_difference", "phase_cos_difference", "shared_map"))
DEEPER += ("metrics.invariant_scale_r2", "metrics.norm_")
"""Statistics that five layers are too few for, phases and laws of scales: tested in test_invariance_deep."""
DEEPER += ("ranks.plane_share",)
DEEPER += ("metrics.plane_rho", "metrics.encoder_symmetry", "stored.*.*.alpha", "folded.*.*.alpha")
DEEPER += ("metrics.stored_alpha", "metrics.folded_alpha", "metrics.plateau_rho")
"""And what has no value on models so small: two planes, a decoder, spectra of 36; held on models' own numbers alone."""

LEAN = {3: 0.12, 1: 0.03}  # of keys towards queries, a layer: more than half of the heads are then of mixed sign
"""Query heads per key/value head → the share that a layer more adds."""
PLANTED = {"value permutation": "o_proj", "value mixing": "o_proj", "neuron scaling": "up_proj"}
PLANTED |= {"neuron permutation": "up_proj", "constant writes": "o_proj", "expert permutation": "up_proj"}
"""A worst family moves only if the map touches that one: map → the family made the worst, q_proj for others."""


def plant(family: str, twin: TwinCheckpoint, role: Role, value: torch.Tensor) -> torch.Tensor:
    """Give the statistics something to lose, which random weights lack.

    The family's layers share a low-rank part, so that it is the most alike and the least full-rank; gains share a
    pattern over channels, and those of the input a schedule over depth; keys lean towards queries, so that some heads'
    curvature is not of mixed sign; the q/k norms' gains match in one rotary plane, so that it can be turned.
    """
    if role.layer is None or role.bias:
        return value
    if role.is_gain:
        offset = twin.architecture.gain_offset
        shared = torch.rand(len(value), generator=twin.draw(role.part)) + 0.5
        gain = 0.8 * shared + 0.2 * (value + offset)
        if role.part == "input_ln":
            gain = gain * 1.2**-role.layer
        if role.part in ("q_norm", "k_norm"):
            gain[2] = gain[0]  # the planes of a head of dimension 4 are (0, 2) and (1, 3)
        return gain - offset
    if role.part == family:
        rows, columns = value.shape
        left = torch.randn(rows, 4, generator=twin.draw("left"))
        right = torch.randn(4, columns, generator=twin.draw("right"))
        mixing = torch.eye(4) + torch.randn(4, 4, generator=twin.draw("mixing", role.layer)) / 2
        return 0.2 * value + 0.2 * left @ mixing @ right
    if role.part == "k_proj":
        queries = plant(family, twin, Role(part="q_proj", layer=role.layer), twin.base.weight("q_proj", role.layer))
        groups = queries.float().unflatten(0, (twin.shape.kv_heads, -1, twin.shape.head_dim))
        return value + LEAN[groups.shape[1]] * role.layer * groups.mean(1).flatten(0, 1)
    return value


def measured(checkpoint: Checkpoint) -> dict[str, dict]:
    """Records with the values that the table is of: no interval, and of head_geometry's descriptors the best alone."""
    with few_draws(), left_out(), pytest.MonkeyPatch.context() as patch:
        def best(*given, best_only, **options):
            return tabulate(*given, best_only=True, **options)

        patch.setattr("analyses.head_geometry.analysis.tabulate", best)
        return suite.records_of(checkpoint, TEXT, SETTINGS, registry.NAMES)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """(model type, map's name) → (checkpoint, its records); (…, seed) → the twin's records. Each made once.

    Also the seeds that were drawn for a model type and map so far.
    """
    bases, twins, drawn = {}, {}, {}

    def base(model_type: str, name: str) -> tuple[Checkpoint, dict]:
        key = model_type, PLANTED.get(name, "q_proj")
        if key not in bases:
            folder = tmp_path_factory.mktemp(model_type)
            drawn = open_checkpoint(str(tiny_checkpoint(folder / "drawn", model_type, **MODELS[model_type])))
            change = Twin(name="planted", preserves="", destroys="", change=functools.partial(plant, key[1]))
            checkpoint = open_checkpoint(str(save(change.apply(drawn, PLANT), folder / "planted")))
            bases[key] = checkpoint, measured(checkpoint)
        return bases[key]

    def twin(model_type: str, name: str, seed: int) -> dict:
        if (model_type, name, seed) not in twins:
            (map,) = (map for map in MAPS if map.name == name)
            twins[model_type, name, seed] = measured(map.apply(base(model_type, name)[0], seed))
            drawn.setdefault((model_type, name), []).append(seed)
        return twins[model_type, name, seed]

    def seeds(model_type: str, name: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys([*drawn.get((model_type, name), []), *SEEDS]))

    return base, twin, seeds


def numbers(tree, path: str) -> Iterator[float | None]:
    """All numbers under a dotted path, in their order; * stands for every key or index."""
    head, _, rest = path.partition(".")
    if not path:
        children = tree if isinstance(tree, list) else tree.values() if isinstance(tree, dict) else None
        if children is None:
            yield tree
            return
    elif head == "*":
        children = tree if isinstance(tree, list) else tree.values()
    else:
        children = [tree[head]]
    for child in children:
        yield from numbers(child, rest)


def distance(before: dict, after: dict, path: str) -> float:
    """Largest change, relative to the largest number, of an R² to 1; infinite where a number appears or disappears."""
    a, b = ([math.nan if v is None else float(v) for v in numbers(tree, path)] for tree in (before, after))
    if len(a) != len(b) or np.any(np.isnan(a) != np.isnan(b)):
        return math.inf
    assert a and not np.all(np.isnan(a)), f"{path}: nothing there to move"
    far, size = np.nanmax(np.abs(np.subtract(a, b))), 1.0 if "_r2." in path else np.nanmax(np.abs(a))
    return float(far / size) if size else math.inf if far else 0.0


def bound(analysis: str, path: str, *, eps_limited: bool) -> float:
    if not f"{analysis}.{path}".startswith(FROM_FORWARD):
        return BY_WEIGHTS
    return BY_EPS if eps_limited else BY_FORWARD


def limits(stage, model_type: str, name: str, analysis: str, table: dict) -> dict[str, float]:
    """Statistic → the relative change that rounding may make of it under this map."""
    checkpoint, _ = stage[0](model_type, name)
    (map,) = (map for map in MAPS if map.name == name)
    eps_limited = map.tolerance(checkpoint) > EXACT
    return {path: bound(analysis, path, eps_limited=eps_limited) for path in table}


def moved_by(stage, model_type: str, name: str, seed: int, analysis: str, path: str) -> float:
    base, twin, _ = stage
    return distance(base(model_type, name)[1][analysis], twin(model_type, name, seed)[analysis], path)


def not_staying(stage, model_type: str, name: str, seed: int, analysis: str, table: dict) -> list[str]:
    """Statistics of which a table says that the map leaves them alone, and this draw of it does not."""
    limit = limits(stage, model_type, name, analysis, table)
    moved = {p: moved_by(stage, model_type, name, seed, analysis, p) for p, stays in table.items() if stays[name]}
    return [f"{analysis}.{path} moves by {far:.1e}" for path, far in moved.items() if far > limit[path]]


def not_moving(stage, model_type: str, name: str, analysis: str, table: dict) -> list[str]:
    """Statistics of which a table says that the map moves them, and no draw of it does so clearly."""
    limit = limits(stage, model_type, name, analysis, table)

    def moves(path: str) -> bool:
        draws = (moved_by(stage, model_type, name, s, analysis, path) for s in stage[2](model_type, name))
        return any(moved > CLEARLY * limit[path] for moved in draws)

    return [f"{analysis}.{path} stays" for path, stays in table.items() if not stays[name] and not moves(path)]


def tables(stage, model_type: str, name: str) -> dict[str, dict]:
    return {analysis: measurable(analysis, stage[0](model_type, name)[0]) for analysis in registry.NAMES}


def measurable(analysis: str, checkpoint: Checkpoint) -> dict[str, dict[str, bool]]:
    """The table of an analysis, of the statistics that so few layers have."""
    table = invariance.table(analysis, checkpoint)
    return {path: cells for path, cells in table.items() if not path.startswith(DEEPER)}


NOT_FOR = {  # kind of model → maps that are not defined for it
    "llama": {"query and key scaling"},
    "qwen3": set(),
    "gpt2": {"quarter turns", "plane rotation", "plane scaling", "neuron scaling"},
    "gpt_neox": {"neuron scaling"},
    "opt": {"quarter turns", "plane rotation", "plane scaling"},
    "gemma2": {"query and key scaling", "stream rotation"},
    "mixtral": {"query and key scaling"},
}
for kind in ("llama", "qwen3", "gemma2", "mixtral"):
    NOT_FOR[kind] |= {"query permutation", "query mixing", "key shift", "value shift", "constant writes"}
for kind in ("gpt2", "gpt_neox", "opt"):
    NOT_FOR[kind] |= {"query and key scaling", "head permutation"}
for kind in set(MODELS) - {"gemma2"}:
    NOT_FOR[kind] |= {"write scaling"}
for kind in set(MODELS) - {"mixtral"}:
    NOT_FOR[kind] |= {"expert permutation", "router shift"}
CASES = [(kind, map.name) for kind in ("llama", "qwen3") for map in MAPS if map.name not in NOT_FOR[kind]]
"""Every cell of both columns of the table. Other kinds share the cells; these have maps or forms of their own:"""
CASES += [("gpt2", m) for m in ("query permutation", "query mixing", "key shift", "constant writes", "gain folding")]
CASES += [("gpt_neox", m) for m in ("quarter turns", "query mixing", "gain rescaling", "stream rotation")]
CASES += [("opt", m) for m in ("neuron scaling", "stream permutation", "value shift")]
CASES += [("gemma2", m) for m in ("write scaling", "gain rescaling")]
CASES += [("mixtral", m) for m in ("expert permutation", "router shift")]
every_map = pytest.mark.parametrize(("model_type", "name"), CASES, ids=[f"{kind}, {name}" for kind, name in CASES])


@every_map
@settings(max_examples=DRAWS, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**31 - 1))
def test_a_map_however_drawn_leaves_alone_what_the_record_says(stage, model_type, name, seed):
    found = tables(stage, model_type, name).items()
    assert [cell for a, table in found for cell in not_staying(stage, model_type, name, seed, a, table)] == []


@every_map
def test_a_map_moves_what_the_record_says(stage, model_type, name):
    found = tables(stage, model_type, name).items()
    assert [cell for a, table in found for cell in not_moving(stage, model_type, name, a, table)] == []


@pytest.mark.parametrize("analysis", registry.NAMES)
def test_every_cell_that_says_the_opposite_is_found(stage, analysis):
    """The comparisons above can fail in both directions, on every cell; here on those of one map."""
    name = "gain rescaling"
    table = measurable(analysis, stage[0]("qwen3", name)[0])
    opposite = {path: {name: not stays[name]} for path, stays in table.items()}
    found = not_moving(stage, "qwen3", name, analysis, opposite)
    for seed in stage[2]("qwen3", name):  # a cell that moves may stay under one draw of the map
        found += not_staying(stage, "qwen3", name, seed, analysis, opposite)
    assert len({cell.split()[0] for cell in found}) == len(table)


def test_the_table_has_every_exact_map_and_no_other():
    assert sorted(names.MAPS) == sorted(map.name for map in MAPS)
    for found in invariance.STATISTICS.values():
        assert all(moved.by | moved.by_normalised <= set(names.MAPS) for moved in found.values())


@pytest.mark.parametrize("model_type", MODELS)
def test_the_table_has_the_maps_that_are_defined_for_this_kind_of_model(tmp_path, model_type):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, model_type, **MODELS[model_type])))
    listed = set(invariance.known_maps(checkpoint))
    assert listed == {m.name for m in MAPS} - NOT_FOR[model_type]
    assert {m.name for m in MAPS if m.undefined(checkpoint) is None} >= listed - {"plane rotation"}


def test_nothing_is_promised_for_a_model_without_known_maps(tmp_path):
    checkpoint = open_checkpoint(str(tiny_checkpoint(tmp_path, "bloom", apply_residual_connection_post_layernorm=True)))
    assert invariance.table("head_grams", checkpoint) == {}


def test_every_number_that_a_claim_reads_is_in_the_table_save_p_values_by_resampling():
    read = {condition.path for gate in CLAIMS for condition in gate.conditions if not condition.test}
    left_out = {f"head_geometry.metrics.{name}" for name in ("best_abs_r_shift_p", "within_r_p")}
    left_out.add("schedule_fit.metrics.input_gain_two_piece_p")
    listed = {f"{a}.{p.removesuffix('.value')}" for a, found in invariance.STATISTICS.items() for p in found}
    assert read - listed == left_out


def test_the_page_shows_each_cell_in_words_and_nothing_for_an_empty_table(tmp_path):
    found = invariance.table("head_grams", open_checkpoint(str(tiny_checkpoint(tmp_path, "llama"))))
    shown = section.invariance(found)
    assert [statistic for statistic, _ in shown.rows] == list(found)
    for statistic, cell in shown.rows:
        moving = [name for name in names.MAPS if found[statistic].get(name) is False]
        assert cell == (", ".join(moving) or "none of them")
    assert section.invariance({}) is None
