#!/usr/bin/env bash
# Runs one config on a Cloud TPU VM slice: create, push this checkout, install, run on all workers, fetch runs/, delete.
#
#   ZONE=us-central2-b TYPE=v4-8 launch/tpu_vm.sh my-tpu --config=configs/pretrain.py --workdir=runs/pretrain
#
# A slice of several hosts needs a --workdir that they share (a mounted Filestore, say); one host needs nothing.
# Needs gcloud, logged in, with a project that may create TPUs. KEEP=1 leaves the machine running.
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

tpu describe "$name" >/dev/null 2>&1 || tpu create "$name" --accelerator-type="$type" --version="$image"
[ -n "${KEEP:-}" ] || trap 'tpu delete "$name" --quiet' EXIT

archive=$(mktemp --suffix=.tar.gz)
git -C "$(dirname "$0")/.." archive --format=tar.gz -o "$archive" HEAD
tpu scp "$archive" "$name":ncjax.tar.gz --worker=all
everywhere 'rm -rf ncjax && mkdir ncjax && tar xzf ncjax.tar.gz -C ncjax && pip install -q -e "ncjax[tpu]"'
printf -v arguments '%q ' "$@"
everywhere "cd ncjax && python3 -m ncjax.main --distributed $arguments"
tpu scp --recurse "$name":ncjax/runs . --worker=0
