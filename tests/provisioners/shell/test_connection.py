"""Commands over a real sshd, and everything that can become of the connection meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioners.shell.connection import HostKeyChanged, Lost, NotAdmitted, Shell, Target
from provisioners.shell.openssh import login_argv
from tests.emulators.sshd import Sshd, free_port, key_pair, running_sshd, wire

pytestmark = pytest.mark.real
LASTING = f"1000{os.getpid()}"
"""So many seconds nobody else sleeps on this machine."""


def using(target: Target, work: Callable[[Shell], Any], **options: float) -> Any:
    """The result of a coroutine that is given a shell, which is closed afterwards."""

    async def main() -> Any:
        shell = Shell(target, **options)
        try:
            return await asyncio.wait_for(work(shell), 60)
        finally:
            await shell.close()

    return asyncio.run(main())


def commands_with(word: str) -> list[int]:
    """The processes in whose command line a word stands."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if word in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


class TestCommands:
    def test_arguments_arrive_as_they_are(self, target: Target) -> None:
        odd = ["a b", "$HOME", "it's", '"', "\\n", "", "*", "é\n;"]
        ran = using(target, lambda shell: shell.run(["printf", "%s|", *odd]))
        assert ran.out.decode() == "".join(f"{one}|" for one in odd)

    def test_status_and_both_streams(self, target: Target) -> None:
        ran = using(target, lambda shell: shell.run(["sh", "-c", "cat; echo no >&2; exit 3"], input=b"\0\xff yes"))
        assert (ran.status, ran.out, ran.err) == (3, b"\0\xff yes", b"no\n")

    def test_a_program_that_is_not_there(self, target: Target) -> None:
        ran = using(target, lambda shell: shell.run(["no-such-program"]))
        assert ran.status == 127
        assert b"no-such-program" in ran.err

    def test_much_in_both_directions(self, target: Target) -> None:
        much = os.urandom(1 << 20) * 12
        both = ["sh", "-c", "tee /dev/stderr"]
        ran = using(target, lambda shell: shell.run(both, input=much, timeout_s=60))
        assert ran.out == much
        assert ran.err == much

    def test_a_command_that_reads_only_some_of_its_input(self, target: Target) -> None:
        ran = using(target, lambda shell: shell.run(["head", "-c", "3"], input=b"abcdef" * 1_000_000))
        assert ran.out == b"abc"

    def test_output_comes_while_the_command_goes_on(self, target: Target) -> None:
        heard: list[bytes] = []
        told = threading.Event()

        def answer(write: Callable[[bytes], None]) -> None:
            write(b"one\n")
            assert told.wait(30)
            write(b"two\n")

        def hear(data: bytes) -> None:
            heard.append(data)
            if b"one" in data:
                told.set()

        script = 'while read -r line; do echo "$line"; done; echo end >&2'
        ran = using(target, lambda shell: shell.stream(["sh", "-c", script], input=answer, on_output=hear))
        assert b"".join(heard) == b"one\ntwo\n"
        assert (ran.status, ran.err) == (0, b"end\n")

    def test_what_the_listener_raises_is_raised_after_all_was_heard(self, target: Target) -> None:
        heard = []

        def hear(data: bytes) -> None:
            heard.append(data)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            using(target, lambda shell: shell.stream(["sh", "-c", "echo 1; sleep 0.2; echo 2"], on_output=hear))
        assert b"".join(heard) == b"1\n2\n"

    def test_a_child_that_holds_the_pipe_does_not_hold_us(self, target: Target) -> None:
        ran = using(target, lambda shell: shell.run(["sh", "-c", f"sleep {LASTING} & echo done"]))
        assert ran.out == b"done\n"
        for pid in commands_with(LASTING):
            psutil.Process(pid).kill()

    @pytest.mark.parametrize("sessions", [2, 10])
    def test_more_commands_at_once_than_the_server_has_sessions(self, tmp_path: Path, sessions: int) -> None:
        with running_sshd(tmp_path / "sshd", MaxSessions=str(sessions)) as server:
            target = Target(
                host="127.0.0.1", port=server.port, alias="a", known_hosts=tmp_path / "known", key=server.key
            )

            async def work(shell: Shell) -> None:
                # They all wait for the last: all must be running at the same time.
                barrier = tmp_path / "barrier"
                script = f'echo >> {barrier}; while [ "$(wc -l < {barrier})" -lt 20 ]; do sleep 0.3; done; echo ok'
                ran = await asyncio.gather(*[shell.run(["sh", "-c", script], timeout_s=50) for _ in range(20)])
                assert [one.out for one in ran] == [b"ok\n"] * 20

            using(target, work)


class TestHostKeys:
    def test_the_first_machine_that_lets_us_in_is_pinned(self, server: Sshd, target: Target) -> None:
        using(target, lambda shell: shell.run(["true"]))
        assert target.known_hosts.read_text() == f"recipe-test-1 {server.host_key}\n"
        using(target, lambda shell: shell.run(["true"]))
        assert target.known_hosts.read_text().count("\n") == 1

    def test_ssh_accepts_what_we_pinned_also_at_another_address(self, server: Sshd, target: Target) -> None:
        using(target, lambda shell: shell.run(["true"]))
        server.stop()
        server.port = free_port()
        server.start()
        argv = [*login_argv(replace(target, port=server.port)), "echo", "hello"]
        ran = subprocess.run([argv[0], "-oBatchMode=yes", *argv[1:]], capture_output=True, text=True)
        assert ran.stdout == "hello\n", ran.stderr

    def test_a_changed_key_is_refused_with_both_fingerprints(self, server: Sshd, target: Target) -> None:
        using(target, lambda shell: shell.run(["true"]))
        before = target.known_hosts.read_text()
        fingerprint = ["ssh-keygen", "-lf", server.folder / "host_key.pub"]
        old = subprocess.run(fingerprint, capture_output=True, text=True).stdout.split()[1]
        server.stop()
        server.new_host_key()
        server.start()
        new = subprocess.run(fingerprint, capture_output=True, text=True).stdout.split()[1]
        with pytest.raises(HostKeyChanged) as caught:
            using(target, lambda shell: shell.run(["true"]))
        assert old in caught.value.message
        assert new in caught.value.message
        assert "ssh-keygen -R" in caught.value.advice
        assert target.known_hosts.read_text() == before
        argv = login_argv(target)
        ran = subprocess.run([argv[0], "-oBatchMode=yes", *argv[1:], "true"], capture_output=True, text=True)
        assert ran.returncode == 255
        assert "HOST IDENTIFICATION HAS CHANGED" in ran.stderr

    def test_a_wrong_machine_is_not_pinned(self, server: Sshd, target: Target, tmp_path: Path) -> None:
        server.authorize(key_pair(tmp_path / "of_somebody_else"))
        with pytest.raises(NotAdmitted, match="does not let"):
            using(target, lambda shell: shell.run(["true"]))
        assert not target.known_hosts.exists()
        server.stop()
        server.new_host_key()
        server.authorize(server.key.with_name("client_key.pub").read_text())
        server.start()
        using(target, lambda shell: shell.run(["true"]))

    def test_the_kind_of_key_that_is_pinned_is_asked_for(self, server: Sshd, target: Target) -> None:
        rsa = server.folder / "rsa_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsa], check=True)
        server.stop()
        server.options["HostKey"] = f"{rsa}"
        server.start()
        using(target, lambda shell: shell.run(["true"]))
        assert "recipe-test-1 ssh-rsa " in target.known_hosts.read_text()
        server.stop()
        server.options["HostKey"] = f"{server.folder / 'host_key'}\nHostKey {rsa}"
        server.start()
        using(target, lambda shell: shell.run(["true"]))


class TestTheUsersOwnConfiguration:
    @pytest.fixture
    def theirs(self, server: Sshd, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
        """A target without a key, and a home with the key as its default one."""
        (tmp_path / "me" / ".ssh").mkdir(parents=True)
        (tmp_path / "me" / ".ssh" / "id_ed25519").write_bytes(server.key.read_bytes())
        monkeypatch.setenv("HOME", str(tmp_path / "me"))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        return replace(target, key=None)

    def test_their_default_key_is_used(self, theirs: Target) -> None:
        assert using(theirs, lambda shell: shell.run(["echo", "in"])).out == b"in\n"

    def test_what_their_known_hosts_says_counts(self, theirs: Target, server: Sshd, tmp_path: Path) -> None:
        known = tmp_path / "me" / ".ssh" / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {key_pair(tmp_path / 'other')}\n")
        with pytest.raises(HostKeyChanged):
            using(theirs, lambda shell: shell.run(["true"]))
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        using(theirs, lambda shell: shell.run(["true"]))
        assert "recipe-test-1 " in theirs.known_hosts.read_text()

    def test_their_names_for_machines_are_known(self, theirs: Target, server: Sshd, tmp_path: Path) -> None:
        config = f"Host gpu\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n  IdentityFile ~/gone\n"
        (tmp_path / "me" / ".ssh" / "config").write_text(config)
        named = replace(theirs, host="gpu", port=None, user=None)
        assert using(named, lambda shell: shell.run(["echo", "in"])).out == b"in\n"

    def test_with_a_key_of_ours_nothing_of_it_counts(self, target: Target, theirs: Target, tmp_path: Path) -> None:
        (tmp_path / "me" / ".ssh" / "config").write_text("Host *\n  Port 1\n  ProxyCommand false\n")
        assert using(target, lambda shell: shell.run(["echo", "in"])).out == b"in\n"

    def test_a_key_with_a_passphrase_says_what_to_do(self, target: Target, tmp_path: Path) -> None:
        locked = tmp_path / "locked"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
        with pytest.raises(NotAdmitted, match="passphrase") as caught:
            using(replace(target, key=locked), lambda shell: shell.run(["true"]))
        assert "ssh-add" in caught.value.advice


class TestLoss:
    def test_nobody_listens(self, server: Sshd, target: Target) -> None:
        server.stop()
        with pytest.raises(Lost, match="connection refused"):
            using(target, lambda shell: shell.run(["true"]))

    def test_what_is_no_name_of_a_machine(self, target: Target) -> None:
        with pytest.raises(NotAdmitted, match="no connection to"):
            using(replace(target, host="a" * 64 + ".example"), lambda shell: shell.run(["true"]))

    def test_a_frozen_machine_is_noticed_within_the_calls_deadline(self, server: Sshd, target: Target) -> None:
        async def work(shell: Shell) -> None:
            await shell.run(["true"])
            server.freeze()
            with pytest.raises(Lost, match="did not answer within 1 s"):
                await asyncio.wait_for(shell.run(["true"], timeout_s=1), 60)
            server.thaw()
            assert (await shell.run(["echo", "back"])).out == b"back\n"

        using(target, work)

    def test_a_frozen_machine_ends_a_stream_without_a_deadline(self, server: Sshd, target: Target) -> None:
        async def work(shell: Shell) -> None:
            streaming = asyncio.create_task(
                shell.stream(["sh", "-c", "echo 1; sleep 53"], on_output=lambda _: server.freeze())
            )
            with pytest.raises(Lost, match="no answer for 1 s"):
                await asyncio.wait_for(streaming, 60)
            server.thaw()

        using(target, work, silence_s=1)

    def test_a_silent_command_is_no_frozen_machine(self, target: Target) -> None:
        ran = using(target, lambda shell: shell.run(["sleep", "8"]), silence_s=5)
        assert ran.status == 0

    def test_a_machine_that_takes_connections_and_never_says_a_word(self, server: Sshd, target: Target) -> None:
        server.freeze()
        with pytest.raises(Lost, match="no answer within 1 s"):
            using(target, lambda shell: shell.run(["true"]), connect_timeout_s=1)
        server.thaw()

    def test_a_cut_in_the_middle_is_a_loss_and_the_next_call_connects_again(self, server: Sshd, target: Target) -> None:
        async def work(shell: Shell) -> None:
            with pytest.raises(Lost):
                await shell.stream(["sh", "-c", "echo 1; sleep 53"], on_output=lambda _: void(server.kill_sessions()))
            assert (await shell.run(["echo", "again"])).out == b"again\n"

        using(target, work)

    def test_a_cut_between_two_calls_is_not_noticed(self, server: Sshd, target: Target) -> None:
        async def work(shell: Shell) -> None:
            for _ in range(3):
                assert (await shell.run(["echo", "here"])).out == b"here\n"
                assert server.kill_sessions()

        using(target, work)

    def test_a_cut_without_a_word_between_two_calls(self, server: Sshd, target: Target) -> None:
        async def work(shell: Shell) -> None:
            await shell.run(["true"])
            line.freeze()
            with pytest.raises(Lost):
                await shell.run(["true"], timeout_s=1)
            line.cut()
            line.thaw()
            assert (await shell.run(["echo", "again"])).out == b"again\n"

        with wire(server.port) as line:
            using(replace(target, port=line.port), work)

    def test_a_command_that_is_given_up_ends_there_as_well(
        self, target: Target, wait_until: Callable[..., Any]
    ) -> None:
        async def work(shell: Shell) -> None:
            with pytest.raises(Lost, match=f"did not answer within 1 s to sleep {LASTING}"):
                await shell.run(["sleep", LASTING], timeout_s=1)

        using(target, work)
        wait_until(lambda: not commands_with(LASTING))

    def test_cancelling_frees_the_thread(self, target: Target, wait_until: Callable[..., Any]) -> None:
        async def work(shell: Shell) -> None:
            await shell.run(["true"])
            before = set(threading.enumerate())
            started = asyncio.Event()
            streaming = asyncio.create_task(
                shell.stream(["sh", "-c", "echo 1; sleep 51"], input=None, on_output=lambda _: started.set())
            )
            await started.wait()
            assert set(threading.enumerate()) - before
            streaming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await streaming

            def is_freed() -> bool:
                return not set(threading.enumerate()) - before - {threading.current_thread()}

            await asyncio.to_thread(wait_until, is_freed)

        using(target, work)

    def test_nothing_is_left_when_it_is_closed(self, target: Target, wait_until: Callable[..., Any]) -> None:
        before = set(threading.enumerate())
        using(target, lambda shell: shell.run(["true"]))
        wait_until(lambda: set(threading.enumerate()) <= before)

    def test_who_closes_while_something_runs_is_told(self, target: Target) -> None:
        async def work(shell: Shell) -> None:
            streaming = asyncio.create_task(shell.stream(["sleep", "52"], on_output=lambda _: None))
            await shell.run(["true"])
            await shell.close()
            with pytest.raises(Lost):
                await streaming

        using(target, work)


def test_through_a_jump_host(server: Sshd, target: Target, tmp_path: Path) -> None:
    with running_sshd(tmp_path / "gate", PermitOpen=f"127.0.0.1:{server.port}") as gate:
        gate.authorize(server.key.with_name("client_key.pub").read_text())
        jumping = replace(target, jump=f"{gate.user}@127.0.0.1:{gate.port}")
        assert using(jumping, lambda shell: shell.run(["echo", "in"])).out == b"in\n"
        assert f"[127.0.0.1]:{gate.port} {gate.host_key}" in target.known_hosts.read_text()
        assert f"recipe-test-1 {server.host_key}" in target.known_hosts.read_text()
        argv = login_argv(jumping)
        ran = subprocess.run([argv[0], "-oBatchMode=yes", *argv[1:], "echo", "hello"], capture_output=True, text=True)
        assert ran.stdout == "hello\n", ran.stderr
        gate.stop()
        gate.new_host_key()
        gate.start()
        with pytest.raises(HostKeyChanged):
            using(jumping, lambda shell: shell.run(["true"]))
        gate.stop()
        with pytest.raises(Lost):
            using(jumping, lambda shell: shell.run(["true"]))


def void(_: object) -> None:
    """For a listener that has nothing to say."""
