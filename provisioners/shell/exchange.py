"""One command on a machine: what it is fed, what it says, how it ends. Blocking, in a thread that `abort` frees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paramiko  # type: ignore[import-untyped]

from provisioners.shell.link import CHANNELS, Link
from provisioners.shell.target import Lost, NotAdmitted, Target
from recipes.errors import RecipeError

Sink = Callable[[bytes], None]
Feed = bytes | Callable[[Sink], None] | None
"""What a command reads: bytes; a function that writes them, in a thread of its own; None for a pipe that stays open."""

_BLOCK = 64 << 10
_AT_ONCE = 32 << 10
"""Bytes that any server takes without the command having read them."""
_LINGER_S = 1.0
"""How long output is waited for after the command itself has ended: a child may hold its pipe."""
_BROKEN = (paramiko.SSHException, EOFError, OSError)


class Aborted(Exception):
    """Nobody waits for this any more."""


class _Unheard(Exception):
    """Whoever listens failed; not the connection."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Pool:
    """The connections to one machine: one, and another whenever the sessions on those that there are run out."""

    def __init__(self, target: Target, *, connect_timeout_s: float, silence_s: float) -> None:
        self.target = target
        self._connect_timeout_s, self._silence_s = connect_timeout_s, silence_s
        self._changed = threading.Condition()
        self._links: list[Link] = []
        self._connecting: Link | None = None
        self._failure: tuple[int, RecipeError] | None = None
        self._attempts = 0
        self._room = CHANNELS
        self._closed = False

    def take(self, is_aborted: Callable[[], bool] = lambda: False) -> Link:
        """A connection with a session to spare, which is then taken. Blocks. Raises NoMachine, Aborted.

        Who comes while another is connecting waits for that, and shares its success or its failure.
        """
        with self._changed:
            since = self._attempts
            while True:
                if self._closed or is_aborted():
                    raise Aborted
                self._links = [link for link in self._links if link.alive or link.used]
                free = next((link for link in self._links if link.alive and link.used < link.room), None)
                if free:
                    free.used += 1
                    return free
                if self._failure and self._failure[0] > since:
                    raise type(self._failure[1])(self._failure[1].message, advice=self._failure[1].advice)
                if self._connecting is None:
                    break
                self._changed.wait(0.5)
            made = self._connecting = Link(
                self.target, connect_timeout_s=self._connect_timeout_s, silence_s=self._silence_s
            )
        return self._connect(made)

    def _connect(self, made: Link) -> Link:
        failure: RecipeError | None = None
        try:
            made.connect()
            made.used, made.room = 1, self._room
            return made
        except RecipeError as error:
            failure = error
            raise
        finally:
            with self._changed:
                self._connecting = None
                self._attempts += 1
                if failure:
                    self._failure = (self._attempts, failure)
                elif self._closed:
                    made.cut("closed")
                else:
                    self._links.append(made)
                self._changed.notify_all()

    def give(self, link: Link) -> None:
        with self._changed:
            link.used -= 1
            self._changed.notify_all()

    def give_refused(self, link: Link) -> bool:
        """Give back one on which the server grants no more sessions; returns whether it ever granted one."""
        with self._changed:
            self._room = link.room = max(1, min(self._room, link.opened))
            link.used -= 1
            self._changed.notify_all()
            return link.grants

    def close(self) -> None:
        """End every connection; what waits for them is aborted or lost."""
        with self._changed:
            self._closed = True
            links = [*self._links, *filter(None, [self._connecting])]
            self._changed.notify_all()
        for link in links:
            link.cut("closed")


class Exchange:
    """One command. `conduct` runs it in the calling thread; `abort` ends that from any other."""

    def __init__(self, pool: Pool, command: str, *, feed: Feed, on_out: Sink, on_err: Sink) -> None:
        self._pool, self._command, self._feed = pool, command, feed
        self._on_out, self._on_err = on_out, on_err
        self._aborted = threading.Event()
        self._feeding_failed: BaseException | None = None
        self._channel: Any = None

    def conduct(self) -> int:
        """The exit status. Raises Lost if the connection went before it came, NotAdmitted, Aborted."""
        link = self._start()
        try:
            self._begin_to_feed()
            status = self._listen()
        except _Unheard as unheard:
            raise unheard.error from None
        except _BROKEN as error:
            raise self._lost(link) from error
        finally:
            link.close_session(self._channel)
            self._pool.give(link)
        if self._feeding_failed is not None:
            raise self._feeding_failed
        if self._aborted.is_set():
            raise Aborted
        if status is None:
            raise self._lost(link)
        return status

    def abort(self) -> None:
        """Stop waiting, and close the channel: on it the command hears that nobody is there. Never blocks."""
        self._aborted.set()
        threading.Thread(target=self._close, daemon=True).start()

    def _close(self) -> None:
        channel = self._channel
        if channel is not None:
            with suppress(*_BROKEN):
                channel.close()

    def _start(self) -> Link:
        """Open a channel and start the command there. A connection that turns out to be dead is replaced once."""
        stale = False
        while True:
            link = self._pool.take(self._aborted.is_set)
            try:
                self._channel = link.open_session()
                break
            except paramiko.ChannelException as error:
                # The server allows fewer sessions than we thought: the others go over another connection.
                if not self._pool.give_refused(link):
                    raise NotAdmitted(f"{self._pool.target} opens no session: {error}") from error
            except _BROKEN as error:
                link.cut(link.reason if not link.alive else "no session could be opened")
                self._pool.give(link)
                if stale:
                    raise self._lost(link) from error
                stale = True
        try:
            self._channel.exec_command(self._command)
        except _BROKEN as error:
            alive = link.alive
            link.close_session(self._channel)
            self._pool.give(link)
            if alive and not self._aborted.is_set():
                raise NotAdmitted(
                    f"{self._pool.target} refuses to run commands",
                    advice="the account needs a shell; a proxy that only opens terminals will not do",
                ) from error
            raise self._lost(link) from error
        if self._aborted.is_set():
            self._close()
        return link

    def _begin_to_feed(self) -> None:
        if self._feed is None:
            return
        if isinstance(self._feed, bytes) and len(self._feed) <= _AT_ONCE:
            self._channel.sendall(self._feed)
            self._channel.shutdown_write()
            return
        threading.Thread(target=self._keep_feeding, args=[self._feed], daemon=True).start()

    def _keep_feeding(self, feed: bytes | Callable[[Sink], None]) -> None:
        try:
            if isinstance(feed, bytes):
                self._channel.sendall(feed)
            else:
                feed(self._channel.sendall)
            self._channel.shutdown_write()
        except _BROKEN as error:
            # A command that ends early does not read all; a file of ours that cannot be read is another matter.
            if not self._channel.closed and isinstance(error, OSError):
                self._feeding_failed = error
                self._close()
        except BaseException as error:
            self._feeding_failed = error
            self._close()

    def _listen(self) -> int | None:
        """Hand on what is said until the command has ended; None if it ended without a status."""
        channel, bell = self._channel, _Bell()
        channel.in_buffer.set_event(bell)
        channel.in_stderr_buffer.set_event(bell)
        while True:
            bell.mute()
            # Looked at before the buffers are emptied: what came before the end must be heard.
            done, ended = channel.eof_received or channel.closed, channel.exit_status_ready()
            heard = self._drain()
            if self._aborted.is_set() or (done and ended):
                break
            if done:
                channel.status_event.wait(_LINGER_S)
            elif not bell.wait(_LINGER_S) and ended and not heard:
                break
        return None if channel.exit_status < 0 else int(channel.exit_status)

    def _drain(self) -> bool:
        channel, heard = self._channel, False
        while channel.recv_ready() and not self._aborted.is_set():
            self._hand_on(self._on_out, channel.recv(_BLOCK))
            heard = True
        while channel.recv_stderr_ready() and not self._aborted.is_set():
            self._hand_on(self._on_err, channel.recv_stderr(_BLOCK))
            heard = True
        return heard

    @staticmethod
    def _hand_on(sink: Sink, data: bytes) -> None:
        try:
            sink(data)
        except Exception as error:
            raise _Unheard(error) from error

    def _lost(self, link: Link) -> Lost:
        why = "it ended without a status" if link.alive else link.reason
        return Lost(f"the connection to {self._pool.target} was lost: {why}")


class _Bell:
    """Rings when a buffer has something or is at its end; two buffers share it, so that neither may silence it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        """A buffer is empty again: of no interest."""

    def mute(self) -> None:
        self._event.clear()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)
