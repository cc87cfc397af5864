"""Training runs, on one process or many."""
