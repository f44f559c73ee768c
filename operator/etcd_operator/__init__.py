"""The etcd operator: creates, heals, resizes and upgrades etcd clusters."""
