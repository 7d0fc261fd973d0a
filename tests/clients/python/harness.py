"""What every test of the Python suite stands on: registration, one client per call, bounded waiting."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager

from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

SUITE = "python"
SERVERS = ""
SLOW = int(os.environ.get("SLOW", "1"))  # multiplies every limit
LIMIT = 25 * SLOW  # seconds for one test
# A ZooKeeper that is just starting may lose a client's handshake and keep the connection, and this client would then wait
# for a whole session timeout. It divides its patience by the number of hosts it was given.
HOSTS = 10 if os.environ.get("SERVER_KIND") == "zookeeper" else 1
_tests = []


class Failed(Exception):
    """An expectation that did not hold."""


class OutOfTime(BaseException):
    """A test went over its limit; not an Exception, so that no client's retry swallows it."""


def test(function):
    """Registers a test; it is called with a node path of its own, which does not exist yet."""
    _tests.append(function)
    return function


def check(condition, *said):
    if not condition:
        raise Failed(" ".join(str(s) for s in said) or "expectation failed")


def same(got, wanted, what=""):
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, wanted {wanted!r}".lstrip(": "))


@contextmanager
def raises(kind):
    """The block must raise exactly this class of error."""
    try:
        yield
    except Exception as error:
        if type(error) is not kind:
            raise Failed(f"raised {error!r}, wanted {kind.__name__}") from error
        return
    raise Failed(f"no {kind.__name__} was raised")


def until(condition, what, limit=10.0):
    """Waits until condition() is true and returns what it returned."""
    limit *= SLOW
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"not within {limit} s: {what}")
        time.sleep(0.02)


def settled(event, what, limit=10.0):
    limit *= SLOW
    check(event.wait(limit), f"not within {limit} s: {what}")


class Box:
    """Collects watch events; a callback itself."""

    def __init__(self):
        self.events = []
        self._changed = threading.Condition()

    def __call__(self, event):
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def seen(self):
        return [(e.type, e.path) for e in self.events]

    def wait(self, count=1, limit=10.0):
        limit *= SLOW
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.events) >= count, limit):
                raise Failed(f"{len(self.events)} of {count} events within {limit} s: {self.events}")
        return self.events[count - 1]


_open = []


def client(chroot="", timeout=10.0, start=True, **options):
    """A connected client; it ends with the test."""
    retry = dict(max_tries=-1, delay=0.05, backoff=1, max_jitter=0.0)
    options.setdefault("connection_retry", KazooRetry(**retry))
    options.setdefault("command_retry", KazooRetry(**retry))
    zk = KazooClient(hosts=",".join([SERVERS] * HOSTS) + chroot, timeout=timeout, **options)
    _open.append(zk)
    if start:
        zk.start(timeout=15 * SLOW)
    return zk


def vanish(zk):
    """Ends a client orderly."""
    zk.stop()
    zk.close()
    if zk in _open:
        _open.remove(zk)


def background(function, *arguments):
    """Runs function in a thread; result() re-raises what it raised."""

    class Run(threading.Thread):
        def __init__(self):
            super().__init__(daemon=True)
            self.value = self.error = None

        def run(self):
            try:
                self.value = function(*arguments)
            except BaseException as error:  # handed to whoever asks for the result
                self.error = error

        def result(self, limit=10.0):
            limit *= SLOW
            self.join(limit)
            check(not self.is_alive(), f"still busy after {limit} s: {function}")
            if self.error:
                raise self.error
            return self.value

    thread = Run()
    thread.start()
    return thread


def control(verb):
    """Asks the control script of the server under test."""
    done = subprocess.run([os.environ["SERVER_CTL"], verb], capture_output=True, text=True, timeout=60 * SLOW)
    check(done.returncode == 0, f"{verb} of the server failed:", done.stderr.strip()[-200:])
    return done.stdout.strip()


def word(text):
    """A four-letter word, read to the end of the connection."""
    host, port = SERVERS.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(text.encode())
        parts = []
        while True:
            part = sock.recv(65536)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)


def _alarm(*_):
    raise OutOfTime()


def _where(trace):
    """The line of the test that was being run."""
    here = os.path.dirname(os.path.abspath(__file__))
    frames = [f for f in traceback.extract_tb(trace) if os.path.dirname(f.filename) == here]
    lines = [f"{os.path.basename(f.filename)}:{f.lineno}" for f in frames if os.path.basename(f.filename) != "harness.py"]
    return lines[-1] if lines else "?"


def _close_all():
    while _open:
        zk = _open.pop()
        try:
            if zk._connection._connection_routine is None:  # never started
                continue
            zk._stopped.set()  # a client whose session is gone must not wait for a last answer
            background(lambda zk=zk: (zk.stop(), zk.close())).join(3)
        except Exception:
            pass


def _bring_back():
    """A failed test may have left the server down."""
    try:
        control("pid")
    except Failed:
        try:
            control("start")
        except Failed:
            pass  # the next test says so


def run(servers, wanted):
    global SERVERS
    SERVERS = servers
    signal.signal(signal.SIGALRM, _alarm)
    unknown = wanted - {function.__name__ for function in _tests}
    for name in sorted(unknown):
        print(f"FAIL {SUITE}/{name}: no such test", flush=True)
    failed = len(unknown)
    for function in _tests:
        name = function.__name__
        if wanted and name not in wanted:
            continue
        begun = time.monotonic()
        reason = None
        try:
            signal.alarm(LIMIT)
            function("/py-" + name)
        except OutOfTime:
            reason = f"still busy after {LIMIT} s ({_where(sys.exc_info()[2])})"
        except Exception as error:
            text = str(error) if isinstance(error, Failed) else repr(error)
            reason = " ".join(f"{text} ({_where(error.__traceback__)})".split())
        finally:
            signal.alarm(0)
            _close_all()
            if reason:
                _bring_back()
        took = time.monotonic() - begun
        if os.environ.get("TEST_TIMES"):
            print(f"  {took:6.2f} s {name}", file=sys.stderr)
        if reason:
            failed += 1
            print(f"FAIL {SUITE}/{name}: {reason}", flush=True)
        else:
            print(f"PASS {SUITE}/{name}", flush=True)
    return failed

