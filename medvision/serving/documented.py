"""What FastAPI can't tell by itself of the endpoints, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from medvision.serving.problems import MEDIA_TYPE
from medvision.serving.schemas import Problem
from medvision.serving.uploads import MAX_CASE_LENGTH


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of an endpoint, each as problem JSON."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {
        status: {"description": "What was expected, and what was found.", "content": content} for status in statuses
    }


def form_of(field: str, *, many: bool = False) -> dict[str, Any]:
    """Return the multipart body of an endpoint: one file or many, and the id of the case.

    The body is read by ``uploads``, with limits that FastAPI's own reading does not have.
    """
    file = {"type": "string", "format": "binary"}
    properties: dict[str, Any] = {field: {"type": "array", "items": file, "minItems": 1} if many else file}
    if not many:
        case = "The case, if a share of the cases is answered by a challenger: the same one gets the same version."
        properties["case_id"] = {"type": "string", "maxLength": MAX_CASE_LENGTH, "description": case}
    schema = {"type": "object", "required": [field], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
