"""The contract of a connection, asked of both: streams, words, files, root, ports, and refusals."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

import pytest

from kimideploy.errors import KimiError, MachineError
from kimideploy.remote.access import Access
from kimideploy.remote.address import Address, parse
from kimideploy.remote.bulk import push
from kimideploy.remote.connect import connect, why_openssh
from kimideploy.remote.known_hosts import fingerprint, lines
from kimideploy.remote.shell import Shell
from kimideploy.remote.transport import Lost, command, run
from tests.hosts.rig import Rig, wait_for

Which = Literal["paramiko", "openssh"]
NASTY = [
    "plain", "two words", "a'b", 'a"b', "$(id)", "`id`", "${HOME}", "!!", "a\\b", "a\\\\'b", "%n%%",
    "line\nbreak", "tab\there", "-x", "", "*", "~", "ünïcödé ☃", "\udcff", "a;b&c|d>e", "#x", "{a,b}",
]  # fmt: skip
PRINT = "import sys, os; os.write(1, b'\\0'.join(os.fsencode(a) for a in sys.argv[1:]))"


@pytest.fixture(params=["paramiko", "openssh"])
def which(request: pytest.FixtureRequest) -> Which:
    """One connection after the other."""
    return cast("Which", request.param)


@pytest.fixture
def shell(rig: Rig, which: Which) -> Iterator[Shell]:
    """Root on host 1."""
    with reached(rig, which) as found:
        yield found


@contextmanager
def reached(rig: Rig, which: Which, user: str = "root", number: int = 1) -> Iterator[Shell]:
    """Yield a shell on a host."""
    address = parse(rig.name(number, user))
    transport = connect(address, rig.access(ssh=which))
    try:
        yield Shell(address, transport)
    finally:
        transport.close()


def test_streams_move_at_once(shell: Shell) -> None:
    """Megabytes on all three streams arrive whole, whatever is read first over there."""
    sent = os.urandom(1 << 20) * 4
    script = "head -c 3000000 /dev/zero >&2; cat; head -c 3000000 /dev/zero >&2"

    ended = shell.run(["sh", "-c", script], [sent[:100], sent[100:]])

    assert (0, 6_000_000) == (ended.status, len(ended.err))
    assert sent == ended.out


def test_status_is_the_programs_own(shell: Shell) -> None:
    """An exit status comes back, that of ssh's own failures included; a signal is 128 and more."""
    assert [0, 7, 255] == [shell.script(f"exit {n}").status for n in (0, 7, 255)]
    assert shell.script("kill -9 $$").status >= 128


def test_a_program_that_does_not_read(shell: Shell) -> None:
    """One that ends without reading its stdin is no trouble."""
    ended = shell.run(["true"], [os.urandom(1 << 20)] * 8)

    assert 0 == ended.status


@pytest.mark.parametrize("login", ["/bin/bash", "/bin/sh", "/bin/tcsh"])
def test_words_arrive_unchanged(rig: Rig, which: Which, login: str) -> None:
    """Every word reaches the program as it is, whatever shell the user logs in with."""
    rig.sh(1, f"test -x {login} && usermod -s {login} plain")
    with reached(rig, which, "plain") as found:
        ended = found.run(["python3", "-c", PRINT, *NASTY])
    rig.sh(1, "usermod -s /bin/bash plain")

    assert NASTY == [os.fsdecode(word) for word in ended.out.split(b"\0")]


def test_put_is_whole_with_its_mode(shell: Shell) -> None:
    """A file arrives byte for byte, with its mode, in folders that are made."""
    data = os.urandom(5 << 20)

    shell.put(data, "/srv/a b/$x/file", mode=0o600)

    assert data == shell.get("/srv/a b/$x/file")
    assert b"600 755\n" == shell.script("stat -c %a '/srv/a b/$x/file' '/srv/a b' | xargs").out
    shell.script("rm -r '/srv/a b'")


def test_put_that_is_cut_leaves_nothing(rig: Rig, which: Which) -> None:
    """A connection that ends in the middle leaves the old file and no other."""
    with reached(rig, which) as found:
        found.put(b"old", "/srv/file")
        line = command(["/bin/sh", "-c", _put_script(), "sh", "/srv/file", "644", "1000", "plain"])

        def half() -> Iterator[bytes]:
            yield b"x" * 500

        ended = run(found.transport, line, half())

        assert 0 != ended.status
        assert b"old" == found.get("/srv/file")
        assert b"file\n" == found.script("cd /srv; ls -A | grep file; rm file").out


def test_a_link_that_is_cut_is_lost(rig: Rig, which: Which) -> None:
    """A link that is down ends a wait with Lost within the silence that was agreed."""
    with reached(rig, which, number=2) as found:
        timer = threading.Timer(1, subprocess.run, (["ip", "link", "set", "kdv2", "down"],))
        timer.start()
        try:
            with pytest.raises(Lost, match="broke"):
                found.run(["sleep", "60"])
        finally:
            timer.join()
            rig.mend(2)


def test_a_port_is_forwarded(rig: Rig, shell: Shell) -> None:
    """A port of this machine leads to one over there, for as long as it is asked for."""
    rig.sh(1, "systemd-run -q --unit=echo --collect socat TCP-LISTEN:7777,fork,reuseaddr EXEC:cat "
              '|| systemd-run -q --unit=echo --collect python3 -c "'
              "import socketserver as s; s.TCPServer.allow_reuse_address = True;"
              "H = type('H', (s.StreamRequestHandler,), {'handle': lambda h: h.wfile.write(h.rfile.readline())});"
              's.ThreadingTCPServer((\'127.0.0.1\', 7777), H).serve_forever()"')  # fmt: skip
    rig.sh(1, "for i in $(seq 50); do ss -ltn | grep -q :7777 && break; sleep .1; done")
    with (
        shell.transport.forward(7777) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as way,
    ):
        way.sendall(b"hello\n")
        heard = way.recv(100)
    rig.sh(1, "systemctl stop echo")

    assert b"hello\n" == heard
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_sudo_without_a_password(rig: Rig, which: Which) -> None:
    """A user who may is root, and stdin is the program's."""
    with reached(rig, which, "ops") as found:
        root = found.as_root(rig.access())

        assert b"0\n" == root.check(["id", "-u"])
        assert b"mine" == root.check(["cat"], [b"mine"])


def test_sudo_with_a_password(rig: Rig, which: Which) -> None:
    """The password goes in by stdin, before what is the program's, and is seen by nobody."""
    with reached(rig, which, "asks") as found:
        root = found.as_root(rig.access(sudo_password="open sesame 42"))

        assert b"mine" == root.check(["cat"], [b"mine"])
        assert b"mine" == root.check(["cat"], [b"mine"])
        args = root.check(["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ"])
        assert b"sesame" not in args
        assert "sesame" not in repr(root)
        with pytest.raises(MachineError, match="does not take that password"):
            found.as_root(rig.access(sudo_password="wrong"))
        with pytest.raises(MachineError, match="wants a password"):
            found.as_root(rig.access())
    with reached(rig, which, "plain") as found, pytest.raises(MachineError):
        found.as_root(rig.access(sudo_password="none"))


# --- host keys -----------------------------------------------------------------------------


def _with_known(rig: Rig, tmp_path: Path, text: str) -> Path:
    known, config = tmp_path / "known_hosts", tmp_path / "config"
    known.write_text(text, encoding="utf-8")
    config.write_text(
        f"Host *\n  IdentityFile {rig.key}\n  UserKnownHostsFile {known}\n"
        "  GlobalKnownHostsFile /dev/null\n",
        encoding="utf-8",
    )
    return config


def _refused(rig: Rig, config: Path, which: Which, **more: object) -> KimiError:
    access = Access(ssh=which, config=config, **more)  # type: ignore[arg-type]
    seen = rig.sh(1, "journalctl -u kdsshd -o cat | grep -c 'Accepted' || true")
    with pytest.raises(KimiError) as caught:
        connect(parse(rig.name(1)), access).close()
    assert seen == rig.sh(1, "journalctl -u kdsshd -o cat | grep -c 'Accepted' || true")
    return caught.value


def _print_of(rig: Rig, number: int) -> str:
    text = f"x {rig.public_key(number)}\n"
    path = rig.key.with_name("one")
    path.write_text(text, encoding="utf-8")
    return fingerprint(next(iter(lines([path]))).key)


def test_an_unknown_key_is_shown_and_refused(rig: Rig, which: Which, tmp_path: Path) -> None:
    """A host that nobody knows is not logged in to; its fingerprint is shown, and how to go on."""
    config = _with_known(rig, tmp_path, "")

    error = _refused(rig, config, which)

    assert 3 == error.exit_code
    assert _print_of(rig, 1) in error.message
    assert f"--host-key {_print_of(rig, 1)}" in str(error.hint)
    assert "" == (tmp_path / "known_hosts").read_text(encoding="utf-8")


def test_a_key_is_recorded_where_that_was_said(rig: Rig, which: Which, tmp_path: Path) -> None:
    """--host-key with the right fingerprint records it, with another refuses; so does a person."""
    config = _with_known(rig, tmp_path, "")
    asked: list[str] = []

    wrong = _refused(rig, config, which, host_key=_print_of(rig, 2))

    def ask(text: str) -> bool:
        asked.append(text)
        return False

    no = _refused(rig, config, which, ask=ask)
    access = Access(ssh=which, config=config, host_key=_print_of(rig, 1))
    connect(parse(rig.name(1)), access).close()
    connect(parse(rig.name(1)), Access(ssh=which, config=config)).close()

    assert "somebody may stand between" in str(wrong.hint)
    assert _print_of(rig, 1) in asked[0]
    assert 3 == no.exit_code
    assert rig.public_key(1) in (tmp_path / "known_hosts").read_text(encoding="utf-8")


def test_a_changed_key_is_refused_always(rig: Rig, which: Which, tmp_path: Path) -> None:
    """Another key than the known one is refused, also where new ones are accepted."""
    config = _with_known(rig, tmp_path, f"{rig.ip(1)} {rig.public_key(2)}\n")

    error = _refused(rig, config, which, accept_new=True)

    assert "is not the one that is known" in error.message or "has changed" in error.message
    assert "ssh-keygen -R" in str(error.hint)


def test_a_revoked_key_is_refused(rig: Rig, which: Which, tmp_path: Path) -> None:
    """A key that is revoked is refused, also where it is known."""
    key = rig.public_key(1)
    config = _with_known(rig, tmp_path, f"{rig.ip(1)} {key}\n@revoked * {key}\n")

    error = _refused(rig, config, which, accept_new=True)

    assert "revoked" in error.message or "refused" in error.message


def test_wildcards_and_hashes_are_known(rig: Rig, which: Which, tmp_path: Path) -> None:
    """Lines that name a host by a wildcard or a hash are found."""
    for text in (f"10.177.77.* {rig.public_key(1)}\n", _hashed(rig, tmp_path)):
        config = _with_known(rig, tmp_path, text)
        connect(parse(rig.name(1)), Access(ssh=which, config=config)).close()


def test_a_host_certificate_is_for_ssh(rig: Rig, tmp_path: Path) -> None:
    """A host that only an authority vouches for is left to ssh, which reads its certificate."""
    authority = tmp_path / "ca"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority)], check=True
    )
    public = tmp_path / "host.pub"
    public.write_text(rig.public_key(3) + "\n", encoding="utf-8")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "h3", "-h", "-n", rig.ip(3), str(public)],
        check=True,
    )
    target = rig.file(3, "etc/kdssh/host_ed25519-cert.pub")
    rig.sh(3, f"echo '{(tmp_path / 'host-cert.pub').read_text().strip()}' > /{target.relative_to(rig.file(3, ''))}"
              "; echo HostCertificate /etc/kdssh/host_ed25519-cert.pub >> /etc/kdssh/sshd_config"
              "; systemctl restart kdsshd")  # fmt: skip
    vouched = authority.with_suffix(".pub").read_text(encoding="utf-8")
    config = _with_known(rig, tmp_path, f"@cert-authority {rig.ip(3)} {vouched}")
    address, access = parse(rig.name(3)), Access(config=config)

    transport = connect(address, access)
    said = run(transport, "echo yes").out
    transport.close()
    with pytest.raises(MachineError, match="reads no certificates"):
        connect(address, Access(config=config, ssh="paramiko"))

    assert ("openssh", b"yes\n") == (transport.kind, said)
    assert "a host that is known by its certificate" == why_openssh(address, access)
    rig.sh(3, "sed -i /HostCertificate/d /etc/kdssh/sshd_config; systemctl restart kdsshd")


def test_the_users_own_configuration(rig: Rig, which: Which, tmp_path: Path) -> None:
    """Include, an alias, another user and a jump through a second host are as ssh has them."""
    rig.sh(3, "nft add table inet kd; nft add chain inet kd in '{ type filter hook input priority 0; }';"
              f" nft add rule inet kd in tcp dport 22 ip saddr != {rig.ip(2)} drop")  # fmt: skip
    (tmp_path / "more").write_text(
        f"Host far\n  HostName {rig.ip(3)}\n  User ops\n  ProxyJump {rig.name(2)}\n",
        encoding="utf-8",
    )
    config = tmp_path / "config"
    config.write_text(
        f"Include {tmp_path}/more\n" + rig.config.read_text("utf-8"), encoding="utf-8"
    )
    try:
        transport = connect(parse("far"), Access(ssh=which, config=config, timeout=10))
        said = run(transport, "hostname; id -un").out
        transport.close()
    finally:
        rig.sh(3, "nft delete table inet kd")

    assert b"h3\nops\n" == said


def test_an_agent_lets_in(
    rig: Rig, which: Which, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that only the agent has is enough."""
    sock = f"/tmp/kd-agent-{os.getpid()}"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", sock], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", sock)
    try:
        for _ in range(50):
            if (
                subprocess.run(
                    ["ssh-add", "-q", str(rig.key)], capture_output=True, check=False
                ).returncode
                == 0
            ):
                break
        config = tmp_path / "config"
        config.write_text(f"Host *\n  UserKnownHostsFile {rig.known}\n", encoding="utf-8")
        connect(parse(rig.name(1)), Access(ssh=which, config=config)).close()
    finally:
        agent.terminate()
        agent.wait()


def test_a_refusal_hangs_up(rig: Rig, which: Which, tmp_path: Path) -> None:
    """Whoever is refused, by the host or by us, leaves no connection behind."""
    trusting = _with_known(rig, tmp_path, f"{rig.ip(1)} {rig.public_key(1)}\n")
    with pytest.raises(MachineError):
        connect(parse(rig.name(1, "nobody-here")), Access(ssh=which, config=trusting))
    _refused(rig, _with_known(rig, tmp_path, ""), which)

    wait_for(lambda: not rig.sh(1, "pgrep -f '[s]shd: .*preauth|[s]shd: unknown'", check=False), 5)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (Address("no-such-host.invalid"), "there is no host"),
        (Address("10.177.77.11", "root", 2), "refuses"),
        (Address("10.177.77.99", "root"), "can't be reached|does not answer"),
        (Address("10.177.77.11", "nobody-here"), "by none of the keys"),
    ],
)
def test_refusals_name_the_cause(rig: Rig, which: Which, address: Address, said: str) -> None:
    """Each way of not getting in is told apart."""
    config = rig.key.with_name("trusting")
    config.write_text(
        rig.config.read_text("utf-8") + "  StrictHostKeyChecking accept-new\n", encoding="utf-8"
    )

    with pytest.raises(MachineError, match=said):
        connect(address, Access(ssh=which, config=config, timeout=4, accept_new=True)).close()


def test_a_push_goes_on(rig: Rig, which: Which, tmp_path: Path) -> None:
    """Files are sent once; a second push sends nothing, one that was cut only what is missing."""
    for number in range(4):
        (tmp_path / f"volume-{number}").write_bytes(os.urandom(3 << 20))
    moved: list[tuple[int, int]] = []
    with reached(rig, which) as found:
        push(found, rig.access(), tmp_path, "/srv/in", lambda *so: moved.append(so))
        found.script("truncate -s 1000000 /srv/in/volume-2")
        before = found.script("stat -c '%i %Z' /srv/in/volume-1").out
        push(found, rig.access(), tmp_path, "/srv/in", lambda *_: None)
        after = found.script("stat -c '%i %Z' /srv/in/volume-1").out
        sums = found.script("cd /srv/in; sha256sum volume-* | cut -c1-64; rm -r /srv/in").out

    here = subprocess.run(
        ["sha256sum", *sorted(tmp_path.iterdir())], capture_output=True, check=True
    )
    assert [line[:64] for line in here.stdout.splitlines()] == sums.split()
    assert before == after
    assert (12 << 20, 12 << 20) == moved[-1]


def _put_script() -> str:
    from kimideploy.remote import shell as module  # noqa: PLC0415

    return str(module._PUT)


def _hashed(rig: Rig, tmp_path: Path) -> str:
    path = tmp_path / "hashed"
    path.write_text(f"{rig.ip(1)} {rig.public_key(1)}\n", encoding="utf-8")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    return path.read_text(encoding="utf-8")
