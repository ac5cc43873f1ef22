"""Prefect tasks: one verb each, between the science and the flows."""
