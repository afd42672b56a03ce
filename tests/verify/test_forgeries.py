"""A received result can't vouch for itself: whatever was changed in it is named, and verifying ends with 1."""

import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analyses import records
from checks import cli
from checks.report.page import render_model
from checks.verify.embedded import embed, extract, links
from checks.verify.sentences import alike
from tests.tiny import tiny_checkpoint

Change = Callable[[dict], object]


def fathom(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def honest(model, tmp_path_factory) -> Path:
    """Of weights and of a text, with directions beside the records: what a forger may change is of these kinds."""
    out = tmp_path_factory.mktemp("out")
    words = ("--only", "null_residual,head_grams,delta_svd", "--device", "cpu", "--quiet")
    assert fathom("run", model, "--out", out, *words) == 0
    return out / model.name


@pytest.fixture(scope="module")
def again(honest, tmp_path_factory) -> Path:
    """Where the new measurement lies, made once: what is up to date there is not measured again."""
    out = tmp_path_factory.mktemp("again")
    shutil.copytree(honest, out / honest.name)
    return out


@pytest.fixture
def folder(honest, tmp_path) -> Path:
    shutil.copytree(honest, tmp_path / "received")
    return tmp_path / "received"


@pytest.fixture
def verified(model, again, capsys) -> Callable[..., tuple[int, str]]:
    def run(received: Path, *more: object) -> tuple[int, str]:
        capsys.readouterr()
        code = fathom("verify", received, "--model", model, "--out", again, *more)
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out + printed.err

    return run


def edit(folder: Path, name: str, change: Change) -> None:
    tree = json.loads((folder / name).read_text())
    change(tree)
    (folder / name).write_bytes(records.as_json(tree))


def sign(folder: Path, name: str, change: Change) -> None:
    """Change a record and all that vouches for it, as whoever has Fathom can."""

    def signed(record: dict) -> None:
        change(record)
        record["checksum"] = records.checksum(record)

    edit(folder, f"{name}.json", signed)
    record = records.read_json(folder / f"{name}.json")
    edit(folder, "manifest.json", lambda m: m["records"].update({name: record["checksum"]}))


def render(folder: Path) -> None:
    """The page of whatever the folder holds now."""
    (folder / "report.html").write_text(render_model(folder), encoding="utf-8")


def page(folder: Path, name: str, change: Change) -> Path:
    """A page in which one of the files that it carries was changed, and nothing else."""
    received = folder.parent / "received.html"
    text = (folder / "report.html").read_text(encoding="utf-8")
    tree = json.loads(extract(folder / "report.html")[name])
    change(tree)
    href = dict(links(text))[name]
    received.write_text(text.replace(href, embed(name, records.as_json(tree))), encoding="utf-8")
    return received


def test_an_honest_folder_and_an_honest_page_are_the_same_and_what_is_only_believed_is_said(honest, verified):
    for received in (honest, honest / "report.html"):
        code, told = verified(received)
        assert code == 0 and "tiny: identical" in told
        assert "every word of the page" in told and "not verified      date" in told


# --- gates --------------------------------------------------------------------------------------

GATES: dict[str, Change] = {
    "an observed value": lambda g: g["claims"][0]["findings"][0].update(observed=0.5),
    "a threshold": lambda g: g["claims"][0]["findings"][0].update(threshold=0.9),
    "the text of a claim": lambda g: g["claims"][1].update(claim="Layers are one and the same"),
    "a verdict": lambda g: g["claims"][2].update(verdict="holds", verdict_reason=None),
    "a control": lambda g: g["claims"][0].update(controls={"control": {"answer": "informative", "detail": ""}}),
    "a count": lambda g: g["counts"]["claims"].update(holds=26),
    "a failing claim that is gone": lambda g: g["claims"].remove(
        next(c for c in g["claims"] if c["verdict"] == "does not hold")
    ),
    "an identity that is gone": lambda g: g["integrity"].pop(),
    "the meaning of a word": lambda g: g["verdicts"].update(holds="It was always so."),
    "a row as stored": lambda g: g["stored"][0].update(meets="yes"),
    "the order of the claims": lambda g: g["claims"].reverse(),
    "a claim of one's own": lambda g: g["claims"].append(g["claims"][0] | {"id": "XX1"}),
}


@pytest.mark.parametrize("change", GATES.values(), ids=GATES)
def test_gates_are_judged_again_from_the_records(folder, verified, change):
    edit(folder, "gates.json", change)
    render(folder)
    for received in (folder, folder / "report.html"):
        code, told = verified(received)
        assert code == 1 and "altered           gates.json" in told, told


def test_gates_that_are_gone_are_missed(folder, verified):
    (folder / "gates.json").unlink()
    code, told = verified(folder)
    assert code == 1 and "gates.json: missing" in told


# --- the page -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [("does not hold", "holds"), ("undecided", "decided"), ("</main>", "<p>The author is right.</p></main>")],
)
def test_the_words_of_a_page_are_those_of_its_records(folder, verified, old, new):
    path = folder / "report.html"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    for received in (folder, path):
        code, told = verified(received)
        assert code == 1 and "words are not those of its records" in told, told


def test_a_number_on_the_page_is_its_record_s(folder, verified):
    path = folder / "report.html"
    text = path.read_text(encoding="utf-8")
    place = text.index('class="seen"') if 'class="seen"' in text else text.index("limit ")
    digit = next(i for i in range(place, len(text)) if text[i] in "123456789" and text[i - 1] in " .0>")
    path.write_text(text[:digit] + ("7" if text[digit] != "7" else "3") + text[digit + 1 :], encoding="utf-8")
    code, told = verified(path)
    assert code == 1 and "words are not those of its records" in told


@pytest.mark.parametrize("name", ["junit.xml", "summary.md"])
def test_side_files_are_those_of_the_gates(folder, verified, name):
    path = folder / name
    path.write_bytes(path.read_bytes().replace(b"does not hold", b"holds", 1))
    code, told = verified(folder)
    assert code == 1 and f"{name}: its words are not those of its records" in told
    path.unlink()
    code, told = verified(folder)
    assert code == 1 and f"{name}: missing" in told


# --- records ------------------------------------------------------------------------------------


def test_a_record_removed_with_its_line_in_the_manifest_is_missed(folder, verified):
    (folder / "delta_svd.json").unlink()
    edit(folder, "manifest.json", lambda m: m["records"].pop("delta_svd"))
    code, told = verified(folder)
    assert code == 1 and "delta_svd.json: missing" in told


def test_what_a_claim_is_judged_by_is_never_shortened(folder, verified):
    def shorten(record: dict) -> None:
        record["shortened"] = ["metrics"]
        del record["metrics"]

    sign(folder, "delta_svd", shorten)
    code, told = verified(folder)
    assert code == 1 and "delta_svd.json" in told and "left out" in told
    received = page(folder, "delta_svd.json", shorten)
    code, told = verified(received)
    assert code == 1 and "left out" in told


RECORDS: dict[str, Change] = {
    "a metric": lambda r: r["metrics"]["median_top1_frac"].update(value=0.9),
    "a number in a figure": lambda r: r["layers"][0].update(frob=1.0),
    "a note": lambda r: r["notes"].append("The author is right."),
    "the method of a metric": lambda r: r["metrics"]["median_top1_frac"].update(method="as everybody does it"),
    "a reason": lambda r: r["absent"].update({"layers.9": "the dog ate it"}),
    "a metric of one's own": lambda r: r["metrics"].update(mine=r["metrics"]["median_top1_frac"]),
    "a number that is gone": lambda r: r["layers"][0].pop("eff_rank") and r["layers"][0].update(eff_rank=None)
    or r["absent"].update({"layers.0.eff_rank": "none"}),
}


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_record_that_was_changed_and_signed_and_rendered_again_is_not_what_the_model_gives(
    folder, verified, change, monkeypatch
):
    monkeypatch.setattr("checks.verify.verify.drifting", lambda verification: ())  # no tolerance moves a note
    sign(folder, "delta_svd", change)
    assert fathom("report", folder, "--quiet") in (0, 1)
    for received in (folder, folder / "report.html"):
        code, told = verified(received)
        assert code == 1 and "delta_svd" in told, told


def test_tolerances_that_come_with_a_result_are_not_used(folder, verified, monkeypatch):
    entry = {"moved": 1e6, "scale": 1.0, "by": "me"}
    wide = {"delta_svd": {"metrics.median_top1_frac.value": entry}}
    tensors = records.read_json(folder / "manifest.json")["tensors"]
    tree = {"schema_version": 1, "model": "tiny", "tensors": tensors, "safety": 8, "dtypes": {"float32": wide}}
    records.write_json(folder / "tolerances.json", tree)
    monkeypatch.setattr("checks.verify.verify.drifting", lambda verification: ())
    code, told = verified(folder)
    assert code == 1 and "tolerances.json: extra" in told
    sign(folder, "delta_svd", lambda r: r["metrics"]["median_top1_frac"].update(value=0.9))
    code, told = verified(folder)
    assert code == 1 and "drifted           delta_svd" in told


@pytest.mark.parametrize("name", ["delta_svd.safetensors", "head_grams.safetensors"])
def test_directions_that_are_gone_or_garbled_are_named(folder, verified, name):
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-3] + b"abc")
    code, told = verified(folder)
    assert code == 1 and f"{name}: garbled" in told
    path.write_bytes(data[: len(data) // 2])
    code, told = verified(folder)
    assert code == 1 and f"{name}: garbled" in told
    path.unlink()
    code, told = verified(folder)
    assert code == 1 and f"{name}: missing" in told


# --- key and manifest ---------------------------------------------------------------------------

MANIFEST: dict[str, Change] = {
    "the model's name": lambda m: m.update(model="owner/great-model"),
    "the revision": lambda m: m.update(revision="a" * 40, absent={}),
    "the digest of the tensors": lambda m: m.update(tensors="ab" * 32),
    "the architecture": lambda m: m["architecture"].update(family="Llama"),
    "its size": lambda m: m["architecture"].update(parameters=10**12),
    "its notes": lambda m: m["architecture"].update(notes=["the best of all"]),
    "the seed": lambda m: m["settings"].update(seed=7),
    "the precision": lambda m: m["settings"].update(dtype="float64"),
    "the attention": lambda m: m["settings"].update(attention="sdpa"),
    "the layers": lambda m: m["settings"].update(layers="0:2"),
    "the threads": lambda m: m["machine"].update(threads=64),
    "a file's hash": lambda m: m["files"].update({"model.safetensors": "cd" * 32}),
    "the text": lambda m: m["calibration"].update(sha256="ef" * 32),
    "the tokens": lambda m: m["forward"].update(tokens=10**6),
    "the command": lambda m: m.update(command="fathom run owner/great-model"),
    "what maps move": lambda m: m["invariance"]["head_grams"]["curvature"].update({"head permutation": True}),
    "an analysis' version": lambda m: m["analyses"]["head_grams"].update(version=2),
    "a library": lambda m: m["versions"].update(torch="9.9"),
}


@pytest.mark.parametrize("change", MANIFEST.values(), ids=MANIFEST)
def test_each_field_of_the_manifest_that_can_be_had_again_is_and_no_rendering_hides_a_change(folder, verified, change):
    edit(folder, "manifest.json", change)
    render(folder)
    for received in (folder, folder / "report.html"):
        code, told = verified(received)
        told = told.replace(".json: its key says", ".json: the key says")
        assert code == 1 and ("altered           manifest.json" in told or ".json: the" in told), told


@pytest.mark.parametrize("change", [lambda m: m.update(date="2020-01-01 00:00 UTC"), lambda m: m["timings"].clear()])
def test_what_can_only_be_believed_is_at_least_what_the_page_says(folder, verified, change):
    edit(folder, "manifest.json", change)
    for received in (folder, page(folder, "manifest.json", change)):
        code, told = verified(received)
        assert code == 1 and "altered           report.html" in told, told


def test_a_page_s_words_are_shown_as_escapes_where_they_would_move_the_cursor(folder, verified):
    edit(folder, "manifest.json", lambda m: m.update(model="\x1b[2J\x07evil\u202e", command="\x1b]0;x\x07"))
    code, told = verified(folder)
    assert code == 1 and not set(told) & set("\x1b\x07\u202e") and "x1b" in told


def test_a_page_that_asks_for_a_thousand_threads_gets_as_many_as_there_are(folder, verified, monkeypatch):
    used: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    edit(folder, "manifest.json", lambda m: m["machine"].update(threads=1500))
    verified(folder)
    assert used and max(used) <= 64


def test_html_in_a_record_is_no_html_on_the_page(folder):
    edit(folder, "manifest.json", lambda m: m["architecture"].update(notes=["<script>x</script>"]))
    render(folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>x" not in text and html.escape("<script>x") in text


# --- pages that left arrays out -----------------------------------------------------------------


@pytest.fixture
def shortened(folder, monkeypatch) -> Path:
    """A page that had no room for all arrays of its records."""
    whole = len((folder / "report.html").read_bytes())
    monkeypatch.setattr("checks.report.page.LIMIT", whole - 60_000)
    render(folder)
    received = folder.parent / "shortened.html"
    shutil.copy(folder / "report.html", received)
    assert any(b'"shortened"' in data for data in extract(received).values())
    return received


def test_a_page_that_left_arrays_out_is_rendered_with_those_that_are_measured_again(shortened, verified):
    code, told = verified(shortened)
    assert code == 0 and "every word of the page" in told
    text = shortened.read_text(encoding="utf-8")
    shortened.write_text(text.replace("does not hold", "holds", 1), encoding="utf-8")
    code, told = verified(shortened)
    assert code == 1 and "words are not those of its records" in told


def test_where_last_digits_differ_a_drawn_number_may_in_its_last_place_and_no_count_and_no_word():
    assert alike("M1.5 2.0h0, 12 heads", "M1.6 2.0h0, 12 heads")
    for other in ("M1.7 2.0h0, 12 heads", "M1.5 2.0h0, 13 heads", "M1.5 2.0h0, 12 tails"):
        assert not alike("M1.5 2.0h0, 12 heads", other)
