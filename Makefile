# Every target creates .venv when it is missing and installs again when the pins have changed.
#   make run      corpus, two training stages, evaluation, figures; ends with the table
#   make notebooks, make figures  after it: its outputs into notebooks/, its figures into figures/
#   make controls after it: stage 2 again with InfoNCE and with a random mask, beside MAMCL, all with the head
#   make study    both studies of docs/study.md, SIZE=smoke (minutes), small (hours) or full (GPUs)
#   make test     all tests and all notebooks
#   make test-browser  notebooks and applications in a browser (chromium), into runs/browser
#   make lab      JupyterLab on this machine, opened with its token
#   make app      search, maps and the loss by hand as applications without code, on this machine
#   make book     the book from stored notebooks, pages and docstrings, into docs/_build/html
#   make bench    every speed/*.py beside its peers, into speed/RESULTS.md
#   make gpu-check  what only a GPU can show, in eight minutes, into runs/gpu_check
# CORPUS=shapes works without any download; PYTHON names the python (3.11 or newer) of a new .venv.

PYTHON ?= python3
CORPUS ?= emoji
CORES ?= 2
SIZE ?= small

BIN := .venv/bin
READY := .venv/ready
RUNS = $(or $(UNITE_RUNS),runs)/$(if $(filter emoji,$(CORPUS)),main,$(CORPUS))
NODE = $(if $(shell command -v npm),,$(comma)node)
comma := ,

# Notebooks that tests execute with quick parameters; nbval runs the others as they are stored.
EXECUTED := 00 01 02 03 04 05 06 07 08 09 10 11 12 15

export OMP_NUM_THREADS ?= $(CORES)
export GOMP_SPINCOUNT ?= 20000
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: run controls study test test-browser lab app notebooks figures book bench gpu-check lint clean
.DEFAULT_GOAL := run

run: $(READY)
	@$(BIN)/snakemake --unlock --config corpus=$(CORPUS) >/dev/null 2>&1 || true
	$(BIN)/snakemake --cores $(CORES) --rerun-incomplete --config corpus=$(CORPUS)
	@cat $(RUNS)/evaluation/table.txt

controls: $(READY)
	$(BIN)/snakemake --cores $(CORES) --rerun-incomplete --config corpus=$(CORPUS) -- controls
	@cat $(RUNS)_controls/evaluation/table.txt

study: $(READY)
	@$(BIN)/snakemake --unlock --config size=$(SIZE) >/dev/null 2>&1 || true
	$(BIN)/snakemake --cores $(CORES) --rerun-incomplete --config size=$(SIZE) -- study

test: $(READY)
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile -m "not network" tests
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout 300 \
	  $(filter-out $(EXECUTED:%=notebooks/%_%),$(wildcard notebooks/*.ipynb))

test-browser: $(READY)
	$(BIN)/python -m pytest tests/browser

lab: $(READY)
	$(BIN)/jupyter lab --ip 127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

app: $(READY)
	CORPUS=$(if $(wildcard data/$(CORPUS)/manifest.json),$(CORPUS),shapes) \
	  $(BIN)/voila --Voila.ip=127.0.0.1 notebooks/apps

notebooks: $(READY)
	$(BIN)/unite notebooks store --from $(RUNS)

figures: $(READY)
	$(BIN)/unite notebooks publish $(RUNS)

book: $(READY)
	rm -rf docs/_build
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d docs/_build/doctrees . docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv-bench/ready
	for script in $(filter-out speed/gpu_check.py,$(wildcard speed/[!_]*.py)); do \
	  PYTHONPATH=. .venv-bench/bin/python $$script || exit 1; done

gpu-check: $(READY)
	$(BIN)/python speed/gpu_check.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf runs docs/_build .snakemake .pytest_cache .ruff_cache .hypothesis *.egg-info
	@echo "kept: .venv, .venv-bench and data (remove them by hand to fetch everything again)"

# peers only: everything else is seen through a path file that names .venv's packages
.venv-bench/ready: $(READY) speed/requirements.txt
	$(BIN)/python -m venv --clear .venv-bench
	$(BIN)/python -c 'import site; print(site.getsitepackages()[0])' > \
	  "$$(.venv-bench/bin/python -c 'import site; print(site.getsitepackages()[0])')/main.pth"
	.venv-bench/bin/python -m pip install --no-compile --no-deps -r speed/requirements.txt
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into .venv (some minutes the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e ".[all$(NODE)]"
	@touch $@
