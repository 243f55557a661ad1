"""What programs do with Docker's SDK for Python, each thing once. The image to use is the argument."""

import io
import sys
import tarfile
import threading

import docker

IMAGE = sys.argv[1]
client = docker.from_env(timeout=120)


def archive(name, data):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def about():
    assert client.ping()
    assert client.version()["Os"] == "linux"
    assert "eci-runc" in client.info()["Runtimes"]


def runs():
    assert client.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    try:
        client.containers.run(IMAGE, ["sh", "-c", "echo wrong >&2; exit 3"], remove=True)
        raise AssertionError("an error was expected")
    except docker.errors.ContainerError as error:
        assert (error.exit_status, error.stderr) == (3, b"wrong\n")


def streams():
    container = client.containers.run(IMAGE, ["sh", "-c", "for n in 1 2 3; do echo $n; sleep 0.2; done"], detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.wait()["StatusCode"] == 0
    container.remove()


def speaks():
    container = client.containers.create(IMAGE, ["cat"], stdin_open=True)
    socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw = getattr(socket, "_sock", socket)
    raw.sendall(b"to and fro\n")
    raw.settimeout(60)
    answer = b""
    while not answer.endswith(b"to and fro\n"):
        piece = raw.recv(64)
        assert piece, answer
        answer += piece
    socket.close()
    container.kill()
    container.remove(force=True)


def works_in(container):
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (code, output) == (4, (b"out\n", b"err\n"))
    assert container.put_archive("/tmp", archive("note", b"written"))
    pieces, stat = container.get_archive("/tmp/note")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert tar.extractfile("note").read() == b"written"
    assert stat["name"] == "note"
    assert any(change["Path"] == "/tmp/note" for change in container.diff())
    assert any("sleep" in " ".join(row) for row in container.top()["Processes"])
    assert container.stats(stream=False)["memory_stats"]["usage"] > 0
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.update(mem_limit="64m", memswap_limit="64m")
    container.rename("renamed")
    container.restart(timeout=0)
    image = container.commit("committed", "1")
    assert client.containers.run(image, ["cat", "/tmp/note"], remove=True) == b"written"
    saved = b"".join(image.save(named=True))
    client.images.remove("committed:1")
    assert client.images.load(saved)[0].tags == ["committed:1"]


def connects():
    network = client.networks.create("sdk", driver="bridge", labels={"of": "sdk"})
    volume = client.volumes.create("sdk")
    mounted = {"sdk": {"bind": "/data", "mode": "rw"}}
    server = client.containers.run(
        IMAGE, ["sh", "-c", "echo kept >/data/file; while :; do nc -l -p 80 -e cat /data/file; done"],
        detach=True, network="sdk", name="server", volumes=mounted)
    asking = "for n in $(seq 50); do nc -w 5 server 80 && exit 0; sleep 0.2; done; exit 1"
    assert client.containers.run(IMAGE, ["sh", "-c", asking], network="sdk", remove=True) == b"kept\n"
    network.disconnect(server)
    server.remove(force=True)
    network.remove()
    volume.remove()


def builds():
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in {"Dockerfile": f"FROM {IMAGE}\nARG WORD\nCOPY file /file\nRUN echo $WORD >>/file\n", "file": "first\n"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    context.seek(0)
    image, log = client.images.build(fileobj=context, custom_context=True, tag="built:1", rm=True, buildargs={"WORD": "second"})
    assert any("Successfully tagged" in line.get("stream", "") for line in log)
    assert client.containers.run(image, ["cat", "/file"], remove=True) == b"first\nsecond\n"


def watches():
    seen = threading.Event()
    events = client.events(decode=True, filters={"event": "die", "type": "container"})

    def watch():
        for event in events:
            if event["Actor"]["Attributes"]["name"] == "watched":
                seen.set()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    client.containers.run(IMAGE, ["true"], name="watched", remove=True)
    assert seen.wait(60)
    events.close()


def refused():
    for options in ({"pid_mode": "host"}, {"network_mode": "host"}, {"volumes": ["/etc:/x"]}):
        try:
            client.containers.run(IMAGE, ["true"], remove=True, **options)
            raise AssertionError(f"{options} was allowed")
        except docker.errors.APIError as error:
            assert "enhanced container isolation" in error.explanation, error.explanation


about()
runs()
streams()
speaks()
sleeper = client.containers.run(IMAGE, ["sleep", "600"], detach=True, privileged=True)
works_in(sleeper)
sleeper.remove(force=True)
connects()
builds()
watches()
refused()
print("done")
