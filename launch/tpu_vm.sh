#!/usr/bin/env bash
# Runs one config on a Cloud TPU VM slice: create, push this checkout, install, run on all workers, fetch runs/, delete.
#
#   ZONE=us-central2-b TYPE=v4-8 launch/tpu_vm.sh my-tpu --config=configs/pretrain.py --workdir=runs/pretrain
#
# A slice of several hosts needs a --workdir that they share (a mounted Filestore, say); one host needs nothing.
# Needs gcloud, logged in, with a project that may create TPUs. A machine that was there before is used and left as it is,
# one that was created here is deleted once its runs are fetched, unless KEEP=1.
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: ZONE=... TYPE=... $0 NAME --config=... [--config.key=value ...]" >&2
  exit 2
fi
name=$1
shift
zone=${ZONE:?set ZONE, for example us-central2-b}
type=${TYPE:?set TYPE, for example v4-8}
image=${IMAGE:-tpu-ubuntu2204-base}
tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone"; }
everywhere() { tpu ssh "$name" --worker=all --command="$1"; }

archive=$(mktemp --suffix=.tar.gz)
created=
pushed=
finish() {
  code=$?
  trap - EXIT
  rm -f "$archive"
  # Whatever happened, what there is comes home first: a run that failed has a checkpoint to go on from.
  if [ -n "$pushed" ] && ! { tpu ssh "$name" --worker=0 --command="test ! -d ncjax/runs" || tpu scp --recurse "$name":ncjax/runs . --worker=0; }; then
    echo "the runs on $name could not be fetched; it is kept: fetch ncjax/runs, then delete it" >&2
    exit 1
  fi
  if [ -n "$created" ] && [ -z "${KEEP:-}" ]; then
    tpu delete "$name" --quiet
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! tpu describe "$name" >/dev/null 2>&1; then
  tpu create "$name" --accelerator-type="$type" --version="$image"
  created=1
fi
git -C "$(dirname "$0")/.." archive --format=tar.gz -o "$archive" HEAD
tpu scp "$archive" "$name":ncjax.tar.gz --worker=all
pushed=1
# The image's Python is 3.10: uv brings a later one. Runs of an earlier start stay.
everywhere 'mkdir -p ncjax && tar xzf ncjax.tar.gz -C ncjax && cd ncjax && python3 -m pip install -q uv &&
  python3 -m uv venv -q --allow-existing --python 3.12 .venv && python3 -m uv pip install -q --python .venv -e ".[tpu]"'
printf -v arguments '%q ' "$@"
everywhere "cd ncjax && .venv/bin/python -m ncjax.main --distributed $arguments"
