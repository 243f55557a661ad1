"""A run of tests with Testcontainers for Python, that is killed before it can clean up."""

import os
import socket
import sys
import time

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

IMAGE = sys.argv[1]
SERVER = "echo listening; while :; do echo hello | nc -l -p 7000; done"

network = Network().create()
server = DockerContainer(IMAGE).with_command(["sh", "-c", SERVER]).with_exposed_ports(7000).with_network(network)
server.waiting_for(LogMessageWaitStrategy("listening"))
server.start()

# It says that it listens a moment before it does.
for attempt in range(60):
    with socket.create_connection((server.get_container_host_ip(), int(server.get_exposed_port(7000))), 60) as connection:
        answer = connection.recv(16)
    if answer:
        break
    time.sleep(0.5)
assert answer == b"hello\n", answer
code, output = server.exec(["cat", "/proc/self/uid_map"])
assert code == 0 and output.split()[2] == b"65536", output
print(server.get_wrapped_container().id, flush=True)
os._exit(0)
