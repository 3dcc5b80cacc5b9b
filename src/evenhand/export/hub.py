"""A finished export on the Hub: private unless asked otherwise, and never the token in what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.hub import hub_error


def push(folder: Path, name: str, *, public: bool = False, api: Any = None) -> str:
    """Upload an exported folder as the model repository `name`; returns its address. huggingface_hub retries what it can.

    A new repository is private unless `public`; one that exists keeps its visibility, and a public one is refused by default.
    `api` stands in for `huggingface_hub.HfApi()`. Raises UserError for what the Hub refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi() if api is None else api
    try:
        address = api.create_repo(name, repo_type="model", private=not public, exist_ok=True)
        repository = getattr(address, "repo_id", name)  # "name" alone belongs to whoever is logged in
        if not public and not api.model_info(repository).private:
            raise UserError(
                f"{repository} is public", where="--push", why="without --public nothing is shown to the world",
                fix="name another repository, or add --public",
            )  # fmt: skip
        api.upload_folder(
            repo_id=repository, folder_path=folder, repo_type="model", commit_message="Model and card, exported by evenhand"
        )
    except UserError:
        raise
    except Exception as error:  # the Hub's own, the HTTP library's, the uploader's
        raise hub_error(
            error,
            "not uploaded",
            where=f"--push {name}",
            why=f"the folder itself is complete: {folder}",
            fix=f"`hf auth login`, check the name, or by hand: hf upload {name} {folder}",
        ) from None  # fmt: skip  (the library's own error may quote the request)
    return str(address)
