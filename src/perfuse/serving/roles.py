"""The roles that a caller may have, and which of them grant which.

Five are a tenant's own. Three stand apart: `operator` is the installation's, for what concerns all
tenants, and two are other services': `delegate` acts for one tenant at a time, and `custodian`
grants nothing by itself; beside a caller's own credential it says that what is read goes to a
service which keeps it to itself (decision 18).
"""

from __future__ import annotations

from collections.abc import Mapping

READER = "reader"
RENDERER = "renderer"
TRAINER = "trainer"
PUBLISHER = "publisher"
ADMIN = "admin"
OPERATOR = "operator"
DELEGATE = "delegate"
CUSTODIAN = "custodian"

GRANTED_BY: Mapping[str, frozenset[str]] = {
    READER: frozenset({READER, RENDERER, TRAINER, PUBLISHER, ADMIN}),
    RENDERER: frozenset({RENDERER, PUBLISHER, ADMIN}),
    TRAINER: frozenset({TRAINER, PUBLISHER, ADMIN}),
    PUBLISHER: frozenset({PUBLISHER, ADMIN}),
    ADMIN: frozenset({ADMIN}),
    OPERATOR: frozenset({OPERATOR}),
    DELEGATE: frozenset({DELEGATE}),
    CUSTODIAN: frozenset({CUSTODIAN}),
}
"""For each role that an rpc may ask for, the roles that grant it: `admin` implies `publisher`,
which implies `trainer` and `renderer`, each of which implies `reader`. See decision 17."""
