module pilothouse/tools/etcd-3.5.0

go 1.26

require (
	go.etcd.io/etcd/etcdctl/v3 v3.5.0
	go.etcd.io/etcd/etcdutl/v3 v3.5.0
	go.etcd.io/etcd/server/v3 v3.5.0
)
