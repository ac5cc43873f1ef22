"""One run over several processes, each with its own GPU: torch's DistributedDataParallel, results of one process.

Every process is a *rank*. All ranks draw the same order of images, augmentation and noise from the seed, so each knows
every batch without a word; `division` says which images of it a rank takes. `ranks` has what they tell each other,
`normalisation` computes BatchNorm over the whole batch. docs/data-parallel.md lists what stays the same, and what not.
"""

from dash_core.parallel.division import Division, Part, divide, divide_step, range_of
from dash_core.parallel.normalisation import use_global_statistics_
from dash_core.parallel.ranks import ALONE, JoinedRanks, Ranks, joined, joining

__all__ = [
    "ALONE",
    "Division",
    "JoinedRanks",
    "Part",
    "Ranks",
    "divide",
    "divide_step",
    "joined",
    "joining",
    "range_of",
    "use_global_statistics_",
]
