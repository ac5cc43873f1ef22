"""The last import in the process that workers are forked from, after `flows.services.preload`."""

from flows.services.environment import imports_done
from flows.services.preload import parent_watch

imports_done()
parent_watch.stop()
