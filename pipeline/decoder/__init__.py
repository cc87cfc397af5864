"""SAM's network, the same numbers sooner: encoder, low-rank decoder, mask head, resize."""
