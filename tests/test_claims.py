"""Claims: exactly one run has one, and it is taken over when its holder is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stylize import Claims
from stylize.claims import STALE
from stylize.claims.watch import PATIENCE as MORE
from tests.moments import wait_for

HOUR = 3600.0  # between two refreshes: in the time of the tests, none comes by itself
QUICK = 0.05  # seconds, where the refreshes themselves are tested


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "claims"


class Clock:
    """A time that passes when a test says so. Runs that are awake refresh their claims meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.now, self._folder = 0.0, folder
        self._runs, self._awake = list[Claims](), list[Claims]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.passes()

    def run(self, *, awake: bool = True) -> Claims:
        """The claims of a run."""
        claims = Claims(self._folder, refresh=HOUR)
        self._runs.append(claims)
        if awake:
            self._awake.append(claims)
        return claims

    def close(self) -> None:
        for claims in self._runs:
            claims.close()

    def passes(self, refreshes: int = 1) -> None:
        for _ in range(refreshes):
            self.now += HOUR
            for claims in self._awake:
                claims.refresh()

    def until_taken(self, claims: Claims, key: str) -> int:
        """After how many refreshes a claim can be taken, asked after each."""
        for refreshes in range(100):
            if claims.take(key):
                return refreshes
            self.passes()
        raise AssertionError("it cannot be taken")


@pytest.fixture
def clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock(folder)
    for module in ("claims", "done", "watch"):
        monkeypatch.setattr(f"stylize.claims.{module}.time", clock)
    monkeypatch.setattr("stylize.claims.claims._now", clock.monotonic)
    yield clock
    clock.close()


def abandoned(folder: Path, *, host: str) -> Path:
    """A claim whose holder, on a machine of that name, no longer refreshes it."""
    Claims(folder, refresh=HOUR).take("a")
    (claim,) = folder.iterdir()
    text = claim.read_text()
    claim.write_text(text.replace(text.split('"')[3], host))
    return claim


def test_a_claim_is_held_against_others_until_it_is_released(clock: Clock, folder: Path) -> None:
    one, other = clock.run(), clock.run()
    assert one.take("a")
    assert one.take("a")
    assert not other.take("a")
    assert other.take("b")
    one.release("a")
    assert other.take("a")
    other.close()
    assert not folder.exists()


def test_a_claim_that_is_refreshed_is_not_taken_over(clock: Clock) -> None:
    one, other = clock.run(), clock.run()
    assert one.take("a")
    for _ in range(3 * MORE * STALE):
        clock.passes()
        assert not other.take("a")
    assert one.holds("a")


def test_claims_are_refreshed_by_themselves(folder: Path) -> None:
    claims = Claims(folder, refresh=QUICK)
    assert claims.take("a")
    (claim,) = folder.glob("*.[0-9]")
    contents = set[bytes]()

    def has_changed_twice() -> bool:
        contents.add(claim.read_bytes())
        return len(contents) == 3

    wait_for(has_changed_twice)
    claims.close()


def test_a_claim_that_is_not_refreshed_is_taken_over(clock: Clock, folder: Path) -> None:
    abandoned(folder, host="elsewhere")
    claims, third = clock.run(), clock.run()
    assert clock.until_taken(claims, "a") == STALE
    for _ in range(2 * MORE * STALE):
        clock.passes()
        assert not third.take("a")
    claims.release("a")
    assert third.take("a")
    third.close()
    assert not folder.exists()


def test_a_process_of_this_machine_is_waited_for_longer(clock: Clock) -> None:
    busy, other = clock.run(awake=False), clock.run()
    assert busy.take("a")
    assert clock.until_taken(other, "a") == MORE * STALE


def takers_at_once(runs: Sequence[Claims]) -> list[Claims]:
    """Those that get the claim "a" where all ask for it at the same moment."""
    gate, got = threading.Barrier(len(runs)), list[Claims]()

    def take(run: Claims) -> None:
        gate.wait()
        if run.take("a"):
            got.append(run)

    threads = [threading.Thread(target=take, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


@pytest.mark.slow
def test_exactly_one_of_many_takes_a_claim_over(clock: Clock, folder: Path) -> None:
    for _ in range(5):
        abandoned(folder, host="elsewhere")
        runs = [clock.run() for _ in range(8)]
        for run in runs:
            assert not run.take("a")
        clock.passes(STALE)
        assert len(takers_at_once(runs)) == 1
        for run in runs:
            run.close()


def test_one_who_comes_late_does_not_take_over_what_was_taken_over_before(clock: Clock, folder: Path) -> None:
    abandoned(folder, host="elsewhere")
    one, late = clock.run(), clock.run()
    assert not late.take("a")  # has seen the abandoned claim
    assert clock.until_taken(one, "a") == STALE
    for _ in range(2 * STALE):
        assert not late.take("a")
        clock.passes()
    one.close()
    assert late.take("a")
    late.close()


def test_a_holder_that_was_asleep_leaves_the_claim_to_who_took_it_over(clock: Clock, folder: Path) -> None:
    sleeper, other, third = clock.run(awake=False), clock.run(), clock.run()
    assert sleeper.take("a")
    assert clock.until_taken(other, "a")
    sleeper.close()
    for _ in range(2 * MORE * STALE):
        assert not third.take("a")
        clock.passes()
    other.close()
    assert third.take("a")
    third.close()


def test_a_holder_that_was_asleep_learns_that_it_has_lost_its_claim(clock: Clock) -> None:
    sleeper, other = clock.run(awake=False), clock.run()
    assert sleeper.take("a")
    assert sleeper.holds("a")
    assert not sleeper.is_lost("a")
    assert clock.until_taken(other, "a")
    assert not sleeper.holds("a")
    assert sleeper.is_lost("a")
    sleeper.release("a")
    assert not sleeper.take("a")
    assert other.holds("a")
    sleeper.close()
    other.close()


def test_a_claim_that_was_taken_over_is_lost_also_when_it_is_free_again(clock: Clock, folder: Path) -> None:
    sleeper, other = clock.run(awake=False), clock.run()
    assert sleeper.take("a")
    assert clock.until_taken(other, "a")
    other.release("a")  # what it stood for is done
    assert not sleeper.holds("a")
    sleeper.close()
    other.close()
    assert not folder.exists()


def test_a_holder_that_was_asleep_keeps_a_claim_that_nobody_wanted(clock: Clock, folder: Path) -> None:
    claims = clock.run(awake=False)
    assert claims.take("a")
    clock.passes(100)
    assert claims.holds("a")
    (claim,) = folder.glob("*.[0-9]")
    assert claim.suffix == ".1"  # one who was about to take it over can no longer
    claims.close()
    assert not folder.exists()


def test_a_run_that_was_asleep_does_not_take_over_at_once(clock: Clock, folder: Path) -> None:
    abandoned(folder, host="elsewhere")
    claims = clock.run(awake=False)
    assert not claims.take("a")
    for _ in range(STALE - 1):
        clock.passes(20)
        for _ in range(5):
            assert not claims.take("a")  # its holder may have been asleep as well
    clock.passes()
    assert claims.take("a")
    claims.close()


def test_a_claim_whose_file_was_deleted_is_made_anew(clock: Clock, folder: Path) -> None:
    claims, other = clock.run(), clock.run()
    assert claims.take("a")
    for file in folder.iterdir():
        file.unlink()
    clock.passes()
    assert claims.holds("a")
    assert not other.take("a")
    claims.close()
    other.close()


def changed(folder: Path, **values: object) -> None:
    """A claim of this process that says something else."""
    Claims(folder).take("a")
    (claim,) = folder.iterdir()
    claim.write_text(json.dumps(json.loads(claim.read_text()) | values))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_a_process_that_got_the_number_of_a_dead_one_does_not_hold_its_claim(folder: Path) -> None:
    changed(folder, started="1")
    claims = Claims(folder, refresh=3600)
    assert claims.take("a")
    claims.close()


def test_a_process_of_another_machine_of_the_same_name_is_not_thought_dead(folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    changed(folder, host=f"{socket.gethostname()} 00000000", process=gone.pid)
    claims = Claims(folder, refresh=3600)
    assert not claims.take("a")
    assert claims.is_held_by_the_living("a") is None
    claims.close()


def test_a_run_that_refreshes_its_claim_is_seen_to_live(clock: Clock, folder: Path) -> None:
    one, other = clock.run(), clock.run()
    assert one.take("a")
    assert other.is_held_by_the_living("a")
    assert other.is_held_by_the_living("b") is False
    one.close()
    abandoned(folder, host="elsewhere")
    for _ in range(STALE):
        assert other.is_held_by_the_living("a") is None
        clock.passes()
    assert other.is_held_by_the_living("a") is False


def test_claims_of_dead_runs_on_other_machines_are_removed_when_all_is_done(clock: Clock, folder: Path) -> None:
    abandoned(folder, host="elsewhere")
    claims, living = clock.run(), clock.run()
    assert living.take("b")
    claims.clear()
    assert len(list(folder.iterdir())) == 1
    claims.close()
    assert living.holds("b")
    living.close()
    assert not folder.exists()


def test_what_is_done_is_known_to_the_others_until_the_last_has_ended(clock: Clock, folder: Path) -> None:
    one, other = clock.run(), clock.run()
    one.tell(total=2)
    other.tell(total=2)
    one.note_done("a\nb")
    assert one.is_done("a\nb")
    assert other.is_done("a\nb")
    assert not other.is_done("a")
    one.close()
    assert other.is_done("a\nb")
    other.close()
    assert not folder.exists()


def test_what_others_do_is_learnt_without_looking_from_a_moment_on(folder: Path) -> None:
    one, other = Claims(folder, refresh=QUICK), Claims(folder, refresh=QUICK)
    one.tell(total=3)
    other.tell(total=3)
    one.note_done("before", "made so")
    other.watch_done()
    one.note_done("a", "made so", at_once=False)
    one.note_done("b", "made so", at_once=False)
    wait_for(lambda: other.is_known_done("b", "made so"))
    assert other.is_known_done("a", "made so")
    assert not other.is_known_done("a", "made otherwise")
    assert not other.is_known_done("before", "made so")
    assert other.is_done("before", "made so")
    one.note_done("c", at_once=False)
    one.close()
    other.look_done()
    assert other.is_done("c")
    other.close()


@pytest.mark.skipif(os.name == "nt", reason="there processes cannot be asked whether they live")
def test_the_claim_of_a_process_that_was_killed_is_taken_over_at_once(folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from stylize import Claims\n"
        "print(Claims(Path(sys.argv[1])).take('a'), flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        claims = Claims(folder, refresh=3600)
        assert not claims.take("a")
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: claims.take("a"))  # also before its parent has waited for it
        process.wait()
        claims.close()
        assert not folder.exists()


@pytest.mark.skipif(os.name == "nt", reason="there processes cannot be asked whether they live")
def test_what_killed_processes_left_is_removed_at_the_end(folder: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from stylize import Claims\n"
        "Claims(Path(sys.argv[1])).take('done'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=False)
    assert len(list(folder.iterdir())) == 1
    claims, other = Claims(folder), Claims(folder)
    assert claims.take("a")
    other.close()  # leaves that of a living process
    assert len(list(folder.iterdir())) == 1
    claims.close()
    assert not folder.exists()


def test_a_claim_that_was_cut_off_while_it_was_written_is_taken_over(clock: Clock, folder: Path) -> None:
    abandoned(folder, host="elsewhere").write_bytes(b"")
    claims = clock.run()
    assert clock.until_taken(claims, "a") == STALE
    claims.close()


def test_a_folder_that_cannot_be_used_is_no_hindrance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    claims = Claims(tmp_path / "file" / "claims")
    assert claims.take("a")
    assert "other runs may paint the same" in caplog.text
    claims.release("a")
    claims.close()
