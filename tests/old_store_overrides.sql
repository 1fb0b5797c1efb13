BEGIN TRANSACTION;
CREATE TABLE file_time (
        day TEXT NOT NULL, participant TEXT NOT NULL, sha256 TEXT NOT NULL, time TEXT NOT NULL,
        PRIMARY KEY (day, participant, sha256)
    );
CREATE TABLE override (
    day TEXT NOT NULL, key TEXT NOT NULL, student TEXT NOT NULL, exercise TEXT NOT NULL,
    points REAL, comment TEXT NOT NULL, by TEXT NOT NULL, time TEXT NOT NULL,
    is_login INTEGER NOT NULL, earned REAL,
    PRIMARY KEY (day, key, exercise)
);
INSERT INTO "override" VALUES('day1','11','ada','padding_mask',44.0,'','kim','2026-12-02T10:43:25+00:00',0,40.0);
INSERT INTO "override" VALUES('day1','42003','Cy D','padding_mask',33.0,'','kim','2026-12-02T10:43:25+00:00',0,30.0);
INSERT INTO "override" VALUES('day1','eve','eve','padding_mask',11.0,'','kim','2026-12-02T10:43:25+00:00',0,10.0);
CREATE TABLE submission_time (
        day TEXT NOT NULL, participant TEXT NOT NULL, time TEXT NOT NULL, PRIMARY KEY (day, participant)
    );
COMMIT;
PRAGMA user_version = 0;
