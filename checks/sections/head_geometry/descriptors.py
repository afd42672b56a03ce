"""The seven descriptors of a spectrum as the page names them, and which table of the record is shown."""

VERSION, OUTCOME = "exact", "entropy"
NAMES = {
    "op": "σ max",
    "fro": "√Σσ²",
    "trace": "Σσ",
    "rank_eff": "Σσ/σ max",
    "spec_ent": "spectral entropy",
    "anisotropy": "σ max/mean σ",
    "condition": "σ max/σ min",
}
