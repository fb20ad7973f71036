"""How the processes of a run find each other: by `--coordinator`, or as whatever started them tells JAX,
whose own `jax.distributed` connects them."""

import os
import re
from importlib.util import find_spec
from typing import Any

import jax

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError, RunError, said

SILENCE, WAITS = 60, 600
"""Seconds without a sign of life after which a process counts as dead, and that processes may take to
find each other."""

_LAUNCHERS = {
    "SLURM": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
}
"""Who starts processes -> the variables in which it tells how many there are, which this one is, and
how many there are on this machine ("2(x4)" of SLURM)."""


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Meet the other processes, if there are any. Raises ArgumentError, and RunError where they do not
    find each other."""
    asked: dict[str, Any] | None
    if check(coordinator, processes, process):
        asked = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    else:
        asked = launched()
    if processes == 1 or asked is None:
        return
    if jax.distributed.is_initialized():  # a second run of one program
        return
    try:
        jax.distributed.initialize(
            **asked,
            initialization_timeout=WAITS,
            heartbeat_timeout_seconds=SILENCE,
            shutdown_timeout_seconds=SILENCE,
        )
    except (RuntimeError, ValueError) as error:
        where = coordinator or "the coordinator that the launcher names"
        raise RunError(
            f"coordinator={where!r}: the processes did not find each other ({said(error)}); start all of them, with "
            "one address that each can reach, or give --processes 1 to leave the others alone"
        ) from None


def check(coordinator: str | None, processes: int | None, process: int | None) -> bool:
    """Whether the flags say who the others are. Raises ArgumentError."""
    if coordinator is None and process is None and processes in (None, 1):
        return False
    if coordinator is None or processes is None or process is None:
        given = {"coordinator": coordinator, "processes": processes, "process": process}
        raise ArgumentError(
            next(name for name, value in given.items() if value is None),
            None,
            "give --coordinator HOST:PORT, --processes N and --process I, all three",
        )
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise ArgumentError("coordinator", coordinator, "give HOST:PORT, a free port of process 0")
    whole("processes", processes)
    whole("process", process, at_least=0)
    if process >= processes:
        raise ArgumentError(
            "process", process, f"of {processes} processes the last is {processes - 1}"
        )
    return True


def launched() -> dict[str, Any] | None:
    """What JAX need be told where something that it knows has started several processes that belong
    together; None where nothing has."""
    for count, index, beside in _LAUNCHERS.values():
        if _number(count) > 1 and index in os.environ:
            # Alone on its machine, a process has all its devices; else JAX gives one to each.
            return {"local_device_ids": []} if _number(beside) == 1 else {}
    pod = len(os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")) > 1
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
    return {} if pod or (indexed and find_spec("kubernetes") is not None) else None


def _number(variable: str) -> int:
    found = re.match(r"\d+", os.environ.get(variable, ""))
    return int(found[0]) if found else 0
