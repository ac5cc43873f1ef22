"""The orchestration: Prefect flows and the command line."""
