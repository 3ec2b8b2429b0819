"""A policy over the network, by openpi's protocol, so that its clients work as they are.

A client connects by websocket, is sent the server's metadata, and from then on sends an observation in a binary frame
and gets an answer in one, both by `perceiver.control.wire`; a text frame says what was wrong with an observation. GET
/healthz answers 200. Source: openpi_client 0.1.2 and openpi's serving/websocket_policy_server.py,
https://github.com/Physical-Intelligence/openpi. Of our own: "reset": True in an observation begins a new episode.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hmac
import http
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from perceiver.control import wire
from perceiver.control.latency import Latency
from perceiver.control.policy import Policy
from perceiver.errors import ConfigError, InputError, require

LOOPBACK = "127.0.0.1"
RESET = "reset"
HEALTH = "/healthz"
GRACE = 10.0
"""Seconds that a server which is stopped waits for answers that are being computed."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    clients: connected at a time; one more is refused with 503. waiting: observations, of all clients together, that are
    being answered or wait for it; another is refused in a text frame. frame: bytes of one; a longer one ends its
    session (close code 1009) before it is read.
    """

    clients: int = 16
    waiting: int = 16
    frame: int = 64 * 2**20

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigError(f"Limits.{field.name}: expected at least 1, got {getattr(self, field.name)}")


class Server:
    """A policy that any number of robots ask, each with a history of its own. Needs the extra `serve`.

    One thread infers, never that of the event loop: an observation that is being answered keeps no other from coming
    in, nor /healthz from answering.

    policy: without a deadline: who is in time is for the robot to say, which has the network between. host: where to
    listen; only this machine unless told otherwise. port: 0 takes any that is free. token: what clients have to know,
    openpi's `api_key`. rename: keys of a client's observations to LeRobot's. metadata: what else is told at the start.
    There is no encryption: across a network, put a proxy with TLS before it.

    Attributes:
        port: where it listens, once it does. latency: of all inferences.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        host: str = LOOPBACK,
        port: int = 8000,
        token: str | None = None,
        limits: Limits | None = None,
        rename: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ):
        require("websockets", "serve")
        require("msgpack", "serve")
        if policy.deadline is not None:
            raise ConfigError(f"deadline: expected none of a policy that is served, got {policy.deadline}")
        if token is not None and not (token and token.isascii() and token.isprintable()):
            raise ConfigError("token: expected printable ASCII characters")
        self.policy, self.host, self.port = policy, host, port
        self.limits = Limits() if limits is None else limits
        self.metadata = about(policy) | dict(metadata or {})
        self.latency = Latency()
        self._secret = None if token is None else f"Api-Key {token}".encode()
        self._rename = dict(rename or {})
        self._sessions = self._waiting = self._busy = 0
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "inference")
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """End `run`: nothing new is taken, and what is being computed is still answered. From any thread."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # where it has ended already
                self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serve until `stop`. ready: called when clients can connect.

        Raises:
            InputError: host and port cannot be listened on.
        """
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with await self._listening() as server:
            self.port = server.sockets[0].getsockname()[1]
            if ready is not None:
                ready()
            await self._stop.wait()
            until = time.monotonic() + GRACE
            while self._busy and time.monotonic() < until:
                await asyncio.sleep(0.01)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _listening(self) -> Any:
        from websockets.asyncio.server import serve

        quiet = logging.getLogger(f"{__name__}.connections")  # what any stranger can make it say is no news
        quiet.setLevel(logging.CRITICAL)
        try:
            return await serve(
                self._converse,
                self.host,
                self.port,
                process_request=self._admit,
                origins=[None],  # no page in a browser, which could reach a loopback address too
                max_size=self.limits.frame,
                max_queue=1,
                compression=None,
                logger=quiet,
            )
        except OSError as error:
            raise InputError(f"{self.host}:{self.port}: cannot be listened on: {error.strerror}") from None

    def _admit(self, connection: Any, request: Any) -> Any:
        """None for a client that may come in, else what it is told."""
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        given = request.headers.get("Authorization", "").encode("utf-8", "replace")
        if self._secret is not None and not hmac.compare_digest(given, self._secret):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "expected the header Authorization: Api-Key …\n")
        if self._stopping or self._sessions >= self.limits.clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "no place for another client\n")
        return None

    @property
    def _stopping(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    async def _converse(self, connection: Any) -> None:
        """One client, from its first frame to its last."""
        from websockets.exceptions import ConnectionClosed
        from websockets.frames import CloseCode

        if self._sessions >= self.limits.clients:  # several that came in at the same moment
            await connection.close(CloseCode.TRY_AGAIN_LATER, "no place for another client")
            return
        session = Session(self.policy.another(), self._rename, self.latency)
        self._sessions += 1
        try:
            await connection.send(wire.encode(self.metadata))
            async for frame in connection:
                self._busy += 1
                try:
                    started = time.monotonic()
                    await connection.send(await self._answer(session, frame))
                    session.previous = time.monotonic() - started
                finally:
                    self._busy -= 1
                if self._stopping:
                    break
        except ConnectionClosed:
            pass
        finally:
            self._sessions -= 1

    async def _answer(self, session: "Session", frame: bytes | str) -> bytes | str:
        if self._waiting >= self.limits.waiting:
            return f"busy: {self._waiting} observations are waiting already"
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, session.answer, frame)
        finally:
            self._waiting -= 1


class Session:
    """What is known of one client. previous: seconds that its last answer took, sending included."""

    def __init__(self, policy: Policy, rename: Mapping[str, str], latency: Latency):
        self.previous: float | None = None
        self._policy, self._rename, self._latency = policy, rename, latency

    def answer(self, frame: bytes | str) -> bytes | str:
        """An observation's answer, or what is wrong with it."""
        try:
            if isinstance(frame, str):
                raise InputError("expected an observation in a binary frame, got text")
            seen = wire.decode(frame)
            if not isinstance(seen, dict) or not all(isinstance(key, str) for key in seen):
                raise InputError(f"expected an observation, a map of names, got {type(seen).__name__}")
            return wire.encode(self._infer({self._rename.get(key, key): value for key, value in seen.items()}))
        except InputError as error:
            return f"refused: {error}"
        except Exception:
            log.exception("an observation could not be answered")
            return "failed: an error in the server, which its log has"

    def _infer(self, seen: dict[str, Any]) -> dict[str, Any]:
        if seen.pop(RESET, False) is True:
            self._policy.reset()
        started = time.perf_counter()
        answer = self._policy.infer(seen)
        took = time.perf_counter() - started
        self._latency.record(took)
        timing = {"infer_ms": 1e3 * took}
        told = timing if self.previous is None else timing | {"prev_total_ms": 1e3 * self.previous}
        fallback = answer["fallback"]
        return {
            "actions": answer["actions"],
            "absent": list(answer["absent"]),
            "fallback": None if fallback is None else fallback.value,
            "policy_timing": timing,
            "server_timing": told,
        }


def about(policy: Policy) -> dict[str, Any]:
    """What a client is told of a policy: its rate, what it takes by key, what it gives."""
    return {
        "action_horizon": policy.horizon,
        "action_dim": policy.dims,
        "rate": policy.robot.rate,
        "sensors": {sensor.key: name for name, sensor in sorted(policy.robot.sensors.items())},
        "reset": f"{RESET!r}: True in an observation begins a new episode, as a new connection does",
    }
