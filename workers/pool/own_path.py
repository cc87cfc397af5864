"""Workers import what is installed, never what lies in the folder a command was typed in.

Ray puts the driver's current folder, and the folder of its script, first on every worker's `sys.path`: a
user's `pipeline.py`, `storage/` or `torch.py` there would be taken for ours. Ray has no switch for it, so
the job's description leaves both out.

It doesn't know of folders that PYTHONPATH names: those are asked for. Ray's client server (`ray://`) adds
no folder of the driver's.
"""

from __future__ import annotations

from ray.job_config import JobConfig


class OwnPath(JobConfig):
    """A job of ray whose workers get no folder of the driver's."""

    def _serialize(self) -> str:
        self._py_driver_sys_path.clear()
        serialized: str = super()._serialize()
        return serialized
