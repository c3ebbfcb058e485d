"""A software bill of materials, CycloneDX: the packages that a model was trained with, and their licences."""

from __future__ import annotations

import importlib.metadata
import re
import uuid
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
# A text of a whole licence in the field of its name is of no use in a list.
_LONGEST_NAME = 120


def make_sbom(packages: str, *, name: str, version: str, digest: str, made_at: datetime) -> str:
    """Return the bill of materials of a model as JSON: the same inputs give the same text.

    Parameters
    ----------
    packages: NAME==VERSION lines, as a run records them.
    name, version, digest: of the model; the digest is that of its package.

    Licences are those that the packages which are installed here state, where they are of the same version.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    kind = ComponentType.MACHINE_LEARNING_MODEL
    model = Component(name=name, version=version, type=kind, bom_ref=f"{name}@{version}")
    components = [_component(*found) for found in sorted(set(_LINE.findall(packages)))]
    bom = Bom(
        components=components,
        metadata=BomMetaData(component=model, timestamp=made_at),
        # By the package: a random one would make each archive another.
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digest),
    )
    bom.register_dependency(model, components)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _component(name: str, version: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=_licences(name, version),
    )


def _licences(name: str, version: str) -> list[License]:
    """Return the licence that the installed package of this version states; nothing if none is, or it states none."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return []
    if metadata["Version"] != version:
        return []
    classifiers = [each for each in metadata.get_all("Classifier") or () if each.startswith("License :: ")]
    stated = str(metadata.json.get("license_expression") or metadata.json.get("license") or "")
    if not stated or stated.upper() == "UNKNOWN" or len(stated) > _LONGEST_NAME or "\n" in stated:
        stated = classifiers[0].rpartition(" :: ")[2] if classifiers else ""
    return [LicenseFactory().make_from_string(stated)] if stated else []
