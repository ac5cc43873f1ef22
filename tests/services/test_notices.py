"""What the science warns of is seen on the terminal, once, whichever process it happens in."""

import logging

import pytest

from flows.services.notices import warnings_shown
from tests.system.shell import TINY, dashpipe

SCIENCE = logging.getLogger("dash_core.loading")


def test_a_warning_is_a_line_on_stderr_and_said_once(capsys):
    with warnings_shown():
        for _ in range(2):
            SCIENCE.warning("%d images are streamed", 3)
        SCIENCE.info("nothing to worry about")
        SCIENCE.warning("another")
    SCIENCE.warning("after the command")
    assert capsys.readouterr().err == "warning: 3 images are streamed\nwarning: another\n"


@pytest.mark.slow
def test_what_two_workers_have_to_say_is_said_once(tmp_path):
    settings = (*TINY, "chunks=2", "compare.workers=2", "compare.resident_gib=1e-6")
    ended = dashpipe(tmp_path / "store", "compare", settings=settings)
    assert ended.code == 0
    said = ended.err.splitlines()
    assert len(said) == len(set(said)) == 2, said  # of the training set, of the test set
    assert all(line.startswith("warning: ") and "they are streamed in batches" in line for line in said)
