-- Outcomes that are read from an application's own database.
CREATE TABLE outcome_pulls (
    pipeline   text        PRIMARY KEY REFERENCES pipelines (name),
    -- What was served up to this time has been read; absent before the first pull.
    watermark  timestamptz,
    -- The last pull that came to its end, and what became of its rows.
    pulled_at  timestamptz,
    accepted   bigint      NOT NULL DEFAULT 0 CHECK (accepted >= 0),
    corrected  bigint      NOT NULL DEFAULT 0 CHECK (corrected >= 0),
    duplicates bigint      NOT NULL DEFAULT 0 CHECK (duplicates >= 0),
    rejected   bigint      NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    -- Some of the rows that were left out, with reasons.
    rejections jsonb       NOT NULL DEFAULT '[]',
    -- Why the newest pull did not come to its end; absent where it did.
    error      text
);
