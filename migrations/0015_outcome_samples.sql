-- Scores of live outcomes by a judge.

-- Whether the quality is a judge's: such a one stays where the caller corrects the rest and tells none.
ALTER TABLE outcomes ADD COLUMN judged boolean NOT NULL DEFAULT false;

-- The texts that are to be scored. Those of outcomes that are not in the sample are never stored.
CREATE TABLE outcome_samples (
    -- The outcome's.
    number     bigint      PRIMARY KEY,
    pipeline   text        NOT NULL REFERENCES pipelines (name),
    id         text        NOT NULL,
    prompt     text        NOT NULL,
    answer     text        NOT NULL,
    -- Times that the judge was asked in vain.
    attempts   integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at     timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outcome_samples_due ON outcome_samples (pipeline, due_at, number);
CREATE INDEX outcome_samples_age ON outcome_samples (created_at);

-- Where the judge of a pipeline stands.
CREATE TABLE outcome_judges (
    pipeline   text   PRIMARY KEY REFERENCES pipelines (name),
    scored     bigint NOT NULL DEFAULT 0 CHECK (scored >= 0),
    -- The caller told a quality while the judge was asked.
    overtaken  bigint NOT NULL DEFAULT 0 CHECK (overtaken >= 0),
    -- Left without a score after too many attempts.
    given_up   bigint NOT NULL DEFAULT 0 CHECK (given_up >= 0),
    -- Deleted before they were scored.
    expired    bigint NOT NULL DEFAULT 0 CHECK (expired >= 0),
    -- The day (UTC) and how many questions of its budget are used, those under way among them.
    day        date   NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    asked      bigint NOT NULL DEFAULT 0 CHECK (asked >= 0),
    -- Why it does not go on; absent where it does.
    standstill text,
    -- What went wrong last.
    last_error text
);

-- What the judges were asked, and what that cost.
CREATE TABLE outcome_judge_usage (
    pipeline          text NOT NULL REFERENCES pipelines (name),
    day               date NOT NULL,
    model_id          text NOT NULL CHECK (model_id <> ''),
    calls             bigint NOT NULL CHECK (calls > 0),
    -- Calls whose tokens the provider did not tell.
    untold_calls      bigint NOT NULL CHECK (untold_calls >= 0),
    prompt_tokens     bigint NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens bigint NOT NULL CHECK (completion_tokens >= 0),
    -- The prices as they were at the day's first call; absent where the model has none.
    input_per_million  numeric CHECK (input_per_million >= 0),
    output_per_million numeric CHECK (output_per_million >= 0),
    currency          text,
    -- Unknown without prices, and with a call whose tokens are unknown.
    cost              numeric GENERATED ALWAYS AS (
        CASE WHEN untold_calls = 0
             THEN (input_per_million * prompt_tokens + output_per_million * completion_tokens) / 1000000 END) STORED,
    PRIMARY KEY (pipeline, day, model_id),
    CONSTRAINT outcome_judge_usage_priced CHECK (
        (input_per_million IS NULL) = (currency IS NULL) AND (output_per_million IS NULL) = (currency IS NULL))
);
