"""Durations as text: `90s`, `30m`, `2h`."""

import re

from dash_core.errors import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds_of(text: str, option: str) -> float:
    """Return the seconds of a duration such as 90s, 30m, 1.5h or 1h30m; ConfigError names the option if it is none."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    total = sum(float(number) * SECONDS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not total:
        raise ConfigError(
            f"{option} {text!r} is no duration; give a number and a unit, for example 90s, 30m, 2h or 1h30m"
        )
    return total
