"""maskmill: images in, a versioned, SA-1B-style dataset of masks out.

The layers: `maskmill.pipeline` knows arrays, `maskmill.storage` bytes, `maskmill.workers` both and
`maskmill.flows` only names and numbers.
"""
