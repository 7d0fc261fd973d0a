package clients;

import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.List;

/** A TCP relay in front of the server, which a test can cut (connections end and are refused) or freeze (nothing passes). */
final class Tap implements AutoCloseable {
    private final ServerSocket listener;
    private final String host;
    private final int port;
    private final List<Socket> sockets = new ArrayList<>();
    private boolean cut;
    private boolean frozen;

    Tap(String server) throws IOException {
        int colon = server.lastIndexOf(':');
        host = server.substring(0, colon);
        port = Integer.parseInt(server.substring(colon + 1));
        listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
        daemon(this::accept);
    }

    String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    synchronized void cut() {
        cut = true;
        closeSockets();
    }

    synchronized void freeze() {
        frozen = true;
    }

    /** Lets everything pass again. */
    synchronized void mend() {
        cut = false;
        frozen = false;
        notifyAll();
    }

    @Override
    public synchronized void close() throws IOException {
        cut = true;
        frozen = false;
        notifyAll();
        listener.close();
        closeSockets();
    }

    private synchronized void closeSockets() {
        for (Socket s : sockets) quietly(s);
        sockets.clear();
    }

    private synchronized boolean keep(Socket client, Socket server) {
        if (cut) return false;
        sockets.add(client);
        sockets.add(server);
        return true;
    }

    private synchronized void passable() throws InterruptedException {
        while (frozen) wait();
    }

    private void accept() {
        while (!listener.isClosed()) {
            Socket client = null;
            Socket server = null;
            try {
                client = listener.accept();
                server = new Socket(host, port);
                client.setTcpNoDelay(true);
                server.setTcpNoDelay(true);
                if (keep(client, server)) {
                    Socket a = client;
                    Socket b = server;
                    daemon(() -> relay(a, b));
                    daemon(() -> relay(b, a));
                    continue;
                }
            } catch (IOException e) {
                // The server is down, or the tap is closed: the client sees its connection end.
            }
            quietly(client);
            quietly(server);
        }
    }

    private void relay(Socket from, Socket to) {
        byte[] buffer = new byte[1 << 16];
        try (from; to) {
            InputStream in = from.getInputStream();
            for (int n; (n = in.read(buffer)) >= 0; ) {
                passable();
                to.getOutputStream().write(buffer, 0, n);
            }
        } catch (IOException | InterruptedException e) {
            // One side ended; both are closed.
        }
    }

    private static void quietly(Socket s) {
        try {
            if (s != null) s.close();
        } catch (IOException e) {
            // It is gone either way.
        }
    }

    private static void daemon(Runnable r) {
        var t = new Thread(r, "tap");
        t.setDaemon(true);
        t.start();
    }
}
