"""Collect submissions from nbgrader's exchange without following links. Entry point: `Collect`."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from nbgrader.exchange.default import ExchangeCollect

from autograder.plain_text import printable
from autograder.submissions.platforms import TIMESTAMP

NO_TIME = datetime.min  # the time of a folder whose name contains no valid time
# Matches paths, and names that formgrader's pages would run as HTML or as a script, because the pages do not escape names.
NO_STUDENT = re.compile(r"""^\.{0,2}$|[<>"&\\`]""")


class Collect(ExchangeCollect):  # type: ignore[misc]
    """A version of nbgrader's `ExchangeCollect` that trusts neither the links nor the folder names in the exchange.

    Students create these folders themselves. nbgrader would follow a link to any file that the TA can read, such as a
    solution. It would also collect a folder with another student's name, even if that student has submitted as well. It
    would stop at the first folder that has an invalid name, is too large or cannot be copied.
    """

    def init_src(self) -> None:
        """Choose the folders to collect, excluding folders with invalid names."""
        super().init_src()
        for record in [each for each in self.src_records if not _is_valid(each)]:
            self._report(record["filename"], "its name is invalid")
            self.src_records.remove(record)

    def do_copy(self, src: str, dest: str, log: Any = None) -> None:
        """Copy a submission, leaving out links and special files. If this fails, other submissions are still collected."""
        try:
            if os.path.islink(src):
                self._report(src, "it is a link")
            elif self.get_size(src) > 1000 * self.coursedir.max_dir_size:
                self._report(src, "it is too large")
            else:
                self._copy(src, dest, log)
        except OSError as error:
            self._report(src, str(error))

    def _copy(self, src: str, dest: str, log: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, "submission")
            shutil.copytree(src, copy, symlinks=True, ignore=_special_files)
            for link in [path for path in copy.rglob("*") if path.is_symlink()]:
                self._report(f"{link.name} in {src}", "it is a link")
                link.unlink()
            # nbgrader writes the same time into the folder's name and into this file. It cannot update the class's
            # submissions if one of them contains no valid time.
            time = self._path_to_record(src)["timestamp"]
            (copy / TIMESTAMP).write_text(f"{time:%Y-%m-%d %H:%M:%S.%f} UTC", encoding="utf-8")
            super().do_copy(str(copy), dest, log)

    def _report(self, path: str, reason: str) -> None:
        self.log.error("%s was not collected: %s", printable(path), printable(reason))

    def _path_to_record(self, path: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = super()._path_to_record(path)
        except (ValueError, OverflowError):
            name = os.path.basename(path)
            return {"username": name.partition("+")[0], "filename": name, "timestamp": NO_TIME}
        return record

    def _sort_by_timestamp(self, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Sort the folders named after a student, newest first, but put folders owned by other accounts last.

        nbgrader warns if it collects a folder that the student does not own.
        """
        newest: list[dict[str, Any]] = super()._sort_by_timestamp(records)
        return sorted(newest, key=self._belongs_to_another_account)

    def _belongs_to_another_account(self, record: dict[str, Any]) -> bool:
        try:
            uid = os.lstat(os.path.join(self.inbound_path, record["filename"])).st_uid
            return bool(self.check_owner and pwd.getpwuid(uid).pw_name != record["username"])
        except (OSError, KeyError):
            return bool(self.check_owner)


def _is_valid(record: dict[str, Any]) -> bool:
    name = record["username"]
    return record["timestamp"] != NO_TIME and name.isprintable() and not NO_STUDENT.search(name)


def _special_files(folder: str, names: Sequence[str]) -> list[str]:
    """Return the names of pipes, sockets and devices, which cannot be copied."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return [
        name
        for name, mode in modes.items()
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    ]
