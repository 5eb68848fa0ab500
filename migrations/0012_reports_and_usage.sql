-- Whether reports of the provider about a training that went on without them are still to be read.
ALTER TABLE trainings ADD COLUMN reports_owed boolean NOT NULL DEFAULT false;

-- Notices about jobs whose id is not stored yet: whoever stores it looks here.
CREATE TABLE early_notices (
    provider    text NOT NULL,
    job_id      text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, job_id)
);

-- What models were asked in a run's evaluation, and what that cost.
CREATE TABLE evaluation_usage (
    run_id            uuid NOT NULL REFERENCES runs (id),
    model_id          text NOT NULL CHECK (model_id <> ''),
    calls             bigint NOT NULL CHECK (calls > 0),
    -- Calls whose tokens the provider did not tell.
    untold_calls      bigint NOT NULL DEFAULT 0 CHECK (untold_calls >= 0),
    prompt_tokens     bigint NOT NULL DEFAULT 0 CHECK (prompt_tokens >= 0),
    completion_tokens bigint NOT NULL DEFAULT 0 CHECK (completion_tokens >= 0),
    -- The prices as they were at the first call; absent where the model has none.
    input_per_million  numeric CHECK (input_per_million >= 0),
    output_per_million numeric CHECK (output_per_million >= 0),
    currency          text,
    -- Unknown without prices, and with a call whose tokens are unknown.
    cost              numeric GENERATED ALWAYS AS (
        CASE WHEN untold_calls = 0
             THEN (input_per_million * prompt_tokens + output_per_million * completion_tokens) / 1000000 END) STORED,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, model_id),
    CONSTRAINT evaluation_usage_priced CHECK (
        (input_per_million IS NULL) = (currency IS NULL) AND (output_per_million IS NULL) = (currency IS NULL))
);
CREATE INDEX evaluation_usage_by_time ON evaluation_usage (created_at);
