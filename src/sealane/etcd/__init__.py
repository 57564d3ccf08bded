"""A client of etcd v3 for the cluster: gets, transactions, watches and leases on a thread of its own
(docs/design/etcd.md, ADR 0027). Needs the extra `cluster`, and is imported only on a host that has joined one."""
