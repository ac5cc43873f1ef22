"""Prefect tasks: one verb each, between the science and the flows."""

SERVICES_FOLDER = (
    ".dashpipe"  # folder in a store for everything that is not a result: caches, locks, the private Prefect server
)
