"""The cost of a phase that several processes share: all FLOPs, the seconds of the first, the highest peak of memory."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from dash_core.cost import PHASES, Cost
from dash_core.parallel.ranks import Ranks


def summed_costs(spent: Mapping[str, Cost], ranks: Ranks) -> dict[str, Cost]:
    """Return the costs by phase with the FLOPs of all ranks, and the memory of the one that held most."""
    if ranks.size == 1:
        return dict(spent)
    costs = {phase: spent.get(phase, Cost()) for phase in PHASES}
    flops = ranks.sum(torch.tensor([cost.flops for cost in costs.values()], device=ranks.device)).tolist()
    memory = ranks.maximum(torch.tensor([cost.peak_memory for cost in costs.values()], device=ranks.device)).tolist()
    return {
        phase: replace(cost, flops=flops[place], peak_memory=memory[place])
        for place, (phase, cost) in enumerate(costs.items())
    }
