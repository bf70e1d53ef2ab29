"""An issuer's keys, kept so that calls need not ask for them.

They are read on a thread of their own: while starting, whenever they are older than a while and a
call comes, and when a token names a key that is not among them. Between two readings some seconds
pass, whatever strangers send. If the issuer does not answer, the last keys are kept for a stated
time; after that, nobody is known by its tokens until it answers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import jwt
import structlog

from perfuse.errors import PerfuseError, Unavailable

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
"""Algorithms by the keys that are for them. None of them has a secret that is shared."""

REFRESH_SECONDS = 300.0
PAUSE_SECONDS = 10.0
_RSA_BITS = 2048
# Beyond these nobody waits for keys that are being read.
_MAX_WAITING = 16
_WAIT_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms that it may be used with."""

    kid: str | None
    algorithms: tuple[str, ...]
    public: Any


class IssuerKeys:
    """The keys of one issuer.

    Args:
        read: Asks the issuer, as `Issuer.keys`.
        algorithms: That tokens may be signed with.
        kept_seconds: How long keys serve that cannot be read again.
        pause_seconds: At least, between two readings.
        clock: In seconds.

    Attributes:
        generation: Which set of keys it is; another one after each change.
    """

    def __init__(
        self,
        read: Callable[[], list[Any]],
        algorithms: Iterable[str],
        *,
        kept_seconds: float,
        refresh_seconds: float = REFRESH_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._algorithms, self._clock = read, frozenset(algorithms), clock
        self._kept, self._refresh, self._pause = kept_seconds, refresh_seconds, pause_seconds
        self._keys: tuple[Key, ...] = ()
        self._documents: list[Any] = []
        self._read_at = self._tried_at = -float("inf")
        self._lock = threading.Lock()
        self._pending: Future[None] | None = None
        self._waiting = 0
        self.generation = 0
        self._log = structlog.get_logger("perfuse.serving.identity")
        self._begin()

    def age_well(self) -> bool:
        """Whether the keys still serve; those that are old are read anew meanwhile."""
        age = self._clock() - self._read_at
        if age > self._refresh:
            self._begin()
        return age <= self._kept

    async def find(self, kid: str | None, algorithm: str) -> Any | None:
        """The public key of this id for this algorithm, None where the issuer has none.

        Where the key is not known, the issuer is asked, at most every `pause_seconds`; that waits,
        but never blocks an event loop.

        Raises:
            Unavailable: there are no keys that still serve.
        """
        serves = self.age_well()
        found = self._find(kid, algorithm) if serves else None
        if found is None and (pending := self._begin()) is not None:
            await self._wait(pending)
            serves = self.age_well()
            found = self._find(kid, algorithm) if serves else None
        if not serves:
            raise _no_keys()
        return found

    def _find(self, kid: str | None, algorithm: str) -> Any | None:
        keys = self._keys
        if kid is None and len(keys) != 1:
            # A token may leave out which key it is signed with only where there is no choice.
            return None
        for key in keys:
            if kid in (None, key.kid) and algorithm in key.algorithms:
                return key.public
        return None

    def _begin(self) -> Future[None] | None:
        """Have the keys read on a thread; None where they were tried too short a while ago."""
        with self._lock:
            if self._pending is not None:
                return self._pending
            now = self._clock()
            if now - self._tried_at < self._pause:
                return None
            self._tried_at = now
            pending: Future[None] = Future()
            self._pending = pending
        threading.Thread(target=self._take, args=(pending,), name="issuer", daemon=True).start()
        return pending

    def _take(self, pending: Future[None]) -> None:
        try:
            documents = self._read()
            if documents != self._documents:
                keys = tuple(self._usable(documents))
                if not keys:
                    raise Unavailable("the issuer has no key for the algorithms that are allowed")
                self._keys, self._documents = keys, documents
                self.generation += 1
                self._log.info("issuer_keys_read", keys=[key.kid for key in keys])
            self._read_at = self._clock()
        except Exception as error:
            problem = str(error) if isinstance(error, PerfuseError) else type(error).__name__
            self._log.error("issuer_keys_not_read", problem=problem)
        finally:
            with self._lock:
                self._pending = None
            pending.set_result(None)

    def _usable(self, documents: list[Any]) -> Iterable[Key]:
        for document in documents:
            try:
                yield usable_key(document, self._algorithms)
            except ValueError as error:
                self._log.warning("issuer_key_left_out", problem=str(error))

    async def _wait(self, pending: Future[None]) -> None:
        with self._lock:
            if self._waiting >= _MAX_WAITING:
                raise _no_keys()
            self._waiting += 1
        try:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                # A call that has a thread of its own, and no loop.
                pending.result(_WAIT_SECONDS)
            else:
                await asyncio.wait_for(asyncio.wrap_future(_shielded(pending)), _WAIT_SECONDS)
        except TimeoutError:
            raise _no_keys() from None
        finally:
            with self._lock:
                self._waiting -= 1


def usable_key(document: Any, algorithms: Iterable[str]) -> Key:
    """A key of a JWKS, if tokens may be verified with it.

    Raises:
        ValueError: they may not; the text says why.
    """
    kid = document.get("kid") if isinstance(document, dict) else 0
    if not (kid is None or isinstance(kid, str)):
        raise ValueError("it is no object with a kid of text")
    if "d" in document or "k" in document:
        raise ValueError(f"key {kid!r} is told with its secret; whoever reads it could sign")
    if document.get("use", "sig") != "sig" or "verify" not in document.get("key_ops", ["verify"]):
        raise ValueError(f"key {kid!r} is not for signatures")
    kind = document.get("kty")
    family = ALGORITHMS.get(str(kind if kind == "RSA" else document.get("crv")), ())
    allowed = tuple(
        each
        for each in family
        if each in frozenset(algorithms) and document.get("alg", each) == each
    )
    if not allowed:
        raise ValueError(f"key {kid!r} is for no algorithm that is allowed")
    try:
        public = jwt.PyJWK(document, allowed[0]).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"key {kid!r} is malformed ({type(error).__name__})") from None
    if kind == "RSA" and public.key_size < _RSA_BITS:
        raise ValueError(f"key {kid!r} has {public.key_size} bits; it must have {_RSA_BITS}")
    return Key(kid, allowed, public)


def _shielded(pending: Future[None]) -> Future[None]:
    """A future that ends with another one, and whose cancellation does not reach that."""
    own: Future[None] = Future()

    def end(_: object) -> None:
        with suppress(InvalidStateError):
            own.set_result(None)

    pending.add_done_callback(end)
    return own


def _no_keys() -> Unavailable:
    error = Unavailable("the issuer's keys cannot be had at this moment; call again")
    error.retry_after = 1.0
    return error
