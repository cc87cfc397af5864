"""The Triton kernels, one file an idea; importing them needs triton (ops.py looks before it does)."""
