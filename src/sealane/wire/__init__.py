"""The records of the verbs: requests and answers, as the HTTP API and every other integration speak them.

Everything is JSON under `/v1`; an error is `{"error": ErrorBody}` with a status that follows its code. Fields that
are not known are refused, so that a misspelt one is named and not ignored.

| method and path | body | answer |
|---|---|---|
| GET /v1/version | | VersionView |
| GET /v1/status | | StatusView |
| GET /v1/networks | | list of NetworkView |
| POST /v1/networks | NetworkRequest | NetworkView |
| POST /v1/networks/prune | | PruneView |
| GET, DELETE /v1/networks/REF | | NetworkView; DELETE ?force=1 detaches what is left |
| GET /v1/sandboxes | | list of SandboxView |
| POST /v1/sandboxes | SandboxRequest | SandboxView |
| GET, DELETE /v1/sandboxes/REF | | SandboxView |
| GET /v1/endpoints | ?network=REF&sandbox=REF | list of EndpointView |
| GET /v1/endpoints/REF | | EndpointView |
| POST /v1/attach | AttachRequest | EndpointView |
| POST /v1/detach | list of DetachRequest | DetachView |
| POST /v1/cni | CniRequest | CniView |
| POST /v1/cni/forwarded | a call as its runtime made it (integrations.cni.handed) | ADD's result, an IPAM plugin's name, or null |
| POST /v1/netavark | NetavarkRequest | NetavarkView |
| POST /v1/oci | OciRequest | OciView |
| POST /v1/plan, /v1/apply, /v1/delete | Manifest; plan ?delete=1 | PlanView, ApplyView, ApplyView |
| POST /v1/explain | ExplainRequest | ExplainView |
| POST /v1/check | CheckRequest | CheckView |
| POST /v1/trace | TraceRequest | TraceView, one JSON document a line |
| POST /v1/doctor | DoctorRequest | DoctorView |
| GET /v1/sockets | ?sandbox=REF&all=1 | SocketsView; REF may be `host` |
| POST /v1/gc | ?confirm=1 | GcView |
| GET /v1/audit | | AuditView |
| GET /v1/changes | ?since=REVISION&follow=1 | lines of ChangesView |
| GET /v1/events | ?follow=1&since=N | EventView, one JSON document a line |
| GET /v1/images | | list of ImageView |
| POST /v1/images | ImageRequest | ImageView, one JSON document a line; the last has `rootfs` |
| POST /v1/images/prune | | PruneView |
| DELETE /v1/images/REF | | ImageView; REF is a reference, a digest, or its beginning |
| GET /v1/containers | ?all=1 | list of ContainerView |
| POST /v1/containers | ContainerRequest; ?new=1 | ContainerView; with `Upgrade` a session |
| GET, DELETE /v1/containers/REF | ?force=1 | ContainerView |
| POST /v1/containers/REF/stop, /start, /kill | ?timeout=S, ?signal=N | ContainerView |
| POST /v1/containers/REF/wait | | ContainerView once it has exited |
| POST /v1/containers/REF/exec | ExecRequest | ExecView, one JSON document a line; with `Upgrade` a session |
| GET /v1/containers/REF/logs | ?follow=1&tail=N&since=T | LogView, one JSON document a line |

REF is a name, an id, or the beginning of an id (at least 4 characters) that only one object has. An endpoint's REF
may also be `SANDBOX/NETWORK`. A pod's name is `NAMESPACE/POD`; `POD` will do while no other namespace has it. What may
mean several objects is a `conflict`, and the hint lists them.

A session is asked for by `Upgrade: sealane-frames`; after the answer 101 both sides send frames (`sealane.containers.frames`).
"""
