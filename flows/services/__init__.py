"""The processes beside a command: the private Prefect server, worker processes, MLflow's pages."""
