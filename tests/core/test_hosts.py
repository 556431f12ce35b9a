"""Several processes agree on where to stop, and none of them waits for one that is gone. Here they are threads."""

import random
import threading
import time

import pytest

from ncjax.core import hosts
from ncjax.core.errors import UserError


class Store:
    """The key-value store that processes share."""

    def __init__(self, count):
        self.kept, self.changed, self.barriers = {}, threading.Condition(), {}
        self.count, self.up = count, True

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            if not self.up:
                raise RuntimeError("UNAVAILABLE: socket closed")
            assert allow_overwrite or key not in self.kept
            self.kept[key] = value
            self.changed.notify_all()

    def key_value_dir_get(self, prefix):
        with self.changed:
            if not self.up:
                raise RuntimeError("UNAVAILABLE: socket closed")
            return [(k, v) for k, v in self.kept.items() if k.startswith(prefix)]

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            assert self.changed.wait_for(lambda: key in self.kept, timeout=20)
            return self.kept[key]

    def wait_at_barrier(self, key, milliseconds):
        with self.changed:
            barrier = self.barriers.setdefault(key, threading.Barrier(self.count))
        barrier.wait(timeout=20)


@pytest.fixture
def members(monkeypatch):
    """`(count) -> (store, members, what each has left with)`; their threads end with the test."""
    monkeypatch.setattr(hosts, "BEAT", 0.01)
    monkeypatch.setattr(hosts, "PATIENCE", 0.2)
    made = []

    def make(count):
        store, left = Store(count), {}
        made.extend(hosts.Member(store, rank, count, leaver(left, rank)) for rank in range(count))
        return store, made[-count:], left

    yield make
    for member in made:
        member._over.set()


def leaver(left, rank):
    return lambda code: left.setdefault(rank, code)


def together(members, work):
    """What `work(member)` returns in a thread of each."""
    found = {}
    threads = [threading.Thread(target=lambda m=m: found.update({m.rank: work(m)}), daemon=True) for m in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    return [found[m.rank] for m in members]


def test_a_flag_is_set_everywhere_or_not(members):
    _, found, _ = members(3)
    assert together(found, lambda member: member.everywhere("a", True)) == [True] * 3
    assert together(found, lambda member: member.everywhere("b", member.rank != 1)) == [False] * 3
    assert hosts.everywhere("alone", True)
    assert not hosts.everywhere("alone", False)


@pytest.mark.parametrize("seed", range(6))
def test_a_signal_at_any_process_stops_all_at_one_step(members, seed):
    _, found, left = members(3)
    rng = random.Random(seed)
    signals = {rank: rng.randrange(5, 60) for rank in rng.sample(range(3), rng.choice([1, 1, 2, 3]))}
    pace = [rng.choice([0.0005, 0.002, 0.006]) for _ in range(3)]

    def work(member):
        step = 0
        while not (signum := member.stop_now(15 if step >= signals.get(member.rank, 1 << 60) else 0)):
            step += 1
            time.sleep(pace[member.rank])
        return step, signum

    stopped = together(found, work)
    assert len(set(stopped)) == 1
    assert stopped[0][0] >= min(signals.values())
    assert stopped[0][1] == 15
    assert left == {}


def test_without_a_signal_nobody_stops(members):
    _, found, _ = members(2)
    assert together(found, lambda m: [m.stop_now(0) for _ in range(200)]) == [[0] * 200] * 2


def test_what_the_first_says_all_hear_and_nobody_else_computes(members):
    _, found, _ = members(3)
    asked = []

    def work(member):
        return [member.first(lambda i=i: asked.append(member.rank) or f"{i}") for i in range(5)]

    assert together(found, work) == [["0", "1", "2", "3", "4"]] * 3
    assert asked == [0] * 5


def test_a_process_that_cannot_go_on_ends_all_with_its_line_and_code(members, capfd):
    _, found, left = members(3)
    found[1].end(2, "workdir w is not shared")
    wait_for(lambda: len(left) == 3)
    assert left == {0: 2, 1: 2, 2: 2}
    assert capfd.readouterr().err == "ncjax: process 1 has ended: workdir w is not shared\n" * 2


def test_a_process_that_is_not_heard_of_is_lost(members, capfd, monkeypatch):
    monkeypatch.setattr(hosts, "GONE", 0.3)
    _, found, left = members(3)
    time.sleep(0.1)
    found[2]._over.set()  # its thread says nothing more
    time.sleep(0.1)
    assert left == {}
    wait_for(lambda: len(left) == 2)
    assert left == {0: 1, 1: 1}
    said = capfd.readouterr().err
    assert said.count("process 2 on ") == 2
    assert said.count("is gone; run the same command again") == 2


def test_without_the_first_process_the_others_end(members, capfd):
    store, found, left = members(2)
    time.sleep(0.05)
    found[0]._over.set()
    store.up = False
    wait_for(lambda: left == {1: 1})
    assert "process 0 is gone (UNAVAILABLE: socket closed)" in capfd.readouterr().err


def wait_for(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_alone_nothing_is_asked():
    assert hosts.stop_now(2) == 2
    assert hosts.first(lambda: "x") == "x"
    hosts.barrier()
    hosts.close()


def test_an_address_without_a_port_is_refused():
    with pytest.raises(UserError, match="expected HOST:PORT"):
        hosts.join("nowhere", 2, 0)
