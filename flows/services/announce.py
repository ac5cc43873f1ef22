"""What a command says on stderr when MLflow fails: a line for metrics, artifacts and models each, once."""

import sys

from tasks.tracking.failures import REMEDY, Failures


def warned_failures() -> Failures:
    """Return the failures of a command's tracking, each said on stderr while the runs go on."""

    def warn(what: str) -> None:
        print(f"warning: {what}; the runs go on. {REMEDY}", file=sys.stderr, flush=True)

    return Failures(warn)
