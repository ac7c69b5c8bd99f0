#!/bin/sh
# Back to the release before, in one namespace of the cluster; the result is verified. Ends with 1 when that is refused
# or has not gone well.
#
#   [= plan.folder =]/scripts/rollback-kubernetes.sh NAMESPACE
[% if plan.prepare %]
#
# The older code is asked first whether it can serve with the database as it is now: what a migration since has merely
# added is no obstacle. FORCE=yes goes on against its word.
[% endif %]
set -eu

[ $# -eq 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
of="--namespace=$1" serving=app.kubernetes.io/name=[= plan.name =],app.kubernetes.io/component=web

[% if plan.prepare %]
kind=deployment revision=deployment\\.kubernetes\\.io/revision
if kubectl get "$of" rollout [= plan.name =]-web >/dev/null 2>&1; then
  kind=rollout revision=rollout\\.argoproj\\.io/revision
fi
[% else %]
kind=deployment
if kubectl get "$of" rollout [= plan.name =]-web >/dev/null 2>&1; then
  kind=rollout
fi
[% endif %]

[% if plan.prepare %]
# The image that served before: of the last revision but one.
path='{range .items[?(@.metadata.ownerReferences[0].name=="[= plan.name =]-web")]}'
path="$path{.metadata.annotations.$revision} {.spec.template.spec.containers[0].image}{\"\\n\"}{end}"
image=$(kubectl get "$of" replicaset -o "jsonpath=$path" | sort -rn | sed -n 2p | cut -d ' ' -f 2)
[ -n "$image" ] || { echo "There is no release before this one." >&2; exit 1; }

# A copy of a pod that serves, with its settings and secrets, and the older image.
pod=$(kubectl get "$of" pod -l $serving -o 'jsonpath={.items[0].metadata.name}')
copy=[= plan.name =]-rollback-check
kubectl delete "$of" pod $copy --ignore-not-found --wait
trap 'kubectl delete "$of" pod $copy --ignore-not-found --wait=false' EXIT
kubectl debug "$of" "$pod" --copy-to=$copy --container=web --set-image="web=$image" --attach=false -- flask prod db fits
# No label of the pod is copied, so that it gets no requests; with those of a migration it may reach the database.
kubectl label "$of" pod $copy app.kubernetes.io/name=[= plan.name =] app.kubernetes.io/instance=[= plan.name =] app.kubernetes.io/component=migrate
state='{.status.containerStatuses[?(@.name=="web")]'
code='' tries=0
while [ -z "$code" ] && [ $tries -lt 60 ]; do # two minutes
  tries=$((tries + 1))
  sleep "${POLL_SECONDS:-2}"
  code=$(kubectl get "$of" pod $copy -o "jsonpath=$state.state.terminated.exitCode}$state.lastState.terminated.exitCode}" | cut -c 1)
done
if [ "$code" != 0 ]; then
  kubectl logs "$of" $copy --container=web --tail=20 >&2 || true
  [ "${FORCE:-}" = yes ] || { echo "$image does not fit this database; nothing was done. See FORCE above." >&2; exit 1; }
fi

[% endif %]
if [ $kind = rollout ]; then
  kubectl argo rollouts undo "$of" [= plan.name =]-web
  kubectl argo rollouts status "$of" [= plan.name =]-web --timeout 15m
else
  kubectl rollout undo "$of" deployment/[= plan.name =]-web
fi
[% if plan.uses_jobs %]
kubectl rollout undo "$of" deployment/[= plan.name =]-worker
[% endif %]
kubectl rollout status "$of" deployment --selector=app.kubernetes.io/name=[= plan.name =] --timeout=15m

pod=$(kubectl get "$of" pod -l $serving --field-selector=status.phase=Running -o 'jsonpath={.items[0].metadata.name}')
kubectl exec "$of" "$pod" --container=web -- flask prod deploy verify http://127.0.0.1:[= plan.port =] --host [= plan.host =]
