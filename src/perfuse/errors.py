"""Every exception that Perfuse raises on purpose, as one tree.

PerfuseError
├── InvalidArgument          the caller's input breaks a rule
│   ├── WrongShape           a tensor's width, rank or length
│   ├── NotFinite            NaN or infinity where a number is due
│   ├── DependentConcepts    two target inputs too close to be told apart
│   ├── AdapterRefused       bytes that are not an adapter (perfuse.adapter names each case)
│   ├── PictureRefused       a training picture or a folder of them
│   ├── PromptRefused        a prompt that cannot be encoded as written
│   ├── DigestMismatch       bytes that are not those whose digest was claimed
│   └── RequestIdReused      one request_id for two different requests
├── Unauthenticated          no credential, or one that nobody vouches for
├── PermissionDenied         a known caller without the right
├── AlreadyExists            a name that is taken
├── NotFound                 a file, directory or resource that is not there
├── FailedPrecondition       right input, wrong moment or wrong surroundings
│   ├── BaseModelMismatch    an adapter made for another base model
│   ├── SingularCovariance   too few captions, or no ridge
│   ├── BaseModelUnsuitable  a directory that we cannot load or edit as a base model
│   ├── BaseModelInUse       versions still stand on the base model
│   ├── AliasInUse           an alias still points at the version
│   ├── ConceptDeleted       the concept was deleted and can be undeleted
│   ├── ConceptErased        the concept was erased, and nothing brings it back
│   ├── ConsentMissing       nobody has consented to this use of a likeness, or not yet
│   ├── ConsentExpired       the consent to this use of a likeness is over
│   ├── ConsentRevoked       the consent to this use of a likeness was taken back
│   ├── ConceptNotEmpty      the concept still has versions
│   ├── ImageSetInUse        a run that has not ended uses the image set
│   ├── ImageSetEmpty        the image set has no images, or none any more
│   ├── TrainingRunNotEnded  the run is still queued or running
│   └── WrongRevision        a database at another revision than this release's
├── Aborted                  lost a race; read again and decide anew
│   └── EtagMismatch         the resource is not the one that was read
├── ResourceExhausted        a limit is reached
│   └── QuotaExceeded        a tenant's quota is used up
├── Unavailable              for the moment; the same call may succeed later
├── DeadlineExceeded         the caller's time was over first
├── TrainingDiverged         a run whose loss or parameters left the finite numbers
└── DataLoss                 stored bytes that no longer match their digest

`status` is the name of the gRPC code that a service answers with; it is kept as text here, so
that the mathematics can raise these without importing gRPC. `reason` is the machine-readable
word that goes into ErrorInfo. A message gives the value received, the rule, and the remedy.
"""

from __future__ import annotations

import re


class PerfuseError(Exception):
    """Root of the tree; catch it to catch whatever Perfuse refuses.

    Attributes:
        resource: Name of the resource that the refusal is about, where there is one.
        retry_after: Seconds after which the same call may succeed, where that is known.
    """

    status = "INTERNAL"
    resource: str | None = None
    retry_after: float | None = None

    @property
    def reason(self) -> str:
        """The class's name in UPPER_SNAKE, as in `ErrorInfo.reason`."""
        if type(self) is PerfuseError:
            return "INTERNAL"
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).upper()


class InvalidArgument(PerfuseError, ValueError):
    """The caller's input breaks a rule whatever the state of the system.

    Attributes:
        violations: Pairs of a field's path and what is wrong with it, where fields are known.
    """

    status = "INVALID_ARGUMENT"
    violations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def in_field(cls, field: str, description: str) -> InvalidArgument:
        """A refusal of one field of a request."""
        refusal = cls(f"{field}: {description}")
        refusal.violations = ((field, description),)
        return refusal


class WrongShape(InvalidArgument):
    """A tensor has another width, rank or length than the rule says."""


class NotFinite(InvalidArgument):
    """A tensor holds NaN or infinity."""


class DependentConcepts(InvalidArgument):
    """Target inputs lie so close together that their blend is not defined."""


class AdapterRefused(InvalidArgument):
    """Bytes offered as an adapter break a rule of the format."""


class PictureRefused(InvalidArgument):
    """A training picture, or a folder of them, cannot be used."""


class PromptRefused(InvalidArgument):
    """A prompt cannot be encoded as written."""


class DigestMismatch(InvalidArgument):
    """The bytes sent have another digest than the caller claimed for them."""


class RequestIdReused(InvalidArgument):
    """A `request_id` was used before for a different request."""


class Unauthenticated(PerfuseError):
    """The call carries no credential, or one that nobody vouches for."""

    status = "UNAUTHENTICATED"


class PermissionDenied(PerfuseError):
    """The caller is known, but may not do this, whether or not what it names exists."""

    status = "PERMISSION_DENIED"


class AlreadyExists(PerfuseError):
    """A resource of this name exists already."""

    status = "ALREADY_EXISTS"


class NotFound(PerfuseError, LookupError):
    """What was named is not there, or is not the caller's to see."""

    status = "NOT_FOUND"


class FailedPrecondition(PerfuseError):
    """The input is right, but something else must be true first."""

    status = "FAILED_PRECONDITION"


class BaseModelMismatch(FailedPrecondition):
    """An adapter was made for another base model than the one at hand."""


class SingularCovariance(FailedPrecondition):
    """A covariance cannot be inverted: too few captions for its width, or no ridge."""


class BaseModelUnsuitable(FailedPrecondition):
    """A directory is not a base model that Perfuse can load and edit."""


class BaseModelInUse(FailedPrecondition):
    """Versions still stand on the base model, so it cannot be deleted."""


class AliasInUse(FailedPrecondition):
    """An alias still points at the version, so it cannot be deleted."""


class ConceptDeleted(FailedPrecondition):
    """The concept was deleted; undelete it before anything else."""


class ConceptErased(FailedPrecondition):
    """The concept was erased, or is being erased; nothing brings it back."""


class ConsentMissing(FailedPrecondition):
    """Nobody has consented to this use of a living person's likeness, or not yet."""


class ConsentExpired(FailedPrecondition):
    """The consent to this use of a living person's likeness is over."""


class ConsentRevoked(FailedPrecondition):
    """The consent to this use of a living person's likeness was taken back."""


class ConceptNotEmpty(FailedPrecondition):
    """The concept still has versions; a deletion must say that they go with it."""


class ImageSetInUse(FailedPrecondition):
    """A training run that has not ended uses the image set."""


class ImageSetEmpty(FailedPrecondition):
    """The image set has no images yet, or they were deleted."""


class TrainingRunNotEnded(FailedPrecondition):
    """The training run must have ended first."""


class WrongRevision(FailedPrecondition):
    """The database is at another revision than this release works with."""


class Aborted(PerfuseError):
    """A race was lost: read again, then decide anew."""

    status = "ABORTED"


class EtagMismatch(Aborted):
    """The resource has changed since the etag was read."""


class ResourceExhausted(PerfuseError):
    """A limit is reached: a quota, a queue, a size."""

    status = "RESOURCE_EXHAUSTED"


class QuotaExceeded(ResourceExhausted):
    """A tenant's quota is used up; `retry_after` is set where time mends it.

    Attributes:
        quota: Its name, as in `perfuse.quotas.QUOTAS`.
        limit: What is allowed, rounded down; None where it is not known.
    """

    quota: str = ""
    limit: int | None = None


class Unavailable(PerfuseError):
    """Not now: the same call may succeed later."""

    status = "UNAVAILABLE"


class DeadlineExceeded(PerfuseError):
    """The caller's deadline passed before the answer."""

    status = "DEADLINE_EXCEEDED"


class TrainingDiverged(PerfuseError):
    """A training run's loss or parameters are no longer finite."""

    status = "ABORTED"


class DataLoss(PerfuseError):
    """Stored bytes do not match the digest under which they were stored."""

    status = "DATA_LOSS"
