"""Stubs of etcd's gRPC API, written by `./inv generate` from the proto files."""
