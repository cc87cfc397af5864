#!/bin/sh
# Makes the secrets that infra/kubernetes refers to, random, in the cluster alone: no file has them.
#
#   sh infra/kubernetes/make-secrets.sh | kubectl apply -f -
#
# Run once: a second run makes others, which a running Postgres doesn't take. What reaches your bucket beside
# IAM roles goes into a secret of your own:
#   kubectl -n maskmill create secret generic maskmill-store --from-literal=AWS_ACCESS_KEY_ID=... \
#     --from-literal=AWS_SECRET_ACCESS_KEY=... --from-literal=AWS_ENDPOINT_URL_S3=https://...
set -eu

random() { od -An -vtx1 -N32 /dev/urandom | tr -d ' \n'; }
ray=$(random) postgres=$(random) prefect=maskmill:$(random)

cat <<YAML
apiVersion: v1
kind: Namespace
metadata: {name: maskmill}
---
apiVersion: v1
kind: Secret
metadata: {name: maskmill-ray, namespace: maskmill}
stringData:
  auth_token: "$ray"
---
apiVersion: v1
kind: Secret
metadata: {name: maskmill-prefect, namespace: maskmill}
stringData:
  auth: "$prefect"
  postgres-password: "$postgres"
  database-url: "postgresql+asyncpg://prefect:$postgres@postgres/prefect"
---
# what a flow run's job has in its environment
apiVersion: v1
kind: Secret
metadata: {name: maskmill-runs, namespace: maskmill}
stringData:
  PREFECT_API_URL: "http://prefect:4200/api"
  PREFECT_API_AUTH_STRING: "$prefect"
  MASKMILL_RAY_ADDRESS: "ray://maskmill-head-svc:10001"
  RAY_AUTH_MODE: token
  RAY_AUTH_TOKEN: "$ray"
  RAY_USAGE_STATS_ENABLED: "0"
  MASKMILL_CACHE: /models
YAML
