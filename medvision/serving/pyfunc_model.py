"""The model that MLflow loads: a model package behind a column of base64 images.

MLflow runs this file when it loads the model ("models from code"), so that nothing is ever unpickled. A package that
is damaged, or has no passed and signed verdict beside it, is loaded and answers nobody.
"""

from __future__ import annotations

import base64
import binascii
import logging
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.pyfunc import PythonModel

from medvision.data.decode import UPLOAD_FORMATS
from medvision.errors import ConfigInvalid, DecodeRejected, MedvisionError
from medvision.registry.gate import VERDICTS
from medvision.serving.predictor import Prediction, Predictor
from medvision.serving.trust import require_verdict

_LOG = logging.getLogger("medvision.serving")

# 10 MiB of image is the limit of the service; base64 makes it 4/3 as long.
_MAX_BASE64 = 14_000_000
_NO_KEYS = "The keys that this server trusts can't be read, so that no verdict counts. Its log says what to do."


class Refused(MlflowException):
    """A refusal that keeps its sentence: MLflow's server would put the whole input, an image, before it."""

    @property
    def message(self) -> str:
        """Return the sentence that the error was raised with."""
        return self._sentence

    @message.setter
    def message(self, text: str) -> None:
        if not hasattr(self, "_sentence"):
            self._sentence = text


class ImageClassifier(PythonModel):
    """Answer rows with base64 images in a column ``image`` by label, confidence and the probability of each class."""

    def load_context(self, context: Any) -> None:
        """Load the package, once for each process, and find out whether it may answer."""
        package = Path(context.artifacts["package"])
        self._refusal, self._is_unvalidated = "", False
        try:
            self._predictor = Predictor(package)
            verdict = require_verdict(self._predictor.info.name, self._predictor.digest, _verdicts(package))
            self._is_unvalidated = verdict is None
        except MedvisionError as error:
            _LOG.error("!! %s", error)
            # Where the server keeps its files is nobody's business.
            self._refusal = _NO_KEYS if isinstance(error, ConfigInvalid) else str(error).replace(f" {package}", "")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predict each row; a row that holds no readable image is a bad request that says which and why."""
        if self._refusal:
            raise Refused(self._refusal, error_code=PERMISSION_DENIED)
        if self._is_unvalidated:
            _LOG.warning("!! An answer of %s, which has NO valid verdict.", self._predictor.info.name)
        rows = [self._predict_row(number, text) for number, text in enumerate(model_input["image"])]
        return pd.DataFrame([vars(row) for row in rows])

    def _predict_row(self, number: int, text: Any) -> Prediction:
        try:
            return self._predictor.predict([_decode_base64(text)], formats=UPLOAD_FORMATS)[0]
        except (DecodeRejected, binascii.Error) as error:
            # Without "from None" MLflow would put the whole stack trace into its answer.
            raise Refused(f"Image {number}: {error}.", error_code=INVALID_PARAMETER_VALUE) from None


def _verdicts(package: Path) -> Path | None:
    """Return the folder of verdicts of the MLflow model that a package lies in."""
    root = next((folder for folder in package.parents if (folder / "MLmodel").is_file()), None)
    return root / VERDICTS if root else None


def _decode_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise DecodeRejected(
            f"expected an image in base64; found {'nothing' if pd.isna(text) else type(text).__name__}"
        )
    if len(text) > _MAX_BASE64:
        raise DecodeRejected(f"{len(text):,} characters of base64; at most {_MAX_BASE64:,} are read")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DecodeRejected(f"not base64 ({error}); expected the bytes of a PNG or JPEG file in base64") from None


set_model(ImageClassifier())
