"""`perfuse-renderer`: serve."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence

import typer
from rich.console import Console

from perfuse.errors import PerfuseError
from perfuse.quotas import Quotas
from perfuse.serving.process_one import die_of_sigterm
from perfuse_renderer.settings import RendererSettings

app = typer.Typer(
    name="perfuse-renderer",
    help="The Renderer. Settings come from the environment, PERFUSE_RENDERER_*.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def renderer() -> None:
    """The Renderer. Settings come from the environment, PERFUSE_RENDERER_*."""


@app.command()
def serve() -> None:
    """Load the base models, warm them up, and serve until SIGTERM or SIGINT."""
    # Its imports remark on picture processors that nothing here uses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        asyncio.run(_serve(RendererSettings.load()))
    except PerfuseError as error:
        Console(stderr=True, soft_wrap=True).print(f"perfuse-renderer: {error}", markup=False)
        raise typer.Exit(1) from None


async def _serve(settings: RendererSettings) -> None:
    # The settings are judged before the slow imports.
    settings.base_directories()
    credentials, authenticator = settings.registry_credentials(), settings.authenticator()
    quotas = Quotas(settings.quota_file)

    from perfuse.client.registry import RegistryClient
    from perfuse.serving import logs, tracing
    from perfuse.serving.audit_log import AuditLog
    from perfuse.serving.edge import Edge
    from perfuse.serving.metrics import Metrics
    from perfuse.serving.run import Server
    from perfuse.serving.validation import ProtovalidateValidator
    from perfuse.v1.renderer_pb2_grpc import add_RendererServiceServicer_to_server
    from perfuse_renderer.forgetting import Forgetting
    from perfuse_renderer.measures import Measures
    from perfuse_renderer.metering import Meter
    from perfuse_renderer.pool import AdapterPool
    from perfuse_renderer.servicer import RendererServicer, request_kinds
    from perfuse_renderer.studios import open_studios

    logs.configure(settings.log_level, settings.log_format)
    validator = ProtovalidateValidator()
    validator.prepare(*request_kinds())
    tracer, end_tracing = tracing.configure("perfuse-renderer")
    metrics = Metrics()
    measures = Measures(metrics.registry)
    edge = Edge(authenticator, validator, metrics=metrics, tracer=tracer, threads=settings.threads)
    custody = settings.registry_custody()
    async with RegistryClient(settings.registry, credentials, custody=custody) as registry:
        pool = AdapterPool(
            registry, settings.adapter_directory, max_bytes=settings.adapter_megabytes << 20
        )
        async with contextlib.AsyncExitStack() as stack:
            studios = await stack.enter_async_context(open_studios(settings, pool, measures))
            if custody:
                await stack.enter_async_context(Forgetting(registry, pool).going_on())

            async def ready() -> None:
                await asyncio.gather(*(studio.backend.check() for studio in studios.values()))

            server = Server.from_settings(settings, edge, ready=ready)
            audit = AuditLog(settings.audit_file)
            servicer = RendererServicer(studios, pool, edge, Meter(quotas), audit)
            server.add(add_RendererServiceServicer_to_server, servicer)
            server.on_close(end_tracing)
            await server.run()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    die_of_sigterm()
    run: Callable[..., object] = app
    run(args=None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()
