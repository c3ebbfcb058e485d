"""Cross-validate a recipe on train and val together; the test split is not looked at."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pipelines.console import say
from pipelines.models import outputs_dir, plan_of, registered_name
from pipelines.normalize import load_or_compute_normalization
from pipelines.train import build_network_and_data, resolve

if TYPE_CHECKING:
    import numpy as np

    from medvision.config import Config
    from medvision.evaluation.predictions import Predictions
    from medvision.models.network import Network
    from medvision.records import CrossValidation, FoldFigures
    from medvision.tracking.recorder import Recorder
    from medvision.training.fit import LabelledImages
    from medvision.training.folds import Fold
    from pipelines.dataset import SplitDataset


def cross_validate(config: Config, recorder: Recorder, dataset: SplitDataset) -> CrossValidation:
    """Train and test the recipe once a fold; every image of train and val is tested by a model that never saw it.

    A frozen backbone is run once on every image, for all folds. The mean and standard deviation that normalize the
    images are those of the train split.
    """
    from medvision.evaluation.cross_validation import summarize

    config = resolve(config)
    normalization = load_or_compute_normalization(config, dataset, recorder)
    pool, folds = _pool(dataset), plan_folds(config, dataset)
    tested, figures = [], []
    for number, fold in enumerate(folds):
        network, data = build_network_and_data(config, dataset, normalization)
        data = dataclasses.replace(data, train=fold.train, val=fold.val, pool=pool)
        predictions, of_fold = _run_fold(network, data, fold, config, dataset, number)
        say(f"  fold {number + 1} of {len(folds)}: accuracy {of_fold.accuracy:.3f} on {of_fold.n_test} images")
        tested.append(predictions)
        figures.append(of_fold)
    fingerprint = dataset.split.fingerprint
    return summarize(registered_name(config), config.dataset_name, fingerprint, tested, figures, plan_of(config))


def plan_folds(config: Config, dataset: SplitDataset) -> tuple[Fold, ...]:
    """Part train and val into folds by patient; DataInvalid where a class has too few of them."""
    from medvision.errors import ConfigInvalid
    from medvision.training.folds import make_folds

    if config.training.cycles > 1:
        raise ConfigInvalid(
            "A cross-validation trains one network a fold; training.cycles > 1 makes an ensemble. Cross-validate with "
            "--set training.cycles=1."
        )
    pool, rows = _pool(dataset), dataset.manifest.rows
    return make_folds(
        pool,
        rows.label.to_numpy()[pool],
        rows.group.to_numpy()[pool],
        classes=dataset.manifest.classes,
        folds=config.evaluation.folds,
        seed=config.evaluation.seed,
    )


def _pool(dataset: SplitDataset) -> np.ndarray:
    import numpy as np

    # In the order in which a training embeds them, so that the folds find its embeddings in the cache.
    return np.concatenate([dataset.split.indices("train"), dataset.split.indices("val")])


def _run_fold(
    network: Network, data: LabelledImages, fold: Fold, config: Config, dataset: SplitDataset, number: int
) -> tuple[Predictions, FoldFigures]:
    from medvision.evaluation.calibration import fit_temperature
    from medvision.evaluation.cross_validation import describe_fold
    from medvision.models.ensemble import softmax
    from medvision.records import Silence
    from medvision.training.fit import fit
    from pipelines.scoring import make_predictions

    folder = outputs_dir(config) / "cross_validation" / f"fold_{number + 1}"
    result = fit(network, data, config, recorder=Silence(), folder=folder)
    temperature = fit_temperature(_logits(network, data, fold.val, config), data.labels[fold.val])
    y_score = softmax(_logits(network, data, fold.test, config) / temperature)
    predictions = make_predictions(dataset, fold.test, y_score)
    return predictions, describe_fold(predictions, len(fold.train), len(fold.val), result.best_epoch)


def _logits(network: Network, data: LabelledImages, rows: np.ndarray, config: Config) -> np.ndarray:
    import torch

    from medvision.data.cache import ImageRows
    from medvision.evaluation.scoring import compute_logits, place
    from medvision.models.devices import choose_device
    from medvision.training.fit import embed_plain, place_rows

    placed = place(network, choose_device(config.performance))
    if config.training.strategy != "head":
        return compute_logits(placed, ImageRows(data.images, rows), batch_size=64)
    plain, embedded = embed_plain(network, data, config)
    head = network.head.cpu()
    with torch.inference_mode():
        return head(torch.from_numpy(plain[place_rows(rows, embedded)])).numpy()
