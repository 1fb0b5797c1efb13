"""Release feedback through nbgrader's exchange, one student at a time. Entry point: `ReleaseFeedback`."""

from __future__ import annotations

import glob

from nbgrader.exchange.default import ExchangeReleaseFeedback

from autograder.plain_text import printable


class ReleaseFeedback(ExchangeReleaseFeedback):  # type: ignore[misc]
    """A version of nbgrader's `ExchangeReleaseFeedback` that continues if it cannot release one student's feedback.

    nbgrader needs two files that it writes when students submit. Submissions from elsewhere lack them, and students can
    delete or change them.
    """

    src_path: str

    def copy_files(self) -> None:
        """Copy each student's feedback to the exchange."""
        for folder in sorted(glob.glob(self.src_path)):
            self.src_path = glob.escape(folder)
            try:
                super().copy_files()
            except (OSError, ValueError) as error:
                self.log.error(
                    "The feedback in %s was not released: %s",
                    printable(folder),
                    printable(str(error)),
                )
