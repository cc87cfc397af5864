"""Work on a dataset beside the run: review, import, repair, tune, estimate."""
