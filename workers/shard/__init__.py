"""One turn at a shard, without Ray."""
