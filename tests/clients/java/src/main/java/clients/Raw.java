package clients;

import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.Socket;
import java.net.SocketException;
import java.nio.charset.StandardCharsets;

/** A connection that speaks the protocol by hand: what a well-behaved client library never sends. */
final class Raw implements AutoCloseable {
    /** Writes a record. */
    interface Body {
        void write(DataOutputStream out) throws IOException;
    }

    record Reply(int xid, long zxid, int error, byte[] body) {}

    final Socket socket;
    final DataOutputStream out;
    final DataInputStream in;
    int timeout;
    long session;
    byte[] password;

    Raw(Harness h) throws IOException {
        int colon = h.servers.lastIndexOf(':');
        socket = h.closing(new Socket(h.servers.substring(0, colon), Integer.parseInt(h.servers.substring(colon + 1))));
        socket.setSoTimeout(20_000 * Harness.SLOW);
        socket.setTcpNoDelay(true);
        out = new DataOutputStream(socket.getOutputStream());
        in = new DataInputStream(socket.getInputStream());
    }

    /** The handshake; the length of the answer, or −1 when the server closed the connection instead. */
    int hello(long lastZxid, int timeoutMs, long session, byte[] password, boolean withReadOnly) throws IOException {
        packet(d -> {
            d.writeInt(0);
            d.writeLong(lastZxid);
            d.writeInt(timeoutMs);
            d.writeLong(session);
            d.writeInt(password.length);
            d.write(password);
            if (withReadOnly) d.writeBoolean(false);
        });
        byte[] answer = receive();
        if (answer == null) return -1;
        var d = new DataInputStream(new java.io.ByteArrayInputStream(answer));
        Harness.same(0, d.readInt(), "protocol version");
        timeout = d.readInt();
        this.session = d.readLong();
        this.password = d.readNBytes(d.readInt());
        return answer.length;
    }

    static Raw connect(Harness h, int timeoutMs) throws IOException {
        var raw = new Raw(h);
        Harness.same(37, raw.hello(0, timeoutMs, 0, new byte[16], true), "length of the connect response");
        return raw;
    }

    void packet(Body body) throws IOException {
        var bytes = new ByteArrayOutputStream();
        body.write(new DataOutputStream(bytes));
        var framed = new ByteArrayOutputStream();
        new DataOutputStream(framed).writeInt(bytes.size());
        bytes.writeTo(framed);
        out.write(framed.toByteArray());
    }

    void request(int xid, int type, Body body) throws IOException {
        packet(d -> {
            d.writeInt(xid);
            d.writeInt(type);
            body.write(d);
        });
    }

    static void string(DataOutputStream d, String s) throws IOException {
        byte[] b = s.getBytes(StandardCharsets.UTF_8);
        d.writeInt(b.length);
        d.write(b);
    }

    /** The next packet, or null when the connection has ended. */
    byte[] receive() throws IOException {
        try {
            return in.readNBytes(in.readInt());
        } catch (EOFException | SocketException e) {
            return null;
        }
    }

    Reply reply() throws IOException {
        byte[] packet = receive();
        Harness.check(packet != null, "the connection ended, expected a reply");
        var d = new DataInputStream(new java.io.ByteArrayInputStream(packet));
        return new Reply(d.readInt(), d.readLong(), d.readInt(), d.readAllBytes());
    }

    /** The server ends this connection, without another word. */
    void ends() throws IOException {
        byte[] packet = receive();
        Harness.check(packet == null, "expected the end of the connection, got a packet");
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
