"""Alerts and dashboard ask for measures that exist, by labels and values that they have.

The expressions are parsed, not evaluated: there is no engine for them in a package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from operating.names import LABELS, declared, documented

ROOT = Path(__file__).parents[2]
TELEMETRY = ROOT / "deploy" / "components" / "telemetry"
RUNBOOK = ROOT / "docs" / "operating" / "alerts.md"
OF_PROMETHEUS = {"up"}
OF_KUBERNETES = {"job", "instance", "namespace", "pod"}


@dataclass
class Asked:
    """What an expression asks for: measures, by labels and values; and what it groups by."""

    names: set[str] = field(default_factory=set)
    chosen: set[tuple[str, str, str]] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)


def asked(expression: str) -> Asked:
    found = Asked()

    def look(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            look(node.vector_selector)
        if isinstance(node, promql_parser.VectorSelector):
            assert node.name, f"{expression} asks for any measure"
            found.names.add(node.name)
            for each in node.matchers.matchers:
                found.chosen.add((node.name, each.name, each.value))
        if (modifier := getattr(node, "modifier", None)) is not None:
            found.grouped |= set(getattr(modifier, "labels", ()))

    promql_parser.walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")), look)
    assert found.names, expression
    return found


def measure(name: str) -> str:
    """The declared name behind a series, such as a histogram's buckets."""
    return re.sub(r"_(bucket|count|sum)$", "", name) if name not in declared() else name


def check(expression: str) -> set[str]:
    """Hold an expression to what is declared; the measures that it asks for."""
    labels = dict(documented())
    found = asked(expression)
    measures = {measure(name) for name in found.names} - OF_PROMETHEUS
    assert measures <= declared(), expression
    for name in found.names - OF_PROMETHEUS:
        if name != measure(name):
            assert measure(name).endswith("_seconds"), f"{name} is of no histogram"
    for name, label, value in found.chosen:
        if label in OF_KUBERNETES:
            continue
        assert label in labels[measure(name)], (expression, label)
        if label != "method":
            assert set(value.split("|")) <= LABELS[label], (expression, value)
    known = {"le"} | OF_KUBERNETES | {each for name in measures for each in labels[name]}
    assert found.grouped <= known, expression
    return measures


RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((TELEMETRY / "rules.yaml").read_text())["spec"]["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((TELEMETRY / "dashboards" / "perfuse.json").read_text())
QUERIES = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


def test_the_parser_finds_what_is_asked_for() -> None:
    found = asked('sum by (job) (rate(a_total{b="c"}[5m])) / on (d) max(e) > 1')
    assert found.names == {"a_total", "e"}
    assert found.chosen == {("a_total", "b", "c")}
    assert "job" in found.grouped
    with pytest.raises(ValueError, match=r"unexpected|expected|missing|unclosed"):
        asked("sum by (job (rate(a[5m]))")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_has_a_paragraph(rule: dict[str, Any]) -> None:
    check(rule["expr"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (ROOT / path) == RUNBOOK
    assert anchor == rule["alert"].lower()
    told = dict(re.findall(r"^## (\w+)\n`(\w+)`", RUNBOOK.read_text(), re.MULTILINE))
    assert told[rule["alert"]] == rule["labels"]["severity"]


def test_every_paragraph_has_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_a_graph_asks_for_what_there_is(title: str, query: str) -> None:
    check(query)


def test_all_that_is_told_can_be_seen() -> None:
    seen = {name for _, query in QUERIES for name in check(query)}
    assert seen == declared()


def test_graphs_do_not_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def in_pages() -> Iterator[str]:
    page = (ROOT / "docs" / "operating" / "measures.md").read_text()
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and len(cells) == 2 and re.match(r"`(sum|max)\(", cells[1]):
            yield re.findall(r"`([^`]*)`", cells[1])[0]


def test_expressions_in_the_page_and_in_autoscaling_ask_for_what_there_is() -> None:
    expressions = list(in_pages())
    assert len(expressions) >= 5
    for path in (ROOT / "deploy" / "components").rglob("*.yaml"):
        expressions += re.findall(r"query: (.*)", path.read_text())
        expressions += re.findall(r"name: (perfuse_\w+)", path.read_text())
    assert len(expressions) >= 6
    for expression in expressions:
        check(expression)
