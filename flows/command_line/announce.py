"""The one warning of a command that lost MLflow."""

import sys

from tasks.tracking.outage import REMEDY, Breaker


def warning_breaker() -> Breaker:
    """Return a breaker for a command's tracking that warns on stderr, once, if MLflow fails."""

    def warn(reason: str) -> None:
        print(f"warning: MLflow failed: {reason}; the runs go on. {REMEDY}", file=sys.stderr, flush=True)

    return Breaker(warn)
