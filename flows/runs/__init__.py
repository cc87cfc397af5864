"""One file a run; the command and Prefect's deployment call the same one."""
