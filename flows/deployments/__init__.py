"""The runs as flows of Prefect's: a form's parameters, tasks, artifacts, retries."""
