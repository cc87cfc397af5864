"""Which image is which key of which shard."""
