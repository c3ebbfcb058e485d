"""What torchrun and SLURM say to a process."""

import pytest

from medvision.training.launch import launched_rank

VARIABLES = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_NTASKS", "SLURM_PROCID")


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, None),
        ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0"}, 0),
        ({"TORCHELASTIC_RUN_ID": "job", "RANK": "3", "LOCAL_RANK": "1"}, 3),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, 2),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 0),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_PROCID": "0"}, None),
        ({"SLURM_NTASKS": "4"}, None),
        ({"RANK": "3", "LOCAL_RANK": "3"}, None),
        ({"TORCHELASTIC_RUN_ID": "job", "RANK": "1", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, 1),
    ],
    ids=str,
)
def test_the_rank_is_that_of_the_launcher(monkeypatch, environment, rank):
    """torchrun's global rank, else SLURM's of several tasks; None where the process was started alone.

    A rank without torchrun's own variable is what Lightning gives the processes that it starts itself.
    """
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_rank() == rank
