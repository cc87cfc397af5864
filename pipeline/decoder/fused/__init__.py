"""The decoder's arithmetic on a CPU in float32, block by block in compiled loops: attention, mask head."""
