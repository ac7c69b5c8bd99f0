"""Whether Kubernetes manifests fit together: what one object says about another, validators do not see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .manifests import Manifest, Pods, amount, label, matches, one, pods, pods_of


@dataclass(frozen=True)
class Whole:
    """All objects of a release, the pods that they make, and the names of what is there."""

    manifests: Sequence[Manifest]
    running: Sequence[Pods]
    there: frozenset[str]


def wrong(manifests: Sequence[Manifest], given: Iterable[str] = ()) -> list[str]:
    """Return a sentence for all that does not fit; *given* are objects that others make: `Secret/shop-secrets`."""
    names = Counter(label(manifest) for manifest in manifests)
    whole = Whole(manifests, pods(manifests), frozenset({*names, *given}))
    found = [f"{name} is there {count} times" for name, count in names.items() if count > 1]
    for manifest in manifests:
        rule = _RULES.get(manifest["kind"])
        found += [f"{label(manifest)}: {what}" for what in (rule(manifest, whole) if rule else ())]
    for pod in whole.running:
        for ask in (_ports, _volumes, _names, _limits, _rights):
            found += [f"{pod.owner}: {what}" for what in ask(pod, whole)]
    return found


def _workload(manifest: Manifest, whole: Whole) -> Iterator[str]:
    pod = pods_of(manifest)
    if pod is None:
        return
    if not matches(manifest["spec"]["selector"], pod.labels):
        yield "its selector does not take its own pods"
    others = [
        o.owner for o in whole.running if o.owner != pod.owner and matches(manifest["spec"]["selector"], o.labels)
    ]
    if others:
        yield f"its selector takes the pods of {', '.join(others)}"
    for spread in pod.spec.get("topologySpreadConstraints", ()):
        if not matches(spread["labelSelector"], pod.labels):
            yield f"it spreads other pods over {spread['topologyKey']}"


def _service(manifest: Manifest, whole: Whole) -> Iterator[str]:
    taken = [pod for pod in whole.running if matches(manifest["spec"]["selector"], pod.labels)]
    if not taken:
        yield "no pod has these labels"
    for pod in taken:
        for port in manifest["spec"]["ports"]:
            if port.get("targetPort", port["port"]) not in pod.ports:
                yield f"{pod.owner} has no port {port.get('targetPort', port['port'])}"


def _ingress(manifest: Manifest, whole: Whole) -> Iterator[str]:
    hosts = {rule["host"] for rule in manifest["spec"]["rules"]}
    for rule in manifest["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            if f"Service/{service['name']}" not in whole.there:
                yield f"there is no service {service['name']}"
                continue
            ports = one(whole.manifests, "Service", service["name"])["spec"]["ports"]
            if service["port"] not in [{key: port[key]} for port in ports for key in service["port"]]:
                yield f"the service {service['name']} has no port {service['port']}"
    for tls in manifest["spec"].get("tls", ()):
        if not hosts >= set(tls["hosts"]):
            yield f"the certificate is for {', '.join(tls['hosts'])}, the rules are for {', '.join(sorted(hosts))}"


def _autoscaler(manifest: Manifest, whole: Whole) -> Iterator[str]:
    spec = manifest["spec"]
    target = f"{spec['scaleTargetRef']['kind']}/{spec['scaleTargetRef']['name']}"
    if target not in whole.there:
        yield f"there is no {target}"
    if spec["minReplicas"] > spec["maxReplicas"]:
        yield f"at the least {spec['minReplicas']}, at the most {spec['maxReplicas']}"


def _budget(manifest: Manifest, whole: Whole) -> Iterator[str]:
    spec = manifest["spec"]
    if not any(matches(spec["selector"], pod.labels) for pod in whole.running):
        yield "no pod has these labels"
    if spec.get("maxUnavailable") in (0, "0%"):
        yield "no node could ever be emptied"


def _policy(manifest: Manifest, whole: Whole) -> Iterator[str]:
    taken = [pod for pod in whole.running if matches(manifest["spec"]["podSelector"], pod.labels)]
    if not taken:
        yield "no pod has these labels"
    for way in manifest["spec"].get("ingress", ()):
        for port in way.get("ports", ()):
            if not any(port["port"] in pod.ports for pod in taken):
                yield f"no pod has the port {port['port']}"


_RULES: Mapping[str, Callable[[Manifest, Whole], Iterator[str]]] = {
    "Deployment": _workload,
    "Rollout": _workload,
    "Service": _service,
    "Ingress": _ingress,
    "HorizontalPodAutoscaler": _autoscaler,
    "PodDisruptionBudget": _budget,
    "NetworkPolicy": _policy,
}


def _ports(pod: Pods, whole: Whole) -> Iterator[str]:
    for container in pod.containers:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if port is not None and port not in pod.ports:
                yield f"{probe} asks the port {port}, which there is not"


def _volumes(pod: Pods, whole: Whole) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.spec.get("volumes", ())}
    mounts = [mount for container in pod.containers for mount in container.get("volumeMounts", ())]
    if volumes != {mount["name"] for mount in mounts}:
        yield f"volumes are {sorted(volumes)}, mounted are {sorted({mount['name'] for mount in mounts})}"
    for container in pod.containers:
        places = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
        if len(set(places)) < len(places):
            yield f"two volumes are mounted at one place in {container['name']}"


def _names(pod: Pods, whole: Whole) -> Iterator[str]:
    """What a pod names: its account, ConfigMaps and secrets."""
    sources = [source for container in pod.containers for source in container.get("envFrom", ())]
    if any("secretRef" in source for source in sources):
        yield "secrets are files, not variables"
    wanted = [f"ConfigMap/{source['configMapRef']['name']}" for source in sources if "configMapRef" in source]
    wanted += [f"Secret/{v['secret']['secretName']}" for v in pod.spec.get("volumes", ()) if "secret" in v]
    if "serviceAccountName" in pod.spec:
        wanted.append(f"ServiceAccount/{pod.spec['serviceAccountName']}")
    for name in wanted:
        if name not in whole.there:
            yield f"there is no {name}"


def _limits(pod: Pods, whole: Whole) -> Iterator[str]:
    for container in pod.containers:
        sizes = container.get("resources", {})
        for what in ("cpu", "memory"):
            asked, most = sizes.get("requests", {}).get(what), sizes.get("limits", {}).get(what)
            if asked is None or most is None:
                yield f"{container['name']} has no request or limit of {what}"
            elif amount(asked) > amount(most):
                yield f"{container['name']} asks for more {what} than it may have: {asked} of {most}"


def _rights(pod: Pods, whole: Whole) -> Iterator[str]:
    """What Pod Security's `restricted` wants, and what we want beyond it."""
    own = pod.spec.get("securityContext", {})
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "it has a token of the cluster"
    if own.get("runAsNonRoot") is not True or not own.get("runAsUser"):
        yield "it may be root"
    if own.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "it may call the whole kernel"
    for container in pod.containers:
        its = container.get("securityContext", {})
        if its.get("allowPrivilegeEscalation") is not False or its.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{container['name']} may get more rights"
        if its.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} may write to its image"
