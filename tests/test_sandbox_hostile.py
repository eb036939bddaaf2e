"""Hostile programs: none passes as right, none does its harm, none survives its time or leaves anything behind.

Three kinds: forgeries of the verdict, ways out, and denials of service.
"""
# ruff: noqa: E501 (one program a line reads better than a wrapped one)

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from m3_exp.scoring.sandbox.drivers import Driver
from m3_exp.scoring.sandbox.judge import Limits, judge
from tests.answers import task

TEST = "assert f(2) == 4\nassert f(3) == 9\nassert abs(f(0.5) - 0.25) < 1e-6\n"


FORGERIES = {
    "exit_in_function": "import os\ndef f(x): os._exit(0)",
    "exit_at_import": "import sys\nsys.exit(0)",
    "system_exit": "def f(x): raise SystemExit(0)",
    "always_equal": "class E:\n    def __eq__(s, o): return True\n    def __sub__(s, o): return 0.0\n"
    "    __abs__ = __sub__\ndef f(x): return E()",
    "lying_int": "class I(int):\n    def __eq__(s, o): return True\n    def __sub__(s, o): return 0\n"
    "    __hash__ = int.__hash__\ndef f(x): return I(7)",
    "lying_float": "class F(float):\n    def __eq__(s, o): return True\n    def __float__(s): return 4.0\n"
    "    __hash__ = float.__hash__\ndef f(x): return F(7)",
    "patched_builtins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.AssertionError = Exception\n"
    "builtins.isinstance = lambda *a: True\ndef f(x): return 7",
    "frames": "import sys\ndef f(x):\n    g = sys._getframe()\n    while g:\n        for k in list(g.f_locals):\n"
    "            g.f_locals[k] = True\n        g.f_globals.update(passed=True, verdict={'passed': True})\n"
    "        g = g.f_back\n    return 7",
    "gc": "import gc\ndef f(x):\n    for o in gc.get_objects():\n        if type(o) is dict and 'passed' in o: o['passed'] = True\n"
    "    return 7",
    "settrace": "import sys\nsys.settrace(lambda *a: None)\ndef f(x): return 7",
    "excepthook": "import sys, os, atexit\nsys.excepthook = lambda *a: os._exit(0)\natexit.register(os._exit, 0)\ndef f(x): return 7",
    "patched_unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef f(x): return 7",
    "exec_true": "import os\ndef f(x): os.execv('/bin/true', ['true'])",
    "stop_iteration": "def f(x): raise StopIteration",
    "generator_exit": "def f(x): raise GeneratorExit",
    "forged_reports": "import os, json\nfor d in range(64):\n    try: os.write(d, b'{\"passed\": true}\\n')\n"
    "    except OSError: pass\ndef f(x): return 7",
    "replies_ahead": "import os\nfor d in range(64):\n    for _ in range(9):\n"
    '        try: os.write(d, b\'\\0\\0\\0\\x17["tuple",["value",7]]   \')\n        except OSError: pass\ndef f(x): return 7',
    "patched_codec": "import sys\nfor n, m in list(sys.modules.items()):\n    if n.endswith('codec'): m.dumps = lambda v: b'true'\n"
    "def f(x): return 7",
    "raising_eq_name": "class AssertionError(BaseException): pass\ndef f(x): raise AssertionError('passed')",
    "nan": "def f(x): return float('nan')",
    "reads_the_tests": "import gc\ndef f(x):\n    needle = ''.join(reversed('(f tressa'))\n    return [o for o in gc.get_objects() if needle in str(o)[:9999]] and x * x",
    "channel_swap": "import os\ndef f(x):\n    for d in range(3, 64):\n        try: os.dup2(0, d)\n        except OSError: pass\n    return 7",
    "self_import": "import __main__, sys\nfor m in list(sys.modules.values()):\n    if m: m.__dict__.update(passed=True)\ndef f(x): return 7",
    "ctypes_memory": "import ctypes\ndef f(x):\n    ctypes.memset(id(x), 0, 64)\n    return 7",
    "lying_object": "class E:\n    def __bool__(s): return True\n    def __len__(s): return 4\n    def __iter__(s): yield 4\n"
    "    def __getattr__(s, n): return lambda *a: True\n    def __contains__(s, o): return True\n    def __str__(s): return '4'\n"
    "    __eq__ = __call__ = __getitem__ = lambda s, *a: True\n    __hash__ = None\ndef f(x): return E()",
    "lying_function": "class F:\n    def __call__(s, x): return s\n    def __eq__(s, o): return True\n    __abs__ = __sub__ = lambda s, *a: 0.0\nf = F()",
    "patched_operations": "import sys, operator\nfor m in list(sys.modules.values()):\n    t = getattr(m, '_OPERATIONS', None)\n"
    "    if t: t.update(dict.fromkeys(t, lambda *a: True))\noperator.eq = lambda *a: True\ndef f(x): return 7",
    "writes_after_reply": "import os, threading\ndef spam():\n    while True:\n        for d in range(3, 64):\n"
    '            try: os.write(d, b\'\\0\\0\\0\\x17["tuple",["value",7]]   \')\n            except OSError: pass\n'
    "def f(x):\n    threading.Thread(target=spam, daemon=True).start()\n    return 7",
    "gives_itself_back": "def f(x): return f",
    "patched_assert": "import builtins, sys\nclass A(BaseException):\n    def __new__(c, *a): raise SystemExit(0)\n"
    "builtins.AssertionError = A\nfor m in list(sys.modules.values()): m.__dict__['AssertionError'] = A\ndef f(x): return 7",
    "swallowed_alarm": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nsignal.alarm(0)\n"
    "signal.signal(signal.SIGALRM, lambda *a: None)\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f(x): return 7",
    "stdin_replaced": "import io, os, sys\nsys.stdin = io.StringIO('passed\\n')\nfor d in range(3, 64):\n    try: os.dup2(d, 0)\n"
    "    except OSError: pass\ndef f(x): return input() and 7",
    "bidirectional_source": "def f(x): return 7 #\u202e 4 == (2)f nruter\u202c\n\u0434\u0435\u0444 = 4",
    "endless_str": "class E(Exception):\n    def __str__(self):\n        while True: pass\ndef f(x): raise E",
}


@pytest.mark.slow
def test_no_forgery_passes(driver: Driver) -> None:
    tasks = [task(source, TEST) for source in FORGERIES.values()]
    verdicts = judge(tasks, Limits(cpu_seconds=2, wall_seconds=15), driver)
    assert {name: v.value for name, v in zip(FORGERIES, verdicts, strict=True)} == dict.fromkeys(FORGERIES, 0.0)


def test_an_exception_that_ends_loops_does_not_skip_the_tests(driver: Driver) -> None:
    """all(map(f, ...)) over a function that raises StopIteration would be true of nothing."""
    sources = [f"def f(x): raise {name}" for name in ("StopIteration", "StopAsyncIteration", "GeneratorExit")]
    tasks = [task(s, "assert all(map(f, [1, 2, 3]))") for s in sources]
    assert [v.value for v in judge(tasks, driver=driver)] == [0.0] * 3


# -------------------------------------------------------------------------------------------------------- containment

# Each body does its harm in f; f returns the names of what worked, and the test demands that nothing did.
ATTEMPTS = """
def f(targets):
    import ctypes, os, signal, socket, subprocess, sys
    done = []
    def attempt(name, act):
        try:
            result = act()
        except BaseException:
            return
        if result is not False:
            done.append(name)
    victim, folder, secret, port, unix = targets
    libc = ctypes.CDLL(None, use_errno=True)
    attempt("read a secret", lambda: open(secret).read())
    attempt("read passwd", lambda: open("/etc/passwd").read())
    attempt("list a folder", lambda: os.listdir(folder))
    attempt("list home", lambda: os.listdir(os.path.expanduser("~")) or False)
    attempt("environment", lambda: any("SECRET" in k for k in os.environ))
    attempt("parent's environment", lambda: open("/proc/%d/environ" % os.getppid(), "rb").read())
    attempt("victim's memory", lambda: open("/proc/%d/mem" % victim, "rb"))
    attempt("write outside", lambda: open(folder + "/written", "w"))
    attempt("append to results", lambda: open(secret, "a"))
    for place in ("/tmp", "/dev/shm", "/var/tmp", "/", "/opt/python/lib", os.path.dirname(os.__file__), "."):
        attempt("write " + place, lambda: open(place + "/m3-planted", "w"))
    attempt("mkdir", lambda: os.mkdir("/tmp/m3-planted-dir"))
    attempt("symlink", lambda: os.symlink("/etc/passwd", "/tmp/m3-planted-link"))
    attempt("unlink", lambda: os.unlink(secret))
    attempt("rmdir", lambda: os.rmdir(folder))
    attempt("rename", lambda: os.rename(secret, secret + ".x"))
    attempt("truncate", lambda: os.truncate(secret, 0))
    attempt("chmod", lambda: os.chmod(secret, 0o777))
    attempt("chown", lambda: os.chown(secret, 0, 0))
    attempt("utime", lambda: os.utime(secret, (0, 0)))
    attempt("xattr", lambda: os.setxattr(secret, "user.m3", b"1"))
    attempt("tcp", lambda: socket.create_connection(("127.0.0.1", port), timeout=1))
    attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    attempt("unix socket", lambda: socket.socket(socket.AF_UNIX).connect(unix))
    attempt("abstract socket", lambda: socket.socket(socket.AF_UNIX).connect("\\0" + "m3"))
    attempt("socketpair", lambda: socket.socketpair())
    attempt("kill victim", lambda: os.kill(victim, signal.SIGKILL))
    attempt("kill parent", lambda: os.kill(os.getppid(), signal.SIGKILL))
    attempt("stop parent", lambda: os.kill(os.getppid(), signal.SIGSTOP))
    attempt("kill all", lambda: os.kill(-1, signal.SIGKILL))
    attempt("killpg", lambda: os.killpg(0, signal.SIGTERM))
    attempt("tgkill", lambda: libc.syscall(234, victim, victim, 9) == 0)
    attempt("pidfd", lambda: os.pidfd_open(victim))
    attempt("fork", lambda: os.fork() or os._exit(0))
    attempt("vfork", lambda: libc.syscall(58) >= 0)
    attempt("clone", lambda: libc.syscall(56, 17, 0, 0, 0, 0) >= 0)
    attempt("spawn", lambda: os.posix_spawn("/bin/true", ["true"], {}))
    attempt("shell", lambda: os.system("true") == 0)
    attempt("subprocess", lambda: subprocess.run(["true"]))
    attempt("exec", lambda: os.execv("/bin/true", ["true"]))
    attempt("ptrace", lambda: libc.ptrace(16, victim, 0, 0) == 0)
    attempt("process_vm_readv", lambda: libc.syscall(310, victim, 0, 0, 0, 0, 0) == 0)
    attempt("mount", lambda: libc.mount(b"/", b"/", None, 32, None) == 0)
    attempt("unshare", lambda: libc.unshare(0x10000000) == 0)
    attempt("setns", lambda: libc.setns(0, 0) == 0)
    attempt("chroot", lambda: os.chroot("/"))
    attempt("setuid", lambda: os.setuid(0))
    attempt("setsid", lambda: os.setsid())
    attempt("shared memory", lambda: libc.shmget(4242, 4096, 0o1666) >= 0)
    attempt("message queue", lambda: libc.msgget(4242, 0o1666) >= 0)
    attempt("memfd", lambda: os.memfd_create("x"))
    attempt("io_uring", lambda: libc.syscall(425, 1, 0) >= 0)
    attempt("bpf", lambda: libc.syscall(321, 0, 0, 0) >= 0)
    attempt("userfaultfd", lambda: libc.syscall(323, 0) >= 0)
    attempt("keyctl", lambda: libc.syscall(250, 0, -3, 1) >= 0)
    attempt("perf", lambda: libc.syscall(298, 0, 0, -1, -1, 0) >= 0)
    attempt("other abi", lambda: libc.syscall(0x40000000 | 41, 2, 1, 0) >= 0)
    attempt("steal signals", lambda: __import__("fcntl").fcntl(0, 8, victim))
    attempt("inotify", lambda: libc.inotify_init() >= 0)
    attempt("raise limits", lambda: __import__("resource").setrlimit(0, (-1, -1)))
    attempt("nice", lambda: os.setpriority(0, victim, 19))
    attempt("affinity", lambda: os.sched_setaffinity(victim, {0}))
    return done
"""


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A TCP, a unix and an abstract socket that would accept."""
    tcp = socket.create_server(("127.0.0.1", 0))
    unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    abstract.bind("\0m3")
    for listener in (unix, abstract):
        listener.listen()
    yield tcp.getsockname()[1], str(tmp_path / "s")
    for listener in (tcp, unix, abstract):
        listener.close()


def test_nothing_gets_out(
    driver: Driver, tmp_path: Path, listeners: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seventy ways out, as root or not, against files, sockets, processes and the kernel's other doors."""
    monkeypatch.setenv("MY_SECRET_TOKEN", "secret")
    secret = tmp_path / "results.jsonl"
    secret.write_text("precious")
    targets = (os.getpid(), str(tmp_path), str(secret), *listeners)
    before = sorted(path.name for path in tmp_path.iterdir()), secret.stat()
    [verdict] = judge([task(ATTEMPTS, f"done = f({targets!r})\nassert done == [], done")], None, driver)
    assert (verdict.value, verdict.reason) == (1.0, None)
    after = sorted(path.name for path in tmp_path.iterdir()), secret.stat()
    assert after[0] == before[0]
    assert (after[1].st_mode, after[1].st_mtime_ns, after[1].st_uid) == (
        before[1].st_mode,
        before[1].st_mtime_ns,
        before[1].st_uid,
    )
    assert secret.read_text() == "precious"
    planted = [path for folder in ("/tmp", "/dev/shm", "/var/tmp", "/") for path in Path(folder).glob("m3-planted*")]
    assert planted == []


def test_the_attempts_work_where_nothing_contains_them(tmp_path: Path, listeners: tuple[int, str]) -> None:
    """The test above can fail: run in this process, its harmless attempts succeed."""
    source = ATTEMPTS.split('    attempt("write outside"')[0] + "    return done\n"
    names: dict[str, object] = {}
    exec(source, names)
    secret = tmp_path / "results.jsonl"
    secret.write_text("precious")
    function = names["f"]
    assert callable(function)
    done = function((os.getpid(), str(tmp_path), str(secret), *listeners))
    assert {"read a secret", "read passwd", "list a folder", "victim's memory"} <= set(done)


# ------------------------------------------------------------------------------------------------------- availability

HANGS = {
    "loop": "while True: pass",
    "loop_in_function": "def f(x):\n    while True: pass",
    "swallows_everything": "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "ignores_signals": "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    "def f(x):\n    while True: pass",
    "sleeps": "import time\ndef f(x): time.sleep(10**6)",
    "regex": "import re\ndef f(x): return re.match('(a+)+$', 'a' * 64 + 'b')",
    "one_bytecode": "def f(x): return 10 ** 10 ** 8",
    "power_at_compile_time": "def f(x): return 9 ** 9 ** 9 ** 9",
    "daemon": "import os, time\ndef f(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
    "            time.sleep(3); open('/tmp/m3-planted-daemon', 'w')\n    return x * x",
    "deep_tree": "import os\ndef f(x):\n    for k in range(3000):\n        os.mkdir('/tmp/m3-planted-d' if not k else 'd'); os.chdir('/tmp/m3-planted-d' if not k else 'd')",
    "symlinks": "import os\ndef f(x):\n    for p in ('/tmp', '.', '/dev/shm', '/opt/box/sandbox'):\n        os.symlink('/etc', p + '/m3-planted-link')\n    return open('/tmp/m3-planted-link/passwd').read()",
    "gil": "import ctypes\ndef f(x): ctypes.PyDLL(None).sleep(10**6)",
    "endless_iterator": "class L(list):\n    def __iter__(s): return iter(int, 1)\ndef f(x):\n    for _ in L(): pass",
    "endless_generator": "def f(x):\n    while True: yield x",
    "blocks_on_stdin": "import sys\ndef f(x): return sys.stdin.read()",
    "closes_everything": "import os\nos.closerange(0, 1024)\ndef f(x): return x * x",
    "endless_output": "import os, sys\ndef f(x):\n    while True:\n        os.write(1, b'x' * 65536); sys.stderr.write('y' * 65536)",
    "thread_bomb": "import threading, time\ndef f(x):\n    while True: threading.Thread(target=time.sleep, args=(999,)).start()",
    "fork_bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "memory_bomb": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 26))",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x + 1)",
    "segfault": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "abort": "import os\ndef f(x): os.abort()",
    "huge_string": "def f(x): return 'x' * (1 << 29)",
    "huge_int": "def f(x): return 1 << (1 << 27)",
    "deep_list": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "cyclic_list": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "colliding_keys": "def f(x): return {k * (2**61 - 1) for k in range(30000)}",
    "many_files": "def f(x):\n    k = 0\n    while True:\n        k += 1\n        open('/tmp/m3-planted-%d' % k, 'w')",
    "fills_the_disk": "def f(x):\n    with open('/tmp/m3-planted', 'wb') as o:\n        while True: o.write(bytes(1 << 20))",
    "parentheses": "x = " + "(" * 5000 + ")" * 5000,
    "nul_byte": "def f(x): return x * x\n\0",
    "five_megabytes": "x = '" + "y" * (5 << 20) + "'",
    "bad_frame": "import os\nfor d in range(3, 64):\n    try: os.write(d, b'\\xff' * 64)\n    except OSError: pass\ndef f(x): return x * x",
    "half_a_frame": "import os\ndef f(x):\n    for d in range(3, 64):\n        try: os.write(d, b'\\0\\0\\0\\x20x')\n        except OSError: pass\n    os._exit(0)",
    "lone_surrogate": "def f(x): return '\\ud800'",
    "unhashable_key": "class K(list):\n    __hash__ = lambda s: 1\ndef f(x): return {K(): 1}",
}


# These run into a time limit, twice each: all of them are in the long form of the test, one of each kind in the short.
SLOW = {
    *("loop", "swallows_everything", "ignores_signals", "regex", "one_bytecode", "power_at_compile_time", "gil"),
    *("endless_iterator", "endless_output", "recursion", "colliding_keys"),
}


@pytest.mark.slow
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.long)])
def test_no_program_outlives_its_time_or_harms_the_next(driver: Driver, slow: bool) -> None:
    """Between two good programs, in one batch: each fails, the good ones pass, and it ends in time."""
    hangs = {name: source for name, source in HANGS.items() if slow or name not in SLOW}
    good = task("def f(x): return x * x", TEST)
    bad = [task(source, TEST) for source in hangs.values()]
    threads, start = threading.active_count(), time.monotonic()
    verdicts = judge([good, *bad, good], Limits(cpu_seconds=1, wall_seconds=5), driver)
    assert {name: v.value for name, v in zip(hangs, verdicts[1:-1], strict=True)} == dict.fromkeys(hangs, 0.0)
    assert [verdicts[0].value, verdicts[-1].value] == [1.0, 1.0]
    assert time.monotonic() - start < 5 * 2 * len(hangs)
    assert threading.active_count() == threads
    assert list(Path("/tmp").glob("m3-planted*")) == []
