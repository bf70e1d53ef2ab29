"""What a prompt asks for is what is planned and recorded, once, for whoever may see it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
import torch

from perfuse.attach import BaseModel, PlannedConcept, plan
from perfuse.errors import BaseModelMismatch, InvalidArgument, NotFound, PromptRefused
from perfuse.method import KeyLock
from perfuse_renderer.planning import Asker, ConceptSettings, Planner
from perfuse_renderer.pool import AdapterPool

from .shelf import TOKEN, TOM, Shelf

ACME = Asker("acme", TOKEN)
NONE: dict[str, ConceptSettings] = {}


@pytest.fixture
def shelf(base: BaseModel) -> Shelf:
    return Shelf(base)


@pytest.fixture
def planner(base: BaseModel, shelf: Shelf) -> Planner:
    return Planner(base, AdapterPool(shelf))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_prompt_becomes_the_library_s_plan(
    base: BaseModel, planner: Planner, shelf: Shelf
) -> None:
    settings = {"tom@2": ConceptSettings(bias=0.4, temperature=0.2)}
    planned = run(planner.plan(ACME, r"a <tom@2> \<3 <rex>", settings, KeyLock.LOCAL))
    tom = (run(AdapterPool(shelf).get("acme", TOM.version(2), TOKEN))).adapter
    expected = plan(
        base,
        "a <one> <3 <two>",
        [PlannedConcept("one", tom, 0.4, 0.2), PlannedConcept("two", shelf.others["rex"])],
        key_lock=KeyLock.LOCAL,
    )
    for mine, theirs in zip(planned.plan.values, expected.values, strict=True):
        assert torch.equal(mine, theirs)
    assert planned.plan.digest == expected.digest
    assert [(c.placeholder, c.version.number, c.bias, c.temperature) for c in planned.concepts] == [
        ("tom@2", 2, 0.4, 0.2),
        ("rex", 1, shelf.others["rex"].metadata.bias, shelf.others["rex"].metadata.temperature),
    ]
    assert planned.concepts[0].digest == tom.digest


def test_the_same_prompt_is_planned_once(planner: Planner) -> None:
    async def work() -> None:
        first = await planner.plan(ACME, "a <tom>", NONE, None)
        again = await planner.plan(ACME, "a <tom>", NONE, None)
        assert again.plan is first.plan
        assert planner.computed == 1
        other = await planner.plan(ACME, "a <tom>", {"tom": ConceptSettings(bias=0.2)}, None)
        assert other.plan.digest != first.plan.digest
        lock = await planner.plan(ACME, "a <tom>", NONE, KeyLock.GLOBAL)
        assert lock.plan.digest != first.plan.digest
        assert lock.concepts[0].bias == 0.4
        assert planner.computed == 3

    run(work())


def test_those_who_ask_at_once_wait_for_one_plan(planner: Planner) -> None:
    async def work() -> None:
        asking = [
            asyncio.create_task(planner.plan(Asker("acme", TOKEN), "a <tom>", NONE, None))
            for _ in range(8)
        ]
        # Whoever asked first goes away; the others must not lose their plan by it.
        while not planner._flights:
            await asyncio.sleep(0)
        asking[0].cancel()
        made = await asyncio.gather(*asking[1:])
        assert len({id(each.plan) for each in made}) == 1
        assert planner.computed == 1
        assert not planner._flights

    run(work())


def test_a_plan_that_nobody_waits_for_is_not_made(planner: Planner) -> None:
    async def work() -> None:
        asking = [
            asyncio.create_task(planner.plan(ACME, f"a <tom> {number}", NONE, None))
            for number in range(8)
        ]
        while len(planner._flights) < 8:
            await asyncio.sleep(0)
        for each in asking[1:]:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        # Whoever's turn it was may have been under way.
        assert planner.computed <= 2
        assert not planner._flights
        await planner.plan(ACME, "a <tom> 7", NONE, None)

    run(work())


def test_a_refused_prompt_is_refused_again(planner: Planner) -> None:
    for _ in range(2):
        with pytest.raises(PromptRefused, match="the limit falls after"):
            run(planner.plan(ACME, "cat " * 90, NONE, None))
    assert not planner._flights


def test_two_ways_to_name_one_version_are_one_concept(planner: Planner) -> None:
    planned = run(planner.plan(ACME, "<tom> and <tom@latest>", NONE, None))
    assert len(planned.plan.similarity) == 1
    with pytest.raises(InvalidArgument, match="with different settings"):
        run(planner.plan(ACME, "<tom> and <tom@4>", {"tom": ConceptSettings(bias=0.2)}, None))


def test_a_request_may_choose_the_version_beside_the_prompt(planner: Planner) -> None:
    settings = {"tom": ConceptSettings(version="2")}
    planned = run(planner.plan(ACME, "a <tom>", settings, None))
    assert planned.concepts[0].version == TOM.version(2)


def test_plain_prompts_need_nobody(planner: Planner, shelf: Shelf) -> None:
    planned = run(planner.plan(ACME, "a photo of a cat", NONE, None))
    assert planned.concepts == ()
    assert planned.plan.key_lock is None
    assert shelf.asked == 0


def test_what_is_missing_or_foreign_reads_the_same(planner: Planner) -> None:
    for prompt in ("a <nobody>", "a <globex/tom>"):
        with pytest.raises(NotFound, match="does not exist, or is not yours to see"):
            run(planner.plan(ACME, prompt, NONE, None))


def test_another_base_model_is_refused_before_any_tensor(planner: Planner, shelf: Shelf) -> None:
    shelf.fingerprint = "sha256:" + "b" * 64
    with pytest.raises(BaseModelMismatch, match=r"negative_prompt, character 2: .*sha256:bbb"):
        run(planner.plan(ACME, "a <tom>", NONE, None, "negative_prompt"))
    assert planner.computed == 0


def test_a_prompt_that_is_too_long_says_where(planner: Planner) -> None:
    with pytest.raises(PromptRefused, match="the limit falls after"):
        run(planner.plan(ACME, "cat " * 90 + "<tom>", NONE, None))


def test_plans_are_bounded(base: BaseModel, shelf: Shelf) -> None:
    planner = Planner(base, AdapterPool(shelf), max_bytes=1)

    async def work() -> None:
        first = await planner.plan(ACME, "a <tom>", NONE, None)
        await planner.plan(ACME, "a <rex>", NONE, None)
        assert (await planner.plan(ACME, "a <tom>", NONE, None)).plan is not first.plan

    run(work())
