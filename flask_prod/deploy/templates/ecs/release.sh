#!/bin/sh
# One release on ECS, and the way back.
#
#   release.sh deploy ENVIRONMENT IMAGE VERSION     [% if plan.prepare %]migrate, then [% endif %]the services; waits until they are healthy
#   release.sh back ENVIRONMENT IMAGE VERSION       the services alone: an image from before[% if plan.prepare %], without migrations[% endif %][= "\n" =]#   release.sh now ENVIRONMENT                      prints image and version that run there; nothing before the first release
#
# IMAGE is one by its digest, NAME@sha256:... It needs the AWS CLI, version 2, and somebody who may do this. The stack of
# base.yaml is called [= plan.name =]-ENVIRONMENT. Exit code 0 means that the new image serves; else the earlier one still does.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
[% if plan.prepare %]
patience=${MIGRATION_ROUNDS:-6} # of `aws ecs wait`, ten minutes each
[% endif %]

usage() {
  sed -n 's/^#   //p' "$0" >&2
  exit 64
}

output() { # STACK NAME
  aws cloudformation describe-stacks --stack-name "$1" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='$2'].OutputValue"
}

stack() { # NAME FILE
  aws cloudformation deploy --stack-name "$1" --template-file "$here/$2" --no-fail-on-empty-changeset \
    --parameter-overrides "Base=$base" "Environment=$environment" "Image=$image" "Version=$version"
}

[% if plan.prepare %]
migrate() {
  stack "$base-migrate" migrate.yaml
  cluster=$(output "$base" Cluster)
  task=$(
    aws ecs run-task --cluster "$cluster" --launch-type FARGATE --output text --query "tasks[0].taskArn" \
      --task-definition "$(output "$base-migrate" TaskDefinition)" --network-configuration \
      "awsvpcConfiguration={subnets=[$(output "$base" Subnets)],securityGroups=[$(output "$base" ServiceGroup)],assignPublicIp=DISABLED}"
  )
  case $task in arn:*) ;; *) echo "ECS has started no task for the migration: $task" >&2; exit 1 ;; esac
  until aws ecs wait tasks-stopped --cluster "$cluster" --tasks "$task"; do
    patience=$((patience - 1))
    if [ "$patience" -le 0 ]; then
      echo "The migration still runs, as $task: nothing was deployed." >&2
      exit 1
    fi
  done
  code=$(aws ecs describe-tasks --cluster "$cluster" --tasks "$task" --output text \
    --query "tasks[0].containers[?name=='migrate'].exitCode")
  if [ "$code" != 0 ]; then
    echo "The migration failed (exit code $code), nothing was deployed: see the log group /ecs/$base, streams migrate/." >&2
    exit 1
  fi
}

[% endif %]
[ $# -ge 2 ] || usage
environment=$2
base=[= plan.name =]-$environment
case $1 in
  now)
    if image=$(output "$base-service" Image); then
      echo "$image $(output "$base-service" Version)"
    else
      echo "There is no release to go back to." >&2
    fi
    ;;
  deploy | back)
    [ $# -eq 4 ] || usage
    image=$3
    version=$4
    case $image in *@sha256:*) ;; *) echo "$image is no image by its digest: what a tag means can change." >&2; exit 64 ;; esac
[% if plan.prepare %]
    if [ "$1" = deploy ]; then
      migrate
    fi
[% endif %]
    stack "$base-service" service.yaml
    ;;
  *)
    usage
    ;;
esac
