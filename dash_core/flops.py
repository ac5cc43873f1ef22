"""torch's counter of FLOPs without its compiler.

torch wraps the counter's method so that its first call imports torch._dynamo, which takes two seconds, only to exclude
the method from compilation. We never count compiled code (see `dash_core.training`), so the wrapper is removed for the
whole process.
"""

import inspect

from torch.utils import flop_counter

__all__ = ["FlopCounterMode"]

FlopCounterMode = flop_counter.FlopCounterMode
if _mode := getattr(flop_counter, "_FlopCounterMode", None):  # private: without it the first count takes longer
    _mode.__torch_dispatch__ = inspect.unwrap(_mode.__torch_dispatch__)
