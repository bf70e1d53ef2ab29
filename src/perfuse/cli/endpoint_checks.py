"""What `perfuse doctor` looks at of the services: reached, spoken to, trusted, and in agreement."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from perfuse.cli.finding import Finding, note, ok, problem
from perfuse.client import Client, Connection
from perfuse.client.endpoint import Listening, look
from perfuse.client.health import SERVICES, check
from perfuse.errors import (
    FailedPrecondition,
    NotFound,
    PerfuseError,
    PermissionDenied,
    Unauthenticated,
)

__all__ = ["check_access", "check_base_models", "check_service"]

_SECONDS = 5.0


def check_service(connection: Connection, service: str) -> Iterator[Finding]:
    """Whether a service can be asked, and if not, how far one comes.

    Args:
        service: `registry`, `trainer` or `renderer`.
    """
    title, address = service.capitalize(), getattr(connection, service)
    try:
        credentials = connection.credentials(service)
    except FailedPrecondition as error:
        yield problem(title, str(error), "set PERFUSE_CA to one that can be read")
        return
    found = look(address, connection.ca)
    trouble = _trouble(connection, service, found, secured=credentials is not None)
    if trouble is not None:
        yield problem(title, *trouble)
        return
    health = check(address, credentials, service=SERVICES[service], timeout=_SECONDS)
    how = "with TLS" if credentials is not None else "in plain text, on this machine"
    if health.state == "SERVING":
        yield ok(title, f"{address} serves, {how}")
    elif health.state == "NOT_SERVING":
        yield problem(
            title,
            f"{address} lives but cannot serve: what it needs is away, or it starts or ends",
            "its log says what, under `not_ready`",
        )
    elif health.state == "STRANGER":
        yield problem(
            title,
            f"{address} is a gRPC server, but no {title}",
            f"set PERFUSE_{service.upper()} to the {title}'s address; perhaps two are swapped",
        )
    elif health.state == "SILENT":
        yield problem(
            title,
            f"{address} accepts connections but says nothing within {_SECONDS:g} seconds",
            "start it again; its log may say what holds it",
        )
    else:
        yield problem(
            title,
            f"{address} is something, but no gRPC server ({health.detail})",
            f"set PERFUSE_{service.upper()} to the {title}'s address",
        )


def check_access(connection: Connection, reached: Collection[str]) -> Iterator[Finding]:
    """Whether the token counts with each service, and the tenant is its own.

    Args:
        reached: services that serve, among `registry`, `trainer` and `renderer`.
    """
    if not connection.identified:
        yield problem(
            "token",
            "there is none to call with",
            "set PERFUSE_TOKEN, or `token` in the configuration; `perfuse up` leaves one, an "
            "operator makes one with `perfuse-registry token`",
        )
        return
    with Client(connection, timeout=_SECONDS) as client:
        asking: dict[str, Callable[[], object]] = {
            "registry": lambda: next(client.base_models.list(page_size=1), None),
            "renderer": client.renderer.status,
        }
        if connection.tenant:
            asking["trainer"] = lambda: next(client.training_runs.list(page_size=1), None)
        refusing, accepting = [], []
        for service in asking.keys() & set(reached):
            try:
                asking[service]()
            except Unauthenticated:
                refusing.append(service.capitalize())
            except (NotFound, PermissionDenied):
                pass  # Of a known caller, for whom the tenant is another's.
            except PerfuseError as error:
                yield note("token", f"the {service.capitalize()} could not be asked: {error}")
            else:
                accepting.append(service.capitalize())
        if refusing:
            yield problem(
                "token",
                f"unknown to the {' and the '.join(sorted(refusing))}",
                "get one in force from `perfuse-registry token`, into the file that TOKEN_FILE of "
                "the service names",
            )
        elif accepting:
            yield ok("token", f"accepted by {', '.join(sorted(accepting))}")
        if "Registry" in accepting:
            yield from _check_tenant(connection, client)


def check_base_models(connection: Connection) -> Iterator[Finding]:
    """Whether the Registry and the Renderer mean the same by every base model's name."""
    with Client(connection, timeout=_SECONDS) as client:
        try:
            known = {each.name: each for each in client.base_models.list()}
            resident = client.renderer.status().base_models
        except PerfuseError:
            return  # It stands among the findings already, as the service's or the token's.
    agreeing = []
    for each in resident:
        name = each.name.removeprefix("baseModels/")
        if each.name not in known:
            yield problem(
                f"base model {name}",
                "the Renderer has it, and the Registry does not know it",
                f"an operator registers it: perfuse base register {name} DIRECTORY",
            )
        elif known[each.name].fingerprint != each.fingerprint:
            yield problem(
                f"base model {name}",
                f"the Renderer has {each.fingerprint}, the Registry knows "
                f"{known[each.name].fingerprint}",
                "give the Renderer the files that were registered, or register its own under "
                "another id",
            )
        else:
            agreeing.append(name)
    if agreeing:
        yield ok("base models", f"Registry and Renderer agree on {', '.join(agreeing)}")
    elsewhere = sorted(set(known) - {each.name for each in resident})
    if elsewhere:
        names = ", ".join(each.removeprefix("baseModels/") for each in elsewhere)
        yield note("base models", f"registered, but not loaded in the Renderer: {names}")


def _trouble(
    connection: Connection, service: str, found: Listening, *, secured: bool
) -> tuple[str, str] | None:
    """What keeps gRPC from a service, and the remedy; None where nothing does."""
    title, address = service.capitalize(), getattr(connection, service)
    variable = f"PERFUSE_{service.upper()}"
    here = connection.is_local(service)
    if found.speech == "UNRESOLVED":
        host = address.rpartition(":")[0]
        return f"{host} is not the name of a machine ({found.detail})", f"correct {variable}"
    if found.speech == "REFUSED":
        start = "start a platform with `perfuse up`, or" if here else "start it there, or"
        return (
            f"nothing listens at {address} ({found.detail})",
            f"{start} set {variable} to where the {title} is",
        )
    if found.speech == "SILENT":
        return f"{address} does not answer ({found.detail})", "see to firewall, proxy and address"
    if secured and found.speech == "PLAIN":
        why = "`ca` is set" if connection.ca is not None else "it is not on this machine"
        if here:
            remedy = f"unset PERFUSE_CA, as {address} is on this machine"
        else:
            remedy = "give the server TLS: a token never travels in plain text"
        return f"{address} speaks plain text, and TLS was expected, for {why}", remedy
    if not secured and found.speech == "TLS":
        return (
            f"{address} speaks TLS, and plain text was expected, for it is on this machine and no "
            "`ca` is set",
            "set PERFUSE_CA to the PEM file that vouches for it",
        )
    if secured and found.distrust:
        by = connection.ca or "this system's authorities"
        return (
            f"the certificate of {address} is not vouched for by {by} ({found.distrust})",
            "set PERFUSE_CA to the PEM file that vouches for it, or the address to a name in it",
        )
    return None


def _check_tenant(connection: Connection, client: Client) -> Iterator[Finding]:
    if not connection.tenant:
        yield problem(
            "tenant",
            "not set, so that short names as `tom` mean nothing",
            "set PERFUSE_TENANT, or `tenant` in the configuration, to the token's own",
        )
        return
    try:
        next(client.concepts.list(page_size=1), None)
    except (NotFound, PermissionDenied):
        yield problem(
            "tenant",
            f"{connection.tenant} is not the token's own",
            "set PERFUSE_TENANT to the tenant that the token was made for",
        )
        return
    except PerfuseError as error:
        yield note("tenant", f"{connection.tenant} could not be asked about: {error}")
        return
    yield ok("tenant", f"{connection.tenant} is the token's own")
