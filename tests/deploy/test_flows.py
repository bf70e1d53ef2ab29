"""Who may talk to whom: what the policies let through is the table in docs/architecture.md."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from deploy.manifests import ROOT, Manifest, build, pods

Flow = tuple[str, str, int]

# Beside the ports that anything has, two that nothing has.
ODD_PORTS = {12345, 22}
HOME = "perfuse"


@dataclass(frozen=True)
class Place:
    """Something that could talk or be talked to.

    Attributes:
        name: in the table.
        labels: of its pod.
        namespace: its name; None outside the cluster.
        namespace_labels: of its namespace, beside its name.
        address: outside the cluster.
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = HOME
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None


BESIDE = [
    Place("clients", {"perfuse-client": "true"}),
    Place("clients", {}, "apps", {"perfuse-client": "true"}),
    Place("telemetry", {}, "monitoring", {"perfuse-telemetry": "true"}),
    Place("DNS", {"k8s-app": "kube-dns"}, "kube-system"),
    Place("Kubernetes' API", {}, None, address="10.96.0.1"),
    Place("a stranger here", {"app": "stranger"}),
    Place("a stranger elsewhere", {"app.kubernetes.io/name": "registry"}, "elsewhere"),
    Place("anything outside", {}, None, address="203.0.113.7"),
]


def places(target: str) -> list[Place]:
    """Every pod that is built, and what is beside them."""
    here = {pod.role: Place(pod.role, pod.labels) for pod in pods(build(target))}
    return [*here.values(), *BESIDE]


def matches(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Kubernetes' rule for label selectors, as far as ours go."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True


def is_peer(peer: Manifest, place: Place) -> bool:
    """Whether an entry of `from` or `to` means a place."""
    if "ipBlock" in peer:
        assert peer["ipBlock"].keys() == {"cidr"}
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return place.address is not None and ipaddress.ip_address(place.address) in network
    if place.namespace is None:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": place.namespace, **place.namespace_labels}
        there = matches(peer["namespaceSelector"], labels)
    else:
        there = place.namespace == HOME
    return there and matches(peer.get("podSelector", {}), place.labels)


def open_ports(
    policies: list[Manifest], place: Place, direction: str, other: Place, ports: set[int]
) -> set[int]:
    """The ports on which a place may talk with another in one direction, by its own policies."""
    if place.namespace != HOME:
        return ports  # Not ours to say.
    key, side = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    own = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"]
        and matches(policy["spec"]["podSelector"], place.labels)
    ]
    if not own:
        return ports
    found: set[int] = set()
    for rule in [rule for spec in own for rule in spec.get(key, [])]:
        # An absent list means everything, an empty one nothing: neither is what we write.
        assert rule[side]
        if any(is_peer(peer, other) for peer in rule[side]):
            found |= {entry["port"] for entry in rule["ports"]} if "ports" in rule else ports
    return found & ports


def policies_of(target: str) -> list[Manifest]:
    return [each for each in build(target) if each["kind"] == "NetworkPolicy"]


@functools.cache
def ports_of(target: str) -> set[int]:
    """Every port that a pod, a policy or the table knows of."""
    found = set(ODD_PORTS) | {port for _, _, port in table()}
    for pod in pods(build(target)):
        for container in pod.containers:
            found |= {port["containerPort"] for port in container.get("ports", [])}
    for policy in policies_of(target):
        text = repr(policy["spec"])
        found |= {int(port) for port in re.findall(r"'port': (\d+)", text)}
    return found


def flows(target: str) -> set[Flow]:
    """Everything that the policies let through, of what begins or ends here."""
    policies, ports = policies_of(target), ports_of(target)
    found: set[Flow] = set()
    everything = places(target)
    for source in everything:
        for goal in everything:
            if source is goal or HOME not in (source.namespace, goal.namespace):
                continue
            out = ports & open_ports(policies, source, "Egress", goal, ports)
            both = out & open_ports(policies, goal, "Ingress", source, out)
            found |= {(source.name, goal.name, port) for port in both}
    return found


def _rows() -> Iterator[tuple[list[str], list[str], list[int] | None]]:
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.partition("## Flows")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0] != "from" and not cells[0].startswith("--"):
            sources, goals = (
                [name.strip() for name in cell.split(",")] for cell in (cells[0], cells[1])
            )
            ports = None if cells[2] == "any" else [int(p) for p in cells[2].split(",")]
            yield sources, goals, ports


def table() -> set[Flow]:
    """The rows with ports."""
    return {
        (source, goal, port)
        for sources, goals, ports in _rows()
        for source in sources
        for goal in goals
        for port in ports or []
        if source != goal
    }


def promised(target: str) -> set[Flow]:
    """The table, for the places that there are; `all` is every pod here."""
    names = {place.name for place in places(target)}
    here = {pod.role for pod in pods(build(target))}
    nodes = {pod.role for pod in pods(build(target)) if "perfuse-ray-node" in pod.labels}

    def meant(name: str) -> set[str]:
        if name == "Ray's nodes":
            return nodes
        return here | {"clients", "a stranger here"} if name == "all" else {name}

    found = set()
    for sources, goals, ports in _rows():
        for source in {one for name in sources for one in meant(name)} & names:
            for goal in {one for name in goals for one in meant(name)} & names:
                if source != goal:
                    some = ports_of(target) if ports is None else ports
                    found |= {(source, goal, port) for port in some}
    return found


@pytest.mark.parametrize(
    "target", ["overlays/kind", "tests/ray", "tests/ray-training", "tests/gpu"]
)
def test_the_policies_let_through_what_the_table_says_and_no_more(target: str) -> None:
    real, told = flows(target), promised(target)
    assert real - told == set(), "let through, and not in the table"
    assert told - real == set(), "in the table, and not let through"
    assert len(told) > 20


def test_production_reaches_its_database_and_store_beside_that() -> None:
    database, store = (
        Place("d", {}, None, address="192.0.2.5"),
        Place("s", {}, None, address="192.0.2.133"),
    )
    policies = policies_of("overlays/production")
    reached = {
        (place.name, goal.name, port)
        for place in places("overlays/production")
        if place.namespace == HOME
        for goal in (database, store)
        for port in open_ports(policies, place, "Egress", goal, {5432, 443, 22})
    }
    with_tables = {
        "registry",
        "registry migrate",
        "registry upkeep",
        "trainer",
        "trainer migrate",
        "ray worker",
    }
    autoscaler = {("ray head", goal, 443) for goal in ("d", "s")}
    assert reached - autoscaler == {
        *((name, "d", 5432) for name in with_tables),
        *((name, "s", 443) for name in with_tables),
    }
    assert flows("overlays/production") >= {("renderer", "registry", 7071)}


def test_a_policy_less_would_be_noticed() -> None:
    policies = [
        policy for policy in policies_of("overlays/kind") if policy["metadata"]["name"] != "deny"
    ]
    stranger = next(place for place in BESIDE if place.name == "a stranger here")
    outside = next(place for place in BESIDE if place.name == "anything outside")
    assert open_ports(policies, stranger, "Ingress", outside, {22}) == {22}
    everything = policies_of("overlays/kind")
    assert not open_ports(everything, stranger, "Ingress", outside, {22})
