"""A loopback fake of Google Cloud Storage's JSON API, as far as gcsfs and TensorStore use it."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse


class FakeGcs:
    """The service with one bucket; `objects` are by name: (generation, contents)."""

    def __init__(self, bucket: str):
        self.objects: dict[str, tuple[int, bytes]] = {}
        self._sessions: dict[str, list[Any]] = {}
        self._bucket, self._generation, self._lock = bucket, 1_700_000_000_000_000, threading.Lock()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with fake._lock:
                    status, data, headers = fake.request(self.command, self.path, self.headers, body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def request(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """(status, body, headers) of an answer."""
        url = urlparse(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        root = f"/storage/v1/b/{self._bucket}"
        path = url.path.removeprefix("/upload").removeprefix("/download")
        if url.path.startswith("/upload"):
            return self._upload(query, headers, body)
        if path == root:
            return self._json({"kind": "storage#bucket", "name": self._bucket, "location": "US"})
        if path == f"{root}/o":
            return self._list(query)
        name = unquote(path.removeprefix(f"{root}/o/"))
        if name not in self.objects or not path.startswith(f"{root}/o/"):
            return self._json({"error": {"code": 404, "message": f"{path} is not there"}}, 404)
        generation, data = self.objects[name]
        if method == "DELETE":
            del self.objects[name]
            return 204, b"", {}
        if query.get("alt") != "media":
            return self._json(self._resource(name))
        about = {"x-goog-generation": str(generation), "Content-Type": "application/octet-stream"}
        about["x-goog-stored-content-length"] = str(len(data))
        if not (span := headers.get("Range")):
            return 200, data, about
        first, _, last = span.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last), len(data) - 1) if last and first else len(data) - 1
        if start >= len(data):
            return 416, b"", {"Content-Range": f"bytes */{len(data)}"}
        return 206, data[start : end + 1], {**about, "Content-Range": f"bytes {start}-{end}/{len(data)}"}

    def _upload(self, query: dict[str, str], headers: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        name = query.get("name", "")
        if "session" in query:
            return self._continue(query["session"], headers, body)
        if query.get("uploadType") == "resumable":
            session = str(len(self._sessions))
            self._sessions[session] = [json.loads(body)["name"], b""]
            return 200, b"", {"Location": f"{self.url}/upload/storage/v1/b/{self._bucket}/o?session={session}"}
        if query.get("uploadType") == "multipart":
            boundary = headers["Content-Type"].partition("boundary=")[2].strip("'\"").encode()
            parts = [
                part.partition(b"\r\n\r\n" if b"\r\n\r\n" in part else b"\n\n")[2]
                for part in body.split(b"--" + boundary)
            ]
            name = json.loads(parts[1])["name"]
            body = parts[2].removesuffix(b"\r\n") if parts[2].endswith(b"\r\n") else parts[2].removesuffix(b"\n")
        before = self.objects.get(name, (0, b""))[0]
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != before:
            return self._json({"error": {"code": 412, "message": "generation"}}, 412)
        self._generation += 1
        self.objects[name] = self._generation, body
        return self._json(self._resource(name))

    def _continue(self, session: str, headers: Any, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Another piece of a resumable upload, perhaps the last."""
        self._sessions[session][1] += body
        name, data = self._sessions[session]
        if headers["Content-Range"].endswith("/*"):
            return 308, b"", {"Range": f"bytes=0-{len(data) - 1}"}
        return self._upload({"name": name}, headers, data)

    def _list(self, query: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found, folders = [], set()
        for name in sorted(self.objects):
            if name.startswith(prefix) and query.get("startOffset", "") <= name < query.get("endOffset", "\uffff"):
                rest = name[len(prefix) :]
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.split(delimiter, 1)[0] + delimiter)
                else:
                    found.append(self._resource(name))
        return self._json({"kind": "storage#objects", "items": found, "prefixes": sorted(folders)})

    def _resource(self, name: str) -> dict[str, Any]:
        generation, data = self.objects[name]
        return {
            "kind": "storage#object",
            "id": f"{self._bucket}/{name}/{generation}",
            "name": name,
            "bucket": self._bucket,
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(data)),
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
            "storageClass": "STANDARD",
        }

    @staticmethod
    def _json(values: Any, status: int = 200) -> tuple[int, bytes, dict[str, str]]:
        return status, json.dumps(values).encode(), {"Content-Type": "application/json"}
