"""A training that torchrun starts: two processes run the whole command, and leave one run and one package."""

import sys

import pytest
from medvision_project import ON_DATASET, Project, finish

from medvision.models.package import load_package

pytestmark = pytest.mark.slow
TWO = ("performance.accelerator=cpu performance.devices=2 tracking.wandb=false",)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Train on two devices with torchrun, then try to run a whole pipeline with it."""
    story = Project(tmp_path_factory.mktemp("launched"))
    story.train = finish(_torchrun(story, "train", "--set", *TWO))
    story.pipeline = finish(_torchrun(story, "pipeline", "--set", *TWO))
    return story


def _torchrun(story, step, *options):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    training = ("--model", "simple_cnn", "--epochs", "2", "--image-size", "16", *ON_DATASET)
    return story.start(*launcher, "-m", f"pipelines.{step}", *training, *options)


def test_a_launched_training_is_one_run(story):
    """However many processes train, one run is recorded, and it is FINISHED."""
    assert story.train.code == 0, story.train.err
    assert [run.info.status for run in story.runs("train")] == ["FINISHED"]


def test_a_launched_training_leaves_a_whole_package(story):
    """The first process packs what all have trained."""
    info, _ = load_package(story.folder / "checkpoints" / "simple_cnn_outputs" / "package")
    assert info.members[0].best_epoch in (0, 1, 2)


def test_a_launched_pipeline_is_refused(story):
    """A pipeline, which would be run once a device, is refused with what to launch instead."""
    assert story.pipeline.code != 0
    assert "give it the train step" in story.pipeline.err
