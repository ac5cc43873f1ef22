"""What every worker process needs, imported once, in the process that workers are forked from."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, also while this imports

import mlflow.pytorch  # noqa: F401, E402
import torch._dynamo  # noqa: E402  (torch's exporter, for the model that is logged)
import torch.export  # noqa: E402, F401

import flows.experiment  # noqa: E402, F401
