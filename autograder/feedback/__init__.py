"""Present marks to people: student pages, the class report and the terminal table."""
