"""The Unix carrier under stress: any sizes, slow readers, many peers, deaths in the middle of a batch. Seeded."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.core.protocol import messages as m
from shoal.core.transport.carriers.base import socket_path
from shoal.core.transport.carriers.unix import UnixCarrier
from shoal.core.transport.endpoint import Endpoint

DEADLINE_S = 60
#: What frames are cut from: the start of a frame tells where in it.
POOL = random.Random(0).randbytes(21 << 20)


def name(number: int) -> bytes:
    return number.to_bytes(12, "little")


class Peer:
    """One carrier. Keeps what it has heard, by sender."""

    def __init__(self, directory: Path, number: int) -> None:
        me = name(number)
        self.carrier = UnixCarrier(str(directory), me, hello=b"hello" + me, admit=self._admit)
        self.carrier.on_drop = lambda peer, reason: self.dropped.append(reason)
        self.carrier.on_lost = self._lost
        self.me = me
        self.dropped: list[str] = []
        self.heard: dict[bytes, list[list[bytes]]] = {}
        self.lost: list[bytes] = []
        self.sent: dict[bytes, int] = {}

    def _admit(self, frames) -> bytes | None:
        return frames[0][5:] if frames[0].startswith(b"hello") else None

    def _lost(self, peer: bytes) -> None:
        self.lost.append(peer)

    def send(self, peer: bytes, sizes: list[int]) -> bool:
        number = self.sent[peer] = self.sent.get(peer, -1) + 1
        return self.carrier.send(peer, frames_of(number, sizes))

    def turn(self, timeout_s: float = 0.0) -> int:
        self.carrier.wait(timeout_s)
        count = 0
        for peer, frames in self.carrier.receive():
            self.heard.setdefault(peer, []).append(frames)
            count += 1
        return count


def frames_of(number: int, sizes: list[int]) -> list[bytes]:
    """A batch that can be checked: its number, the sizes, and pieces of the pool."""
    head = number.to_bytes(8, "little") + b"".join(size.to_bytes(4, "little") for size in sizes)
    return [head, *(memoryview(POOL)[number : number + size] for size in sizes)]


def assert_is_prefix(heard: list[list[bytes]], count: int) -> None:
    """In order, from the first, whole."""
    for number, (head, *frames) in enumerate(heard):
        assert int.from_bytes(head[:8], "little") == number
        sizes = [int.from_bytes(head[at : at + 4], "little") for at in range(8, len(head), 4)]
        assert [len(frame) for frame in frames] == sizes
        for frame, size in zip(frames, sizes, strict=True):
            assert memoryview(POOL)[number : number + size] == frame
    assert len(heard) <= count


def until(done: Callable[[], bool], *peers: Peer) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        for peer in peers:
            peer.turn()


@pytest.fixture
def make(tmp_path):
    peers: list[Peer] = []

    def one() -> Peer:
        peers.append(Peer(tmp_path, len(peers)))
        return peers[-1]

    yield one
    for peer in peers:
        peer.carrier.close(0.0)


def random_sizes(rng: random.Random) -> list[int]:
    """Mostly small, now and then up to 20 MB."""
    exponent = rng.choice([0, 2, 3, 4, 5, 6, 7.3]) if rng.random() < 0.1 else 2.5
    return [int(10 ** rng.uniform(0, exponent)) - 1 for _ in range(rng.randrange(4))]


@pytest.mark.parametrize("seed", range(6))
def test_every_batch_arrives_whole_and_in_order_whoever_is_slow_or_dies(make, seed):
    rng = random.Random(seed)
    peers = [make() for _ in range(8)]
    pace = [rng.choice([1.0, 1.0, 0.3, 0.02]) for _ in peers]  # how often each reads
    dead: set[int] = set()
    deadline = time.monotonic() + DEADLINE_S
    for step in range(1500):
        assert time.monotonic() < deadline
        alive = [number for number in range(len(peers)) if number not in dead]
        sender, receiver = rng.choice(alive), rng.randrange(len(peers))
        # A lost peer is not spoken to again: the endpoint sees to that.
        if sender != receiver and peers[receiver].me not in peers[sender].lost:
            reached = peers[sender].send(peers[receiver].me, random_sizes(rng))
            assert reached or receiver in dead
        for number in alive:
            if rng.random() < pace[number]:
                peers[number].turn()
        if step in (500, 1000):
            victim = rng.choice(alive)
            dead.add(victim)
            peers[victim].carrier.drop_descriptors()  # what the kernel does when a process dies
    alive_peers = [peer for number, peer in enumerate(peers) if number not in dead]

    def all_is_said() -> bool:
        return all(len(b.heard.get(a.me, [])) == a.sent.get(b.me, -1) + 1 for a in alive_peers for b in alive_peers)

    while not all_is_said():
        assert time.monotonic() < deadline, "a batch was lost"
        for peer in alive_peers:
            peer.turn()
    for peer in alive_peers:
        for sender in peers:
            assert_is_prefix(peer.heard.get(sender.me, []), sender.sent.get(peer.me, -1) + 1)
        spoken_with = {p.me for p in peers if p.me in peer.heard or peer.me in p.heard}
        assert sorted(set(peer.lost)) == sorted(peer.lost), "told twice"
        assert {peers[n].me for n in dead} & spoken_with <= set(peer.lost)
        assert set(peer.lost) <= {peers[n].me for n in dead}
        assert set(peer.dropped) <= {"it ended in the middle of a batch"}
        assert not any(link.outbox for link in peer.carrier._links.values())


def test_two_that_open_a_link_at_the_same_moment_keep_their_order(make):
    first, second = make(), make()
    for _ in range(100):
        first.send(second.me, [10])
        second.send(first.me, [10])
    until(lambda: all(len(p.heard.get(q.me, [])) == 100 for p, q in ((first, second), (second, first))), first, second)
    for a, b in ((first, second), (second, first)):
        assert_is_prefix(a.heard[b.me], 100)


def test_one_that_never_reads_holds_nobody_up(make):
    sender, deaf, quick = make(), make(), make()
    started = time.monotonic()
    for _ in range(20):
        sender.send(deaf.me, [5_000_000])
        sender.send(quick.me, [100])
        sender.turn()
        quick.turn()
    until(lambda: len(quick.heard.get(sender.me, [])) == 20, sender, quick)
    assert time.monotonic() - started < 10
    until(lambda: len(deaf.heard.get(sender.me, [])) == 20, sender, deaf)
    assert_is_prefix(deaf.heard[sender.me], 20)


def test_a_long_batch_that_is_taken_at_once_wakes_nobody_who_waits_for_events(make):
    first, second = make(), make()
    first.send(second.me, [10])
    woken = []
    with select.epoll() as around:
        around.register(first.carrier.descriptor, select.EPOLLIN)
        watcher = threading.Thread(target=lambda: woken.extend(around.poll(1.0)))
        watcher.start()
        while watcher.is_alive():
            first.send(second.me, [100_000])
            until(lambda: len(second.heard.get(first.me, [])) == first.sent[second.me] + 1, second)
        watcher.join()
    assert not woken


def test_a_peer_that_talks_without_end_does_not_starve_another(make):
    listener, loud, quiet = make(), make(), make()
    for _ in range(3000):
        loud.send(listener.me, [1000])
    quiet.send(listener.me, [10])
    turns = 0
    while quiet.me not in listener.heard:
        loud.turn()
        listener.turn()
        turns += 1
        assert turns < 20
    assert len(listener.heard[loud.me]) < 3000


def test_a_hundred_peers_are_heard(make):
    centre, *others = [make() for _ in range(101)]
    for other in others:
        for _ in range(20):
            other.send(centre.me, [200])
    until(lambda: sum(map(len, centre.heard.values())) == 2000, centre)
    for other in others:
        assert_is_prefix(centre.heard[other.me], 20)
        centre.send(other.me, [7])
    until(lambda: all(len(other.heard.get(centre.me, [])) == 1 for other in others), centre, *others)
    assert len(centre.carrier._links) == 100, "one link serves both directions"


def test_more_connect_at_once_than_the_other_accepts(make, monkeypatch):
    monkeypatch.setattr(socket, "SOMAXCONN", 2)
    centre, *others = [make() for _ in range(20)]
    for other in others:
        assert other.send(centre.me, [100, 1_000_000])
    until(lambda: sum(map(len, centre.heard.values())) == 19, centre, *others)
    for other in others:
        assert_is_prefix(centre.heard[other.me], 1)


def test_nobody_listens(make, tmp_path):
    peer, gone = make(), make()
    assert not peer.send(b"nobody" * 2, [1])
    gone.carrier.drop_descriptors()
    assert os.path.exists(socket_path(str(tmp_path), gone.me)), "as a killed process leaves it"
    assert not peer.send(gone.me, [1])


def test_one_that_dies_before_it_accepts_is_lost(make, monkeypatch):
    peer, doomed = make(), make()
    connect = socket.socket.connect

    def connect_too_late(sock: socket.socket, path: str) -> None:
        connect(sock, path)
        doomed.carrier.drop_descriptors()

    monkeypatch.setattr(socket.socket, "connect", connect_too_late)
    assert peer.send(doomed.me, [1])
    until(lambda: peer.lost == [doomed.me], peer)


def test_the_last_words_of_the_dead_are_heard(make):
    peer, doomed = make(), make()
    doomed.send(peer.me, [1])
    until(lambda: doomed.me in peer.heard, peer)
    for _ in range(50):
        doomed.send(peer.me, [2000])
    doomed.carrier.drop_descriptors()
    heard = [frames for _, frames in peer.carrier.hear_out(doomed.me)]
    assert_is_prefix(peer.heard[doomed.me] + heard, 51)
    assert len(heard) == 50
    peer.carrier.forget(doomed.me)
    peer.turn()
    assert not peer.lost, "forgotten: nobody wants to know"


@pytest.mark.parametrize("words", [b"x" * 100, b"", struct.pack("<IQ", 1, 255), struct.pack("<IQ", 1, 5) + b"hollo"])
def test_a_stranger_is_not_heard(make, tmp_path, words):
    peer, friend = make(), make()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(socket_path(str(tmp_path), peer.me))
        stranger.sendall(words)
        friend.send(peer.me, [3])
        until(lambda: friend.me in peer.heard, peer)
        if words[-5:] != b"hollo":
            stranger.shutdown(socket.SHUT_WR)
        stranger.settimeout(0)
        until(lambda: len(peer.carrier._links) == 1, peer)
        assert list(peer.heard) == [friend.me]
        assert not peer.lost


def test_closing_sends_what_was_kept(make):
    peer, leaving = make(), make()
    leaving.send(peer.me, [3_000_000])
    closing = threading.Thread(target=leaving.carrier.close, args=(DEADLINE_S,))
    closing.start()
    until(lambda: peer.lost == [leaving.me], peer)
    closing.join(DEADLINE_S)
    assert_is_prefix(peer.heard[leaving.me], 1)
    assert not peer.dropped


def test_closing_does_not_wait_for_one_that_never_reads(make):
    peer, leaving = make(), make()
    leaving.send(peer.me, [3_000_000])
    started = time.monotonic()
    leaving.carrier.close(0.05)
    assert time.monotonic() - started < 5
    until(lambda: peer.lost == [leaving.me], peer)
    assert "middle" in peer.dropped[0]


def test_a_process_killed_in_the_middle_of_a_batch_is_lost_at_once(make, tmp_path):
    peer = make()
    script = """
        import os, signal, sys
        from shoal.core.transport.carriers.unix import UnixCarrier
        me = b"killed" * 2
        carrier = UnixCarrier(sys.argv[1], me, hello=b"hello" + me, admit=lambda frames: None)
        carrier.send(bytes(12), [b"whole"])
        carrier.send(bytes(12), [b"x" * 20_000_000])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)])
    try:
        assert killed.wait(DEADLINE_S) == -signal.SIGKILL
        started = time.monotonic()
        until(lambda: bool(peer.lost), peer)
        assert time.monotonic() - started < 1
    finally:
        killed.kill()
    assert peer.lost == [b"killed" * 2]
    assert peer.heard == {b"killed" * 2: [[b"whole"]]}
    assert peer.dropped == ["it ended in the middle of a batch"]


def test_a_forked_child_holds_no_socket_of_its_parent(make):
    peer, parent = make(), make()
    parent.send(peer.me, [1])
    until(lambda: parent.me in peer.heard, peer)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent lets go
        os._exit(0)
    try:
        parent.send(peer.me, [2])
        until(lambda: len(peer.heard[parent.me]) == 2, peer, parent)
        parent.carrier.drop_descriptors()
        until(lambda: peer.lost == [parent.me], peer)
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def test_what_cannot_be_sent_for_lack_of_descriptors_is_not_lost(tmp_path):
    sender = Endpoint(str(tmp_path), name(1), b"t" * 32, carrier="unix")
    receiver = Endpoint(str(tmp_path), name(2), b"t" * 32, carrier="unix")
    sender.send(receiver.me, m.Exit())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="open files"):
            sender.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    sender.flush()
    heard: list[tuple[bytes, m.Message]] = []
    deadline = time.monotonic() + DEADLINE_S
    while not heard:
        assert time.monotonic() < deadline
        receiver.carrier.wait(0.1)
        heard += receiver.receive()
    assert heard == [(sender.me, m.Exit())]
    sender.close()
    receiver.close()
