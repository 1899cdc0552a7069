-- What an item says beside its prompt and responses, step ends of every response, the scale behind a number, and which
-- sources say a judgment.

-- A new column and a plain UPDATE, not ALTER ... USING: its expression would stand in the log, and after a kill the log is
-- replayed before functions are there (DuckDB 2.0: "Failure while replaying WAL").
ALTER TABLE unit ADD COLUMN ends INTEGER[][];  -- per response, in their order; empty: no steps
UPDATE unit SET ends = [step_ends] WHERE step_ends IS NOT NULL;
ALTER TABLE unit DROP COLUMN step_ends;
ALTER TABLE unit RENAME COLUMN ends TO step_ends;
ALTER TABLE unit ADD COLUMN tools VARCHAR;     -- canonical JSON list of tool schemas
ALTER TABLE unit ADD COLUMN reference VARCHAR; -- the right answer

-- `judgment.source_id` is the first source that says a judgment; here stand those that say the same again. A vote
-- counts in the datasets that hold one of its sources.
CREATE TABLE judgment_source (
    event_id  UUID NOT NULL,
    source_id INTEGER NOT NULL
);

-- Repeats were not noted so far: a source that shares name and unit with a judgment's, and brought no judgment of that
-- unit itself, repeated it.
INSERT INTO judgment_source
SELECT DISTINCT j.event_id, us.source_id
FROM judgment j JOIN source first USING (source_id) JOIN unit_source us USING (unit_id)
JOIN source again ON again.source_id = us.source_id AND again.name = first.name
ANTI JOIN judgment own ON own.source_id = us.source_id AND own.unit_id = j.unit_id
WHERE us.source_id <> j.source_id;

CREATE TABLE label_scale (
    source_id INTEGER NOT NULL,
    aspect    VARCHAR,                   -- null: the strength of preferences
    name      VARCHAR,                   -- what the source calls it, e.g. likert
    low       DOUBLE,                    -- inclusive ends, null where open
    high      DOUBLE,
    levels    VARCHAR[],                 -- names of the steps from low to high, null where continuous or unnamed
    higher_is_better BOOLEAN NOT NULL
);
