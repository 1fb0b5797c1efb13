"""Write hostile archives and folders: archive and YAML bombs, forged headers, path traversal, links and too many notebooks."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.attacks.classes.case import (
    HARMLESS,
    HONEST,
    RIGHT,
    Points,
    Unread,
    case,
    code,
    member,
    notebook,
    raw,
    tarred,
    zipped,
)

BOOK = notebook()
EITHER = (Points(3.0), Unread())
REFUSED = (Unread(),)


def _zip(path: Path, data: bytes) -> None:
    raw(path, data, ".zip")


# ---- platform metadata inside an archive, which must be ignored


def _laughs(count: int) -> str:
    lines = ["a0: &a0 [x]\n"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, count)]
    return "".join(lines)


METADATA = {
    "yaml_index": "submission_1:\n  :a: !!int ''\n",
    "yaml_key": "submission_1:\n  !!bool 'x': 1\n",
    "yaml_time": "submission_1:\n  :created_at: !!timestamp 'x'\n",
    "yaml_laughs": _laughs(14),
    "yaml_laughs_of_six": _laughs(7),
    "yaml_merge": "a: &a {b: 1}\n"
    + "".join(f"c{n}: &c{n}\n  <<: [*a{f', *c{n - 1}' * 9 if n else ''}]\n" for n in range(12)),
    "yaml_objects": "a: !!python/object/apply:os._exit [1]\nb: !ruby/object:Gem::Installer {i: x}\n",
    "yaml_recursive": "a: &a\n  ? *a\n  : *a\n",
    "yaml_deep": "a: " + "[" * 200_000,
    "yaml_binary": "a: !!binary '=' \nb: !!float '.'\nc: !!set [1]\nd: !!pairs {a: b}\ne: !!omap [1]\n",
    "yaml_long": "- [a, {b: c}]\n" * 200_000,
}
SHORT = ("yaml_index", "yaml_key", "yaml_laughs", "yaml_recursive")


def _metadata() -> Iterator[None]:
    for name, text in METADATA.items():

        def write(path: Path, text: str = text) -> None:
            files = {"submission_metadata.yml": text, "submission_1/day1.ipynb": BOOK}
            _zip(path, zipped(files))

        write.__name__ = name
        case("yaml", *EITHER, short=name in SHORT)(write)
        yield


list(_metadata())


# ---- bombs


@case("archives", *EITHER, short=True)
def zip_of_zeros(path: Path) -> None:
    """Write a zip file with a member that contains only zeros and compresses 1000:1. The header states the true size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("day1.ipynb", BOOK)
        with archive.open("zeros.ipynb", "w") as bomb:
            for _ in range(90):
                bomb.write(bytes(1 << 20))
    _zip(path, buffer.getvalue())


@case("archives", *EITHER)
def zip_in_zip_in_zip(path: Path) -> None:
    data = zipped({"day1.ipynb": BOOK})
    for _ in range(30):
        data = zipped({"inner.zip": data}, zipfile.ZIP_STORED)
    _zip(path, data)


@case("archives", *EITHER)
def many_zips_in_a_zip(path: Path) -> None:
    inner = zipped({f"{n}.ipynb": b" " * 900_000 for n in range(30)})
    _zip(path, zipped({f"{n}.zip": inner for n in range(200)} | {"day1.ipynb": BOOK.encode()}))


@case("archives", *EITHER, short=True)
def overlapping_members(path: Path) -> None:
    """Write a zip file with 20,000 directory entries that all refer to the same bytes."""
    data = zipped({"a.ipynb": b" " * 5_000_000})
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x05\x06")]
    count = 20_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, start, 0)
    _zip(path, data[:start] + entry * count + end)


@case("archives", *EITHER)
def sixty_thousand_entries(path: Path) -> None:
    _zip(path, zipped({"day1.ipynb": BOOK} | {f"d/{n}.txt": "" for n in range(60_000)}))


@case("archives", *EITHER)
def entries_with_long_names(path: Path) -> None:
    _zip(
        path, zipped({"day1.ipynb": BOOK} | {f"{n}" + "x" * 60_000 + ".py": "" for n in range(90)})
    )


@case("archives", *EITHER)
def folders_a_thousand_deep(path: Path) -> None:
    _zip(path, zipped({"a/" * 20_000 + "day1.ipynb": BOOK}))


@case("archives", *EITHER)
def tar_of_zeros(path: Path) -> None:
    data = tarred([member("day1.ipynb", BOOK.encode()), member("zeros.ipynb", bytes(90 << 20))])
    raw(path, gzip.compress(data, 9), ".tar.gz")


@case("archives", *EITHER, short=True)
def gzip_of_gigabytes(path: Path) -> None:
    """Write a file of 100 concatenated gzip members that expand to 5 GB of zeros."""
    raw(path, gzip.compress(bytes(50 << 20), 9) * 100, ".tgz")


@case("archives", *EITHER)
def xz_with_a_huge_dictionary(path: Path) -> None:
    """Write an xz file whose header requests a 1.5 GB dictionary, which a decoder allocates at once."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(bytes(20 << 20), filters=filters))
    block = data.index(b"\x21\x01", 12)  # the filter id and the size of its properties
    data[block + 2] = 39
    header = 4 * (data[12] + 1)
    data[12 + header - 4 : 12 + header] = zlib.crc32(data[12 : 12 + header - 4]).to_bytes(
        4, "little"
    )
    raw(path, bytes(data), ".tar.xz")


@case("archives", *EITHER)
def tar_with_long_headers(path: Path) -> None:
    """Write a tar file with many megabytes of pax headers, which a reader must process before the member itself."""
    header = tarfile.TarInfo("day1.ipynb")
    header.size = len(BOOK)
    header.pax_headers = {f"k{n}": "x" * 1_000_000 for n in range(25)}
    raw(path, tarred([(header, BOOK.encode())]), ".tar")


@case("archives", *EITHER)
def tar_of_sparse_files(path: Path) -> None:
    header = member("sparse.ipynb")[0]
    header.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.size": "9" * 18,
    }
    raw(path, tarred([member("day1.ipynb", BOOK.encode()), (header, b"")]), ".tar")


# ---- forged headers


@case("archives", *EITHER)
def zip64_with_a_forged_size(path: Path) -> None:
    """Write a zip file whose extra field claims that the member's size is one exabyte."""
    extra = struct.pack("<HHQQ", 1, 16, 1 << 60, 1 << 60)
    info = zipfile.ZipInfo("day1.ipynb")
    info.extra = extra
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, BOOK)
    data = bytearray(buffer.getvalue())
    at = data.index(b"PK\x01\x02")
    data[at + 20 : at + 28] = b"\xff" * 8
    _zip(path, bytes(data))


@case("archives", *EITHER, short=True)
def size_below_the_actual_one(path: Path) -> None:
    """Write a zip file whose headers claim that a 90 MB member has only ten bytes."""
    data = bytearray(zipped({"day1.ipynb": bytes(90 << 20)}))
    for at, signature in ((22, b"PK\x03\x04"), (24, b"PK\x01\x02")):
        place = data.index(signature) + at
        data[place : place + 4] = struct.pack("<L", 10)
    _zip(path, bytes(data))


@case("archives", *HARMLESS)
def wrong_checksum(path: Path) -> None:
    data = bytearray(zipped({"day1.ipynb": BOOK}))
    data[data.index(b"PK\x01\x02") + 16] ^= 0xFF
    _zip(path, bytes(data))


@case("archives", *EITHER)
def encrypted(path: Path) -> None:
    data = bytearray(zipped({"day1.ipynb": BOOK, "b.ipynb": BOOK}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    _zip(path, bytes(data))


@case("archives", *HARMLESS)
def unknown_compression_method(path: Path) -> None:
    data = bytearray(zipped({"day1.ipynb": BOOK}))
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(signature) + at] = 97
    _zip(path, bytes(data))


@case("archives", *HARMLESS)
def directory_beyond_the_file(path: Path) -> None:
    data = zipped({"day1.ipynb": BOOK})
    _zip(path, data[:-6] + struct.pack("<L", 1 << 31) + data[-2:])


# Like unzip, the reader uses the last end record, so it finds only the other notebook.
@case("archives", *HARMLESS)
def end_within_a_comment(path: Path) -> None:
    data = zipped({"day1.ipynb": BOOK})
    other = zipped({"ada.ipynb": notebook(code("x = 1"))})
    _zip(path, data[:-2] + struct.pack("<H", len(other)) + other)


@case("archives", *REFUSED, short=True)
def empty_archive(path: Path) -> None:
    _zip(path, zipped({}))


@case("archives", *EITHER)
def truncated_archive(path: Path) -> None:
    data = tarred([member("day1.ipynb", BOOK.encode()), member("b.py", bytes(9_000))])
    raw(path, data[:-15_000] or data[:600], ".tar")


# ---- names


ODD = (
    *(
        "../ada.ipynb",
        "../../ada/day1.ipynb",
        "/etc/passwd.ipynb",
        "C:\\ada.ipynb",
        "..\\zoe.ipynb",
    ),
    *(
        "ada/day1.ipynb",
        "zoe.ipynb",
        "a\x00b.ipynb",
        "\x1b[31m\u202e.ipynb",
        "=1+1;.ipynb",
        "\n.ipynb",
    ),
    *(
        "x" * 5_000 + ".ipynb",
        "./././day1.ipynb",
        "//a//b.ipynb",
        "day1.ipynb/day1.ipynb",
        ".ipynb",
    ),
)


@case("archives", *HARMLESS, short=True)
def names_outside_the_archive(path: Path) -> None:
    """Write an archive whose members have paths outside the archive. Some are the paths of ada's and zoe's files, but both
    students must keep their own marks."""
    _zip(path, zipped([(name, notebook(code("x = 1"))) for name in ODD]))


@case("archives", *HARMLESS)
def names_that_are_not_text(path: Path) -> None:
    data = zipped({"AAAA.ipynb": BOOK, "BBBB.ipynb": BOOK})
    _zip(path, data.replace(b"AAAA", b"\xed\xa0\x80\xff").replace(b"BBBB", b"\x00/\x00\xfe"))


@case("archives", *HARMLESS)
def one_name_many_times(path: Path) -> None:
    _zip(path, zipped([("day1.ipynb", notebook(code(f"x = {n}"))) for n in range(400)]))


@case("archives", *HARMLESS)
def names_of_another_student_in_a_tar(path: Path) -> None:
    members = [member(name, BOOK.encode()) for name in ODD if "\x00" not in name]
    raw(path, tarred(members), ".tar")


# ---- links


@case("archives", *HARMLESS, short=True)
def links_in_a_tar(path: Path) -> None:
    """Write a tar file that contains special files, links to ada's file and /etc/passwd, and cyclic links."""
    links = [
        member("a.ipynb", type=tarfile.SYMTYPE, linkname="../ada.py"),
        member("b.ipynb", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("c.ipynb", type=tarfile.LNKTYPE, linkname="c.ipynb"),
        member("d.ipynb", type=tarfile.LNKTYPE, linkname="e.ipynb"),
        member("e.ipynb", type=tarfile.LNKTYPE, linkname="d.ipynb"),
        member("f.ipynb", type=tarfile.FIFOTYPE),
        member("g.ipynb", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    ]
    raw(path, tarred([*links, member("day1.py", RIGHT.encode())]), ".tar")


@case("archives", *HARMLESS)
def links_in_a_zip(path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("a.ipynb")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("day1.ipynb", BOOK)
    _zip(path, buffer.getvalue())


@case("archives", *REFUSED, short=True)
def link_instead_of_a_file(path: Path) -> None:
    path.with_name(f"{path.name}.py").symlink_to("ada.py")


@case("archives", *HARMLESS)
def links_in_a_folder(path: Path) -> None:
    path.mkdir()
    (path / "day1.ipynb").symlink_to("../ada.py")
    (path / "up").symlink_to("..")
    (path / "day1.py").symlink_to("/dev/zero")


@case("archives", *HARMLESS)
def pipe_instead_of_a_file(path: Path) -> None:
    os.mkfifo(path.with_name(f"{path.name}.py"))


# ---- many files


@case("archives", *HARMLESS, short=True)
def a_thousand_notebooks(path: Path) -> None:
    """Write 1,000 notebooks in folders that look like other students' folders. An audit found this attack."""
    books = {f"a{n}/submission_1/day1.ipynb": notebook(code(f"x = {n}")) for n in range(1000)}
    _zip(path, zipped(books))


@case("archives", *HARMLESS)
def a_thousand_notebooks_of_a_platform(path: Path) -> None:
    books = {f"student{n}_{n + 10}_{n + 12345}_day1.ipynb": BOOK for n in range(1000)}
    _zip(path, zipped(books))


@case("archives", *HONEST)
def one_notebook_in_folders(path: Path) -> None:
    """Write an ordinary archive that contains nested folders and an extra file."""
    _zip(path, zipped({"my work/day1/day1.ipynb": BOOK, "my work/data/notes.txt": "x" * 9_000}))


@case("archives", *EITHER)
def a_folder_of_folders(path: Path) -> None:
    path.mkdir()
    (path / "day1.ipynb").write_text(BOOK)
    here = os.open(path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
