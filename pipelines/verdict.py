"""The signed verdict of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.models import ENVELOPE_FILE, results_dir

if TYPE_CHECKING:
    from medvision.config import Config
    from medvision.records import Verdict


def load_signed_verdict(config: Config) -> Verdict:
    """Return the model's verdict; VerdictUntrusted unless a trusted key has signed the very bytes that are there."""
    from medvision.validation.attestation import load_envelope
    from medvision.validation.keys import load_trusted_keys

    return load_envelope(results_dir(config) / ENVELOPE_FILE, load_trusted_keys(config.paths.state))
