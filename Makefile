# make report   measure the reference model and render build/reference/report.html
# make test     run the tests
# make verify   measure the reference model again and hold every number against the recorded one
# A bare `make` prints help. Nothing but Python 3.11-3.13, make and a package index is needed.

PYTHON ?= python3
OUT ?= build
SEED ?= 0
KEEP ?= 400
SIZE ?= 0.6b
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
READY := $(VENV)/.installed
FATHOM := $(VENV)/bin/python -m checks.cli
REFERENCE := checks/reference
MEASURED := $(OUT)/.reference-measured
SOURCES := $(shell find analyses checks -name "*.py" -o -name "*.json" -path "analyses/*") $(wildcard $(REFERENCE)/*.json $(REFERENCE)/*.safetensors)
OPTIONS := --seed $(SEED) $(if $(DEVICE),--device $(DEVICE)) $(if $(DTYPE),--dtype $(DTYPE)) \
           $(if $(LAYERS),--layers $(LAYERS)) $(if $(FAMILIES),--families $(FAMILIES)) \
           $(if $(ATTENTION),--attention $(ATTENTION)) $(if $(CALIBRATION),--calibration "$(CALIBRATION)") $(ARGS)

.DELETE_ON_ERROR:
.PHONY: docs engines notebook help report sweep verify test quick fuzz browser bench gpu-check calibrate families reference-model clean

help:
	@echo 'make report                     measure the reference model, render $(OUT)/reference/report.html and $(OUT)/index.html'
	@echo 'make report MODEL=…             the same for a folder, a hub id, or id@revision; joins the index'
	@echo 'make report MODELS="… …"        the same for several; the index lists exactly these'
	@echo '            DEVICE=auto|cpu|cuda|mps  DTYPE=float32|bfloat16|float16|float64|auto  ATTENTION=eager|sdpa'
	@echo '            LAYERS=0:12  FAMILIES=q_proj,k_proj  CALIBRATION=file  OUT=folder  SEED=0  ARGS="any other option of fathom run"'
	@echo 'make sweep MODELS="… …@step{0,1,2}"  many checkpoints; goes on where it stopped'
	@echo '            ENGINE=local|slurm|dask  WORKERS=2  and the options of report; a sweep file (.toml) is a model too'
	@echo 'make verify                     measure the reference model again, compare with what is recorded'
	@echo 'make verify RESULT=… MODEL=…    the same for a received page or folder, and the model it is of'
	@echo 'make test                       run the tests'
	@echo 'make quick                      those of them that need no whole run, in a minute'
	@echo 'make fuzz                       twenty thousand odd inputs: each is read or refused in one line'
	@echo 'make bench                      time and memory of each stage against what this machine can do; SIZE=0.6b|4b|tiny DEVICE=cuda'
	@echo 'make gpu-check                  on a machine with a GPU: its numbers against the processor'"'"'s, and every stage on it'
	@echo 'make calibrate                  simulate the coverage of every interval, size and power of every test: docs/calibration.md'
	@echo 'make families                   the tables of model families and of every causal type of the library: docs/families.md'
	@echo 'make browser                    install what the tests in a browser need (54 MB; also a Chromium on the path)'
	@echo 'make notebook                   install what docs/notebook.ipynb needs: pandas, polars, matplotlib, a kernel'
	@echo 'make docs                       build the documentation as a site: $(OUT)/docs/index.html'
	@echo 'make engines                    install what sweeps on Slurm and on Dask need'
	@echo 'make reference-model            train the reference model again, into $(OUT)/reference-model, with a checkpoint every KEEP=400 steps'
	@echo 'make clean                      remove $(OUT)'

# The stamp appears only after pip has succeeded, so a broken install is tried again. The project itself comes
# last, as a link to this folder, so that the command `fathom` is there and runs what the folder holds.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Fathom needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

sweep: $(READY)
	$(FATHOM) sweep $(foreach model,$(MODELS),'$(model)') --out "$(OUT)" $(if $(ENGINE),--engine $(ENGINE)) \
	    $(if $(WORKERS),--workers $(WORKERS)) $(OPTIONS)

ifdef MODELS
report: $(READY)
	$(FATHOM) run $(MODELS) --out "$(OUT)" --exact-index $(OPTIONS)
else ifdef MODEL
report: $(READY)
	$(FATHOM) run "$(MODEL)" --out "$(OUT)" $(OPTIONS)
else
report: $(MEASURED)
	$(FATHOM) report "$(OUT)"
endif

# Other options mean other numbers, so they are part of what the stamp depends on. When an analysis
# fails there is no stamp, but there is a manifest and a page that says what failed.
$(MEASURED): $(SOURCES) $(MEASURED).options | $(READY)
	$(FATHOM) measure $(REFERENCE) --out "$(OUT)" $(OPTIONS) && touch $@ || test -f "$(OUT)/reference/manifest.json"

$(MEASURED).options: FORCE
	@mkdir -p "$(OUT)"
	@echo '$(OPTIONS)' | cmp --silent - $@ || echo '$(OPTIONS)' > $@
FORCE:

RESULT ?= recorded
VERIFY := $(OUT)/verify
verify: $(READY)
	@mkdir -p "$(VERIFY)"
	$(FATHOM) verify "$(RESULT)" $(if $(MODEL),--model "$(MODEL)") --out "$(VERIFY)" --json "$(VERIFY)/verify.json" \
	    --markdown "$(VERIFY)/verify.md" --junit "$(VERIFY)/verify.xml" $(ARGS)

browser: $(VENV)/.browser

# No browser is downloaded: the tests drive the Chromium that is on the path.
$(VENV)/.browser: requirements-browser.lock $(READY)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-browser.lock
	@touch $@

notebook: $(VENV)/.notebook

$(VENV)/.notebook: requirements-notebook.lock $(READY)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-notebook.lock
	@touch $@

# Strict: a link to nothing, or a page that the navigation lacks, fails.
docs: $(VENV)/.docs
	$(VENV)/bin/python -m mkdocs build --quiet --strict --site-dir "$(abspath $(OUT))/docs"
	@echo '$(OUT)/docs/index.html'

$(VENV)/.docs: requirements-docs.lock $(READY)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-docs.lock
	@touch $@

engines: $(VENV)/.engines

$(VENV)/.engines: requirements-sweep.lock $(READY)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-sweep.lock
	@touch $@

# A file stays with one worker, so what a module shares is made once.
test: $(READY)
	$(VENV)/bin/python -m pytest --numprocesses=auto --dist=loadfile $(ARGS)

# What is quick is told by tests/conftest.py; whole runs, browsers and twins are left to `make test`.
quick: $(READY)
	$(VENV)/bin/python -m pytest -m quick --numprocesses=auto --dist=loadfile $(ARGS)

fuzz: $(READY)
	$(VENV)/bin/python -m tests.fuzz.run --seed $(SEED) $(ARGS)

bench: $(READY)
	$(FATHOM) bench --size $(SIZE) --out "$(OUT)" $(if $(DEVICE),--device $(DEVICE)) $(ARGS)

# Installs nothing where the environment is there.
gpu-check: $(READY)
	$(VENV)/bin/python -m checks.bench.gpu_check --device $(or $(DEVICE),cuda) --out "$(OUT)" $(ARGS)

calibrate: $(READY)
	$(VENV)/bin/python -m checks.calibration.run --seed $(SEED) $(ARGS)

families: $(READY)
	$(VENV)/bin/python -m checks.families.run $(ARGS)

reference-model: $(READY)
	$(VENV)/bin/python -m checks.reference.train --out "$(OUT)/reference-model" --keep $(KEEP) $(ARGS)

clean:
	rm -rf "$(OUT)"
