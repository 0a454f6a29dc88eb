#!/bin/sh
# Outcomes over AMQP in the shell, with amqp-consume of Debian's package amqp-tools. One line of JSON each.
#
#   RABBITMQ_URL=amqp://guest:guest@localhost:5672/ ./results.sh 'succeeded.#'
#
# It gets some outcomes twice, if rarely: the same event has the same "id". Its queue goes with its connection.
# (To amqp-consume a "/" at the end of the URL is a virtual host without a name, so it is taken away.)
set -eu
url="${RABBITMQ_URL:-amqp://guest:guest@localhost:5672/}"
exec amqp-consume --url="${url%/}" --exchange="${JOBTAPE_NAMESPACE:-jobtape}.results" --routing-key="${1:-#}" \
    --exclusive -- sh -c 'cat && echo'
