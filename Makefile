# Every target does its own set-up; run any of them first, twice, or after another.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help site preview test data lint notebook offline compat execute colab links lock audit weights benchmark clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

site: data  ## build the site into _site/ (with Quarto if it can be had)
	@$(RUN) tools/build_site.py

preview: data  ## serve the site and rebuild a page when its .qmd is saved (needs Quarto)
	@. $(VENV)/bin/activate && quarto preview

# The pages' tests time the browser, so they run alone; of the others two run at once, with a thread each, as threads
# of several programs that wait for each other on busy cores take many times as long.
test: data  ## run all tests, the notebook among them
	@$(RUN) -m pytest tests/pages
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --ignore=tests/pages

data: $(INSTALLED)  ## find or download Fashion-MNIST, and verify it
	@{ $(RUN) -m cvae_support data 2>$(VENV)/data.log && cat $(VENV)/data.log >&2; } \
	  || $(MAKE) --no-print-directory debian-data

# Where the data is not to be had and this is Debian with root, its package has it; else say what was tried.
.PHONY: debian-data
debian-data:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Fashion-MNIST was not found; installing Debian's dataset-fashion-mnist"; \
	  { apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist; } >>$(VENV)/data.log 2>&1 \
	    || { cat $(VENV)/data.log >&2; exit 1; }; \
	  $(RUN) -m cvae_support data; \
	else cat $(VENV)/data.log >&2; exit 1; fi

lint: $(INSTALLED)  ## check style, types, spelling and the workflows
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(RUN) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(RUN) -m check_jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(RUN) -m codespell_lib $$(git ls-files '*.md' '*.qmd' '*.py' '*.yml' '*.toml' '*.bib' '*.svg' '*.js' '*.j2' '*.css' '*.scss' '*.html')

notebook: $(INSTALLED)  ## make the .ipynb of every post from its .qmd
	@$(RUN) tools/make_notebook.py

# The tests of the package alone, which need none of what makes the site.
ON ?= 3.10
VERSIONS ?= lowest-direct
PACKAGE_TESTS := $(addprefix tests/test_,checkpoints.py cpu.py data.py faults.py losses.py models.py muon.py properties.py weights.py)

offline: site  ## build the site once more without any network (Linux, as root)
	@rm -rf _site
	@unshare --net sh -c 'ip link set lo up && $(MAKE) --no-print-directory site'

compat:  ## test the package on Python ON=3.10 with the oldest or newest it accepts: VERSIONS=lowest-direct or highest (needs uv)
	@uv run --isolated --no-project --python $(ON) --resolution $(VERSIONS) --with-editable . \
	  --with 'pytest>=8' --with 'hypothesis>=6.100' python -m pytest -p no:cacheprovider $(PACKAGE_TESTS)

execute: data  ## run the notebooks from the weights that ship
	@$(RUN) -m pytest tests/test_notebook.py -k runs

colab:  ## run the notebooks in Colab's own image (needs docker and 40 GB of disk)
	@for notebook in posts/*/*.ipynb; do \
	  docker run --rm --entrypoint bash --volume "$(CURDIR):/repository:ro" --env CVAE_REPOSITORY=/repository \
	    --env GIT_CONFIG_COUNT=1 --env GIT_CONFIG_KEY_0=safe.directory --env GIT_CONFIG_VALUE_0='*' $(COLAB) \
	    -c "cp /repository/$$notebook /tmp/opened.ipynb && cd /tmp && jupyter nbconvert --to notebook --execute opened.ipynb" \
	    || exit 1; \
	done
COLAB := us-docker.pkg.dev/colab-images/public/runtime

links:  ## ask for every address the pages and documents name
	@$(PYTHON) tools/check_links.py

# Of torch's own needs the lock holds those that any build of it has; what only CUDA's needs comes with torch.
CUDA := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton
lock:  ## pin what requirements.txt needs, with hashes, at the newest it allows, in requirements.lock (needs uv)
	@printf '%s\n' $(CUDA) | uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --custom-compile-command 'make lock' --excludes - --no-emit-package torch --no-emit-package torchvision \
	  --output-file requirements.lock requirements.txt >/dev/null

# In an environment of its own, so that it changes nothing in the other. Strict: what could not be looked up is no pass.
AUDIT := .cache/audit
audit:  ## look all locked packages and torch up among known vulnerabilities
	@$(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock
	@grep '^torch' requirements.txt | $(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement /dev/stdin

weights: data  ## train the small models that ship (hours on a CPU; goes on where it stopped)
	@$(RUN) tools/train_weights.py

benchmark: data  ## measure what README and TRAINING.md say (minutes; wants a quiet machine)
	@$(RUN) benchmarks/page.py
	@$(RUN) benchmarks/training.py

clean:  ## delete what was built (not the data, not the trained runs)
	rm -rf _site .quarto $(VENV)

# Exits with a word about it where Python is too old or too new for what requirements.lock pins.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11 to 3.14 is needed, and " + sys.executable + " is " + sys.version.split()[0] + ". Name another: make site PYTHON=python3.12")

# Every file by its hash; then torch, whose file depends on the machine; then the package, built by the locked setuptools.
$(INSTALLED): requirements.txt requirements.lock pyproject.toml
	@{ $(RUN) -c '$(FITS)' && $(RUN) -m pip --version; } >/dev/null 2>&1 \
	  || { $(PYTHON) -c '$(FITS)' && $(PYTHON) -m venv --clear $(VENV); }
	@$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint requirements.txt torch torchvision
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
