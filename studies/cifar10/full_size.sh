#!/usr/bin/env bash
# VGG-16-BN on CIFAR-10, 200 epochs, on one GPU, in pieces: stops itself after MINUTES (10), with exit
# code 124, and goes on where it stopped when it is run again; 0 once all is done. To the end:
#
#   while studies/cifar10/full_size.sh; [ $? = 124 ]; do :; done
#
# Arguments are settings put over full_size.yaml, the same in each piece.
set -eu
cd "$(dirname "$0")/../.."

status=0
timeout --foreground --signal=INT --kill-after=60 "${MINUTES:-10}m" \
    "${PYTHON:-.venv/bin/python}" -m lowland run studies/cifar10/full_size.yaml "$@" || status=$?
if [ "$status" = 124 ]; then
    echo "Stopped after ${MINUTES:-10} minutes; run the same command to go on."
fi
exit "$status"
