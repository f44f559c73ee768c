"""A model of etcd, and of the kubelet and the volumes that it runs on, for virtual time.

- `state`: what a member stores, and the IDs that etcd computes;
- `flags`: the command line and environment of a container, as etcd reads them;
- `network`: addresses, names, and who reaches whom;
- `process`: one process of etcd;
- `startup`: how a process opens, founds or joins a cluster;
- `members`: all processes, elections and replication;
- `client`: the calls of `etcd_operator.etcd.Etcd`, with etcd's rules and errors;
- `node`, `volumes`, `endpoints`: the scheduler and the kubelet, claims, and EndpointSlices, on the model of
  the API server;
- `clients`: clients of a Service, and one that writes all the time;
- `world`: all of it together, with a writer and the acknowledged writes that are lost.
"""
