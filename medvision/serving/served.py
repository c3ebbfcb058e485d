"""A version of a registered model that may answer: loaded, checked against its verdict, tried and warm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medvision.config import Config
from medvision.data.decode import UPLOAD_FORMATS
from medvision.errors import CheckpointCorrupt, EngineDiffers
from medvision.models.package_files import package_digest
from medvision.records import Verdict
from medvision.registry.gate import VERDICTS
from medvision.registry.packages import FoundModel, open_package
from medvision.serving.engines import golden_images
from medvision.serving.predictor import Predictor
from medvision.serving.trust import require_verdict

_WARM_UPS = 3


@dataclass(frozen=True)
class Served:
    """A version that answers; ``verdict`` is None only where models may answer without one, in development."""

    found: FoundModel
    predictor: Predictor
    verdict: Verdict | None

    @property
    def version(self) -> str:
        """Return its semantic version, or its number where it has none."""
        return self.found.version or self.found.number

    @property
    def never_ruled_out(self) -> tuple[str, ...]:
        """Return the classes that are in every prediction set, since val had too few cases of them."""
        info = self.predictor.info
        held = zip(info.classes, info.conformal.thresholds, strict=True) if info.conformal else ()
        return tuple(name for name, threshold in held if threshold == 0)

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the formats of image files that it takes from strangers: DICOM where it was trained on DICOM."""
        return (*UPLOAD_FORMATS, "DICOM") if "DICOM" in self.predictor.info.formats else UPLOAD_FORMATS


def load_served(config: Config, tracking_uri: str, found: FoundModel, *, engine: str, device: torch.device) -> Served:
    """Load a version that may answer, and try it.

    Raises
    ------
    VerdictUntrusted: it has no passed verdict on these very bytes. CheckpointCorrupt: the package is damaged.
    EngineDiffers: the engine computes something else, or nothing that is a probability.
    """
    cache: Path = config.paths.state / "cache" / "engines"
    with open_package(tracking_uri, found) as (package, files):
        # First, since an export takes seconds; that the weights are those of the digest is checked as they are loaded.
        digest = package_digest(package)
        verdict = require_verdict(found.name, digest, files.path(VERDICTS), state=config.paths.state)
        predictor = Predictor(package, device=device, engine=engine, cache=cache)
    if predictor.digest != digest:
        raise CheckpointCorrupt(f"The package of {found.uri} was exchanged while it was loaded. Serve it again.")
    _try_out(predictor)
    return Served(found, predictor, verdict)


def _try_out(predictor: Predictor) -> None:
    """Answer images of no patient: probabilities, and the same ones each time; the first answers are slow ones."""
    images = [
        {form: golden_images(form[1], form[2])[number] for form in predictor.forms} for number in range(_WARM_UPS)
    ]
    predictor.domain_distance(images[0])
    first, again = (np.stack([predictor.score([image]).y_score[0] for image in images]) for _ in range(2))
    # Not "is wrong": NaN must not pass.
    if not (np.allclose(first.sum(axis=1), 1, atol=1e-4) and (first >= 0).all() and np.array_equal(first, again)):
        raise EngineDiffers(
            f"{predictor.info.name} does not answer as a model should: expected probabilities, the same each time; "
            f"found sums of {first.sum(axis=1)} and {again.sum(axis=1)}."
        )
