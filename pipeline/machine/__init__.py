"""What this machine can: threads, compiled loops, batches that fit."""
