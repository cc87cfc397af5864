"""The day a GPU is there: `benchmarks/gpu/run.sh`."""
