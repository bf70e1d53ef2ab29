"""Plans in Ray's object store: each put there once, and referred to while it may be used again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import ray
import torch

from perfuse.attach import ConditioningPlan
from perfuse_renderer.traffic import plan_bytes, plan_in


class PlanStore:
    """References by digest.

    Ray copies an object to a machine when a replica there first asks for it, keeps it while
    anything refers to it, and moves it to disk when memory is short. A reference that is dropped
    here lives on in the renders that were sent with it.

    Args:
        dtype: of the replicas' weights, in which plans travel.
        max_bytes: of plans referred to; the longest unused are dropped first.
    """

    def __init__(self, dtype: torch.dtype, max_bytes: int) -> None:
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._putting = asyncio.Lock()

    async def references(self, plans: Iterable[ConditioningPlan]) -> dict[str, Any]:
        """Digest → reference, for each of these plans."""
        return {plan.digest: await self._reference(plan) for plan in plans}

    def forget(self, digests: Iterable[str]) -> None:
        """Put these anew when they are next asked for: what they refer to may be lost."""
        for digest in digests:
            if dropped := self._kept.pop(digest, None):
                self._bytes -= dropped[1]

    async def _reference(self, plan: ConditioningPlan) -> Any:
        async with self._putting:
            if kept := self._kept.get(plan.digest):
                self._kept.move_to_end(plan.digest)
                return kept[0]
            reference, size = await asyncio.to_thread(self._put, plan)
            self._kept[plan.digest] = (reference, size)
            self._bytes += size
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= dropped
            return reference

    def _put(self, plan: ConditioningPlan) -> tuple[Any, int]:
        sent = plan_in(plan, self._dtype, "cpu")
        return ray.put(sent), plan_bytes(sent)
