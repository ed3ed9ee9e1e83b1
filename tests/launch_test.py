"""The launch scripts start what they say."""

import os
import pathlib
import shlex
import subprocess

LAUNCH = pathlib.Path(__file__).parents[1] / "experiments" / "launch"
ARGUMENTS = ["--config=configs/a.py:b", "--workdir=/runs/with space"]


def printed(script, **environment):
  done = subprocess.run(
    [str(LAUNCH / script), *ARGUMENTS],
    env={"PATH": os.environ["PATH"], "HOME": "/home/me", **environment},
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout, done.stderr


def test_pod_starts_the_program_on_all_workers():
  code, out, _ = printed("tpu_pod.sh", DRY_RUN="1", TPU="mine", ZONE="here")
  assert code == 0
  command = out.splitlines()
  assert command[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "mine"]
  assert command[6:8] == ["--zone=here", "--worker=all"]
  remote = shlex.split(command[8].removeprefix("--command="))
  assert remote[-5:] == [
    "python",
    "experiments/train.py",
    "--multihost",
    *ARGUMENTS,
  ]


def test_pod_needs_a_name():
  code, _, errors = printed("tpu_pod.sh", DRY_RUN="1", ZONE="here")
  assert code != 0
  assert "TPU: name of the TPU" in errors


def test_job_asks_for_nodes_and_goes_on():
  code, out, _ = printed("slurm.sh", DRY_RUN="1", NODES="4", GPUS="2")
  assert code == 0
  assert "#SBATCH --nodes=4\n" in out
  assert "#SBATCH --gpus-per-node=2\n" in out
  assert "#SBATCH --signal=TERM@120\n" in out
  assert 'source "$HOME/venv/bin/activate"\n' in out
  (line,) = [text for text in out.splitlines() if text.startswith("srun")]
  words = shlex.split(line.removesuffix(" ||"))
  assert words == [
    "srun",
    "python",
    "experiments/train.py",
    "--multihost",
    *ARGUMENTS,
  ]
  assert "scontrol requeue" in out
  subprocess.run(["bash", "-n"], input=out, text=True, check=True)
