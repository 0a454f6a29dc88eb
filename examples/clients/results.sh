#!/bin/sh
# Receives outcomes over AMQP in the shell, with amqp-consume of Debian's package amqp-tools. Prints one line of JSON each.
#
#   RABBITMQ_URL=amqp://guest:guest@localhost:5672/ ./results.sh 'succeeded.#'
#
# It sometimes gets an outcome twice: the same event has the same "id". Its queue is deleted when its connection ends.
# amqp-consume takes a "/" at the end of the URL for a virtual host without a name, so the "/" is removed.
set -eu
url="${RABBITMQ_URL:-amqp://guest:guest@localhost:5672/}"
exec amqp-consume --url="${url%/}" --exchange="${JOBTAPE_NAMESPACE:-jobtape}.results" --routing-key="${1:-#}" \
    --exclusive -- sh -c 'cat && echo'
