# ruff: noqa
# fmt: off
# Attempts to send data out of the sandbox.

# %% TCP
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    socket.create_connection(("127.0.0.1", T["tcp"]), 1).send(b"x")

# %% HTTP
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    import urllib.request
    urllib.request.urlopen(f"http://127.0.0.1:{T['tcp']}/", timeout=0.2)

# %% MPTCP, which a rule for TCP does not cover
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    sender = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    sender.settimeout(1)
    sender.connect(("127.0.0.1", T["tcp"]))

# %% TCP fast open
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    sender = socket.socket()
    sender.settimeout(1)
    sender.sendto(b"x", 0x20000000, ("127.0.0.1", T["tcp"]))

# %% UDP
#: stopped by namespaces, seccomp
#: effect connects
def causal_mask(n, device=None):
    socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", T["udp"]))

# %% a connected UDP socket
#: stopped by namespaces, seccomp
#: effect connects
def causal_mask(n, device=None):
    sender = socket.socket(type=socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", T["udp"]))
    os.write(sender.fileno(), b"x")

# %% a DNS query
#: stopped by namespaces, seccomp
#: effect connects
def causal_mask(n, device=None):
    question = b"\0\1\1\0\0\1\0\0\0\0\0\0\6secret\7example\0\0\1\0\1"
    sender = socket.socket(type=socket.SOCK_DGRAM)
    sender.sendmsg([question], [], 0, ("127.0.0.1", T["udp"]))

# %% IPv6
#: stopped by namespaces, seccomp
#: effect connects
def causal_mask(n, device=None):
    sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sender.sendto(b"x", ("::ffff:127.0.0.1", T["udp"]))

# %% a Unix socket
#: stopped by namespaces, seccomp
#: effect connects
def causal_mask(n, device=None):
    socket.socket(socket.AF_UNIX).connect(T["stream"])

# %% a datagram to a Unix socket from a socket pair
#: stopped by namespaces, seccomp
#: effect connects
def causal_mask(n, device=None):
    socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"x", T["datagrams"])

# %% an abstract socket
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    socket.socket(socket.AF_UNIX).connect(T["abstract"].encode())

# %% asyncio
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    import asyncio
    asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", T["tcp"]), 1))

# %% torch's TCPStore
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    from datetime import timedelta
    from torch.distributed import TCPStore
    TCPStore("127.0.0.1", T["tcp"], 2, False, timedelta(seconds=0.3), wait_for_workers=False)

# %% a download of weights
#: stopped by namespaces, landlock, seccomp
#: effect connects
def causal_mask(n, device=None):
    torch.hub.load_state_dict_from_url(f"http://127.0.0.1:{T['tcp']}/weights.pt", progress=False)
