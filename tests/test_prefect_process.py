"""How the private Prefect server answers when another server writes to its database."""

import asyncio

import pytest

from flows import prefect_process

PATIENT, SOON = (b"prefect-maintenance", b"true"), (b"retry-after", b"0.1")


def headers(statuses: list[int], method: str = "POST") -> list[set]:
    """Return the headers that an app's answers of these statuses get, one after the other."""
    answers, sent = iter(statuses), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": next(answers), "headers": []})

    async def keep(message):
        sent.append(set(message["headers"]))

    served = prefect_process._retried_soon(app)
    for _ in statuses:
        asyncio.run(served({"method": method}, None, keep))
    return sent


def test_a_busy_database_is_tried_again_soon_and_the_tries_are_not_counted():
    assert headers([503, 201, 503]) == [{SOON, PATIENT}, set(), {SOON, PATIENT}]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_database_that_stays_busy_is_given_up_however_well_the_server_answers_else(monkeypatch, method):
    monkeypatch.setattr(prefect_process, "BUSY", 0.0)
    assert headers([200, 503], method) == [set(), {SOON}]
