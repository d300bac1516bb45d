"""Identity tokens of the VM that this code runs on, for services behind Tidegate.

A Google VM, a Dataflow worker among them, gets a signed statement from its metadata server: which service account and
which VM it is. `for_audience(AUDIENCE)` hands out such tokens. It is safe to call from any number of threads, asks the
metadata server once for all of them, and renews a token before it ends. Nothing but the standard library is needed.

    tokens = tidegate_tokens.for_audience("https://orders.sales.example")   # in DoFn.setup
    tokens.headers()     # for HTTP: {"Authorization": "Bearer ..."}; ask again for every request
    tokens.metadata()    # for gRPC: (("authorization", "Bearer ..."),)
    grpc.metadata_call_credentials(tokens)   # for gRPC over TLS, once per channel

Tokens are credentials. They are not logged, not pickled into the pipeline's graph, and not part of any message here.

This works where the metadata server is Google's own: on VMs and on Dataflow workers. In a Kubernetes pod mount a
projected service account token instead, and read the file for every request.
"""

import base64
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

__all__ = ["IdentityTokens", "NoRedirects", "TokenUnavailable", "for_audience"]

# A token is renewed this long before it ends, or after half of what is left of it, whichever is later.
RENEW_BEFORE_S = 300
# A token that ends sooner than this may be over when the request arrives.
TRAVEL_S = 10
# After a failed renewal the old token is used on, and the next attempt is this far away.
PAUSE_S = 10
# Per attempt, and the waits before further ones.
TIMEOUT_S = 5
WAITS_S = (0.2, 0.5, 1.0)

_now = time.time


class TokenUnavailable(RuntimeError):
    """There is no token, and the message says why."""


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the headers, token included, to wherever the answer points."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


# The metadata server is on this machine's own link: never behind a proxy.
_metadata_server = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirects)
_all = {}
_all_lock = threading.Lock()


def for_audience(audience):
    """The process's only source of tokens for this audience, which is that of the service's Guard."""
    with _all_lock:
        return _all.setdefault(audience, IdentityTokens(audience))


class IdentityTokens:
    """Tokens for one audience. Use `for_audience`, so that there is one per process."""

    def __init__(self, audience):
        self.audience = audience
        self._current = None  # (token, expires at, renew at), replaced as a whole
        self._failure = (float("-inf"), None)  # monotonic time, and what happened
        self._lock = threading.Lock()  # held by whoever asks the metadata server

    def headers(self):
        """Headers of one HTTP request."""
        return {"Authorization": "Bearer " + self.token()}

    def metadata(self):
        """Metadata of one gRPC call."""
        return (("authorization", "Bearer " + self.token()),)

    def __call__(self, context, callback):
        """As `grpc.AuthMetadataPlugin`: gRPC asks before every call."""
        try:
            metadata = self.metadata()
        except TokenUnavailable as error:
            callback((), error)
        else:
            callback(metadata, None)

    def token(self):
        """A token that is still good for a while. Raises `TokenUnavailable`."""
        asked = time.monotonic()
        current, now = self._current, _now()
        if current and now < current[2]:
            return current[0]
        usable = current and now < current[1] - TRAVEL_S
        # While one thread renews, the others go on with the old token, or wait where there is none.
        if not self._lock.acquire(blocking=not usable):
            return current[0]
        try:
            if self._current is not current:
                return self._current[0]
            if self._failure[0] > asked:
                raise self._failure[1]
            try:
                text, expires = _fetch(self.audience)
            except TokenUnavailable as error:
                if usable:
                    self._current = (current[0], current[1], now + PAUSE_S)
                    return current[0]
                self._failure = (time.monotonic(), error)
                raise
            left = expires - _now()
            self._current = (text, expires, expires - min(RENEW_BEFORE_S, left / 2))
            return text
        finally:
            self._lock.release()

    def __repr__(self):
        return f"IdentityTokens({self.audience!r})"

    def __reduce__(self):
        # Beam pickles DoFns: what travels is the audience, and each worker asks for its own tokens.
        return (for_audience, (self.audience,))


def _fetch(audience):
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    # `format=full` adds which VM this is; without it no rule can tell one job's workers from another's.
    query = urllib.parse.urlencode({"audience": audience, "format": "full"})
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/identity?{query}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    for wait in (*WAITS_S, None):
        try:
            with _metadata_server.open(request, timeout=TIMEOUT_S) as answer:
                if answer.headers.get("Metadata-Flavor") != "Google":
                    raise TokenUnavailable(f"{host} is not Google's metadata server: is this a Google VM?")
                return _read(answer.read(1 << 16).decode("ascii", "replace").strip())
        except urllib.error.HTTPError as error:
            failure = f"the metadata server at {host} answered {error.code}"
            if error.code == 404:
                failure += ": this VM has no service account"
            error.close()
            if error.code < 500 and error.code != 429:
                raise TokenUnavailable(failure) from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            failure = f"the metadata server at {host} cannot be reached: {cause}; is this a Google VM?"
        if wait is None:
            raise TokenUnavailable(failure)
        time.sleep(wait * random.uniform(0.5, 1.5))


def _read(token):
    """Reads when the token ends. Whoever receives the token verifies it; here it is only ours."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expires, on_vm = int(claims["exp"]), "compute_engine" in claims.get("google", {})
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        raise TokenUnavailable("what the metadata server sent is no identity token") from None
    if not on_vm:
        raise TokenUnavailable(
            "the token does not say which VM this is: in a GKE pod use a projected service account token"
        )
    if expires - TRAVEL_S <= _now():
        raise TokenUnavailable("the metadata server sent a token that is over: is this VM's clock right?")
    return token, expires
