#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU slice; starting again resumes the run.
#
#   TPU=NAME ZONE=us-west4-a experiments/launch/tpu_pod.sh \
#     --config=configs/bitnet_decoder.py:700M --workdir=gs://BUCKET/700M
#
# The repository is in ~/bitnet_jax on every host (docs/cloud.md), and the
# workdir in a bucket, or on a disk that all hosts share. DRY_RUN=1 prints the
# command instead.
set -euo pipefail

: "${TPU:?name of the TPU}" "${ZONE:?its zone}"
printf -v arguments '%q ' "$@"
command=(
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all
  "--command=cd ~/bitnet_jax && source ~/venv/bin/activate && python experiments/train.py --multihost ${arguments% }"
)
if [ -n "${DRY_RUN:-}" ]; then
  printf '%s\n' "${command[@]}"
else
  "${command[@]}"
fi
