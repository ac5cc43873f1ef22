"""Everything that worker processes need, imported once, in the process that workers are forked from.

`flows.services.preloaded` comes last: until then this process ends as soon as its parent does.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, also during these imports

from flows.services.child import ParentWatch  # noqa: E402
from flows.services.environment import imports_begin  # noqa: E402

parent_watch = ParentWatch()  # our output stays open as long as this process; after the imports multiprocessing watches
imports_begin()
import flows.experiment  # noqa: F401, E402
from tasks.store.code import code_digest  # noqa: E402

code_digest()  # of the code that is imported here, whatever is edited before the first worker asks
