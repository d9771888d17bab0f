# Every target does its own set-up; run any of them first, twice, or after another.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help site preview test data notebook weights benchmark clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

site: data  ## build the site into _site/ (with Quarto if it can be had)
	@$(RUN) tools/build_site.py

preview: data  ## serve the site and rebuild a page when its .qmd is saved (needs Quarto)
	@. $(VENV)/bin/activate && quarto preview

test: data  ## run all tests, the notebook among them
	@$(RUN) -m pytest

data: $(INSTALLED)  ## find or download Fashion-MNIST, and verify it
	@$(RUN) -m cvae_support data 2>$(VENV)/data.log || $(MAKE) --no-print-directory debian-data

# Where the data is not to be had and this is Debian with root, its package has it; else say what was tried.
.PHONY: debian-data
debian-data:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Fashion-MNIST was not found; installing Debian's dataset-fashion-mnist"; \
	  { apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist; } >>$(VENV)/data.log 2>&1 \
	    || { cat $(VENV)/data.log >&2; exit 1; }; \
	  $(RUN) -m cvae_support data; \
	else cat $(VENV)/data.log >&2; exit 1; fi

lint: $(INSTALLED)  ## check style, types and spelling
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(RUN) -m codespell_lib $$(git ls-files '*.md' '*.qmd' '*.py' '*.yml' '*.toml' '*.bib')

notebook: $(INSTALLED)  ## make the .ipynb of every post from its .qmd
	@$(RUN) tools/make_notebook.py

weights: data  ## train the models that ship (hours on a CPU; goes on where it stopped)
	@$(RUN) tools/train_weights.py

benchmark: data  ## measure what README and TRAINING.md say (minutes; wants a quiet machine)
	@$(RUN) benchmarks/page.py
	@$(RUN) benchmarks/training.py

clean:  ## delete what was built (not the data, not the trained runs)
	rm -rf _site .quarto $(VENV)

$(INSTALLED): requirements.txt pyproject.toml
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
