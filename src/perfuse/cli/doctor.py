"""`perfuse doctor`: what is wrong with an installation, or with the services that it leads to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from perfuse.cli.endpoint_checks import check_access, check_base_models, check_service
from perfuse.cli.exits import Exit
from perfuse.cli.finding import Check, Finding, problem, together
from perfuse.cli.installation_checks import (
    check_configuration,
    check_device,
    check_home,
    check_packages,
    check_python,
)
from perfuse.cli.options import connection_of
from perfuse.cli.output import answers, clean, document
from perfuse.client import Connection
from perfuse.client.health import SERVICES
from perfuse.errors import PerfuseError

__all__ = ["doctor"]

_SECONDS = 70.0
"""For all checks of a kind, which are made at the same time; each has a shorter bound itself."""

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="Answer in JSON, and with nothing else, for programs.")
    ] = False,
) -> None:
    """Say what is wrong here, or with the services, and what to do; 1 if anything is."""
    config: Path | None = context.find_root().params.get("config")
    connection, unusable = _connection(context)
    checks: dict[str, Check] = {
        "Python": check_python,
        "packages": check_packages,
        "torch": check_device,
        "folder": check_home,
    }
    if connection is not None:
        checks["configuration"] = partial(check_configuration, config)
        for service in SERVICES:
            checks[service.capitalize()] = partial(check_service, connection, service)
    found = [*together(checks, _SECONDS), *unusable]
    if connection is not None:
        well = {each.check for each in found if each.mark == "ok"}
        reached = [service for service in SERVICES if service.capitalize() in well]
        asking: dict[str, Check] = {"token": partial(check_access, connection, reached)}
        if connection.identified and {"registry", "renderer"} <= set(reached):
            asking["base models"] = partial(check_base_models, connection)
        found += together(asking, _SECONDS)
    healthy = all(each.mark != "problem" for each in found)
    if as_json:
        document({"healthy": healthy, "findings": found})
    else:
        for each in found:
            _tell(each)
    if not healthy:
        raise typer.Exit(Exit.REFUSED)


def _connection(context: typer.Context) -> tuple[Connection | None, list[Finding]]:
    try:
        return connection_of(context), []
    except PerfuseError as error:
        return None, [problem("configuration", str(error), "correct it, or name another")]


def _tell(finding: Finding) -> None:
    """One line, in one piece: mark, what was looked at, what was found, what to do."""
    said = Text(f"{finding.mark:<8}", style=_STYLES[finding.mark])
    said.append(" ".join(clean(f"{finding.check}: {finding.text}").split()), style="default")
    if finding.remedy:
        said.append(f". Remedy: {clean(finding.remedy)}", style="default")
    answers().print(said, soft_wrap=True)
