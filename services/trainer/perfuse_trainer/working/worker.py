"""A worker: one resident base model, and the runs that it trains in one pass after another."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from perfuse.attach import BaseModel, attach, is_attached
from perfuse.errors import PerfuseError, ResourceExhausted, Unavailable
from perfuse.serving import tracing
from perfuse_trainer.learning.loop import Progress
from perfuse_trainer.learning.pack import Pack
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.claims import Claim, Claims, LeaseLost
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.vault import Vault
from perfuse_trainer.working.leases import Leases
from perfuse_trainer.working.member import Member
from perfuse_trainer.working.previews import ImageEncoder

_log = logging.getLogger(__name__)

_POLL = 0.25
"""Seconds between two looks at the queue."""

_PATIENCE = 2.0
"""Seconds that a worker without runs stays although runs of another base model wait."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works; see `TrainerSettings`."""

    pack: int = 4
    checkpoint_every: int = 50
    idle_seconds: float = 300.0
    stall_seconds: float = 600.0
    clipseg: Path | None = None


class Worker:
    """Trains runs of one base model until it is told to stop, or nothing has come for long.

    Args:
        worker_id: under which it claims.
        base_model_id: of the base model.
        base: loaded and prepared.
        queue: that runs come from.
        claims: to write under.
        vault: of runs' files.
        settings: limits.
        encoder: for similarity curves, or None.
        on_stall: called where it hangs, on a thread that does not.
    """

    def __init__(
        self,
        worker_id: str,
        base_model_id: str,
        base: BaseModel,
        queue: Queue,
        claims: Claims,
        vault: Vault,
        settings: WorkerSettings,
        encoder: ImageEncoder | None = None,
        on_stall: Callable[[], object] = lambda: None,
    ) -> None:
        self._id, self._base_model_id, self._base = worker_id, base_model_id, base
        self._queue, self._claims, self._vault = queue, claims, vault
        self._settings, self._encoder = settings, encoder
        self._pack = Pack(base)
        self._members: list[Member] = []
        self._leases = Leases(worker_id, claims, settings.stall_seconds, on_stall)
        self._spans: dict[int, tracing.Span] = {}
        self._room = settings.pack
        self._looked = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Train until `stop` is set or the worker has idled; then give back what is unfinished."""
        attachment = None if is_attached(self._base.unet) else attach(self._base.unet)
        busy = time.monotonic()
        try:
            with self._leases.renewing():
                while not stop.is_set():
                    self._leases.moved()
                    self._admit()
                    if self._members:
                        self._turn()
                        busy = time.monotonic()
                    elif self._is_needless(time.monotonic() - busy):
                        break
                    else:
                        stop.wait(_POLL)
                for member in list(self._members):
                    self._let_go(member, keep=True)
        finally:
            if attachment is not None:
                attachment.detach()

    def _admit(self) -> None:
        room = self._room - len(self._members)
        moment = time.monotonic()
        if room <= 0 or any(member.claim.exclusive for member in self._members):
            return
        if self._members and moment - self._looked < _POLL:
            return
        self._looked = moment
        try:
            claims = self._queue.claim(
                self._id, [self._base_model_id], room, alone=not self._members
            )
        except PerfuseError as error:
            _log.warning("the queue cannot be asked: %s", error)
            time.sleep(_POLL)
            return
        for claim in claims:
            self._leases.hold(claim)
            self._spans[claim.run] = tracing.begin(
                "perfuse.train", claim.traceparent, attempt=claim.attempt
            )
        for claim in claims:
            self._leases.moved()
            self._open(claim)

    def _is_needless(self, idle: float) -> bool:
        """Whether to end: nothing came for long, or its place is wanted for another base model."""
        if idle < min(_PATIENCE, self._settings.idle_seconds):
            return False
        if idle >= self._settings.idle_seconds:
            return True
        with suppress(PerfuseError):
            return bool(self._queue.waiting() - {self._base_model_id})
        return False

    def _open(self, claim: Claim) -> None:
        _log.info("run %s, attempt %d", claim.name, claim.attempt)
        try:
            member = Member(
                self._base,
                claim,
                self._claims,
                self._vault,
                clipseg=self._settings.clipseg,
                encoder=self._encoder,
            )
        except torch.OutOfMemoryError:
            self._out_of_memory(claim)
        except Unavailable as error:
            _log.warning("run %s waits: %s", claim.name, error)
            self._release(claim)
        except Exception as error:
            self._fail(claim, error)
        else:
            self._members.append(member)

    def _turn(self) -> None:
        """One step of every member that is still wanted."""
        self._leave_unwanted()
        if not self._members:
            return
        members = list(self._members)
        try:
            results = self._pack.step([member.loop for member in members])
        except torch.OutOfMemoryError:
            self._shrink()
            return
        except Exception as error:
            # Whose fault it is nobody can say: it is the base's or ours, and all runs are as
            # they were before the step.
            for member in members:
                self._members.remove(member)
                self._fail(member.claim, error)
            return
        for member, result in zip(members, results, strict=True):
            self._settle(member, result)

    def _settle(self, member: Member, result: Progress | Exception) -> None:
        if isinstance(result, Exception):
            self._members.remove(member)
            self._fail(member.claim, result)
            return

        def write() -> None:
            member.note(result)
            member.preview()
            if member.loop.finished:
                member.finish()
            elif result.step % self._settings.checkpoint_every == 0:
                member.keep()

        self._insist(member, write)
        if member.loop.finished and member in self._members:
            self._members.remove(member)
            self._forget(member.claim)

    def _insist(self, member: Member, write: Callable[[], None]) -> None:
        """Write about a member; while database or store are away, try until its lease is over."""
        while True:
            try:
                write()
            except LeaseLost:
                self._drop(member)
                return
            except Unavailable as error:
                if self._leases.is_over(member.claim):
                    _log.warning("run %s is given up: %s", member.claim.name, error)
                    self._drop(member)
                    return
                self._leases.moved()
                time.sleep(_POLL)
            except Exception as error:
                self._members.remove(member)
                self._fail(member.claim, error)
                return
            else:
                self._leases.moved()
                self._leases.hold(member.claim)
                return

    def _leave_unwanted(self) -> None:
        """Drop members that were cancelled or are no longer ours, before they step."""
        try:
            states = self._claims.look([member.claim for member in self._members])
        except Unavailable:
            states = {}
        for member in list(self._members):
            state = states.get(member.claim.run, RunState.RUNNING)
            if state is RunState.CANCELLING:
                self._members.remove(member)
                self._end(member.claim, lambda claim: self._claims.cancelled(claim))
            elif state is None or self._leases.is_over(member.claim):
                self._drop(member)

    def _shrink(self) -> None:
        """Train fewer runs at a time from now on: half of them, or one run less."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(self._members) == 1:
            member = self._members.pop()
            self._out_of_memory(member.claim)
            return
        self._room = max(1, len(self._members) // 2)
        _log.warning("memory holds no %d runs; %d from now on", len(self._members), self._room)
        for member in self._members[self._room :]:
            self._let_go(member, keep=True)

    def _out_of_memory(self, claim: Claim) -> None:
        if self._members:
            self._room = len(self._members)
            self._release(claim)
            return
        self._fail(
            claim,
            ResourceExhausted(
                "the run does not fit into the memory of the Trainer's device. Give it fewer rows "
                "(settings.batch), or ask the operator for a larger device"
            ),
        )

    def _let_go(self, member: Member, *, keep: bool) -> None:
        self._members.remove(member)
        with suppress(PerfuseError, LeaseLost):
            if keep:
                member.keep()
        self._release(member.claim)

    def _drop(self, member: Member) -> None:
        """Leave a run that is no longer ours, or was cancelled just now."""
        self._members.remove(member)
        state = RunState.RUNNING
        with suppress(PerfuseError):
            state = self._claims.look([member.claim])[member.claim.run] or RunState.RUNNING
        if state is RunState.CANCELLING:
            self._end(member.claim, lambda claim: self._claims.cancelled(claim))
        self._forget(member.claim)

    def _release(self, claim: Claim) -> None:
        with suppress(PerfuseError):
            self._claims.give_back(claim)
        self._forget(claim)

    def _fail(self, claim: Claim, error: Exception) -> None:
        if isinstance(error, PerfuseError):
            reason = error
        else:
            _log.error("run %s failed", claim.name, exc_info=error)
            reason = PerfuseError(
                "the run failed for a fault of the Trainer's own, which its log tells"
            )
        self._end(claim, lambda held: self._claims.fail(held, reason))

    def _forget(self, claim: Claim) -> None:
        """Have no more to do with a run."""
        self._leases.forget(claim)
        # A run that was lost and claimed again meanwhile has one span, and ends it once.
        if (span := self._spans.pop(claim.run, None)) is not None:
            span.end()

    def _end(self, claim: Claim, ending: Callable[[Claim], list[str]]) -> None:
        # Whoever cannot write the end leaves the run to the reaper, and so to another attempt.
        with suppress(PerfuseError, LeaseLost):
            self._vault.drop(claim.tenant, ending(claim))
        self._forget(claim)
