# make book and make test are all that most people need; `make help` lists the rest.
# Each creates .venv by itself, once, and renews it when pyproject.toml or constraints.txt change.

SHELL := bash
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PORT ?= 8000
EXTRAS := book,timm,class,dev
READY := .venv/.ready
NOTEBOOKS = $(shell find book -name '*.ipynb' -not -path '*/.*')
PACKAGE := $(shell find agman book/results -name '*.py' -o -name '*.safetensors' -o -name '*.json' \
  -o -name '*.js' -o -name '*.css')

.PHONY: help book test serve lab lint assignments slides bench fuzz faults coverage mutants audit \
  vendor publish clean

help:  ## list these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

book: $(READY) _build/package  ## build the book, running every notebook; prints where to open it
	$(BIN)/jupyter-book build book --config _config.yml --all -W -n --keep-going
	@printf '\nThe book is ready. Open  _build/html/index.html  in a browser,\n'
	@printf 'or run `make serve` and open  http://127.0.0.1:$(PORT)\n'

test: lint book  ## check the code, build the book, run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)  ## check code style, types, spelling and that notebooks hold no outputs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy agman tools _ext data_scripts
	$(BIN)/python tools/bootstrap.py
	$(BIN)/codespell agman book data_scripts tests tools _ext *.md
	$(BIN)/nbstripout --verify --keep-id $(NOTEBOOKS)

serve:  ## serve the built book on this machine
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: $(READY)  ## run the lab's experiments (hours; resumable) and ship their first seeds
	$(BIN)/python -m agman.course.lab objects
	for name in lab lab_triplets lab_ablations lab_recipes; do \
	  $(BIN)/agman reproduce $$name --seeds 0 1 2 3 4 --runs runs --out book/results/$$name.json --yes || exit 1; done
	$(BIN)/python -m agman.course.lab ship

assignments: $(READY)  ## make the graded assignments: students' editions, self-checks, trial grading
	PYTHONPATH=. $(BIN)/python tools/assignments.py

slides: book  ## cut the slides of three lectures from the built chapters
	PYTHONPATH=. $(BIN)/python tools/slides.py

bench: $(READY)  ## measure speed beside other ways to do the same (minutes, on a quiet machine)
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[$(EXTRAS),bench]"
	$(BIN)/python -m tests.benchmarks.bench --out _build/bench.json

fuzz: $(READY)  ## give 100,000 damaged files to the readers (ten minutes)
	$(BIN)/python -m tests.trust.fuzz --inputs 100000

faults: $(READY)  ## kill training, conversion, indexing and experiments 200 times (minutes)
	$(BIN)/python -m tests.trust.faults --kills 200

coverage: $(READY)  ## count what tests reach of the package, lines and branches (15 minutes)
	@mkdir -p _build && rm -f _build/coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -q --ignore tests/book \
	  --ignore tests/notebooks --cov --cov-report=json:_build/coverage.json
	$(BIN)/python -m tests.trust.coverage

mutants: $(READY)  ## change the code in 2,000 places, one by one: a test must notice (an hour)
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[$(EXTRAS),mutants]"
	$(BIN)/python -m tests.trust.mutants

audit:  ## ask PyPI for known weaknesses of all that constraints.txt names
	@mkdir -p _build && $(PYTHON) -m venv _build/audit && _build/audit/bin/pip install -qq pip-audit
	_build/audit/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps -r constraints.txt

vendor:  ## renew the scripts of others that the book serves (needs npm)
	$(PYTHON) tools/vendor.py

publish:  ## put the repository's address everywhere: make publish REPO=https://github.com/me/agman
	@$(PYTHON) tools/publish.py "$(REPO)"

clean:  ## remove the built book and all caches, keep .venv
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

# Notebook outputs are cached by their code cells only: forget them when the package or a
# recorded result changes.
_build/package: $(PACKAGE) constraints.txt
	@rm -rf _build/.jupyter_cache && mkdir -p _build && touch $@

# torch first and alone: the rest then finds it and leaves it as it is.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "agman needs Python 3.11 or newer: install it, or name one with make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "Preparing .venv with $$($(PYTHON) --version): some 5 minutes and 7 GB, only this once."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq $$(grep -E '^torch(vision)?==' constraints.txt)
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@
