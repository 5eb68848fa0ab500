-- What the looks at an experiment have shown, for charts. Thinned as it is written: the newest row of a phase is replaced
-- by the next look until it is far enough from the row before it.
CREATE TABLE experiment_looks (
    experiment_id uuid        NOT NULL REFERENCES experiments (id),
    -- Counts the rows that are kept, from 1, in the order of time.
    number        bigint      NOT NULL CHECK (number >= 1),
    phase         text        NOT NULL CHECK (phase IN ('test', 'watch')),
    looked_at     timestamptz NOT NULL,
    -- One object per metric.
    metrics       jsonb       NOT NULL CHECK (jsonb_typeof(metrics) = 'array'),
    PRIMARY KEY (experiment_id, number)
);
