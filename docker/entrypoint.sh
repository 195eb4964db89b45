#!/bin/sh
# Runs what it is given. `reid-serve` alone, without a checkpoint, serves the toy model, whose gallery stays apart from
# one's own: /data/toy, with the model that it belongs to, so that no newer image refuses it.
set -eu

fail() {
    echo "reid-serve: error: $1" >&2
    exit 1
}

if [ "$*" = reid-serve ]; then
    # Who can reach the port is decided where it is published. Nobody but this machine: then no key is needed, unless
    # a proxy lets others ask.
    case ${REID_PUBLIC_URL:+proxy}${REID_ROOT_PATH:+proxy}${REID_TRUSTED_PROXIES:+proxy}${PUBLISHED_ON-} in
        127.*) export REID_REQUIRE_KEYS="${REID_REQUIRE_KEYS:-false}" ;;
    esac
    for model in "${REID_CHECKPOINT-}" "${REID_CLASSIFIER-}"; do
        [ -z "$model" ] || [ -r "$model" ] \
            || fail "$model: not there in the container, or not readable by uid $(id -u); docker/models is /models there"
    done
    if [ -n "${REID_CHECKPOINT-}" ]; then
        export REID_GALLERY=/data/gallery
    elif [ -z "${REID_CLASSIFIER-}${REID_DATABASE-}" ]; then
        if [ ! -e /data/toy ]; then
            said=$(rm -rf /data/toy.new 2>&1 && cp -r /opt/toy /data/toy.new 2>&1 && mv /data/toy.new /data/toy 2>&1) \
                || fail "/data cannot be written by uid $(id -u): $(echo "$said" | head -n 1)"
        fi
        export REID_CHECKPOINT=/data/toy/model REID_GALLERY=/data/toy/gallery
    fi
fi
exec "$@"
