"""A client with an ephemeral node that prints its states: sleeper.py HOST:PORT PATH"""

import logging
import sys
import threading

from kazoo.client import KazooClient
from kazoo.retry import KazooRetry


def main():
    logging.basicConfig(level=logging.CRITICAL)
    zk = KazooClient(hosts=sys.argv[1], timeout=1.0, connection_retry=KazooRetry(max_tries=-1, delay=0.05, max_delay=0.2))
    zk.start()
    zk.create(sys.argv[2], ephemeral=True)
    first = zk.client_id[0]
    states = []
    changed = threading.Condition()

    def listener(state):
        with changed:
            states.append(state)
            changed.notify_all()

    zk.add_listener(listener)
    print("CONNECTED", flush=True)
    while True:
        with changed:
            changed.wait_for(lambda: states)
            state = states.pop(0)
        if state == "CONNECTED" and zk.client_id and zk.client_id[0] != first:
            print("other session", flush=True)
        print(state, flush=True)


main()
