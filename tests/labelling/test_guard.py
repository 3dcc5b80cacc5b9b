"""Who may ask the page, and what a browser is told: token, host, origin, size, headers."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from evenhand.errors import UserError
from evenhand.serve.guard import LARGEST, Guard, content_policy
from evenhand.serve.server import lines, listening

TOKEN = "a-token"
HOST = "http://127.0.0.1:8123"


@pytest.fixture(scope="module")
def client():
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def page() -> PlainTextResponse:
        return PlainTextResponse("inside")

    @app.post("/said")
    def said(given: dict) -> dict:
        return given

    return TestClient(Guard(app, TOKEN, content_policy("let x = 1;")), base_url=HOST, follow_redirects=False)


def test_with_the_token_one_is_in_and_the_browser_is_told_what_not_to_do(client):
    found = client.get(f"/{TOKEN}/")
    assert (found.status_code, found.text) == (200, "inside")
    assert found.headers["cache-control"] == "no-store"
    assert found.headers["referrer-policy"] == "no-referrer"
    assert found.headers["x-content-type-options"] == "nosniff"
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "connect-src 'self'" in policy
    assert content_policy("let x = 2;") != policy
    assert client.get(f"/{TOKEN}").headers["location"] == f"/{TOKEN}/"


@pytest.mark.parametrize("path", ["/", "/said", "/a-toke/", "/a-token2/", "//a-token/", "/A-TOKEN/", "/docs", "/openapi.json"])
def test_without_the_token_nobody_is(client, path):
    found = client.get(path)
    assert found.status_code == 403
    assert "inside" not in found.text
    assert "content-security-policy" in found.headers


@pytest.mark.parametrize(
    ("host", "code"),
    [("127.0.0.1:9", 200), ("localhost", 200), ("LOCALHOST:80", 200), ("[::1]:7", 200), ("evil.example", 421),
     ("127.0.0.1.evil.example", 421), ("localhost.evil:80", 421), ("192.168.0.7:8123", 421), ("", 421)],
)  # fmt: skip
def test_other_names_for_this_machine_are_refused(client, host, code):
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == code


@pytest.mark.parametrize(
    ("origin", "code"),
    [(HOST, 200), ("http://127.0.0.1:9999", 403), ("https://evil.example", 403), ("null", 403), ("http://localhost:8123", 403)],
)
def test_pages_of_other_origins_may_not_speak(client, origin, code):
    assert client.post(f"/{TOKEN}/said", json={"x": 1}, headers={"origin": origin}).status_code == code


def test_a_body_has_an_end(client):
    assert client.post(f"/{TOKEN}/said", json={"x": "y" * LARGEST}).status_code == 413
    assert client.post(f"/{TOKEN}/said", content=iter([b"{}"])).status_code == 413, "without a length nobody knows"
    assert client.post(f"/{TOKEN}/said", json={"x": "y"}).json() == {"x": "y"}


def test_a_taken_port_is_said_and_the_address_is_loopback():
    with listening(0) as first:
        host, port = first.getsockname()
        first.listen()
        assert host == "127.0.0.1"
        with pytest.raises(UserError, match=f"port {port} cannot be used"), listening(port):
            pass
    shown = lines(8123, TOKEN)
    assert shown[0] == f"open: {HOST}/{TOKEN}/"
    assert "ssh -N -L 8123:127.0.0.1:8123 " in shown[1]


def test_an_account_without_a_name_is_no_hindrance(monkeypatch):
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert "127.0.0.1:8123 USER@" in lines(8123, TOKEN)[1]
