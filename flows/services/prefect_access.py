"""Who may use a private Prefect server: processes that know its secret, and no page in a browser.

The secret is new for each server. It goes from process to process through pipes alone: a command line or an environment
could be read by others, and nothing writes it to a file.
"""

import secrets
from collections.abc import Callable

SERVER_AUTH, CLIENT_AUTH = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"  # Prefect's settings
# of a page that may read answers: no page has this origin, because no server of ours uses port 80
NO_ORIGIN = "http://127.0.0.1"
SECRET_BYTES = 32
FORBIDDEN = 403


def new_auth_string() -> str:
    """Return a user and a random password, as Prefect's server and clients take them."""
    return f"dashpipe:{secrets.token_urlsafe(SECRET_BYTES)}"


def admit_own_clients(app: Callable, port: int) -> Callable:
    """Return the ASGI app for requests to this very address; those of web pages are refused before the app sees them.

    A browser names the page's address in the header `Origin`. A page whose name was pointed at 127.0.0.1 names itself
    in `Host`. The clients of a private server send neither. The secret is checked by Prefect.
    """
    address = f"127.0.0.1:{port}".encode()

    async def serve(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = [(name.lower(), value) for name, value in scope["headers"]]
            hosts = [value for name, value in headers if name == b"host"]
            if hosts != [address] or any(name == b"origin" for name, _ in headers):
                await _refuse(scope["type"], receive, send)
                return
        await app(scope, receive, send)

    return serve


async def _refuse(kind: str, receive: Callable, send: Callable) -> None:
    if kind == "websocket":
        await receive()  # "websocket.connect"
        await send({"type": "websocket.close", "code": 1008})
        return
    words = b"a private Prefect server answers only the command that started it\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(words)).encode())]
    await send({"type": "http.response.start", "status": FORBIDDEN, "headers": headers})
    await send({"type": "http.response.body", "body": words})
