"""Backbones with the pretrained weights that timm names on its hub.

A machine without internet is told so within seconds: left to itself, the hub's client retries for 50 s.
"""

import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from medvision.errors import WeightsUnavailable

# A healthy hub answers within 1 s; more would only make an offline machine wait.
_PROBE_S = 5.0


def create_from_hub(timm_name: str, **options: Any) -> nn.Module:
    """Return timm's backbone with its pretrained weights, from the hub or from the copy of an earlier download.

    Raises WeightsUnavailable: no network, no such weights, a failed download.
    """
    config: Any = timm.get_pretrained_cfg(timm_name)
    if config is None or not config.has_weights:
        raise _unavailable(timm_name, "timm names no pretrained weights for it")
    url = huggingface_hub.constants.ENDPOINT if config.hf_hub_id else config.url
    if not _is_downloaded(config) and not _answers(url):
        raise _unavailable(timm_name, f"{url} does not answer")
    try:
        return timm.create_model(timm_name, pretrained=True, **options)
    except Exception as error:  # the clients of three protocols, each with its own errors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _unavailable(timm_name, reason) from error


def is_downloaded(timm_name: str) -> bool:
    """Tell whether the pretrained weights of timm's backbone are on this machine, from an earlier download."""
    config: Any = timm.get_pretrained_cfg(timm_name)
    return config is not None and config.has_weights and _is_downloaded(config)


def _unavailable(timm_name: str, reason: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"The pretrained weights of {timm_name} could not be had: {reason}. On a machine without internet give "
        f"--pretrained FILE (the .safetensors or .pth of timm's {timm_name}, downloaded elsewhere; where a step has no "
        "such option, --set training.pretrained=FILE), or "
        "--pretrained false to start from random weights."
    )


def _is_downloaded(config: Any) -> bool:
    if not config.hf_hub_id:
        return Path(torch.hub.get_dir(), "checkpoints", Path(config.url).name).is_file()
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    return any(isinstance(huggingface_hub.try_to_load_from_cache(config.hf_hub_id, name), str) for name in names)


def _answers(url: str) -> bool:
    """Tell whether a server answers at all, whatever it says."""
    answered = threading.Event()

    def knock() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PROBE_S).close()
        except urllib.error.HTTPError:
            pass
        except urllib.error.URLError as error:
            # The hub's client may trust certificates that Python does not: let it find out.
            if not isinstance(error.reason, ssl.SSLError):
                return
        except OSError:
            return
        answered.set()

    # A thread, since looking up a name has no time limit of its own.
    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PROBE_S)
    return answered.is_set()
