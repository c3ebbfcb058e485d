"""Every error that medvision raises on purpose, in one tree.

The message says what was expected, what was found and what to do. The class carries the exit code of a command
that ends with it and the HTTP status of a request that does. ``medvision.cli`` is the one place that translates.
"""


class MedvisionError(Exception):
    """An error that the person at the keyboard can act on."""

    exit_code = 1
    http_status = 500


class ConfigInvalid(MedvisionError, ValueError):
    """A setting, an option or a catalog entry is unknown, out of range, or meaningless beside another."""

    exit_code = 2
    http_status = 400


class WeightsUnavailable(MedvisionError):
    """Pretrained weights could not be had from the hub or from the file that was named."""

    exit_code = 2


class GateFailed(MedvisionError):
    """A model did not meet the policy, so that what was asked for is refused."""

    exit_code = 3
    http_status = 403


class VerdictUntrusted(GateFailed):
    """A verdict is not signed by a trusted key, was changed, or is about something else than what is at hand."""


class SourceUnusable(GateFailed):
    """A version was made of something else than a logged model whose files can be read."""


class VersionConflict(MedvisionError):
    """A semantic version of a registered model was asked for a second time."""

    exit_code = 4
    http_status = 409


class PromotionConflict(MedvisionError):
    """Somebody else has changed the champion or the challenger meanwhile; nothing was done."""

    exit_code = 4
    http_status = 409


class DataInvalid(MedvisionError, ValueError):
    """The dataset, or a record made from it, is not what the step needs."""

    exit_code = 5
    http_status = 422


class DecodeRejected(DataInvalid):
    """A file is not an image that medvision reads: wrong format, damaged, empty, or too large."""

    http_status = 400


class SplitLeakage(DataInvalid):
    """The same patient or the same pixels stand on two sides of a split that had to be clean."""


class FingerprintMismatch(DataInvalid):
    """A record was made from other data, another split or another model than the one at hand."""


class TestSetChanged(FingerprintMismatch):
    """The test set is not the one that was locked at its first use."""


class LedgerBroken(DataInvalid):
    """The ledger of a test set or of a registered model, or the audit log, was edited, shortened or reordered."""


class OperatingPointUnattainable(DataInvalid):
    """Val has too few cases for any threshold to show what was asked for.

    An error of the data and not of the gate: where every case is called, any model at all finds every one of them.
    """


class NonFiniteLoss(MedvisionError, FloatingPointError):
    """The training loss became NaN or infinite."""

    exit_code = 5


class CheckpointCorrupt(MedvisionError):
    """A checkpoint or a model package on disk is incomplete or damaged."""

    exit_code = 5


class EngineDiffers(MedvisionError):
    """An inference engine does not compute what PyTorch computes with the same weights."""

    exit_code = 5


class TryAgainLater(MedvisionError):
    """Something outside the run is missing for the moment; the same command may succeed later."""

    exit_code = 75
    http_status = 503


class TrackingUnavailable(TryAgainLater):
    """The tracking server or the registry did not answer."""


class AuditUnavailable(TryAgainLater):
    """The audit log could not be written: what it can't hold may not be answered."""


class DiskFull(TryAgainLater, OSError):
    """A file could not be written because the disk, or the quota, is full. What was there before is intact."""


class RequestRefused(MedvisionError):
    """A request to the service that its sender can act on; the message is sent, so it names nothing of the server's."""

    exit_code = 2
    http_status = 400


class KeyRefused(RequestRefused):
    """A request has no API key, or one that is unknown or was revoked."""

    http_status = 401


class RoleMissing(RequestRefused):
    """The API key of a request does not allow what was asked for."""

    http_status = 403


class BodyTooSlow(RequestRefused):
    """The body of a request did not arrive in time."""

    http_status = 408


class BodyTooLarge(RequestRefused):
    """The body of a request, or a file in it, is larger than the service takes."""

    http_status = 413


class MediaUnsupported(RequestRefused):
    """The body of a request is in an encoding that the service does not take."""

    http_status = 415


class MisdirectedRequest(RequestRefused):
    """A request names another host than this one, as a web page from elsewhere would have a browser do."""

    http_status = 421


class Overloaded(RequestRefused):
    """The service, or the API key, has as many requests as it may; ``retry_after_s`` is when to ask again."""

    http_status = 429

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotServing(RequestRefused):
    """No model may answer at present, or the service is about to stop."""

    http_status = 503


class DeadlinePassed(RequestRefused):
    """An answer took longer than the service waits for it."""

    http_status = 504
