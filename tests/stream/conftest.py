"""What tests of streams share."""

import pytest

from tests.stream import small


@pytest.fixture(scope="module")
def no_export():
    """Leave out the export, which takes seconds for each model, for a whole module."""
    with small.without_export():
        yield
