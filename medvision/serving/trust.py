"""Whether a model package may answer: only with a passed verdict on these very bytes, signed by a key that is trusted.

The verdicts lie beside the package in MLflow, where ``register`` has put them. Whoever promotes past the gate, or
exchanges files, has none that fits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from medvision.config import load_config
from medvision.errors import GateFailed, VerdictUntrusted
from medvision.records import Verdict
from medvision.registry.gate import ENVELOPE
from medvision.registry.loader import check_loader
from medvision.registry.model_files import MAX_TEXT_BYTES, ModelFiles
from medvision.validation.attestation import open_envelope
from medvision.validation.keys import load_public_keys, load_trusted_keys

_LOG = logging.getLogger(__name__)

UNVALIDATED_VARIABLE, KEYS_VARIABLE = "MEDVISION_UNVALIDATED", "MEDVISION_TRUSTED_KEYS"


def require_verdict(model: str, digest: str, folder: Path | None, *, state: Path | None = None) -> Verdict | None:
    """Return the passed verdict on a package, from the folder of verdicts beside it; None if none is asked for.

    ``state``: the state folder whose keys are trusted; that of the project's settings if None.

    None is asked for where the variable MEDVISION_UNVALIDATED is ``allow``, which is for development.

    Raises
    ------
    VerdictUntrusted: there is none that is passed, is on this package, and is signed by a trusted key.
    ConfigInvalid: the trusted keys can't be read.
    """
    try:
        return find_verdict(model, digest, read_envelopes(folder), trusted_keys(state))
    except VerdictUntrusted as error:
        if not allows_unvalidated():
            raise
        _LOG.warning("!! %s=allow: %s answers WITHOUT a valid verdict. %s", UNVALIDATED_VARIABLE, model, error)
        return None


def allows_unvalidated() -> bool:
    """Tell whether models may answer without a verdict, as in development."""
    return os.environ.get(UNVALIDATED_VARIABLE) == "allow"


def find_verdict(
    model: str, digest: str, envelopes: Mapping[str, str], trusted: Mapping[str, Ed25519PublicKey]
) -> Verdict:
    """Return the newest verdict on a package among envelopes by the name of their policy.

    Raises VerdictUntrusted: there is none, or it is not passed, whatever an older one says.
    """
    found, held = [], []
    for name, text in envelopes.items():
        try:
            verdict = open_envelope(text, dict(trusted))
        except VerdictUntrusted as error:
            found.append(f"{name}: {error}")
            continue
        said = f"{name}: {verdict.state.replace('_', ' ')} under policy {verdict.policy}, of {verdict.made_at}"
        if verdict.package_digest != digest:
            found.append(f"{said}, on package {verdict.package_digest[:12]}")
        elif verdict.policy != name:
            # Copied, so that a newer one under its own name would not replace it.
            found.append(f"{said}, in a file of another name")
        else:
            held.append((verdict.made_at, not verdict.passed, said, verdict))
    if held:
        *_, said, newest = max(held, key=lambda each: each[:2])
        if newest.passed:
            return newest
        found = [f"{said}, the newest one"]
    raise VerdictUntrusted(
        f"{model} refuses to answer: expected a passed verdict on package {digest[:12]}, signed by a key that is "
        f"trusted here; found {'; '.join(found).rstrip('.') or 'no verdict beside it'}. Run: medvision validate, then "
        f"medvision register. For development only: {UNVALIDATED_VARIABLE}=allow"
    )


def require_loader(model: str, files: ModelFiles, known: Container[str] = ()) -> None:
    """Raise GateFailed if MLflow would run other code than medvision's to load a model.

    ``known``: hashes of code that counts beside that of medvision as it is here.
    """
    problem = check_loader(files, known)
    if problem:
        raise GateFailed(
            f"{model} is not loaded: expected the loader of medvision, and no other code; found {problem}. "
            "Run: medvision register, from the package as it was made"
        )


def read_envelopes(folder: Path | None) -> dict[str, str]:
    """Return the envelopes of a folder by their names; what is too large or no text is left out."""
    paths = sorted(folder.glob(f"*{ENVELOPE}")) if folder else []
    return {
        path.name.removesuffix(ENVELOPE): path.read_bytes().decode("utf-8", "replace")
        for path in paths
        if path.is_file() and path.stat().st_size <= MAX_TEXT_BYTES
    }


def trusted_keys(state: Path | None = None) -> dict[str, Ed25519PublicKey]:
    """Return the keys whose verdicts count: those of the folder MEDVISION_TRUSTED_KEYS, else those of the project."""
    folder = os.environ.get(KEYS_VARIABLE)
    return load_public_keys(Path(folder)) if folder else load_trusted_keys(state or load_config().paths.state)
