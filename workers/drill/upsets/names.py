"""The kinds of the second set, and what each does.

worker_pause, driver_pause      SIGSTOP, and SIGCONT a while later: every other driver sleeps beyond its lease
clock_jump                      a process's clock is minutes or a day ahead or behind from now on
gcs_kill, agent_kill            Ray's control service, or an agent of a raylet's, is gone
forget, gc, import, export, relabel      a command beside whatever runs
damaged_plan, ...               a record is changed, cut or removed at rest
"""

from __future__ import annotations

WORKER_PAUSE, DRIVER_PAUSE, CLOCK_JUMP = "worker_pause", "driver_pause", "clock_jump"
GCS_KILL, AGENT_KILL = "gcs_kill", "agent_kill"
FORGET, COLLECT, IMPORT, EXPORT, RELABEL = "forget", "gc", "import", "export", "relabel"
DAMAGED_PLAN, DAMAGED_COMMIT, DAMAGED_INDEX = "damaged_plan", "damaged_commit", "damaged_index"
DAMAGED_MANIFEST, DAMAGED_GENERATION = "damaged_manifest", "damaged_generation"

COMMANDS = frozenset({FORGET, COLLECT, IMPORT, EXPORT, RELABEL})
PAUSES = frozenset({WORKER_PAUSE, DRIVER_PAUSE})
SERVICES = frozenset({GCS_KILL, AGENT_KILL})
DAMAGES = (DAMAGED_PLAN, DAMAGED_COMMIT, DAMAGED_INDEX, DAMAGED_MANIFEST, DAMAGED_GENERATION)

WEIGHTS = {
    WORKER_PAUSE: 0.20,
    DRIVER_PAUSE: 0.11,
    CLOCK_JUMP: 0.20,
    GCS_KILL: 0.02,
    AGENT_KILL: 0.05,
    FORGET: 0.07,
    COLLECT: 0.07,
    IMPORT: 0.04,
    EXPORT: 0.07,
    RELABEL: 0.07,
    **dict.fromkeys(DAMAGES, 0.02),
}
"""Shares of a drill's faults."""
