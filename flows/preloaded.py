"""The end of what the process that workers are forked from imports: imported last, after `flows.preload`."""

from flows.environment import imports_done
from flows.preload import stop_watching

imports_done()
stop_watching()
