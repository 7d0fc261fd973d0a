"""A client as small as can be: sessions by the hundred without a thread for each."""

import socket
import struct


def string(text):
    data = text.encode()
    return struct.pack(">i", len(data)) + data


class Client:
    def __init__(self, port, timeout_ms=4000):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.xid = 0
        self.send(struct.pack(">iqiq", 0, 0, timeout_ms, 0) + struct.pack(">i", 16) + bytes(16))
        self.hello = self.receive()
        if not self.hello or len(self.hello) < 16:
            raise ConnectionError("no session")

    def send(self, packet):
        self.sock.sendall(struct.pack(">i", len(packet)) + packet)

    def receive(self):
        """One packet, or None when the server has closed."""
        head = self.exactly(4)
        return head and self.exactly(struct.unpack(">i", head)[0])

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                return None
            data += more
        return data

    def submit(self, opcode, body):
        """Send a request, and do not wait for its answer."""
        self.xid += 1
        self.send(struct.pack(">ii", self.xid, opcode) + body)

    def answer(self):
        """The error code of the next answer; events are passed over."""
        while True:
            packet = self.receive()
            if packet is None:
                raise ConnectionError("closed")
            xid, _, code = struct.unpack(">iqi", packet[:16])
            if xid != -1:
                return code

    def request(self, opcode, body):
        self.submit(opcode, body)
        return self.answer()

    def create(self, path, data=b"", ephemeral=False):
        acl = struct.pack(">ii", 1, 31) + string("world") + string("anyone")
        body = string(path) + struct.pack(">i", len(data)) + data + acl + struct.pack(">i", int(ephemeral))
        return self.request(1, body)

    def get(self, path):
        return self.request(4, string(path) + b"\0")

    def set_body(self, path, data):
        return string(path) + struct.pack(">i", len(data)) + data + struct.pack(">i", -1)

    def set(self, path, data):
        return self.request(5, self.set_body(path, data))

    def watch(self, path):
        return self.request(3, string(path) + b"\1")

    def ping(self):
        self.send(struct.pack(">ii", -2, 11))
        return self.answer()

    def authenticate_wrongly(self):
        self.send(struct.pack(">iii", -4, 100, 0) + string("nosuch") + struct.pack(">i", 1) + b"x")
        return self.answer()

    def drop(self):
        """Gone without a word."""
        self.sock.close()
