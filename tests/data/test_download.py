import hashlib
import http.client
import io
import urllib.request

import pytest

from dash_core.data import tiny_imagenet
from dash_core.data.download import fetch, fetch_from_any
from dash_core.data.progress import silent
from dash_core.errors import DataError

CONTENT = b"the whole content"
MD5 = hashlib.md5(CONTENT).hexdigest()


class Response(io.BytesIO):
    def __init__(self, content, headers):
        super().__init__(content)
        self.headers = headers


@pytest.fixture
def serve(monkeypatch):
    """Answer every request with this content, or this error."""

    def answer(content, headers=None):
        def urlopen(request, timeout):
            assert timeout > 0
            if isinstance(content, Exception):
                raise content
            return Response(content, headers or {})

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)

    return answer


def test_a_download_is_whole_and_its_progress_told(tmp_path, serve):
    serve(CONTENT, {"Content-Length": str(len(CONTENT))})
    calls = []
    fetch("http://host/a", tmp_path / "a", MD5, lambda *call: calls.append(call))
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert calls == [("downloading http://host/a", len(CONTENT), len(CONTENT))]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "many"}], ids=str)
def test_a_download_of_unknown_length_is_checked_by_its_md5(tmp_path, serve, headers):
    serve(CONTENT, headers)
    fetch("http://host/a", tmp_path / "a", MD5, silent)
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "headers", "reason"),
    [
        (CONTENT[:5], {"Content-Length": "17"}, "broke off after 5 of 17 bytes"),
        (b"something else", {}, "gives a file with MD5"),
        (OSError("no route to host"), {}, "no route to host"),
        (TimeoutError("timed out"), {}, "timed out"),
        (http.client.IncompleteRead(b""), {}, "IncompleteRead"),
    ],
    ids=range(5),
)
def test_a_failed_download_says_why_and_leaves_nothing(tmp_path, serve, content, headers, reason):
    serve(content, headers)
    with pytest.raises(DataError, match=rf"http://host/a .*{reason}"):
        fetch("http://host/a", tmp_path / "a", MD5, silent)
    assert list(tmp_path.iterdir()) == []


def test_when_every_address_fails_each_is_named(tmp_path, serve):
    serve(OSError("down"))
    with pytest.raises(DataError, match=r"http://one/a .*down.*\nhttp://two/a .*down"):
        fetch_from_any(["http://one/a", "http://two/a"], tmp_path / "a", MD5, silent)


def test_the_folder_another_process_unpacked_first_is_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("theirs")
    tiny_imagenet._put(tmp_path / "mine", tmp_path / "root")
    assert (tmp_path / "root" / "file").read_text() == "theirs"
