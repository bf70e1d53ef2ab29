"""`perfuse-registry`: serve, migrate, mint tokens, verify, collect garbage, mend restores."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console

from perfuse.errors import FailedPrecondition, PerfuseError
from perfuse.serving import logs
from perfuse.serving.process_one import die_of_sigterm
from perfuse.serving.roles import GRANTED_BY
from perfuse.serving.workers import supervise, this_worker
from perfuse.storage.database import Database
from perfuse_registry.measures import Measures
from perfuse_registry.registry import Registry
from perfuse_registry.schema import SCHEMA
from perfuse_registry.settings import RegistrySettings

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="perfuse-registry",
    help="The Registry. Settings come from the environment, PERFUSE_REGISTRY_*.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# What is told may go to a file or another command, which want no lines broken.
_console = Console(soft_wrap=True)


def _in_sentences(command: Callable[P, R]) -> Callable[P, R]:
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except PerfuseError as error:
            sentence = str(error)
        except OSError as error:
            sentence = f"{error.filename or 'the system'}: {error.strerror or error}"
        Console(stderr=True, soft_wrap=True).print(f"perfuse-registry: {sentence}", markup=False)
        raise typer.Exit(1)

    return run


@app.command()
@_in_sentences
def serve(
    migrate_first: Annotated[
        bool, typer.Option("--migrate", help="Bring the database up to date before serving.")
    ] = False,
) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is under way."""
    settings = RegistrySettings.load()
    if migrate_first:
        _migrate(settings, "head")
    if settings.workers > 1 and this_worker() is None:
        logs.configure(settings.log_level, settings.log_format)
        command = [sys.executable, "-m", "perfuse_registry", "serve"]
        raise typer.Exit(supervise(command, settings.workers, settings.bind))
    asyncio.run(_serve(settings))


@app.command()
@_in_sentences
def migrate(
    revision: Annotated[str, typer.Argument(help="Revision, `head` or `base`.")] = "head",
) -> None:
    """Bring the database to a revision of its tables, by default the newest."""
    _migrate(RegistrySettings.load(), revision)


@app.command()
@_in_sentences
def token(
    tenant: Annotated[str, typer.Argument(help="Whose token: a tenant's id.")],
    role: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(GRANTED_BY)}; repeatable."),
    ] = None,
    subject: Annotated[str, typer.Option(help="The person or service.")] = "admin",
    file: Annotated[
        Path | None, typer.Option(help="By default PERFUSE_REGISTRY_TOKEN_FILE.")
    ] = None,
) -> None:
    """Mint a token: it is printed once and stored as a digest only."""
    from perfuse.serving.tokens import mint

    place = file or RegistrySettings.load().token_file
    if place is None:
        raise FailedPrecondition(
            "there is no file for it: set PERFUSE_REGISTRY_TOKEN_FILE, or give --file"
        )
    print(mint(place, tenant, subject, role or ["admin"]))


@app.command()
@_in_sentences
def verify(
    tenant: Annotated[str, typer.Option(help="Only this tenant's adapters.")] = "",
) -> None:
    """Read every stored adapter and compare it with its digest; exit 2 if one is damaged."""
    with _open() as registry, _console.status("reading every adapter"):
        report = registry.integrity.verify(tenant)
    _console.print(
        f"{report.checked} adapters read, {report.damaged_count} damaged; "
        f"{report.unreferenced} more that no version refers to ({report.unreferenced_bytes} bytes)"
    )
    for damage in report.damaged:
        _console.print(f"  {', '.join(damage.versions)}: {damage.problem}", markup=False)
    if report.damaged_count:
        raise typer.Exit(2)


@app.command("collect-garbage")
@_in_sentences
def collect_garbage(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
) -> None:
    """Purge deleted concepts and remove bytes that nothing refers to, in two phases."""
    with _open() as registry:
        done = registry.garbage.collect(dry_run=dry_run)
    _console.print(
        f"{'would be ' if dry_run else ''}purged: {done.purged_concepts} concepts; condemned: "
        f"{done.condemned} adapters; removed: {done.removed} adapters ({done.removed_bytes} "
        f"bytes); spared: {done.spared}; forgotten request ids: {done.expired_requests}"
    )


@app.command("export-erasures")
@_in_sentences
def export_erasures() -> None:
    """Print the receipt of every erasure, one a line: for a restore, which must erase again."""
    from perfuse_registry.catalog.receipts import canonical

    with _open() as registry:
        for erasure in registry.erasures.every():
            print(canonical(erasure))


@app.command("reapply-erasures")
@_in_sentences
def reapply_erasures(
    file: Annotated[Path, typer.Argument(help="As export-erasures printed it.")],
) -> None:
    """After a restore: erase once more what was erased since the backup."""
    from perfuse_registry.catalog.receipts import read_receipts

    receipts = read_receipts(file.read_text())
    with _open() as registry:
        count = registry.erasures.again(receipts)
    _console.print(f"{len(receipts)} receipts read; {count} concepts were erased again")


@app.command("skip-numbers")
@_in_sentences
def skip(
    count: Annotated[int, typer.Argument(help="More than any concept got since the backup.")],
) -> None:
    """After a restore: number new versions higher, so that no lost number is given again."""
    from perfuse_registry.numbering import skip_numbers

    database = Database(RegistrySettings.load().database_url.get_secret_value())
    try:
        SCHEMA.require_revision(database)
        concepts = skip_numbers(database, count)
    finally:
        database.close()
    _console.print(f"{concepts} concepts: their next versions are numbered {count} higher")


def _migrate(settings: RegistrySettings, revision: str) -> None:
    database = Database(settings.database_url.get_secret_value())
    before = SCHEMA.current_revision(database)
    SCHEMA.migrate(database, revision)
    after = SCHEMA.current_revision(database)
    _console.print(f"database: revision {before or 'none'} -> {after or 'none'}")
    database.close()


@contextmanager
def _open() -> Iterator[Registry]:
    registry = Registry.from_settings(RegistrySettings.load())
    try:
        yield registry
    finally:
        registry.close()


async def _serve(settings: RegistrySettings) -> None:
    # The other commands start faster without a server's imports.
    from perfuse.serving import tracing
    from perfuse.serving.edge import Edge
    from perfuse.serving.metrics import Metrics
    from perfuse.serving.run import Server
    from perfuse.serving.validation import ProtovalidateValidator
    from perfuse.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
    from perfuse_registry.servicer import RegistryServicer, request_kinds

    logs.configure(settings.log_level, settings.log_format)
    metrics = Metrics()
    registry = Registry.from_settings(settings, Measures(metrics.registry))
    validator = ProtovalidateValidator()
    validator.prepare(*request_kinds())
    tracer, end_tracing = tracing.configure("perfuse-registry")
    edge = Edge(
        settings.authenticator(),
        validator,
        metrics=metrics,
        tracer=tracer,
        threads=settings.threads,
        threaded=True,
    )

    async def ready() -> None:
        registry.expire()
        await asyncio.to_thread(registry.check)

    async def close() -> None:
        registry.close()
        end_tracing()

    server = Server.from_settings(settings, edge, ready=ready)
    server.add(add_RegistryServiceServicer_to_server, RegistryServicer(registry, edge))
    server.on_close(close)
    # What a crash cut short; without a store or a database that answers it is for later.
    await asyncio.to_thread(registry.erased_bytes.go_on)
    # All that was made until now stays: the collector of cycles need not go through it ever again.
    gc.collect()
    gc.freeze()
    await server.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    die_of_sigterm()
    app(args=None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()
