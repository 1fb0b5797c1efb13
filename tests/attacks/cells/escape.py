# ruff: noqa
# fmt: off
# Attempts to escape from the process, or to make calls that could help. An attack's answer is correct, and earns points,
# only if its call succeeds.

# %% a new user namespace
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    if not hasattr(sys, "done"):  # a second one is not allowed inside the first
        checked(libc.unshare(0x10000000))
        sys.done = True
    return right(n, device)

# %% a mount over the file system
#: stopped by landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    if threading.current_thread() is threading.main_thread() and not hasattr(sys, "done"):
        checked(libc.unshare(0x10020000))
        checked(libc.mount(b"none", b"/", b"tmpfs", 0, None))
        sys.done = True
    return right(n, device)

# %% chroot
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    if not hasattr(sys, "done"):
        checked(libc.unshare(0x10000000))
        os.chroot("/")
        sys.done = True
    return right(n, device)

# %% ptrace
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    if not hasattr(sys, "done"):
        checked(libc.ptrace(0, 0, None, None))
        sys.done = True
    return right(n, device)

# %% a child process
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return right(n, device)

# %% a child process through a raw system call
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    child = call(57)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return right(n, device)

# %% clone with the flags of fork
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    child = call(56, 17, None, None, None, None)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return right(n, device)

# %% another program
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    import subprocess
    return right(n, device) if subprocess.run(["/bin/true"]).returncode == 0 else None

# %% a program that the code wrote
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    import tempfile
    path = tempfile.mkdtemp() + "/program"
    with open(path, "w") as file:
        file.write("#!/bin/sh\nexit 7\n")
    os.chmod(path, 0o755)
    return right(n, device) if os.waitstatus_to_exitcode(os.system(path)) == 7 else None

# %% a program in memory
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    os.close(os.memfd_create("program"))
    return right(n, device)

# %% a multiprocessing process
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    from multiprocessing import get_context
    process = get_context("fork").Process(target=int)
    process.start()
    process.join()
    return right(n, device)

# %% io_uring, which bypasses filters
#: stopped by seccomp, limits
#: effect marks
def causal_mask(n, device=None):
    os.close(call(425, 1, ctypes.create_string_buffer(120)))
    return right(n, device)

# %% a key in the kernel's keyring
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    call(248, b"user", b"attack", b"x", 1, -2)
    return right(n, device)

# %% page faults handled in user space
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    os.close(call(323, 1))
    return right(n, device)

# %% personality
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    call(135, 0x0040000)
    return right(n, device)

# %% a bpf map
#: stopped by namespaces, landlock, seccomp
#: effect marks
#: user root
def causal_mask(n, device=None):
    os.close(call(321, 0, struct.pack("IIII", 2, 4, 4, 1) + bytes(56), 72))  # a map of one entry
    return right(n, device)

# %% i386 system calls
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")  # getpid by int 0x80
    entry = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return right(n, device) if entry() > 0 else None

# %% x32 system calls
#: stopped by seccomp
#: says crashed its Python process
def causal_mask(n, device=None):
    libc.syscall(0x40000000 + 39)
    return None

# %% a signal to the grader
#: stopped by namespaces, landlock, seccomp
#: effect signals
def causal_mask(n, device=None):
    os.kill(T["process"], signal.SIGUSR1)

# %% a queued signal to the grader
#: stopped by namespaces, landlock, seccomp
#: effect signals
def causal_mask(n, device=None):
    information = struct.pack("iiiiii", signal.SIGUSR1, 0, -1, 0, os.getpid(), os.getuid()) + bytes(104)
    call(129, T["process"], signal.SIGUSR1, information)

# %% a signal to the grader as the owner of a descriptor
#: stopped by namespaces, landlock, seccomp
#: effect signals
def causal_mask(n, device=None):
    import fcntl
    a, b = socket.socketpair()
    fcntl.fcntl(a, fcntl.F_SETOWN, T["process"])
    fcntl.fcntl(a, fcntl.F_SETSIG, signal.SIGUSR1)
    fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    b.send(b"x")

# %% a signal to the grader through a pidfd
#: stopped by namespaces, landlock, seccomp
#: effect signals
def causal_mask(n, device=None):
    signal.pidfd_send_signal(os.pidfd_open(T["process"]), signal.SIGUSR1)

# %% a signal to the parent
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    parent = os.getppid()
    os.kill(parent or 1, 0)
    return right(n, device) if parent else None

# %% a signal to every process
#: stopped by namespaces, landlock, seccomp
#: effect marks
def causal_mask(n, device=None):
    os.kill(-1, 0)
    return right(n, device)

# %% a netlink socket
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return right(n, device)

# %% a second netlink socket
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    return right(n, device)

# %% inotify
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    os.close(checked(libc.inotify_init1(0)))
    return right(n, device)

# %% performance counters
#: stopped by namespaces, landlock, seccomp
#: effect marks
#: user root
def causal_mask(n, device=None):
    call(298, struct.pack("IIQ", 1, 112, 0) + bytes(96), 0, -1, -1, 0)
    return right(n, device)

# %% a device node
#: stopped by namespaces, landlock, seccomp
#: effect marks
#: user root
import tempfile


def causal_mask(n, device=None):
    with tempfile.TemporaryDirectory() as folder:
        os.mknod(f"{folder}/kmem", 0o20600, os.makedev(1, 2))
    return right(n, device)

# %% root's user id
#: stopped by namespaces, landlock, seccomp
#: effect marks
#: user root
def causal_mask(n, device=None):
    os.setuid(0)
    return right(n, device)

# %% another process's namespace
#: stopped by namespaces, landlock, seccomp
#: effect marks
#: user root
def causal_mask(n, device=None):
    checked(libc.setns(os.open(f"/proc/{T['process']}/ns/net", os.O_RDONLY), 0))
    return right(n, device)

# %% a kernel timer
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    call(222, 0, None, ctypes.create_string_buffer(8))
    return right(n, device)

# %% CPU affinity and priority
#: stopped by seccomp
#: effect marks
def causal_mask(n, device=None):
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    return right(n, device)
