"""`perfuse version`: the immutable adapters of a concept."""

from __future__ import annotations

from typing import Annotated

import typer

from perfuse.cli.options import Json, complete_concept, connect, filter_like
from perfuse.cli.output import document, facts, say, table
from perfuse.names import VersionName

app = typer.Typer(
    help="Versions: a concept's adapters, numbered, immutable, each with a digest.",
    no_args_is_help=True,
)

Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="tom (its latest), tom@prod (an alias), tom@7 (a number).",
        autocompletion=complete_concept,
    ),
]

Filter = Annotated[str, filter_like('key_lock = "LOCAL" AND number > 3')]


def short_version(name: str) -> str:
    """`tom@7` for `tenants/acme/concepts/tom/versions/7`; nothing for nothing."""
    if not name:
        return ""
    parsed = VersionName.parse(name)
    return f"{parsed.concept}@{parsed.version}"


@app.command("list")
def list_versions(
    context: typer.Context,
    concept: Annotated[
        str, typer.Argument(metavar="ID", help="The concept.", autocompletion=complete_concept)
    ],
    filter: Filter = "",
    as_json: Json = False,
) -> None:
    """A concept's versions, the newest first."""
    with connect(context) as client:
        found = list(client.versions.list(concept, filter=filter))
    if as_json:
        document(found)
        return
    table(
        ("version", "digest", "bytes", "key lock", "base model", "bias", "description", "created"),
        (
            (
                short_version(each.name),
                each.digest[:19],
                each.size_bytes,
                each.key_lock,
                each.base_model.removeprefix("baseModels/"),
                each.bias,
                each.description,
                each.create_time,
            )
            for each in found
        ),
        nothing=f"{concept} has no such versions.",
    )


@app.command()
def show(context: typer.Context, version: Version, as_json: Json = False) -> None:
    """A version: its digest, base model, gate and training."""
    with connect(context) as client:
        found = client.versions.get(version)
    if as_json:
        document(found)
        return
    facts(
        [
            ("version", found.name),
            ("digest", found.digest),
            ("bytes", found.size_bytes),
            ("description", found.description),
            ("labels", found.labels),
            ("base model", found.base_model),
            ("fingerprint", found.base_model_fingerprint),
            ("super-category", found.super_category),
            ("placeholder", found.placeholder),
            ("key lock", found.key_lock),
            ("bias", found.bias),
            ("temperature", found.temperature),
            ("training run", found.training_run),
            *((f"training {key}", value) for key, value in sorted(found.training.items())),
            ("created", found.create_time),
        ]
    )


@app.command()
def delete(context: typer.Context, version: Version, as_json: Json = False) -> None:
    """Remove a version, named by its number as tom@7, for good."""
    with connect(context) as client:
        client.versions.delete(version)
    if as_json:
        document({"deleted": version})
    else:
        say(f"{version} is deleted")
