"""Measure how a model's figures fall on worse images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.models import plan_of
from pipelines.scoring import make_predictions, open_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from medvision.config import Config
    from medvision.evaluation.paired import Draws
    from medvision.records import PackageInfo, Robustness
    from pipelines.dataset import SplitDataset


def measure_robustness(
    info: PackageInfo, networks: Sequence[torch.nn.Module], dataset: SplitDataset, config: Config
) -> Robustness:
    """Score a sample of the test split under every corruption at every severity, with networks that are placed."""
    from medvision.data.corruptions import CORRUPTIONS, SEVERITIES
    from medvision.data.parallel import with_progress
    from medvision.evaluation.robustness import choose_sample, describe_fall, select_figures
    from medvision.records import Robustness

    test = dataset.split.indices("test")
    labels = dataset.manifest.rows.label.to_numpy()[test]
    rows = test[choose_sample(labels, config.evaluation.robustness_images, seed=config.evaluation.seed)]
    plain = _draw(info, networks, rows, dataset, config, None)
    kinds = [(kind, severity) for kind in CORRUPTIONS for severity in SEVERITIES]
    corrupted = [
        describe_fall(*each, plain, _draw(info, networks, rows, dataset, config, each))
        for each in with_progress(iter(kinds), len(kinds), "Corrupting images")
    ]
    return Robustness(len(rows), select_figures(plain), tuple(corrupted))


def _draw(
    info: PackageInfo,
    networks: Sequence[torch.nn.Module],
    rows: np.ndarray,
    dataset: SplitDataset,
    config: Config,
    corruption: tuple[str, int] | None,
) -> Draws:
    from medvision.data.corruptions import CorruptedImages
    from medvision.evaluation.paired import draw
    from medvision.evaluation.scoring import Images, score_package
    from medvision.records import Preprocessing

    def inputs(form: Preprocessing) -> Images:
        images = open_images(form, rows, dataset, config)
        return CorruptedImages(images, *corruption) if corruption else images

    scores = score_package(info, networks, inputs, batch_size=64)
    plan = plan_of(config)
    return draw(make_predictions(dataset, rows, scores.y_score), plan)
