"""Prefect tasks: one verb each, between the science and the flows."""

SERVICES = ".dashpipe"  # folder in a store for everything that is no result: caches, locks, the private Prefect server
