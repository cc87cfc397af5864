"""Prefect's server, its secret and its pools, and what is registered there."""
