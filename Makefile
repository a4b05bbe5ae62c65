# Two commands do all set-up: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test fuzz kill kill-training load cluster memory throughput own-noise patterns grey-and-dark camera-counts lint samples wheel clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -U pip
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	PYTHONWARNINGS=ignore $(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/installed  ## denoise data/samples with the shipped weights and print PSNR/SSIM
	rm -rf demo
	$(BIN)/denoise-se denoise data/samples/noisy -o demo --reference data/samples/clean --report demo/report.csv

test: .venv/installed lint  ## everything that CI runs, two tests at a time: threads that wait must not spin
	OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist worksteal

fuzz: .venv/installed  ## damaged files, checkpoint headers and batches; FUZZ="--seed 1 --files 10000" for others
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ)

kill: .venv/installed  ## kill a batch 100 times and resume it; KILL="--kills 20" for fewer
	PYTHONPATH=tests $(BIN)/python -m killing $(KILL)

kill-training: .venv/installed  ## kill a training run 30 times and resume it; KILL="--kills 100 --steps 200" for more
	PYTHONPATH=tests $(BIN)/python -m killing --training $(KILL)

load: .venv/installed  ## many people at the web app; LOAD="--people 40 --requests 1000" for more
	PYTHONPATH=tests $(BIN)/python tests/web_load.py $(LOAD)

cluster: .venv/installed  ## 2,000 images on a Ray cluster of two workers, one killed midway; CLUSTER="--images 60"
	PYTHONWARNINGS=ignore $(BIN)/pip install -q -c constraints.txt -e ".[ray]"
	PYTHONPATH=tests $(BIN)/python -m cluster $(CLUSTER)

memory: .venv/installed  ## peak memory against the size of an image; MEMORY="--formats png jpg --megapixels 100"
	$(BIN)/python tests/memory_curve.py $(MEMORY)

throughput: .venv/installed  ## folders beside a plain loop over the network; THROUGHPUT="--small 100 --large 2"
	$(BIN)/python tests/throughput.py $(THROUGHPUT)

own-noise: .venv/installed  ## retrain on noise that no model knows; OWN="--clean FOLDER --minutes 15 --ways pairs"
	$(BIN)/python tests/own_noise.py $(OWN)

patterns: .venv/installed  ## what the models do to lettering, lines and checks; PATTERNS="--model gray --sigma 10"
	$(BIN)/python tests/patterns.py $(PATTERNS)

camera-counts: .venv/installed  ## pairs as scientific cameras count; COUNTS="FOLDER OUT --offset 400"
	$(BIN)/python tests/camera_counts.py $(COUNTS)

grey-and-dark: .venv/installed  ## noise that is the same in all channels, and dark pictures; PICTURES="FOLDER --model color"
	$(BIN)/python tests/grey_and_dark.py $(PICTURES)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: .venv/installed  ## build the wheel, install it elsewhere, denoise an image with it
	bash .ci/wheel

samples: .venv/installed  ## make data/samples again from scikit-image's pictures
	$(BIN)/python data/make_samples.py

clean:
	rm -rf .venv demo dist build *.egg-info
