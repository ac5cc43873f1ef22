"""The end of what the process that workers are forked from imports: imported last, after `flows.services.preload`."""

from flows.services.environment import imports_done
from flows.services.preload import stop_watching

imports_done()
stop_watching()
