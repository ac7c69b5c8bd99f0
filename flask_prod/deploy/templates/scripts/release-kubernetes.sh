#!/bin/sh
# Puts one image into one environment of the cluster: settings, [= "migrations, " if plan.prepare =]then everything else. Ends with 0 when all of
# it serves, and with 1 when a migration, a rollout or an analysis has failed; nothing is rolled back here.
#
#   [= plan.folder =]/scripts/release-kubernetes.sh staging [= plan.image =]@sha256:...
set -eu

[ $# -eq 2 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 64; }
environment=$1 image=$2
case $image in
  *@sha256:*) ;;
  *) echo "$image has no digest: a tag may be another image tomorrow. Give NAME@sha256:..." >&2; exit 64 ;;
esac
cd "$(dirname "$0")/../kubernetes/overlays"
[ -d "$environment" ] || { echo "There is no overlay $environment; there are: $(echo *)" >&2; exit 64; }

# An overlay of the overlay, which names the image; the files of the project stay as they are.
release=$(mktemp -d release.XXXXXX)
trap 'rm -rf "$release"' EXIT
cat > "$release/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - ../$environment
images:
  - name: [= plan.image =]
    newName: ${image%@*}
    digest: ${image#*@}
END
all=$release/all.yaml
kubectl kustomize "$release" > "$all"
namespace=$(sed -n 's/^  namespace: //p' "$all" | sort -u | head -n 1)
of="--namespace=$namespace"
[% if plan.prepare %]

# First what a migration needs and nothing that serves: settings, accounts, network. A Job cannot be changed: it is new.
echo "Migrating $namespace with $image"
kubectl delete "$of" job [= plan.name =]-migrate --ignore-not-found --wait
kubectl apply -f "$all" --selector 'app.kubernetes.io/component notin (web, worker, migrate)'
kubectl apply -f "$all" --selector app.kubernetes.io/component=migrate
tries=0
while [ $tries -lt 180 ]; do # 15 minutes, which is the Job's own limit
  state=$(kubectl get "$of" job [= plan.name =]-migrate -o jsonpath='{.status.conditions[?(@.status=="True")].type}')
  case $state in
    *Failed*)
      kubectl logs "$of" job/[= plan.name =]-migrate --tail=50 >&2
      echo "The migration failed; what served before goes on serving." >&2
      exit 1 ;;
    *Complete*) break ;;
  esac
  tries=$((tries + 1))
  sleep "${POLL_SECONDS:-5}"
done
[ $tries -lt 180 ] || { echo "The migration has not ended after 15 minutes." >&2; exit 1; }
[% endif %]

echo "Rolling out $image"
kubectl apply -f "$all"

# Rolling updates: Kubernetes says when each is done, and gives up after progressDeadlineSeconds.
if grep -q '^kind: Deployment$' "$all"; then
  kubectl rollout status "$of" deployment --selector=app.kubernetes.io/name=[= plan.name =] --timeout=15m
fi
# Canary and blue-green: Argo Rollouts runs the analyses, and aborts to the old version by itself.
if grep -q '^kind: Rollout$' "$all"; then
  tries=0
  while [ $tries -lt 360 ]; do # 30 minutes: all steps of a canary with their pauses
    phase=$(kubectl get "$of" rollout [= plan.name =]-web -o jsonpath='{.status.phase}')
    case $phase in
      Healthy) break ;;
      Degraded)
        kubectl get "$of" rollout [= plan.name =]-web -o jsonpath='{.status.message}' >&2
        echo " The rollout was aborted; the old version serves." >&2
        exit 1 ;;
    esac
    tries=$((tries + 1))
    sleep "${POLL_SECONDS:-5}"
  done
  [ $tries -lt 360 ] || { echo "The rollout is $phase after 30 minutes." >&2; exit 1; }
fi
echo "$image serves in $namespace."
