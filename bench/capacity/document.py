"""The tables of docs/capacity.md, written between marks in it; the words are a person's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MARK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(record: dict[str, Any], page: Path) -> None:
    """Put the figures into the page.

    Args:
        record: capacity.json.
        page: that has marks for tables.

    Raises:
        KeyError: it has a mark of no table.
    """
    tables = {
        "reality": _reality(record["validation"]),
        "replayed": _replayed(record["validation"]["replayed"]),
        "fleets": _fleets(record["fleets"]),
        "sweep": _fleets(record["sweep"]),
        "routing": _fleets(record["routing"]),
        "day": _day(record["day"]),
        "catalogue": _catalogue(record["catalogue"]),
        "stops": _stops(record["catalogue"]),
    }
    text = page.read_text()
    page.write_text(_MARK.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", text))


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def _reality(found: dict[str, Any]) -> str:
    names = {"p50_ms": "p50, ms", "p99_ms": "p99, ms", "goodput": "pictures/s"}
    rows = [
        [f"{float(share):.0%} offered, {names[which]}", *_compared(value)]
        for share, values in found["shares"].items()
        for which, value in values.items()
    ]
    light = found["light"]
    rows += [[f"light beside a flood, {names[x]}", *_compared(light[x])] for x in list(names)[:2]]
    rows.append(["the flood meanwhile, pictures/s", *_compared(light["flood"])])
    return _table(["", "measured", "simulated", "middle 90 %", "error"], rows)


def _replayed(found: dict[str, Any]) -> str:
    head = ["errors", "p50", "p99", "best with steps", "p50", "p99"]
    rows = []
    for share, each in found.items():
        fitted, slower = (
            [f"{error:+.0%}" for error in each[which].values()]
            for which in ("as_fitted", "as_slower")
        )
        times = f"{each['slower']:.2f} times as long"
        rows.append([f"{float(share):.0%} offered", *fitted, times, *slower])
    return _table(head, rows)


def _compared(value: dict[str, float]) -> list[str]:
    middle = f"{value['from']:g} to {value['to']:g}"
    return [f"{value['measured']:g}", f"{value['simulated']:g}", middle, f"{value['error']:+.0%}"]


def _fleets(cases: dict[str, dict[str, Any]]) -> str:
    head = ["", "p50, s", "p99, s", "p99 ÷ alone", "refused", "late", "busy", "lanes", "per 1000"]
    return _table(
        head,
        [
            [
                *(case, f"{each['p50_s']:.2f}", f"{each['p99_s']:.2f}"),
                f"{each['p99_s'] / each['alone_s']:.1f}",
                *(f"{each['refused']:.1%}", f"{each['late']:.1%}", f"{each['utilisation']:.0%}"),
                *(f"{each['lanes']:.1f}", f"{each['cost_per_1000']:.2f}"),
            ]
            for case, each in cases.items()
        ],
    )


def _day(cases: dict[str, dict[str, Any]]) -> str:
    head = ["", "p50, s", "p99, s", "refused", "late", "busy", "per 1000"]
    return _table(
        head,
        [
            [
                *(case, f"{each['p50_s']:.2f}", f"{each['p99_s']:.2f}", f"{each['refused']:.1%}"),
                *(f"{each['late']:.1%}", f"{each['utilisation']:.0%}"),
                f"{each['cost_per_1000']:.2f}",
            ]
            for case, each in cases.items()
        ],
    )


def _catalogue(found: dict[str, Any]) -> str:
    head = ["devices, Zipf's exponent", "renders/s", "front doors", "names asked/s", "downloads/s"]
    head += ["Registry, cores", "database, cores", "store, cores"]
    rows = []
    for skew, held in found["skews"].items():
        for each in held["fleets"]:
            rows.append(
                [
                    *(f"{each['devices']}, {skew}", f"{each['renders_per_second']:.0f}"),
                    *(each["front_doors"], f"{each['resolved_per_second']:.0f}"),
                    *(f"{each['downloads_per_second']:.0f}", f"{each['registry_cores']:.1f}"),
                    *(f"{each['database_cores']:.2f}", f"{each['store_cores']:.2f}"),
                ]
            )
    return _table(head, rows)


def _stops(found: dict[str, Any]) -> str:
    stops, rows = found["stops"], found["rows"]
    hits = ", ".join(
        f"{held['hit_memory']:.0%} and {held['hit_disk']:.0%} at {skew}"
        for skew, held in found["skews"].items()
    )
    return _table(
        ["", f"{found['concepts']:,} concepts"],
        [
            ["bytes in the object store", f"{stops['store_gigabytes']:g} GB"],
            ["objects in it", f"{stops['store_objects']:,}"],
            ["bytes of a concept in the database", f"{rows['row_bytes']:.0f}"],
            ["the database", f"{stops['database_gigabytes']:g} GB"],
            [
                f"names that {stops['cores']} cores of database answer, a second",
                f"{stops['database_lookups_per_second']:,}",
            ],
            [
                f"publications that {stops['cores']} cores of database bear, a second",
                f"{stops['database_publications_per_second']:,}",
            ],
            ["adapters found in a front door's memory and disk", hits],
            ["listing the store once, calls", f"{stops['list_calls']:,}"],
            ["reading every adapter once at the measured rate", f"{stops['verify_hours']:g} h"],
        ],
    )
