"""What runs beside: Prefect's server and worker, Ray."""
