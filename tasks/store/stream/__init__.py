"""Streams on disk: ledger, inbox, chunks, what was set aside, models, releases. The ledger is the truth."""
