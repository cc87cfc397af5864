"""A job of many small shards, disturbed on purpose, and the proof that nothing came of it.

schedule.py   which faults, in which order: from a seed
orders.py     faults given out as files; the operation that meets one takes it, so each happens once
disk.py       write faults beneath a local store       proxy.py   faults between a worker and an S3 store
inputs.py     the pictures, poison and damaged ones among them
stages.py     a stand-in for the models                fleet.py   Ray's nodes, and whom to kill
compare.py    the undisturbed job, key by key          conductor.py   carries it all out
"""
