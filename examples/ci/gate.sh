#!/bin/sh
# Let a checkpoint pass only if its BatchNorm layers were looked at and have no new fault.
# Usage: gate.sh CHECKPOINT [FLAGS OF inspect-checkpoint...]
set -u

bncli inspect-checkpoint "$@" --quiet --output bncli.json
code=$?
case $code in
    0) echo "pass: $1" ;;
    1) echo "stop: $1 has a new fault, see bncli.json" ;;
    2) echo "stop: $1 could not be judged" ;;
    3) echo "stop: $1 has no BatchNorm layer" ;;
    *) echo "stop: bncli ended with $code" ;;
esac
exit $code
