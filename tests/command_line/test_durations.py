"""Durations as a user writes them."""

import pytest

from dash_core.errors import ConfigError
from flows.command_line.durations import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86_400)]
)
def test_a_duration_is_a_number_and_a_unit(text, seconds):
    assert seconds_of(text, "--budget") == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-5m", "0s", "30 m", "30min", "1h-3m", "nan", "infs"])
def test_any_other_text_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"--budget .* is no duration; give .*90s, 30m, 2h"):
        seconds_of(text, "--budget")
