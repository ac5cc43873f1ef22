"""torch's counter of FLOPs without its compiler.

torch wraps the method that sees each operation such that its first call imports torch._dynamo, which takes two
seconds, only to keep it out of what is compiled. Compiled code is never counted here (`dash_core.training`). The
wrapper is taken off for the whole process.
"""

import inspect

from torch.utils import flop_counter

__all__ = ["FlopCounterMode"]

FlopCounterMode = flop_counter.FlopCounterMode
if _mode := getattr(flop_counter, "_FlopCounterMode", None):  # private: without it the first count takes longer
    _mode.__torch_dispatch__ = inspect.unwrap(_mode.__torch_dispatch__)
