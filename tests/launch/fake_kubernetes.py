"""A loopback fake of a Kubernetes API server: discovery, create, get, list, delete of a few kinds."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any
from urllib.parse import parse_qs, urlparse

KINDS = {
    "/api/v1": {"configmaps": ("ConfigMap", True), "pods": ("Pod", True)},
    "/apis/jobset.x-k8s.io/v1alpha2": {"jobsets": ("JobSet", True)},
    "/apis/kueue.x-k8s.io/v1beta1": {
        "resourceflavors": ("ResourceFlavor", False),
        "clusterqueues": ("ClusterQueue", False),
        "localqueues": ("LocalQueue", True),
    },
}
SCHEMA = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class FakeKubernetes:
    """The server.

    Attributes:
      objects: by path.
      created: paths in the order in which they were created.
      without: API groups that are not installed.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.created: list[str] = []
        self.without: set[str] = set()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, values = fake.request(self.command, self.path, body)
                data = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self) -> str:
        """A configuration that names this server."""
        server = f"http://127.0.0.1:{self._server.server_address[1]}"
        values = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": server}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
            "current-context": "fake",
        }
        return json.dumps(values)

    def request(self, method: str, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """(HTTP status, body) of the answer."""
        url = urlparse(target)
        path, query = url.path.rstrip("/"), parse_qs(url.query)
        if method == "GET" and (found := self._discovery(path)) is not None:
            return 200, found
        if method == "POST":
            item = json.loads(body)
            path = f"{path}/{item['metadata']['name']}"
            if path in self.objects:
                return self._status(409, "AlreadyExists", path)
            self.objects[path] = item
            self.created.append(path)
            return 201, item
        if path in self.objects:
            return 200, self.objects.pop(path) if method == "DELETE" else self.objects[path]
        if method == "GET" and path.rsplit("/", 1)[-1] in {n for kinds in KINDS.values() for n in kinds}:
            items = [item for name, item in self.objects.items() if name.rsplit("/", 1)[0] == path]
            label = query.get("labelSelector", [""])[0]
            items = [item for item in items if not label or label in item["metadata"]["labels"]]
            kind = next(
                kinds[path.rsplit("/", 1)[-1]][0] for kinds in KINDS.values() if path.rsplit("/", 1)[-1] in kinds
            )
            return 200, {"apiVersion": "v1", "kind": f"{kind}List", "metadata": {}, "items": items}
        return self._status(404, "NotFound", path)

    def _discovery(self, path: str) -> dict[str, Any] | None:
        served = {api: kinds for api, kinds in KINDS.items() if api.split("/")[2] not in self.without}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/apis":
            groups = [api.split("/")[2:] for api in served if api != "/api/v1"]
            versions = [{"groupVersion": f"{group}/{version}", "version": version} for group, version in groups]
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [
                    {"name": group, "versions": [version], "preferredVersion": version}
                    for (group, _), version in zip(groups, versions, strict=True)
                ],
            }
        if path in served:
            return {
                "kind": "APIResourceList",
                "groupVersion": path.removeprefix("/apis/").removeprefix("/api/"),
                "resources": [
                    {
                        "name": name,
                        "singularName": name[:-1],
                        "namespaced": namespaced,
                        "kind": kind,
                        "verbs": ["create", "delete", "get", "list", "patch"],
                    }
                    for name, (kind, namespaced) in served[path].items()
                ],
            }
        if path == "/openapi/v3":
            names = [api.lstrip("/") for api in served]
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}"} for name in names}}
        if path.startswith("/openapi/v3/"):
            api = path.removeprefix("/openapi/v3")
            return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, **self._schemas(api)}
        return None

    @staticmethod
    def _schemas(api: str) -> dict[str, Any]:
        """Paths and schemas that say of every kind that the server validates it (fieldValidation)."""
        group, version = ("", "v1") if api == "/api/v1" else api.split("/")[2:]
        paths, schemas = {}, {}
        for name, (kind, namespaced) in KINDS.get(api, {}).items():
            gvk = {"group": group, "version": version, "kind": kind}
            path = f"{api}/namespaces/{{namespace}}/{name}" if namespaced else f"{api}/{name}"
            query = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
            verb = {"parameters": query, "x-kubernetes-group-version-kind": gvk, "responses": {}}
            paths[path] = {"post": verb}
            paths[f"{path}/{{name}}"] = {"patch": verb}
            schemas[kind] = {**SCHEMA, "x-kubernetes-group-version-kind": [gvk]}
        return {"paths": paths, "components": {"schemas": schemas}}

    @staticmethod
    def _status(code: int, reason: str, path: str) -> tuple[int, dict[str, Any]]:
        message = f"{path.rsplit('/', 1)[-1]}: {reason}"
        return code, {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
