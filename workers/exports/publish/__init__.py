"""A generation on a hub of datasets: what stands beside its Parquet, and how it gets there."""
