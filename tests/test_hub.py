"""Whatever a call to the Hub raises is one message with a way out, never a bug of this program; and never the token."""

from __future__ import annotations

from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)

from evenhand.errors import UserError
from evenhand.export.hub import push
from evenhand.stages.base import download

TOKEN = "hf_" + "x" * 34


def answered(status, kind=HfHubHTTPError, text="Server Error"):
    request = httpx2.Request("GET", "https://huggingface.co/api")
    return kind(f"{status} {text} {TOKEN}", response=httpx2.Response(status, request=request))


FAULTS = {
    "offline": (OfflineModeIsEnabled("Cannot reach https://huggingface.co: offline mode is enabled"), "HF_HUB_OFFLINE"),
    "not kept": (LocalEntryNotFoundError("cannot find it in the cache"), "cannot be reached"),
    "timeout": (httpx2.ReadTimeout("timed out"), "did not answer in time"),
    "connect": (httpx2.ConnectError("name not known"), "cannot be reached"),
    "503": (answered(503), "busy or broken (HTTP 503)"),
    "500": (answered(500), "busy or broken (HTTP 500)"),
    "429": (answered(429), "busy or broken (HTTP 429)"),
    "401": (answered(401), "does not know who asks"),
    "403": (answered(403, text="Forbidden"), "403 Forbidden"),
    "gated": (answered(403, GatedRepoError), "it is gated"),
    "a name": (HFValidationError("Repo id must be in the form 'namespace/name'"), "Repo id must be"),
    "the uploader": (RuntimeError("Data processing error: CAS service error"), "CAS service error"),
    "no words": (RuntimeError(), "RuntimeError"),
}


@pytest.fixture(params=FAULTS)
def fault(request, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return FAULTS[request.param]


def fails(error):
    def call(*arguments, **options):
        raise error

    return call


def test_a_model_that_cannot_be_loaded(fault, monkeypatch):
    error, words = fault
    monkeypatch.setattr("huggingface_hub.snapshot_download", fails(error))
    with pytest.raises(UserError) as said:
        download("org/model", None, where="model.path")
    assert words in said.value.what
    assert said.value.fix
    assert TOKEN[:12] not in str(said.value)


@pytest.mark.parametrize("step", ["create_repo", "model_info", "upload_folder"])
def test_a_push_that_fails(fault, step, tmp_path):
    error, words = fault
    steps = {
        "create_repo": lambda *a, **o: SimpleNamespace(repo_id="me/name"),
        "model_info": lambda *a, **o: SimpleNamespace(private=True),
        "upload_folder": lambda *a, **o: None,
    }
    api = SimpleNamespace(**(steps | {step: fails(error)}))
    with pytest.raises(UserError) as said:
        push(tmp_path, "name", api=api)
    assert words in said.value.what
    assert str(tmp_path) in said.value.why
    assert TOKEN[:12] not in str(said.value)


def test_a_data_set_that_cannot_be_loaded_or_breaks_off(fault, monkeypatch):
    import datasets

    from evenhand.data.readers import hub_rows

    error, words = fault
    asked = {"config": "", "split": "train", "revision": "", "streaming": True}
    monkeypatch.setattr(datasets, "load_dataset", fails(error))
    with pytest.raises(UserError) as said:
        list(hub_rows("org/data", **asked))
    assert words in said.value.what

    def breaks_off():
        yield {"prompt": "a"}
        raise error

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **o: breaks_off())
    rows = hub_rows("org/data", **asked)
    assert next(rows) == ("org/data[0]", {"prompt": "a"})
    with pytest.raises(UserError, match="row 1 cannot be read"):
        next(rows)
