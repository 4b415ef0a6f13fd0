"""A model, a corpus or the Space -> the Hugging Face Hub, in one commit or none.

python -m training.publish --model FOLDER --repo-id org/name
python -m training.publish --corpus CORPUS --repo-id org/name [--manifests-only]
python -m training.publish --space --repo-id org/name [--model-id org/name]...

The token is the one of HF_TOKEN or of `hf auth login`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bcd_models.errors import InputError
from bcd_models.hub.repository import SCHEMA_TAG
from training.publish.hub import (
    Change,
    Content,
    Repository,
    check_download,
    explain_hub_errors,
    require_token,
)

WORDS = {"+": "to add", "~": "to change", "-": "to remove"}
UNITS = ("B", "kB", "MB", "GB")


def publish(content: Content, repo_id: str, *, private: bool, dry_run: bool, verify: bool) -> None:
    """Make a repository hold just the content's files, and say what that changes.

    Raises:
        InputError: No token, or the repository is public and was to be private.
        HubError: The Hub refuses or can't be reached, or gives back something else.
    """
    repository = Repository(repo_id, content.kind)
    with explain_hub_errors(repo_id):
        info = repository.info()
        if info and private and not info.private:
            raise InputError(f"{repo_id} is public: make it private on the Hub, or publish without")
        changes = repository.changes(content, info)
        for line in summarise(repository, changes):
            typer.echo(line)
        if dry_run:
            typer.echo("dry run: nothing was sent")
            return
        if info is None or changes:
            require_token()
        if info is None:
            repository.create(private)
            info = repository.info()
            if info is None:
                raise InputError(f"{repo_id} was made, but this token may not see it")
            changes = repository.changes(content, info)  # a new one is not always empty
        commit = repository.send(content, changes, info) if changes else str(info.sha)
        typer.echo(f"{'published' if changes else 'nothing to send'}: {repo_id} at {commit}")
        if content.kind == "model":
            repository.tag(commit)
            typer.echo(f"tagged: {SCHEMA_TAG}, which a library of this schema loads by default")
        if verify:
            _verify(repository, content, commit)


def summarise(repository: Repository, changes: list[Change]) -> list[str]:
    """Return what changes, in lines: counts, then each file with its size."""
    counts = [f"{sum(c.sign == sign for c in changes)} {word}" for sign, word in WORDS.items()]
    lines = [f"{repository.repo_id} ({repository.kind}): {', '.join(counts)}"]
    return lines + [f"{c.sign} {c.path}  {describe_size(c.size)}" for c in changes]


def describe_size(size: float) -> str:
    """Write a number of bytes as people do."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.3g} {unit}"


def _verify(repository: Repository, content: Content, commit: str) -> None:
    with repository.download(commit) as folder:
        count = check_download(content, folder)
        if content.kind == "model":
            from training.publish import model

            model.check_logits(content.folder, folder)
    logits = ", and so are the logits" if content.kind == "model" else ""
    typer.echo(f"verified: {count} files downloaded are equal{logits}")


def main(
    repo_id: Annotated[str, typer.Option(help="Repository on the Hub: owner/name.")],
    model_folder: Annotated[Path | None, typer.Option("--model", help="Model folder.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus folder.")] = None,
    manifests_only: Annotated[
        bool, typer.Option("--manifests-only", help="Of a corpus: all but the images.")
    ] = False,
    app: Annotated[bool, typer.Option("--space", help="The app.")] = False,
    model_id: Annotated[
        list[str] | None, typer.Option(help="Of the app: a model it offers, the default first.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Where the repository is new, make it private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change; send nothing.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Download what was published and compare.")
    ] = False,
) -> None:
    """Publish a model, a corpus or the app. The token is HF_TOKEN's or `hf auth login`'s."""
    if sum((model_folder is not None, corpus is not None, app)) != 1:
        raise InputError("name one of --model FOLDER, --corpus CORPUS, --space")
    if manifests_only and corpus is None:
        raise InputError("--manifests-only goes with --corpus")
    if model_id and not app:
        raise InputError("--model-id goes with --space")
    with tempfile.TemporaryDirectory() as beside:
        folder = Path(beside)
        # Each imported where it is used: torch and datasets take seconds.
        if model_folder:
            from training.publish import model

            content = model.stage(model_folder, folder)
        elif corpus:
            from training.publish import dataset

            content = dataset.stage(corpus, folder, repo_id, pixels=not manifests_only)
        else:
            from training.publish import space

            content = space.stage(folder, model_id or ())
        publish(content, repo_id, private=private, dry_run=dry_run, verify=verify)
