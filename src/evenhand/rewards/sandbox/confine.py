"""What the kernel takes from a process before it runs anything: sight of the machine, rights, system calls, resources.

Linux only, by system calls through ctypes; every step says whether it was taken.
"""

import ctypes
import os
import resource
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, RDONLY, REMOUNT, BIND, REC, PRIVATE = 2, 4, 8, 1, 32, 4096, 16384, 1 << 18
SET_PDEATHSIG, SET_NO_NEW_PRIVS, CAPBSET_DROP, SET_SECCOMP, SET_DUMPABLE = 1, 38, 24, 22, 4


def check(result):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def namespaces():
    """Leave for namespaces of one's own and become the parent of their first process. Returns in the child only."""
    alone = NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    user, group = os.getuid(), os.getgid()
    if user != 0 or LIBC.unshare(alone) != 0:
        check(LIBC.unshare(alone | NEW_USER))
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    die_with_parent()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    die_with_parent()


def die_with_parent():
    LIBC.prctl(SET_PDEATHSIG, 9, 0, 0, 0)


def root(folder, visible, size):
    """A file system of one's own in `folder`: what is `visible` to read, `/box` of `size` bytes to write, nothing else."""
    check(LIBC.mount(None, b"/", None, REC | PRIVATE, None))
    _tmpfs(folder, 1 << 20)
    for path in visible:
        _show(path, folder + path)
    os.makedirs(f"{folder}/box")
    _tmpfs(f"{folder}/box", size)
    os.chmod(f"{folder}/box", 0o777)
    os.makedirs(f"{folder}/proc", exist_ok=True)
    LIBC.mount(
        b"proc", f"{folder}/proc".encode(), b"proc", NOSUID | NODEV | NOEXEC, None
    )  # refused in some containers: then none
    check(LIBC.mount(None, folder.encode(), None, REMOUNT | BIND | RDONLY | NOSUID | NODEV, None))
    os.chroot(folder)
    os.chdir("/box")


def _tmpfs(folder, size):
    check(LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", NOSUID | NODEV, f"size={size},nr_inodes=4096,mode=755".encode()))


def _show(path, target):
    if os.path.islink(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    check(LIBC.mount(path.encode(), target.encode(), None, BIND | REC, None))
    device = path.startswith("/dev/")
    kept = os.statvfs(target).f_flag & (NOSUID | NODEV | NOEXEC | 1024 | 2048)  # what is locked must be asked for again
    flags = REMOUNT | BIND | RDONLY | NOSUID | kept | (0 if device else NODEV)
    check(LIBC.mount(None, target.encode(), None, flags, None))


def limits(seconds, memory, file_bytes, processes):
    """Limits of the kernel; nothing can raise them again."""
    amounts = {
        resource.RLIMIT_CPU: int(seconds) + 1,
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    if processes:
        amounts[resource.RLIMIT_NPROC] = processes
    for kind, amount in amounts.items():
        _, hard = resource.getrlimit(kind)
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (amount, amount))


def rights(user):
    """Give every capability up, and with `user` the identity too."""
    LIBC.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        LIBC.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    header, data = struct.pack("II", 0x20080522, 0), bytes(24)
    check(LIBC.capset(header, data))


# --- system calls ----------------------------------------------------------------------------------------------------

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_CALLS = {  # name: numbers on x86_64 and aarch64
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "prlimit64": (None, None), "setpriority": (141, 140), "socket": (41, 198),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "fsopen": (430, 430), "open_tree": (428, 428), "move_mount": (429, 429), "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (180, 180), "memfd_secret": (447, 447),
}  # fmt: skip
_CLONE, _CLONE3, CLONE_THREAD = (56, 220), 435, 0x10000
_ALLOW, _REFUSE, _MISSING, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS


def system_calls():
    """No new process, no other program, no signal to others, no socket, no look into others: refused by the kernel for good.

    Threads stay possible. The filter holds for every child, and cannot be taken off.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        raise OSError(f"no filter of system calls for {machine}")
    architecture, column = _ARCHITECTURES[machine]
    refused = sorted(number for numbers in _CALLS.values() if (number := numbers[column]) is not None)
    load = lambda offset: (0x20, 0, 0, offset)  # noqa: E731
    answer = lambda value: (0x06, 0, 0, value)  # noqa: E731
    code = [load(4), (0x15, 1, 0, architecture), answer(_KILL), load(0)]
    if machine == "x86_64":
        code += [(0x35, 0, 1, 0x40000000), answer(_KILL)]  # the x32 numbers
    for number in refused:
        code += [(0x15, 0, 1, number), answer(_REFUSE)]
    code += [(0x15, 0, 1, _CLONE3), answer(_MISSING)]  # its flags cannot be read here; the C library then uses clone
    code += [(0x15, 0, 3, _CLONE[column]), load(16), (0x45, 1, 0, CLONE_THREAD), answer(_REFUSE), answer(_ALLOW)]
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("HP", len(code), ctypes.addressof(buffer))
    check(LIBC.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check(LIBC.prctl(SET_SECCOMP, 2, filter_, 0, 0))
