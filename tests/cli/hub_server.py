"""A model hub on loopback, for tests: hub_server.py FOLDER LOG. Prints its port, then serves FOLDER/org/name/… until its standard
input ends. Large files (weights) redirect to a second port, as hubs send them to storage elsewhere; ranges are honoured.
FOLDER/org/name/.hub.json may say {"private": "token", "gated": true, "digests": false, "extra": ["../evil"], "wrong": ["file"],
"cut": {"file": bytes}, "busy": {"file": times}, "slow": seconds a MiB, "no_ranges": true}. LOG gets a line a request: port kind, path,
range, authorization."""
import hashlib, http.server, json, os, re, sys, threading, time, urllib.parse

root, log_path = sys.argv[1], sys.argv[2]
lock, cuts = threading.Lock(), {}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def settings(repo):
    try:
        with open(os.path.join(root, repo, ".hub.json")) as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def content(repo, name):
    try:
        with open(os.path.join(root, repo, name), "rb") as f:
            return f.read()
    except (FileNotFoundError, IsADirectoryError):
        return None


def is_large(name):
    return name.endswith((".safetensors", ".bin", ".gguf"))


def digest(name, data):
    return hashlib.sha256(data).hexdigest() if is_large(name) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def names(repo):
    for folder, _, files in os.walk(os.path.join(root, repo)):
        for f in files:
            name = os.path.relpath(os.path.join(folder, f), os.path.join(root, repo))
            if name != ".hub.json":
                yield name


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kind = "hub"

    def log_message(self, *a):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), str(v))
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, o):
        self.answer(200, json.dumps(o).encode(), Content_Type="application/json")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        with lock, open(log_path, "a") as f:
            print(self.kind, self.command, self.path, self.headers.get("Range", "-"), self.headers.get("Authorization", "-"), file=f)
        path = urllib.parse.urlparse(self.path)
        parts = [urllib.parse.unquote(p) for p in path.path.split("/")[1:]]
        if path.path == "/api/models":
            models = [f"{o}/{n}" for o in os.listdir(root) for n in os.listdir(os.path.join(root, o))]
            return self.json([{"id": m} for m in sorted(models)])
        if parts[:2] == ["api", "models"] and len(parts) >= 5:
            return self.api("/".join(parts[2:4]), parts[4:])
        if len(parts) > 4 and parts[2] == "resolve":
            return self.resolve("/".join(parts[:2]), "/".join(parts[4:]))
        self.answer(404)

    def allowed(self, repo):
        said = settings(repo)
        token = self.headers.get("Authorization")
        if not os.path.isdir(os.path.join(root, repo)):
            self.answer(404 if token else 401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif said.get("gated") and token != "Bearer " + said.get("private", ""):
            self.answer(403 if token else 401, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif said.get("private") and token != "Bearer " + said["private"]:
            self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Invalid username or password.")
        else:
            return said
        return None

    def api(self, repo, rest):
        said = self.allowed(repo)
        if said is None:
            return
        if rest == ["refs"]:
            return self.json({"branches": [{"name": "main"}], "tags": [{"name": "v1.0"}]})
        if rest[0] != "revision" or rest[1] not in ("main", "v1.0", "refs/pr/1", COMMIT):
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        files = []
        for name in sorted(names(repo)):
            data = content(repo, name)
            entry = {"rfilename": name}
            if said.get("digests", True):
                entry["size"] = len(data)
                if is_large(name):
                    entry["lfs"] = {"sha256": digest(name, data), "size": len(data), "pointerSize": 134}
                entry["blobId"] = hashlib.sha1(name.encode()).hexdigest() if is_large(name) else digest(name, data)
            files.append(entry)
        self.json({"id": repo, "sha": COMMIT, "siblings": files + [{"rfilename": n} for n in said.get("extra", [])]})

    def resolve(self, repo, name):
        said = self.allowed(repo)
        data = content(repo, name) if said is not None else None
        if said is None:
            return
        if data is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        busy = said.get("busy", {})
        with lock:
            key = (repo, name, "busy")
            cuts[key] = cuts.get(key, 0) + 1
            if cuts[key] <= busy.get(name, 0):
                return self.answer(503)
        if is_large(name):
            self.answer(302, Location=f"http://127.0.0.1:{storage.server_address[1]}/{repo}/{urllib.parse.quote(name)}", X_Linked_Size=len(data),
                        X_Linked_Etag=f'"{digest(name, data)}"', ETag='"of-the-pointer"', X_Repo_Commit=COMMIT)
        else:
            self.answer(200, data, ETag=f'"{digest(name, data)}"', X_Repo_Commit=COMMIT)


class Storage(Hub):
    kind = "storage"

    def do_GET(self):
        with lock, open(log_path, "a") as f:
            print(self.kind, self.command, self.path, self.headers.get("Range", "-"), self.headers.get("Authorization", "-"), file=f)
        parts = [urllib.parse.unquote(p) for p in self.path.split("/")[1:]]
        repo, name = "/".join(parts[:2]), "/".join(parts[2:])
        said, data = settings(repo), content(repo, name)
        if name in said.get("wrong", []):
            data = data[:-1] + bytes([data[-1] ^ 1])
        start, status, headers = 0, 200, {}
        m = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        if m and not said.get("no_ranges"):
            start, status = int(m.group(1)), 206
            if start >= len(data):
                return self.answer(416)
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        part = data[start:]
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        cut = said.get("cut", {}).get(name)
        if cut and cut < len(part):
            part, self.close_connection = part[:cut], True
        slow = said.get("slow", 0)
        for i in range(0, len(part), 1 << 18):
            self.wfile.write(part[i:i + (1 << 18)])
            if slow:
                time.sleep(slow / 4)


hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
storage = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
for server in (hub, storage):
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(hub.server_address[1], flush=True)
sys.stdin.read()
