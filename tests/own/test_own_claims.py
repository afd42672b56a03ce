"""Claims of one's own: stated first, checked before anything is measured, judged like the built-in ones."""

import shutil

import numpy as np
import pytest

from analyses.errors import InputError
from analyses.records import read_json, write_json
from checks.claims import CLAIMS
from checks.cli import main
from checks.own import gates, registered
from checks.own.paths import readable
from checks.own.statement import parse, problems_of, read
from checks.verify.compare import read_side
from tests.few_draws import few_draws
from tests.tiny import tiny_checkpoint

SOUND = dict(
    id="calm", sentence="Heads are calm", path="heads.entropy", reduce="median", comparator=">=", threshold=0.1,
    reason="a pilot",
) | {"class": "presence"}  # fmt: skip


def toml(**changes) -> str:
    claim = {k: v for k, v in (SOUND | changes).items() if v is not None}
    return "[[claim]]\n" + "".join(f"{k} = {_written(v)}\n" for k, v in claim.items())


def _written(value) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_written(v)}" for k, v in value.items()) + " }"
    return f'"{value}"' if isinstance(value, str) else str(value)


def test_a_sound_claim_has_no_problem():
    assert problems_of(toml()) == []
    assert parse(toml()).claims[0].reads.invariant


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(path="heads.entropie"), "no path 'heads.entropie'; the nearest is heads.entropy"),
        (dict(path="delta_svd.metrics.functional_cosine", reduce=None), "nearest is delta_svd.metrics.functional_cos"),
        (dict(reason=None), "has no reason; a threshold needs one"),
        (dict(reason=" "), "reason must be a text"),
        (dict(threshold="much"), "threshold must be a finite number"),
        (dict(threshold=float("nan")), "threshold must be a finite number"),
        (dict(comparator="=="), "comparator is '=='"),
        (dict(reduce=None), "has no reduce, and heads.entropy goes over layer, head"),
        (dict(reduce="mean"), "reduce is 'mean'"),
        (dict(reduce="share above"), "share above needs a number, above"),
        (dict(path="delta_svd.metrics.write_alignment"), "is one number; leave out reduce"),
        (dict(path="pairs.functional_cos", reduce="spearman"), "no axis of layers"),
        (dict(id="NR1"), "is the id of a built-in claim"),
        (dict(id="a b"), "an id is letters"),
        (dict(colour="red"), "'colour' is not known"),
        (dict(minimum=8), "minimum must give numbers"),
        ({"class": "hunch"}, "class is 'hunch'"),
        ({"class": "absence"}, "an absence needs a planted twin"),
        ({"class": "schedule"}, "a schedule needs a reading along depth"),
    ],
)
def test_what_is_wrong_with_a_claim_is_one_line_that_names_it(changes, told):
    (problem,) = problems_of(toml(**changes))
    assert told in problem and "\n" not in problem


def test_two_claims_with_one_id_and_a_file_without_claims_are_told():
    assert problems_of(toml() * 2) == ["claim 'calm': stated twice"]
    assert problems_of("x = 1")[0].startswith("no claims")
    assert problems_of("[[claim")[0].startswith("not TOML")


def test_every_path_of_a_built_in_claim_can_be_read():
    paths = {c.path for g in CLAIMS for c in g.conditions if not c.test and ".metrics." in c.path}
    assert paths <= set(readable())


def reduced(values: np.ndarray, **changes) -> dict:
    """What a claim makes of (layer, head) entropies."""
    found = {"attention_stats": {"dynamic": [{"mean_attention_entropy_per_head": list(row)} for row in values]}}
    claims = parse(toml(**changes)).claims
    return gates.with_own(found, claims)["attention_stats"][gates.PART]


def test_reducers_are_what_their_names_say():
    values = np.arange(48.0).reshape(12, 4)
    for name, truth in (("median", 23.5), ("min", 0.0), ("max", 47.0)):
        assert reduced(values, reduce=name)["calm"]["value"] == truth
    share = reduced(values, reduce="share above", above=11.0)["calm"]
    assert share["value"] == 36 / 48 and 0 <= share["interval"][0] <= 0.75 <= share["interval"][1] <= 1
    rising = reduced(values, reduce="spearman", **{"class": "schedule"})
    assert rising["calm"]["value"] == 1 and rising["calm_p"]["value"] <= 0.05
    falling = reduced(values[::-1], reduce="spearman", **{"class": "schedule"})
    assert falling["calm"]["value"] == -1 and falling["calm_p"]["value"] > 0.05


def test_the_median_of_a_persistent_track_has_a_wider_interval_than_that_of_the_same_layers_in_random_order():
    rng = np.random.default_rng(0)
    track = np.cumsum(rng.standard_normal(24))[:, None].repeat(2, 1)
    wide, narrow = (np.diff(reduced(t)["calm"]["interval"])[0] for t in (track, rng.permuted(track, axis=0)))
    assert wide > narrow


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A model measured with two claims stated beforehand: one about the model, one about stored numbers."""
    root = tmp_path_factory.mktemp("own")
    model = tiny_checkpoint(root / "model", layers=4)
    file = root / "mine.toml"
    stored = toml(id="bent", path="heads.curvature", threshold=0.0)
    # Of weights alone, since a random model does not speak the language of the text; S is never below 0.
    file.write_text(toml() + stored + toml(id="even", path="heads.symmetry", reduce="min", threshold=0.0))
    options = ["--out", str(root / "out"), "--only", "attention_stats,head_grams", "--controls", "class", "--quiet"]
    with few_draws():
        assert main(["run", str(model), "--claims", str(file), *options]) == 0
    return root, model, file, options


def test_a_claim_on_an_invariant_number_is_a_row_about_the_model_and_another_one_of_the_stored(judged):
    result = read_side(judged[0] / "out" / "model").judged
    (own,) = [claim for claim in result["claims"] if claim["id"] == "calm"]
    (stored,) = [claim for claim in result["stored"] if claim["id"] == "bent.stored"]
    assert own["row"] == "model" and stored["verdict"] == "coordinate-dependent"
    entropies = read_side(judged[0] / "out" / "model").found["attention_stats"]["dynamic"]
    truth = np.median([layer["mean_attention_entropy_per_head"] for layer in entropies])
    assert own["findings"][0]["observed"] == pytest.approx(truth, rel=1e-15)
    assert "Stated before the model was measured" in own["why"]


def test_a_presence_of_ones_own_that_holds_is_held_against_twins(judged):
    (own,) = [c for c in read_side(judged[0] / "out" / "model").judged["claims"] if c["id"] == "even"]
    assert own["status"] == "pass"
    assert {run["name"] for run in own["controls"]["control"]["runs"]} == {"shuffled", "initialised"}


def test_the_manifest_holds_the_files_hash_and_the_time_it_was_first_seen(judged):
    folder, file = judged[0] / "out" / "model", read(judged[2])
    told = read_json(folder / "manifest.json")["claims"]
    assert told["sha256"] == file.sha256 and told["before_measurement"] and told["first_seen"].endswith("UTC")
    assert read_json(folder / "gates.json")["own"]["text"] == file.text


def test_claims_that_change_after_the_measurement_are_told_to(judged, tmp_path):
    root, model, _, options = judged
    out = tmp_path / "out"
    shutil.copytree(root / "out", out)
    other = tmp_path / "other.toml"
    other.write_text(toml(threshold=0.2))
    options = [str(out) if o == str(root / "out") else o for o in options]
    with few_draws():
        assert main(["run", str(model), "--claims", str(other), *options]) == 0
    result = read_side(out / "model").judged
    (own,) = [claim for claim in result["claims"] if claim["id"] == "calm"]
    assert "Stated after the model had been measured" in own["why"]
    told = read_json(out / "model" / "manifest.json")["claims"]
    assert not told["before_measurement"] and len(told["earlier"]) == 1


def test_a_registered_text_that_is_edited_is_refused(judged, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(judged[0] / "out" / "model", folder)
    content = read_json(folder / registered.NAME)
    write_json(folder / registered.NAME, content | {"text": content["text"].replace("0.1", "0.01")})
    with pytest.raises(InputError, match="changed since it was registered"):
        registered.registered(folder)
    assert main(["report", str(folder), "--quiet"]) == 2


def test_nothing_is_left_where_the_file_or_the_model_is_no_good(judged, tmp_path, capsys):
    bad = tmp_path / "bad.toml"
    bad.write_text(toml(path="heads.entropie"))
    assert main(["run", str(judged[1]), "--claims", str(bad), "--out", str(tmp_path / "a")]) == 2
    assert main(["run", str(tmp_path / "none"), "--claims", str(judged[2]), "--out", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "a").exists() and not (tmp_path / "b" / "none").exists()
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_command_lists_checks_and_registers(judged, tmp_path, capsys):
    assert main(["claims", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(path in listed for path in ("heads.entropy over layer, head [nats]", "delta_svd.metrics.functional_cos"))
    assert main(["claims", "register", str(judged[2])]) == 0
    assert read(judged[2]).sha256 in capsys.readouterr().out
    bad = tmp_path / "bad.toml"
    bad.write_text(toml(reason=None) + toml(id="two", comparator="="))
    assert main(["claims", "check", str(bad)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
