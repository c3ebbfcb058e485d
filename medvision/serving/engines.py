"""What computes a package's logits: PyTorch as in the evaluation, or ONNX Runtime, which is faster on CPUs.

An exported network is compared with its PyTorch original each time that it is loaded, and never trusted without.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from medvision.errors import ConfigInvalid, EngineDiffers, MedvisionError
from medvision.evaluation.scoring import compute_logits, place
from medvision.files import atomic_write
from medvision.models.network import Network
from medvision.records import Preprocessing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Inputs = Callable[[Preprocessing], np.ndarray]

ENGINES = ("onnx", "torch", "openvino")
# Largest difference of a logit: rounding in another order gives 1e-4 on large networks.
TOLERANCE = 1e-3
_OPSET = 20
_LOG = logging.getLogger(__name__)


class Engine(Protocol):
    """Computes the logits of every member of a package; several threads may ask at once."""

    name: str

    def logits(self, inputs: Inputs) -> list[np.ndarray]:
        """Return the logits of each member, (n, k) float32, of images (n, H, W, C) uint8 as the member takes them."""


class TorchEngine:
    """PyTorch, by the very function that the evaluation scores with."""

    name = "torch"

    def __init__(self, networks: Sequence[Network], device: torch.device, batch_size: int = 32) -> None:
        self.networks = [place(network, device) for network in networks]
        self._batch_size = batch_size

    def logits(self, inputs: Inputs) -> list[np.ndarray]:
        """Return the logits of each member."""
        return [self._fit_in(network, inputs(network.preprocessing)) for network in self.networks]

    def _fit_in(self, network: Network, images: np.ndarray) -> np.ndarray:
        """Compute in parts that fit into the memory of a GPU, and where not even one image does, on the CPU."""
        batch_size = min(self._batch_size, len(images))
        while batch_size:
            try:
                return compute_logits(network, images, batch_size=batch_size)
            except torch.OutOfMemoryError:
                batch_size //= 2
                _LOG.warning("The GPU's memory is full: %s", f"{batch_size} images at a time" if batch_size else "CPU")
        return compute_logits(place(_on_cpu(network), "cpu"), images, batch_size=1)


class OnnxEngine:
    """ONNX Runtime on the CPU, a thread a call: calls side by side answer more than threads inside one."""

    name = "onnx"

    def __init__(self, networks: Sequence[Network], cache: Path, digest: str) -> None:
        self._forms = [network.preprocessing for network in networks]
        self._sessions = [
            _open_session(network, cache / f"{digest}-{number}.onnx") for number, network in enumerate(networks)
        ]

    def logits(self, inputs: Inputs) -> list[np.ndarray]:
        """Return the logits of each member."""
        return [
            session.run(None, {"images": channels_first(inputs(form))})[0]
            for form, session in zip(self._forms, self._sessions, strict=True)
        ]


class OpenVinoEngine:
    """OpenVINO on the CPU in full precision; it is not among the packages that medvision installs."""

    name = "openvino"

    def __init__(self, networks: Sequence[Network], cache: Path, digest: str) -> None:
        try:
            import openvino
        except ImportError:
            raise ConfigInvalid(
                "--engine openvino needs a package more. Run: pip install 'medvision[openvino]'"
            ) from None
        self._forms = [network.preprocessing for network in networks]
        core = openvino.Core()
        cores = os.cpu_count() or 1
        # It computes in bfloat16 unless told otherwise, which is another model; as many calls side by side as there are
        # cores, a thread each.
        options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores}
        self._models: list[Any] = [
            core.compile_model(str(exported(network, cache / f"{digest}-{number}.onnx")), "CPU", options)
            for number, network in enumerate(networks)
        ]

    def logits(self, inputs: Inputs) -> list[np.ndarray]:
        """Return the logits of each member."""
        # A request of its own a call: one that several threads share gives one thread the other's answer.
        return [
            model.create_infer_request().infer({0: channels_first(inputs(form))})[0]
            for form, model in zip(self._forms, self._models, strict=True)
        ]


def open_engine(name: str, reference: TorchEngine, *, cache: Path, digest: str) -> Engine:
    """Return the engine of a name, whose logits are those of PyTorch, the reference.

    Parameters
    ----------
    cache: folder for exported networks. digest: of the package, by which they are kept.

    Raises
    ------
    ConfigInvalid: there is no such engine here. EngineDiffers: its logits are others, or of another class.
    """
    if name == "torch":
        return reference
    if name not in ENGINES:
        raise ConfigInvalid(f"--engine expects one of {', '.join(ENGINES)}; found {name!r}.")
    opened = OnnxEngine if name == "onnx" else OpenVinoEngine
    engine: Engine
    try:
        engine = opened(reference.networks, cache, digest)
    except MedvisionError:
        raise
    # What is damaged is told by errors of each runtime's own, and whatever was exported can be exported again.
    except Exception as error:
        _LOG.warning("The exported network can't be opened (%s): it is exported again.", type(error).__name__)
        for number in range(len(reference.networks)):
            (cache / f"{digest}-{number}.onnx").unlink(missing_ok=True)
        engine = opened(reference.networks, cache, digest)
    check_engine(engine, reference)
    return engine


def check_engine(engine: Engine, reference: TorchEngine) -> float:
    """Return the largest difference of a logit on images of several kinds; EngineDiffers if it is too large."""
    forms = [network.preprocessing for network in reference.networks]
    images = {form: golden_images(form.image_size, form.channels) for form in forms}
    expected, found = reference.logits(images.__getitem__), engine.logits(images.__getitem__)
    largest = max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
    same = all((a.argmax(1) == b.argmax(1)).all() for a, b in zip(expected, found, strict=True))
    # Not "larger than": NaN must not pass.
    if not (same and largest <= TOLERANCE):
        raise EngineDiffers(
            f"The engine {engine.name} gives other logits than PyTorch: expected a difference of {TOLERANCE} at most, "
            f"found {largest:.3g}{'' if same else ', and another class'}. Serve with: --engine torch"
        )
    _LOG.info("Engine %s: logits within %.1e of PyTorch's.", engine.name, largest)
    return largest


def golden_images(side: int, channels: int) -> np.ndarray:
    """Return images that a network can be tried with, the same each time: blobs, a gradient, noise, black.

    Returns uint8 (8, side, side, channels). They are of no patient.
    """
    generator, ramp = np.random.default_rng(0), np.linspace(0, 255, side)
    blobs = [_blob(side, *generator.uniform((0.25, 0.25, 0.1), (0.75, 0.75, 0.4))) for _ in range(4)]
    planes = [*blobs, np.add.outer(ramp, ramp) / 2, generator.integers(0, 256, (side, side)), np.zeros((side, side))]
    planes.append(255 - blobs[0])
    return np.repeat(np.stack(planes)[..., np.newaxis], channels, axis=3).astype(np.uint8)


def _blob(side: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[0:side, 0:side] / side
    return 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * radius**2))


def channels_first(images: np.ndarray) -> np.ndarray:
    """Return images (n, C, H, W) of images (n, H, W, C)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _on_cpu(network: Network) -> Network:
    """Return a copy on the CPU: a plain one would be made beside the original first, where there is no room."""
    there: dict[int, Any] = {id(tensor): tensor.cpu() for tensor in network.buffers()}
    there |= {id(tensor): torch.nn.Parameter(tensor.detach().cpu()) for tensor in network.parameters()}
    return copy.deepcopy(network, there)


def _open_session(network: Network, path: Path) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(exported(network, path), options, providers=["CPUExecutionProvider"])


def exported(network: Network, path: Path) -> Path:
    """Return the ONNX file of a network, which is written unless it is there: uint8 images in, logits out."""
    if not path.is_file():
        content = _export(network)
        atomic_write(path, lambda file: file.write(content))
    return path


def _export(network: Network) -> bytes:
    form, content = network.preprocessing, BytesIO()
    # Two of them: of a batch of one, torch takes the number for a constant.
    example = torch.zeros((2, form.channels, form.image_size, form.image_size), dtype=torch.uint8)
    original = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            original, (example,), input_names=["images"], output_names=["logits"], opset_version=_OPSET,
            dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(content)  # type: ignore[arg-type]
    return content.getvalue()
