"""The errors a user can mend: each says what was given, what is allowed and how to fix it."""


class DashError(Exception):
    """Base of every error raised on purpose; its message is shown without a traceback."""


class ConfigError(DashError):
    """A setting is wrong: the message names the key, the value and what is allowed."""


class DataError(DashError):
    """Data are missing or damaged: the message names the file or the key."""


class RecordError(DashError):
    """A record, plan or checkpoint on disk cannot be used: the message names the file."""


class StopRequested(DashError):
    """A run was asked to stop: its state is on disk, and it goes on from there."""


class TrainingError(DashError):
    """Training cannot go on: the message says chunk, epoch, step and the likely cause."""
