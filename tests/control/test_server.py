import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

import perceiver as p
from perceiver import ConfigError, InputError
from perceiver.control.policy import Fallback, Instead, Policy
from tests.models import close, noisy

pytest.importorskip("websockets")
msgpack = pytest.importorskip("msgpack")

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from perceiver.control.server import Limits, Server  # noqa: E402


@pytest.fixture(scope="module")
def policy():
    sensors = {"state": p.Sensor("observation.state")}
    config = p.PerceiverConfig(
        {"state": p.State(2, history=2)}, p.Encoder(2, 8, 1), {"action": p.Chunk(3, 2)}, robot=p.Robot(10.0, sensors)
    )
    return Policy(noisy(config))


@contextlib.contextmanager
def serving(policy, **how):
    """A server in a thread of its own."""
    server, ready = Server(policy, port=0, **how), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready.set)))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()


class Client:
    """What openpi's WebsocketClientPolicy does, written from its protocol."""

    def __init__(self, server, token=None):
        headers = None if token is None else {"Authorization": f"Api-Key {token}"}
        uri = f"ws://127.0.0.1:{server.port}"
        opened = connect(uri, compression=None, max_size=None, additional_headers=headers)
        self.connection = opened.__enter__()
        self.metadata = unpack(self.connection.recv())

    def ask(self, frame):
        self.connection.send(frame)
        return self.connection.recv()

    def infer(self, seen):
        answer = self.ask(msgpack.packb(seen, default=pack))
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return unpack(answer)


def pack(array):
    return {b"__ndarray__": True, b"data": array.tobytes(), b"dtype": array.dtype.str, b"shape": array.shape}


def unpack(frame):
    def whole(entry):
        if b"__ndarray__" in entry:
            return np.ndarray(entry[b"shape"], np.dtype(entry[b"dtype"]), entry[b"data"])
        return entry

    return msgpack.unpackb(frame, object_hook=whole)


def seen(number=1.0):
    return {"observation.state": np.array([number, -number], np.float32)}


def expected(policy, *numbers):
    alone = policy.another()
    return [alone.infer(seen(number))["actions"] for number in numbers]


class Held:
    """A model that answers when it is let."""

    def __init__(self, run):
        self.run, self.let, self.begun = run, threading.Event(), threading.Semaphore(0)

    def __call__(self, given):
        self.begun.release()
        assert self.let.wait(60)
        return self.run(given)


@pytest.fixture
def held(policy, monkeypatch):
    slow = Held(policy._run)
    monkeypatch.setattr(policy, "_run", slow)
    yield slow
    slow.let.set()


def test_a_client_is_told_what_the_policy_is_and_gets_its_actions(policy):
    first, second = expected(policy, 1.0, 2.0)
    with serving(policy, metadata={"model": "tiny"}) as server:
        client = Client(server)
        assert client.metadata["model"] == "tiny"
        assert (client.metadata["action_horizon"], client.metadata["action_dim"]) == (3, 2)
        assert client.metadata["sensors"] == {"observation.state": "state"}
        answer = client.infer(seen(1.0))
        close(answer["actions"], first)
        assert answer["actions"].dtype == np.float32
        assert (answer["fallback"], answer["absent"]) == (None, [])
        assert answer["server_timing"]["infer_ms"] > 0
        assert "prev_total_ms" not in answer["server_timing"]
        answer = client.infer(seen(2.0))
        close(answer["actions"], second)
        assert answer["server_timing"]["prev_total_ms"] > 0
        close(client.infer(seen(1.0) | {"reset": True})["actions"], first)
        assert not np.allclose(first, second)
        assert server.latency.count == 3


def test_each_client_has_its_own_history(policy):
    rows = {number: expected(policy, number, number + 1) for number in (1.0, 5.0, -3.0)}
    with serving(policy) as server:
        clients = {number: Client(server) for number in rows}
        for step in (0, 1):
            for number, client in clients.items():
                close(client.infer(seen(number + step))["actions"], rows[number][step])


def test_keys_are_renamed(policy):
    with serving(policy, rename={"observation/state": "observation.state", "prompt": "task"}) as server:
        told = {"observation/state": np.array([1.0, -1.0], np.float32), "prompt": "go"}
        close(Client(server).infer(told)["actions"], expected(policy, 1.0)[0])


def test_a_bad_frame_is_refused_and_the_session_goes_on(policy):
    first, second = expected(policy, 1.0, 2.0)
    with serving(policy) as server:
        client = Client(server)
        close(client.infer(seen(1.0))["actions"], first)
        for frame, message in [
            ("text", "refused: expected an observation in a binary frame"),
            (b"\xc1", "refused: expected a frame of msgpack"),
            (msgpack.packb([1, 2]), "refused: expected an observation, a map of names, got list"),
            (msgpack.packb({"observation.state": [1.0]}), r"refused: observation['observation.state']: expected shape"),
            (msgpack.packb({"observation.odd": 1}), "refused: observation['observation.odd']: no such sensor"),
        ]:
            assert client.ask(frame).startswith(message)
        close(client.infer(seen(2.0))["actions"], second)


def test_an_error_of_our_own_is_told_without_its_inside(policy, monkeypatch, caplog):
    def broken(given):
        raise RuntimeError("a secret")

    with serving(policy) as server:
        client = Client(server)
        monkeypatch.setattr(policy, "_run", broken)
        client = Client(server)
        answer = client.ask(msgpack.packb(seen(), default=pack))
        assert answer == "failed: an error in the server, which its log has"
        assert "a secret" in caplog.text
        monkeypatch.undo()
        Client(server).infer(seen())


def test_a_frame_that_is_too_long_ends_its_session_only(policy):
    with serving(policy, limits=Limits(frame=4096)) as server:
        client, other = Client(server), Client(server)
        with pytest.raises(ConnectionClosed) as ended:
            client.ask(b"\0" * 5000)
        assert ended.value.rcvd.code == 1009
        other.infer(seen())


def test_no_more_clients_than_there_is_place_for(policy):
    with serving(policy, limits=Limits(clients=1)) as server:
        client = Client(server)
        with pytest.raises(InvalidStatus) as refused:
            Client(server)
        assert refused.value.response.status_code == 503
        client.connection.close()
        for _ in range(100):
            with contextlib.suppress(InvalidStatus):
                Client(server).infer(seen())
                break
            time.sleep(0.02)
        else:
            pytest.fail("the place never became free")


def test_while_one_is_answered_others_come_in_until_the_queue_is_full(policy, held):
    with serving(policy, limits=Limits(waiting=2)) as server:
        clients = [Client(server) for _ in range(3)]
        frame = msgpack.packb(seen(), default=pack)
        for client in clients[:2]:
            client.connection.send(frame)
        assert held.begun.acquire(timeout=30)
        for _ in range(200):
            if server._waiting == 2:
                break
            time.sleep(0.01)
        assert healthy(server)  # the event loop waits for nothing
        assert clients[2].ask(frame) == "busy: 2 observations are waiting already"
        held.let.set()
        for client in clients[:2]:
            close(unpack(client.connection.recv(timeout=30))["actions"], expected(policy, 1.0)[0])
        clients[2].infer(seen())


def healthy(server, path="/healthz"):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=30) as answer:
        return answer.status == 200 and answer.read() == b"OK\n"


def test_a_token_is_asked_for(policy):
    with serving(policy, token="secret") as server:
        assert healthy(server)
        for wrong in (None, "", "secre", "sécret", "secret2"):
            with pytest.raises(InvalidStatus) as refused:
                Client(server, wrong)
            assert refused.value.response.status_code == 401
        Client(server, "secret").infer(seen())


def test_pages_in_browsers_are_kept_out(policy):
    with serving(policy) as server, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{server.port}", origin="http://example.com").__enter__()
    assert refused.value.response.status_code == 403


def test_a_server_that_stops_answers_what_it_has_begun(policy, held):
    with serving(policy) as server:
        assert server.host == "127.0.0.1"
        busy, idle = Client(server), Client(server)
        busy.connection.send(msgpack.packb(seen(), default=pack))
        assert held.begun.acquire(timeout=30)
        server.stop()
        time.sleep(0.05)
        held.let.set()
        close(unpack(busy.connection.recv(timeout=30))["actions"], expected(policy, 1.0)[0])
        for client in (busy, idle):
            with pytest.raises(ConnectionClosed) as ended:
                client.connection.recv(timeout=30)
            assert ended.value.rcvd.code in (1000, 1001)


def test_a_port_that_is_taken_is_named(policy):
    with serving(policy) as server, pytest.raises(InputError, match=f"127.0.0.1:{server.port}: cannot be listened on"):
        asyncio.run(Server(policy, port=server.port).run())


def test_a_server_that_cannot_be_is_refused(policy):
    late = Policy(noisy(policy._config), deadline=1.0, fallback=Fallback(Instead.STOP, (0.0, 0.0)))
    with late, pytest.raises(ConfigError, match="deadline: expected none"):
        Server(late)
    with pytest.raises(ConfigError, match="token: expected printable ASCII"):
        Server(policy, token="")
    with pytest.raises(ConfigError, match=r"Limits.waiting: expected at least 1, got 0"):
        Limits(waiting=0)


def test_the_command_serves_until_it_is_told_to_end(policy, tmp_path):
    noisy(policy._config).save(tmp_path / "model")
    (tmp_path / "token").write_text("secret\n")
    words = ["serve", str(tmp_path / "model"), "--port", "0", "--token-file", str(tmp_path / "token")]
    code = "import sys; from perceiver.cli import main; main(sys.argv[1:])"
    child = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    try:
        line = child.stdout.readline()
        assert line.startswith("serving ws://127.0.0.1:")
        server = type("Remote", (), {"port": int(line.rsplit(":", 1)[1])})
        client = Client(server, "secret")
        close(client.infer(seen())["actions"], expected(policy, 1.0)[0], 1e-4)
        child.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as ended:
            client.connection.recv(timeout=30)
        assert ended.value.rcvd.code == 1001
        assert child.wait(30) == 0
        assert "stopped after 1 answers" in child.stdout.read()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
