"""Which of the processes of a run this one is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class ProcessPlace(NamedTuple):
    """Where a process stands that was started as one of several: counted on its machine (`local`), and over all."""

    local: int
    node: int
    rank: int
    devices: int
    world_size: int

    def environment(self) -> dict[str, str]:
        """The variables by which Lightning and torch.distributed know it."""
        return {
            "LOCAL_RANK": str(self.local),
            "NODE_RANK": str(self.node),
            "RANK": str(self.rank),
            "LOCAL_WORLD_SIZE": str(self.devices),
            "WORLD_SIZE": str(self.world_size),
        }


def this_place(environment: Mapping[str, str] = os.environ) -> ProcessPlace | None:
    """This process's place as torchrun, srun or our own first process gave it; None when nothing did.

    Sources: torchrun's "Environment Variables" and srun's "OUTPUT ENVIRONMENT VARIABLES".
    """

    def number(name: str, default: int = 0) -> int:
        return int(environment.get(name, default))

    if "LOCAL_RANK" in environment and "RANK" in environment:
        world = number("WORLD_SIZE", 1)
        node = number("GROUP_RANK", number("NODE_RANK"))
        return ProcessPlace(number("LOCAL_RANK"), node, number("RANK"), number("LOCAL_WORLD_SIZE", world), world)
    tasks, nodes = number("SLURM_STEP_NUM_TASKS", 1), number("SLURM_STEP_NUM_NODES", 1)
    if tasks > 1:
        return ProcessPlace(
            number("SLURM_LOCALID"), number("SLURM_NODEID"), number("SLURM_PROCID"), max(1, tasks // nodes), tasks
        )
    return None


def this_rank() -> int:
    """The number of this process in its run, 0 when it is alone."""
    place = this_place()
    return place.rank if place else 0
