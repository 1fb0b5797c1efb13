"""Fill in the facts that a release's texts leave out: points, times, counts and which exercises are optional.

Chapters state each exercise's difficulty and how many minutes it takes to write. A chapter's time is the sum of these minutes,
of reading its text outside collapsed parts, and of a minute per demonstration. All other facts come from `grading.toml`.
Entry point: `ReleaseTexts`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from autograder.course.chapters import Chapter, ChapterCell
from autograder.course.config import CourseError, Day
from autograder.plain_text import counted, format_number

STARS = re.compile(r"^(?P<stars>★+☆*)(?P<rest>(?: ·.*)?)$", re.MULTILINE)
POINTS = re.compile(r"[\d.]+ points?")
HEADING = re.compile(r"\A(#{1,6} .*)\n*")
CHAPTER = re.compile(r"^\*Chapter \d+ of \d+.*\*$", re.MULTILINE)
# The track of a section that is not an exercise, and the time for what is neither reading nor a demonstration.
SECTION = re.compile(r"^\*(?:(Core|Further|Optional) · )?(\d+) minutes\*$", re.MULTILINE)
WORDS_PER_MINUTE = 180
# Collapsed parts, and the texts that describe figures.
NOT_READ = re.compile(r"<details>.*?</details>|!\[[^\]]*\]", re.DOTALL)
TIMETABLE = re.compile(r"^\{\{ timetable\n(.*?)\}\}", re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")
# A rule for students' code, which is removed for given exercises.
RULE = re.compile(r"^Not allowed: .*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
YOURS = re.compile(r"\b([Yy])our(\s+)`(\w+)`")
GIVEN = "given · nothing to fill in"
TRACKS = ("core", "further", "optional")
# The number of minutes for each track.
Times = Counter[str]


def exercise_minutes(day: Day) -> dict[str, int]:
    """Return the number of minutes stated in the text before each exercise, or 0 if the text does not state any."""
    minutes, stated = {}, 0
    for cell in (cell for chapter in day.chapters for cell in chapter.cells):
        if cell.role == "text" and (found := STARS.search(cell.source)):
            number = re.search(r"\d+", _time_part(found))
            stated = int(number[0]) if number else 0
        if cell.role in ("exercise", "given") and cell.name:
            minutes[cell.name], stated = stated, 0
    return minutes


class ReleaseTexts:
    """A day's texts. `opening` is the day's own introduction, which may contain a timetable."""

    def __init__(self, day: Day, opening: Sequence[Chapter]) -> None:
        self._day = day
        self._minutes = exercise_minutes(day)
        self._given = {exercise.name for exercise in day.unassigned}
        self._exercises = {exercise.name: exercise for exercise in day.exercises}
        required = [exercise for exercise in day.exercises if not exercise.optional]
        self._has_further = not all(exercise.core for exercise in required)
        sections = [track for chapter in day.chapters for track, _ in _section_times(chapter)]
        # On a day with only one track, the word "core" would be meaningless.
        self._has_tracks = any(exercise.core for exercise in required) and (
            self._has_further or "further" in sections
        )
        self._chapters = {chapter.name: self._chapter_times(chapter) for chapter in day.chapters}
        sources = [cell.source for part in opening for cell in part.cells if cell.role == "text"]
        self._reading = round(sum(map(_reading_minutes, sources)))
        blocks = [block[1] for source in sources for block in TIMETABLE.finditer(source)]
        extra = sum(minutes for block in blocks for _, minutes in _rows(block, self._reading))
        self._total = sum(self._chapters.values(), Times(core=extra))

    def chapter_cell(self, chapter: Chapter, cell: ChapterCell) -> str:
        """Return the text of a chapter's cell. Add the facts about its exercise and fill in all placeholders."""
        text = cell.source
        exercise = _introduced(chapter, cell)
        if exercise:
            text = self._with_facts(text, exercise)
        number = [*self._chapters].index(chapter.name) + 1
        spent = self._in_words(self._chapters[chapter.name])
        line = " · ".join([f"Chapter {number} of {len(self._chapters)}", *spent])
        text = CHAPTER.sub(f"*{line}*", text)
        text = SECTION.sub(self._section, text)
        return self.fill(text, chapter.path.name)

    def fill(self, text: str, file: str) -> str:
        """Return the text with placeholders replaced, and with "your `f`" changed to "the given `f`" for given exercises."""
        text = TIMETABLE.sub(lambda block: "\n".join(self._timetable(block[1])), text)
        values = {
            "chapters": str(len(self._chapters)),
            "exercises": str(len(self._exercises)),
            "points": format_number(self._day.points),
            "workload": self._workload(),
            "assistants": self._day.assistants,
        }
        for name in PLACEHOLDER.findall(text):
            if name not in values:
                known = ", ".join(sorted([*values, "timetable"]))
                raise CourseError(
                    f"{self._day.name}, {file}: unknown placeholder {{{{ {name} }}}}; known: {known}"
                )
        text = PLACEHOLDER.sub(lambda found: values[found[1]], text)
        return YOURS.sub(self._owned, text)

    def _owned(self, found: re.Match[str]) -> str:
        """Return "the given `f`" instead of "your `f`" if students do not write `f`."""
        letter, space, name = found.groups()
        the = "The" if letter == "Y" else "the"
        return f"{the} given{space}`{name}`" if name in self._given else found[0]

    # ---- exercises

    def _track(self, name: str) -> str:
        exercise = self._exercises[name]
        if exercise.optional:
            return "optional"
        return "core" if exercise.core or not self._has_tracks else "further"

    def _with_facts(self, text: str, name: str) -> str:
        """Add an exercise's difficulty, track, minutes and points below its heading."""
        if name not in self._exercises:
            text = RULE.sub("", text).rstrip()
        stars = STARS.search(text)
        facts = [GIVEN]
        if name in self._exercises:
            exercise = self._exercises[name]
            shown = self._has_tracks or exercise.optional
            facts = [
                stars["stars"] if stars else "",
                self._track(name) if shown else "",
                _time_part(stars) if stars else "",
                "" if exercise.optional else counted(exercise.points, "point"),
            ]
        line = " · ".join(filter(None, facts))
        if stars:
            return text[: stars.start()] + line + text[stars.end() :]
        return HEADING.sub(lambda heading: f"{heading[1]}\n{line}\n\n", text).rstrip()

    # ---- times

    def _chapter_times(self, chapter: Chapter) -> Times:
        """Return the minutes for a chapter's exercises, sections, reading and demonstrations. A heading may change the track."""
        used = {self._track(cell.name) for cell in chapter.cells if cell.role == "exercise"}
        track = usual = next(filter(used.__contains__, TRACKS), "core")
        minutes: defaultdict[str, float] = defaultdict(float)
        for cell in chapter.cells:
            if cell.role == "text":
                if HEADING.match(cell.source):
                    name = _introduced(chapter, cell)
                    track = self._track(name) if name in self._exercises else usual
                for track, number in _stated(cell.source):
                    minutes[track] += number
                minutes[track] += _reading_minutes(cell.source)
            elif cell.role == "demonstration":
                minutes[track] += 1
            elif cell.role == "exercise":
                minutes[track] += self._minutes[cell.name]
        return Times({track: round(number) for track, number in minutes.items()})

    def _section(self, found: re.Match[str]) -> str:
        """Return the formatted line that states a section's track and time."""
        ((track, minutes),) = _stated(found[0])
        shown = f"{track.capitalize()} · " if self._has_tracks or track == "further" else ""
        return f"*{shown}{counted(minutes, 'minute')}*"

    def _in_words(self, times: Times) -> list[str]:
        """Return a chapter's times by track, such as ["core: 20 minutes", "further: 35 minutes"]."""
        words = []
        for track in filter(times.get, TRACKS):
            shown = f"{track}: " if self._has_tracks or track != "core" else ""
            words.append(shown + counted(times[track], "minute"))
        return words

    def _timetable(self, block: str) -> Iterator[str]:
        """Yield the lines of a timetable: one row per chapter, the rows in `block`, the total, and notes about the columns."""
        tracks = [track for track in TRACKS if track == "core" or self._total[track]]
        heads = [t if self._has_tracks or t != "core" else "time" for t in tracks]
        yield f"| chapter | {' | '.join(heads)} |"
        yield "|---" * (1 + len(heads)) + "|"
        for name, minutes in _rows(block, self._reading):
            if name != "chapters":
                yield _row(name, Times(core=minutes), tracks)
                continue
            for number, chapter in enumerate(self._day.chapters, 1):
                yield _row(f"{number} {title(chapter)}", self._chapters[chapter.name], tracks)
        yield _row("Total", self._total, tracks, "**")
        yield (
            f"\nTimes count reading at {WORDS_PER_MINUTE} words a minute, writing code, and a minute per "
            "demonstration."
        )
        if "further" in tracks:
            count = (
                f" Their exercises are worth {self._further_points()}." if self._has_further else ""
            )
            yield f"\nThe parts marked *further* go into more depth.{count}"
        if "optional" in tracks:
            yield "\nOptional exercises are checked and graded, but their points do not count."

    def _further_points(self) -> str:
        """Return the share of points for exercises marked *further*, such as "53 of the 100 points"."""
        further = [e for e in self._exercises.values() if self._track(e.name) == "further"]
        points = format_number(sum(exercise.points for exercise in further))
        return f"{points} of the {counted(self._day.points, 'point')}"

    def _workload(self) -> str:
        """Return a sentence that states how long the day takes."""
        core, further, optional = (self._total[track] for track in TRACKS)
        text = f"The {'core' if further else 'day'} takes about {_hours(core)}"
        text += f", the parts marked *further* about {_hours(further)} more" if further else ""
        return text + (
            f", and the optional exercises about {_hours(optional)}." if optional else "."
        )


AGENTS = """\
# {title}: for AI assistants

This folder contains an assignment. Students learn to build its parts by writing them themselves. What they are told:
{assistants}

Please help them to understand:

- Explain ideas, formulas, shapes, error messages and library functions.
- Ask questions that lead to the next step, and point to the part of the notebook that explains it.
- Review code that they wrote: say what is wrong and why, and let them correct it.
- Suggest tests and small examples.

Please do not write, complete or correct the bodies of these stubs in `{name}.ipynb`, also not as pseudocode:

{stubs}
"""


def agents(day: Day) -> str:
    """Return the text of a release's AGENTS.md, which tells AI assistants what students should do themselves."""
    names = {
        title(chapter): [f"`{e.name}`" for e in day.exercises if e.chapter == chapter.name]
        for chapter in day.chapters
    }
    stubs = [f"- {chapter}: {', '.join(own)}" for chapter, own in names.items() if own]
    return AGENTS.format(
        title=day.title, assistants=day.assistants, name=day.name, stubs="\n".join(stubs)
    )


def title(chapter: Chapter) -> str:
    """Return a chapter's heading, or its name if it has none."""
    texts = (cell.source for cell in chapter.cells if cell.role == "text")
    heading = re.search(r"^# +(.+)", "\n".join(texts), re.MULTILINE)
    return heading[1] if heading else chapter.name


def _introduced(chapter: Chapter, cell: ChapterCell) -> str:
    """Return the exercise that a text cell introduces, or "" if there is none.

    A text cell with a heading or stars introduces the next exercise, unless another such cell comes before that
    exercise.
    """
    for other in chapter.cells[chapter.cells.index(cell) :]:
        is_start = bool(HEADING.match(other.source) or STARS.search(other.source))
        if other.role == "text" and is_start != (other is cell):
            return ""
        if other.role in ("exercise", "given") and other.name:
            return other.name
    return ""


def _section_times(chapter: Chapter) -> Iterator[tuple[str, int]]:
    """Yield the track and the duration in minutes of each section in a chapter. Skip sections without a duration."""
    return _stated("\n".join(cell.source for cell in chapter.cells if cell.role == "text"))


def _stated(text: str) -> Iterator[tuple[str, int]]:
    for word, minutes in SECTION.findall(text):
        # Sections have no points, so an optional section counts as further.
        yield "further" if word in ("Further", "Optional") else "core", int(minutes)


def _reading_minutes(text: str) -> float:
    return len(NOT_READ.sub(" ", text).split()) / WORDS_PER_MINUTE


def _time_part(stars: re.Match[str]) -> str:
    """Return the part of a line that states a duration, such as "10 minutes", in any language, or "" if there is none."""
    parts = stars["rest"].split(" · ")
    return next((p for p in parts if re.search(r"\d", p) and not POINTS.fullmatch(p)), "")


def _rows(block: str, reading: int) -> Iterator[tuple[str, int]]:
    """Yield the name and minutes of each row in a timetable. The row "chapters" represents one row per chapter.

    A row whose minutes are "reading" gets the time for reading the opening, `reading`.
    """
    for line in filter(None, map(str.strip, block.split("\n"))):
        name, _, minutes = line.replace(": reading", f": {reading}").rpartition(":")
        yield (name, int(minutes)) if minutes.strip().isdecimal() else (line, 0)


def _row(name: str, times: Times, tracks: Sequence[str], bold: str = "") -> str:
    cells = [f" {bold}{times[t]} min{bold} " if times[t] else " " for t in tracks]
    return "|".join(["", f" {bold}{name}{bold} ", *cells, ""])


def _hours(minutes: int) -> str:
    """Return a time rounded to the nearest half hour, such as "1½ hours", or in minutes if it is under an hour."""
    halves = round(minutes / 30)
    if halves < 2:
        return counted(minutes, "minute")
    number = f"{halves // 2}{'½' if halves % 2 else ''}"
    return f"{number} hour{'' if halves == 2 else 's'}"
