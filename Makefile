# maskmill: every target bootstraps its own .venv from requirements.lock; nothing else is needed but Python 3.11+.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
SERVICES := ceph-mon ceph-osd radosgw ceph-common postgresql chromium-driver kubernetes-client iproute2

.PHONY: help setup demo check test test-all bench fuzz simulate nano verifier lock clean

help:  ## what each target does
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

setup: $(VENV)/.installed  ## create .venv with the locked packages and the maskmill command

demo: setup  ## make a dataset of real photographs and generated scenes with the model that ships inside
	$(BIN)/maskmill demo $(DEMO)

check: setup  ## layers, ruff, mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Processes share the cores, not threads. Tests that start services wait for them half of the time: one process more,
# and each collects the files that have such tests alone.
UNITS := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal
SERVED := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile
marked = $$(grep -rlE "mark\.($(1))\b" tests --include="test_*.py")

# Loops are compiled once, while mypy looks on the other core.
test: setup  ## checks, unit tests in two processes, then the tests that start Ray
	$(BIN)/python -c "from maskmill.pipeline.masks.automask import warm_up; warm_up()" & \
	  $(MAKE) check; checked=$$?; wait; exit $$checked
	$(UNITS) -m "not (ray or s3 or drill or browser or gpu)"
	$(SERVED) -m "ray and not (s3 or drill or browser or gpu)" $(call marked,ray)

test-all: setup services  ## what `make test` leaves out: a real S3 store, Postgres, faults, a browser
	$(SERVED) -m "s3 or drill or browser" $(call marked,s3|drill|browser)

.PHONY: services
services:
	{ which radosgw chromedriver kubectl ip && ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || { apt-get update -qq && \
	  export DEBIAN_FRONTEND=noninteractive && \
	  { apt-get install -qq -y --no-install-recommends $(SERVICES) || dpkg --configure -a; } >/dev/null; }

bench: setup  ## the benchmarks, side by side with their peers; results are printed
	for size in 640x480 1500x2250; do $(BIN)/python -m benchmarks.automask --segmenter nano --size $$size --runs 3; done
	$(BIN)/python -m benchmarks.postprocess
	$(BIN)/python -m benchmarks.nano

CONSUMERS := build/consumers
CONSUMER_PACKAGES := lvis supervision pyDeprecate matplotlib contourpy cycler kiwisolver fonttools \
  opencv-python-headless defusedxml ultralytics py-cpuinfo polars psutil label-studio-converter label-studio-sdk lxml ijson ujson nltk PyJWT appdirs \
  faster-coco-eval mlcroissant absl-py dill etils GitPython gitdb smmap jsonpath-rw networkx rdflib pyparsing \
  ply decorator six importlib_resources zipp

.PHONY: consumers
consumers: setup  ## exports opened by the tools that read them, installed in an environment of its own
	test -x $(CONSUMERS)/bin/python || $(PYTHON) -m venv $(CONSUMERS)
	$(BIN)/uv pip install --quiet --python $(CONSUMERS)/bin/python --no-deps $(CONSUMER_PACKAGES)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > \
	  $$($(CONSUMERS)/bin/python -c "import site; print(site.getsitepackages()[0])")/ours.pth
	for editor in fiftyone label-studio; do \
	  test -x $(CONSUMERS)-$$editor/bin/python || $(PYTHON) -m venv --without-pip $(CONSUMERS)-$$editor; \
	  $(BIN)/uv pip install --quiet --python $(CONSUMERS)-$$editor/bin/python $$editor mongomock pycocotools || exit 1; done
	$(BIN)/python -m benchmarks.consumers --python $(CONSUMERS)/bin/python \
	  --trip $(CONSUMERS)-fiftyone/bin/python --trip $(CONSUMERS)-label-studio/bin/python

PEERS := build/peers
PEER_PACKAGES := sam2 segment-anything-hq hydra-core iopath omegaconf antlr4-python3-runtime==4.9.3 portalocker timm
PEER_FAMILIES := sam2_tiny,sam2_base_plus,sam_hq_b,edgetam

.PHONY: peers
peers: setup  ## other SAMs beside their authors' own code, in an environment of its own: FAMILY, SIZE, POINTS, RUNS (an hour and more)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" > \
	  $$($(PEERS)/bin/python -c "import site; print(site.getsitepackages()[0])")/ours.pth
	$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps wheel
	SAM2_BUILD_CUDA=0 $(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps --no-build-isolation $(PEER_PACKAGES)
	$(PEERS)/bin/python -W ignore -m benchmarks.families --family $(or $(FAMILY),$(PEER_FAMILIES)) \
	  --size $(or $(SIZE),640x480) --points-per-side $(or $(POINTS),32) --runs $(or $(RUNS),3)

fuzz: setup  ## hostile bytes for every reader: COUNT of them (100000), SEED
	$(BIN)/python -m benchmarks.fuzz --count $(or $(COUNT),100000) --seed $(or $(SEED),0)
	$(BIN)/python -m benchmarks.fuzz_annotations --count $(or $(COUNT),50000) --seed $(or $(SEED),0)

simulate: setup  ## schedules of drivers, care and people over a simulated store: SEEDS of them (10000); goes on where it stopped
	SIMULATE_STRIDE=1 $(BIN)/pytest -q tests/simulation/test_every_order.py --timeout 3600
	$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),10000) --out build/simulation

nano: setup  ## train the shipped segmenter again (hours on a CPU); goes on; PHOTOS="COCO IMAGES" adds photographs
	$(BIN)/python -m maskmill.pipeline.train.nano.train --out build/nano --minutes 180 --resume $(if $(PHOTOS),--photos $(PHOTOS))
	$(BIN)/python -m maskmill.pipeline.train.nano.calibrate --run build/nano \
	  --out build/nano/nano.safetensors $(if $(PHOTOS),--photos $(PHOTOS))

verifier: setup  ## train the verifier of nano's masks again (minutes); PHOTOS="COCO IMAGES" adds photographs
	$(BIN)/python -m maskmill.pipeline.verify.train --out pipeline/segmenters/nano_verifier.safetensors \
	  $(if $(PHOTOS),--photos $(PHOTOS))

lock: setup  ## resolve requirements.lock again from pyproject.toml, and the images' locks (with hashes, without test tools)
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --extra dev --no-header --no-annotate --no-emit-index-url --upgrade \
	  pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --python $(BIN)/python --no-header --no-annotate --no-emit-index-url --generate-hashes --upgrade \
	  --constraint requirements.lock pyproject.toml --output-file infra/locks/cuda.lock
	awk '/^[a-z0-9]/ {cuda = ($$0 ~ /^(torch|torchvision|triton|nvidia-|cuda-)/)} !cuda' infra/locks/cuda.lock > infra/locks/cpu.lock

clean:  ## remove what the targets made, the dataset of the demo included
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
