"""Present marks as student pages, a class report and a terminal table."""
