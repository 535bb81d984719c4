"""Processes that find each other, here one alone: what they take for their number."""

import os

import ignite.distributed

from lib.trainers.ranks import local_group


def test_a_slurm_job_does_not_tell_a_process_which_of_its_devices_to_use(tmp_path, monkeypatch):
    """ignite would take the number of the job's step, the same for all processes that were started in it."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with local_group((tmp_path / "rendezvous").as_uri(), 0, 1):
        assert ignite.distributed.get_local_rank() == 0, "as it was told"
        assert (os.environ["SLURM_JOB_ID"], os.environ["LOCAL_RANK"]) == ("7", "1")
