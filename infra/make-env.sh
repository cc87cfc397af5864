#!/bin/sh
# Makes compose's passwords, random:  (umask 077; sh infra/make-env.sh > infra/.env)
#
# Run once: the volumes keep the first ones. infra/.env is in .gitignore.
set -eu

random() { od -An -vtx1 -N24 /dev/urandom | tr -d ' \n'; }
cat <<ENV
PREFECT_AUTH=maskmill:$(random)
RAY_TOKEN=$(random)$(random)
POSTGRES_PASSWORD=$(random)
S3_KEY=$(random)
S3_SECRET=$(random)
MASKMILL_IMAGE=maskmill:cpu
STORE_SIZE=100G
PHOTOS=./photos
MODELS=./models
ENV
