"""`inv bench.etcd`: what the etcd operator does to a cluster of three members, and how long it takes."""
