# Each target makes .venv and installs just what it needs, once.
PYTHON ?= python3
PORT ?= 7860
PIP_ARGS ?=
STUDY ?= runs/study
WORKERS ?= 1
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
SOURCES := bcd_models training space tests

.PHONY: help demo test slow quality style bench study screenshots dist

help:
	@echo "make demo     open the app with the bundled models and synthetic patients, kept in .demo"
	@echo "              (PORT=$(PORT); PIP_ARGS= goes to pip)"
	@echo "make test     run the tests;  make slow: those that take minutes"
	@echo "make quality  lint, format check, types, dependency direction;  make style: mend"
	@echo "make bench    measure ratios against named baselines, write bench.json and the README's table"
	@echo "make dist     build the sdist and the wheel into dist/, and check them"
	@echo "make study    tune and train the plan's arms, compare, publish into cards/:"
	@echo "              CORPUS=... [WORKERS=2 STARTS=... STUDY=... RECORDS=...]"

demo: .venv/.space
	@echo "Opening the app on http://127.0.0.1:$(PORT) (Ctrl-C ends it)"
	@BCD_DEMO=1 BCD_DATA_FOLDER=.demo BCD_DATABASE_URL= $(BIN)/python space/app.py --port $(PORT)

test: .venv/.dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not slow and not bench"

slow: .venv/.dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow

quality: .venv/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	PYTHONPATH=.:space $(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml bcd_models training space
	$(BIN)/python -m tests.support.audited constraints.txt

style: .venv/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

bench: .venv/.dev
	rm -f bench.json
	BCD_BENCH=1 $(BIN)/python -m pytest -q -s -m bench tests/benchmarks tests/integration/test_load.py; missed=$$?; \
	  $(BIN)/python -m tests.benchmarks.record README.md && exit $$missed

study: .venv/.dev
	@test -n "$(CORPUS)" || { echo "make study CORPUS=FOLDER, as written by training.corpus"; exit 2; }
	$(BIN)/python -m training.study --corpus $(CORPUS) --out $(STUDY) --workers $(WORKERS) \
	  $(if $(STARTS),--starts $(STARTS)) $(if $(RECORDS),--records $(RECORDS)) --cards cards --readme README.md \
	  --slides-page docs/slides.md

dist: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

screenshots: .venv/.dev
	$(BIN)/python -m tests.ui.screenshots --out docs

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing: apt-get install python3-venv (Debian, Ubuntu)"; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.space: .venv/.python pyproject.toml constraints.txt
	@echo "Installing the library and the app into .venv, once: a minute or two, under 1 GB."
	$(INSTALL) -e '.[space]'
	@touch $@

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	@echo "Installing library, app, training and test tools into .venv, once: minutes, up to 7 GB."
	$(INSTALL) -e '.[slides,training,space,dev]'
	@touch $@ .venv/.space
