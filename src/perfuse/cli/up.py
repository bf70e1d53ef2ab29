"""`perfuse up`: the three services on this machine, with all that they keep in one folder."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perfuse.cli.exits import Exit
from perfuse.cli.output import line, remark
from perfuse.client.connection import home as default_home
from perfuse.errors import FailedPrecondition, NotFound, PerfuseError
from perfuse.names import check_id

if TYPE_CHECKING:
    from perfuse.cli.platform_home import PlatformHome

__all__ = ["up"]

_TOYBOX = "toybox"
_NEEDED = ("perfuse_registry", "perfuse_trainer", "perfuse_renderer", "sqlmodel", "torch")
_BEATS = ("REGISTRY", "TRAINER", "RENDERER", "TENANT", "TOKEN", "CA", "CONFIG")
_HIGHEST_PORT = 65535


def up(
    home: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where all is kept; PERFUSE_HOME, or ~/.perfuse."),
    ] = None,
    port: Annotated[
        int,
        typer.Option(min=1, max=_HIGHEST_PORT - 2, help="The first of three ports in a row."),
    ] = 7071,
    tenant: Annotated[str, typer.Option(metavar="ID", help="Whose token is made.")] = "local",
    base: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=DIRECTORY",
            help="A prepared base model; may be given several times. The toybox's by default.",
        ),
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Train and render in processes of Ray, started here.")
    ] = False,
    pack: Annotated[
        int | None, typer.Option(min=1, max=64, help="Runs that a worker trains in one pass.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Workers of the Trainer at a time.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON when ready, and nothing else.")
    ] = False,
) -> None:
    """Run Registry, Trainer and Renderer here until Ctrl-C. Every other command finds them.

    A second Ctrl-C ends them at once.
    """
    # Only here: the other commands do without, on systems where this would not load.
    from perfuse.cli.platform import (
        TITLES,
        Interrupted,
        Platform,
        ServiceDied,
        require_free_ports,
    )
    from perfuse.cli.platform_home import PlatformHome
    from perfuse.cli.service_settings import PlatformSettings
    from perfuse.cli.signals import Signals
    from perfuse.cli.up_display import Starting, tell_ready

    began = time.monotonic()
    settings = PlatformSettings(
        tenant=check_id("--tenant", tenant),
        port=port,
        bases=_bases(base or ()),
        ray=ray,
        pack=pack,
        workers=workers,
    )
    _require_installed()
    place = PlatformHome(home or default_home())
    signals = Signals()
    with place.claimed() as claim, signals.heard():
        require_free_ports(settings)
        platform = Platform(settings, place, claim, signals)
        status, fault = Exit.DONE, None
        try:
            platform.start()
            starting = Starting(TITLES, silent=as_json)
            with starting.shown():
                platform.wait_until_ready(starting.ready)
            seconds = time.monotonic() - began
            if as_json:
                line(
                    {
                        **settings.addresses,
                        "tenant": settings.tenant,
                        "home": str(place.folder),
                        "base_models": {name: str(each) for name, each in settings.bases.items()},
                        "seconds": round(seconds, 2),
                    }
                )
            else:
                tell_ready(
                    platform.connection,
                    place.folder,
                    list(settings.bases),
                    seconds,
                    is_default_home=place.folder == default_home().absolute(),
                )
                _warn_of_others(place)
            platform.watch()
        except Interrupted:
            status = Exit.INTERRUPTED
        except (PerfuseError, ServiceDied) as error:
            fault = error
        finally:
            if not as_json:
                remark("ending; Ctrl-C ends it at once")
            problems = platform.end()
    if isinstance(fault, ServiceDied) and not as_json:
        for each in fault.lines[:-1]:
            remark(f"  {each}")
    for each in problems:
        remark(f"perfuse: {each}")
    if fault is not None:
        raise fault
    if status or problems:
        raise typer.Exit(status or Exit.REFUSED)


def _bases(said: Sequence[str]) -> Mapping[str, Path]:
    """Id → absolute directory.

    Raises:
        InvalidArgument, FailedPrecondition, NotFound: they cannot be had.
    """
    found: dict[str, Path] = {}
    for each in said:
        name, equals, directory = each.partition("=")
        if not (equals and directory):
            raise typer.BadParameter(f"--base has {each!r}; it takes ID=DIRECTORY")
        if name in found:
            raise typer.BadParameter(f"--base has {name} twice; each id names one directory")
        found[check_id("--base", name)] = Path(directory).expanduser().absolute()
    if not found:
        found[_TOYBOX] = _toybox()
    for name, path in found.items():
        if not (path / "model_index.json").is_file():
            raise NotFound(
                f"{path}, which --base calls {name}, is no base model: a directory in diffusers "
                "layout has a model_index.json"
            )
        if "," in str(path):
            raise FailedPrecondition(
                f"{path} has a comma in it, where lists of base models part. Name it otherwise"
            )
    return found


def _toybox() -> Path:
    spec = importlib.util.find_spec("perfuse_toybox")
    if spec is None or spec.origin is None:
        raise FailedPrecondition(
            "the toybox base model is not installed: pip install 'perfuse[toybox]', or name a "
            "prepared base model with --base ID=DIRECTORY"
        )
    return Path(spec.origin).parent / "base"


def _require_installed() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FailedPrecondition(
            f"the services need {', '.join(missing)}: pip install "
            "'perfuse[registry,trainer,renderer]'"
        )


def _warn_of_others(place: PlatformHome) -> None:
    """Say what would lead other commands elsewhere."""
    for name in _BEATS:
        if os.environ.get(f"PERFUSE_{name}"):
            remark(f"PERFUSE_{name} is set here and beats what this leaves; unset it to use this")
    other = place.folder / "config.toml"
    if other.is_file():
        remark(f"{other} beats what this leaves: move it, or say --config {place.connection_file}")
