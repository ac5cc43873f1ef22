"""Prefect tasks: one verb each, between the science and the flows."""

SERVICES = ".dashpipe"  # the folder in a store of what is no result: caches, locks, the private Prefect server
