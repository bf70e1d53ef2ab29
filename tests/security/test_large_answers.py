"""What a tenant may write it can read again: pages end early, too large a batch is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from registry import samples
from registry.served import Tenant, installed, refused

from perfuse.v1 import registry_pb2 as wire

# The largest that the rules allow.
LABELS = {f"key-{index:059}": "\U0001f600" * 256 for index in range(64)}
DESCRIPTION = "\U0001f600" * 4096
COUNT = 110


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    with installed("sqlite+directory", tmp_path_factory.mktemp("large")) as installation:
        tenant = installation.tenant()
        for index in range(COUNT):
            tenant.concept(f"tom-{index}", labels=LABELS, description=DESCRIPTION)
        yield tenant


def test_pages_end_before_they_are_too_large(tenant: Tenant) -> None:
    found, token, pages = [], "", 0
    while token or not pages:
        page = tenant.call.ListConcepts(
            wire.ListConceptsRequest(parent=tenant.name, page_size=1000, page_token=token)
        )
        assert 0 < page.ByteSize() < 6 << 20
        found += [concept.name for concept in page.concepts]
        token, pages = page.next_page_token, pages + 1
    assert pages > 1
    assert len(set(found)) == len(found) == COUNT


def test_a_batch_that_is_too_large_is_refused_in_our_words(tenant: Tenant) -> None:
    version = wire.Version(labels=LABELS, description=DESCRIPTION)
    # A name may stand in it as often as one likes.
    made = tenant.call.CreateVersion(
        samples.upload(f"{tenant.name}/concepts/tom-0", samples.adapter(), version=version)
    )
    request = wire.BatchGetVersionsRequest(parent=tenant.name, names=[made.name] * 100)
    assert made.ByteSize() * 100 > 8 << 20
    with refused("RESOURCE_EXHAUSTED"):
        tenant.call.BatchGetVersions(request)
    del request.names[50:]
    assert len(tenant.call.BatchGetVersions(request).versions) == 50
