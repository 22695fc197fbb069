"""A loopback fake of the Cloud TPU API v2, as far as queued resources go; it keeps state as the real one does."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import Any
from urllib.parse import parse_qs, urlparse

NEXT = {"ACCEPTED": "WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES": "PROVISIONING", "PROVISIONING": "ACTIVE"}
STATUS = {
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class FakeTpu:
    """The service; every look at the list brings each resource a state further.

    Attributes:
      resources: by id: the state, and the body with which it was asked for.
      faults: (method, HTTP status, message) of requests to come that go wrong, in order; taken away as they happen.
      slow: seconds that an answer takes.
      log: (method, id) of all that was asked.
    """

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.faults: list[tuple[str, int, str]] = []
        self.slow = 0.0
        self.log: list[tuple[str, str]] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, values = fake.request(self.command, self.path, json.loads(body or b"{}"))
                data = json.dumps(values).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except ConnectionError:
                    pass  # it did not wait for a slow answer

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def request(self, method: str, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(HTTP status, body) of the answer."""
        url = urlparse(target)
        parts, query = url.path.strip("/").split("/"), parse_qs(url.query)
        assert parts[:2] == ["v2", "projects"] and parts[3] == "locations" and parts[5] == "queuedResources", target
        name = query.get("queuedResourceId", [*parts[6:], ""])[0]
        self.log.append((method, name))
        time.sleep(self.slow)
        if self.faults and self.faults[0][0] == method:
            return self._error(*self.faults.pop(0)[1:])
        if method == "POST":
            if name in self.resources:
                return self._error(409, f"{name} exists")
            self.resources[name] = {"state": "ACCEPTED", "body": body}
        elif method == "DELETE":
            if name not in self.resources:
                return self._error(404, f"{name} is not there")
            self.resources[name]["state"] = "DELETING"
        else:
            return 200, {"queuedResources": self._list("/".join(parts[1:6]))}
        done = {"name": f"{'/'.join(parts[1:5])}/operations/op-{len(self.log)}", "done": True, "response": {}}
        return 200, done

    def _list(self, where: str) -> list[dict[str, Any]]:
        gone = [name for name, item in self.resources.items() if item["state"] == "GONE"]
        for name in gone:
            del self.resources[name]
        out = [{"name": f"{where}/{n}", "state": {"state": i["state"]}} for n, i in self.resources.items()]
        for item in self.resources.values():
            item["state"] = "GONE" if item["state"] == "DELETING" else NEXT.get(item["state"], item["state"])
        return out

    @staticmethod
    def _error(code: int, message: str) -> tuple[int, dict[str, Any]]:
        return code, {"error": {"code": code, "message": message, "status": STATUS[code]}}
