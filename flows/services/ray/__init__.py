"""The Ray cluster that a run starts or joins."""
