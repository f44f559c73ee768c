"""Objects that the coreos operator stored, with what people wrote in them, and its CRD."""

from typing import Any

import yaml

GROUP = "etcd.database.coreos.com"

# Its CRD had no schema and no subresource. This is what the API server makes of that today.
CRD: dict[str, Any] = yaml.safe_load(
    """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: etcdclusters.etcd.database.coreos.com
spec:
  scope: Namespaced
  group: etcd.database.coreos.com
  names:
    kind: EtcdCluster
    listKind: EtcdClusterList
    singular: etcdcluster
    plural: etcdclusters
    shortNames: [etcdclus, etcd]
  versions:
    - name: v1beta2
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          x-kubernetes-preserve-unknown-fields: true
"""
)

SEED: dict[str, Any] = yaml.safe_load(
    """
apiVersion: "etcd.database.coreos.com/v1beta2"
kind: "EtcdCluster"
metadata:
  name: "example-etcd-cluster"
spec:
  size: 3
  version: "3.5.0"
"""
)

_RUNNING = """
status:
  phase: Running
  size: 3
  serviceName: NAME-client
  clientPort: 2379
  currentVersion: 3.2.13
  targetVersion: ""
  members: {ready: [a-1, a-2, a-3]}
  conditions:
  - type: Available
    status: "True"
    reason: Cluster available
    lastUpdateTime: "2019-03-05T10:11:12+01:00"
    lastTransitionTime: "2019-03-05T10:11:12+01:00"
  - type: Scaling
    status: "True"
    reason: Scaling up
    message: "Current cluster size: 2, desired cluster size: 3"
    lastUpdateTime: "2019-03-05T10:11:12Z"
"""

# By name: the spec and status as YAML. The Go types of that operator can write each of them. A negative size
# is not among them: the API server refuses it for every kind with the subresource scale.
_STORED = {
    "plain": "spec: {size: 3, version: 3.2.13, repository: quay.io/coreos/etcd}" + _RUNNING,
    "no-spec": "{}",
    "no-size": "spec: {version: 3.2.13}",
    "size-zero": "spec: {size: 0}",
    "size-nine": "spec: {size: 9, paused: true}\nstatus: {phase: '', size: 0, members: {}}",
    "latest": "spec: {size: 1, version: latest}\nstatus: {phase: Failed, reason: 'spec: reserved label'}",
    "with-v": "spec: {size: 1, version: vv3.3.10}",
    "tagged": "spec: {size: 1, repository: 'registry:5000/etcd:v3', version: ''}",
    "unknown-fields": "spec: {size: 1, backup: {pv: {volumeSizeInMB: 512}}}\nstatus: {foo: {bar: 1}}",
    "half-tls": "spec: {size: 3, TLS: {static: {operatorSecret: op, member: {peerSecret: peer}}}}",
    "half-tls-2": "spec: {size: 3, TLS: {static: {member: {serverSecret: server}}}}",
    "nulls": "spec: {size: 1, pod: null, TLS: null}",
    "more-nulls": "spec: {size: 1, TLS: {static: null}, pod: {affinity: null, securityContext: null}}",
    "a-name-that-is-longer-than-fifty-two-characters-is-refused": "spec: {size: 1}",
    "a.dotted.name": "spec: {size: 1}",
    "1st": "spec: {size: 1}",
    "pod": """
spec:
  size: 5
  version: 3.2.25
  pod:
    antiAffinity: true
    busyboxImage: busybox:1.28.0-glibc
    DNSTimeoutInSecond: 120
    ClusterDomain: cluster.local
    labels: {app: mine, etcd_tier: a}
    annotations: {etcd.version: mine, etcd.pilothouse.dev/removed: "true"}
    nodeSelector: {disk: ssd}
    tolerations: [{key: a, operator: Exists, tolerationSeconds: 5}]
    securityContext: {runAsUser: 9000, fsGroup: 9000, runAsNonRoot: true}
    resources: {limits: {cpu: 200m, memory: 1Gi}, requests: {cpu: 100m}}
    affinity:
      podAntiAffinity:
        preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm: {labelSelector: {matchLabels: {etcd_cluster: pod}}, topologyKey: ""}
    etcdEnv:
    - {name: ETCD_AUTO_COMPACTION_RETENTION, value: "1"}
    - {name: ETCD_INITIAL_CLUSTER_STATE, value: new}
    - {name: "", value: x}
    - {name: ETCD_QUOTA_BACKEND_BYTES, valueFrom: {configMapKeyRef: {name: c, key: k}}}
    persistentVolumeClaimSpec:
      accessModes: [ReadWriteOnce]
      dataSource: null
      storageClassName: standard
      resources: {requests: {storage: 1Gi}}
""",
}


def stored() -> dict[str, dict[str, Any]]:
    """Returns the objects by name."""
    head = {"apiVersion": f"{GROUP}/v1beta2", "kind": "EtcdCluster"}
    return {
        name: {**head, "metadata": {"name": name}, **yaml.safe_load(text)} for name, text in _STORED.items()
    }
