"""Proves that an etcd cluster loses no acknowledged write: a writer, its history, and checks of the history.

- `writer` reads and writes through the client Service while a test disturbs the cluster;
- `history` is the record of it, with failed writes and the longest gap;
- `read_back` reads every written key from every member, and compares it with the history;
- `linearizability` checks the reads and writes of the keys that all clients share;
- `proof` runs these steps for a test, in the network of the node;
- `model` is a model of etcd and of its node for tests under virtual time;
- `contract` has the cases that real etcd and the model pass.
"""
