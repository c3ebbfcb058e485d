"""Answers for many files: read by threads, a batch ahead of the one that is scored."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from medvision.errors import DecodeRejected
from medvision.serving.predictor import Prediction, Predictor
from medvision.serving.reading import Forms


@dataclass(frozen=True)
class Answer:
    """What the model says of a file, and how unlike its own images the file's is, as ``domain_distance`` has it."""

    prediction: Prediction
    domain_distance: float | None


@dataclass(frozen=True)
class _ReadImage:
    forms: Forms
    domain_distance: float | None


def answer_files(
    predictor: Predictor, paths: Sequence[Path], *, batch_size: int, workers: int
) -> Iterator[Answer | DecodeRejected]:
    """Yield the answer for each file, in order; for a file that is no readable image, what is wrong with it.

    At most two batches are in memory, however many files there are.
    """
    waiting, ahead = iter(paths), collections.deque[Future[_ReadImage | DecodeRejected]]()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            missing = 2 * batch_size - len(ahead)
            ahead.extend(pool.submit(_read, predictor, path) for path in itertools.islice(waiting, missing))
            if not ahead:
                return
            yield from _answer(predictor, [ahead.popleft().result() for _ in range(min(batch_size, len(ahead)))])


def _read(predictor: Predictor, path: Path) -> _ReadImage | DecodeRejected:
    try:
        forms = predictor.read(path)
    except DecodeRejected as error:
        return error
    return _ReadImage(forms, predictor.domain_distance(forms))


def _answer(predictor: Predictor, images: list[_ReadImage | DecodeRejected]) -> Iterator[Answer | DecodeRejected]:
    readable = [image.forms for image in images if isinstance(image, _ReadImage)]
    answers = iter(predictor.answer(readable) if readable else [])
    for image in images:
        yield image if isinstance(image, DecodeRejected) else Answer(next(answers), image.domain_distance)
