"""A realm on this machine that signs real tokens, as a login server of OpenID Connect does."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


class Realm(BaseHTTPRequestHandler):
    """The three addresses of a realm that are asked."""

    def do_GET(self):
        public = KEY.public_key()
        if self.path.endswith("openid-configuration"):
            answer = {"jwks_uri": f"{self.server.url}/certs", "token_endpoint": f"{self.server.url}/token"}
        elif self.path == "/certs":
            answer = {"keys": [{**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public)), "kid": "k1", "use": "sig"}]}
        else:
            der = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            answer = {"public_key": "".join(der.decode().splitlines()[1:-1])}
        self._send(200, answer)

    def do_POST(self):
        form = self.rfile.read(int(self.headers["content-length"])).decode()
        if "password=right" in form:
            self._send(200, {"access_token": self.server.token, "token_type": "bearer"})
        else:
            self._send(401, {"error": "invalid_grant"})

    def _send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def open_realm():
    """Start one on a free port; `url` is its address, `shutdown()` ends it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Realm)
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def token(realm, key=KEY, algorithm="RS256", drop=(), kid="k1", **changes):
    claims = {
        "iss": realm.url, "aud": "monailabel-app", "exp": time.time() + 600, "preferred_username": "ann",
        "realm_access": {"roles": ["monailabel-annotator"]}, **changes,
    }  # fmt: skip
    claims = {k: v for k, v in claims.items() if k not in drop}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})
