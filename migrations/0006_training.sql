-- What a run is expected to train on and to cost, before anything is uploaded.
ALTER TABLE runs ADD COLUMN preflight jsonb;

ALTER TABLE trainings
    -- A search trains one dataset several times; its first training is number 0.
    ADD COLUMN trial             integer NOT NULL DEFAULT 0 CHECK (trial >= 0),
    ADD COLUMN hyperparameters   jsonb NOT NULL DEFAULT '{}',
    -- The price as it was when the run was let through; absent where the model has none.
    ADD COLUMN price_per_million numeric CHECK (price_per_million >= 0),
    ADD COLUMN currency          text,
    ADD COLUMN expected_tokens   bigint CHECK (expected_tokens >= 0),
    ADD COLUMN expected_cost     numeric GENERATED ALWAYS AS (price_per_million * expected_tokens / 1000000) STORED,
    ADD COLUMN cost              numeric GENERATED ALWAYS AS (price_per_million * trained_tokens / 1000000) STORED,
    -- On what was set aside: of the whole set where the provider tells it, else of its last batch.
    ADD COLUMN validation_loss   double precision,
    -- Looks at the job since something last changed: the time between two of them grows with it.
    ADD COLUMN unchanged_looks   integer NOT NULL DEFAULT 0,
    -- Time in which the provider held the job does not count against its time limit.
    ADD COLUMN paused_since      timestamptz,
    ADD COLUMN paused_seconds    double precision NOT NULL DEFAULT 0,
    ADD COLUMN files_deleted_at  timestamptz,
    ADD CONSTRAINT trainings_priced CHECK ((price_per_million IS NULL) = (currency IS NULL));
CREATE INDEX trainings_by_time ON trainings (created_at);
CREATE INDEX trainings_by_job ON trainings (provider_job_id);

-- What the provider reported about a training, each report once, in the order in which it was learned.
CREATE TABLE training_events (
    number      bigint GENERATED ALWAYS AS IDENTITY,
    training_id uuid NOT NULL REFERENCES trainings (id),
    -- The provider's id of the report.
    event_id    text NOT NULL,
    at          timestamptz NOT NULL,
    level       text NOT NULL,
    kind        text NOT NULL,
    message     text NOT NULL,
    PRIMARY KEY (training_id, event_id)
);
CREATE UNIQUE INDEX training_events_in_order ON training_events (training_id, number);

-- The loss curve.
CREATE TABLE training_metrics (
    training_id     uuid NOT NULL REFERENCES trainings (id),
    step            bigint NOT NULL,
    train_loss      double precision,
    valid_loss      double precision,
    full_valid_loss double precision,
    PRIMARY KEY (training_id, step)
);

-- Models that the provider kept along the way.
CREATE TABLE training_checkpoints (
    training_id     uuid NOT NULL REFERENCES trainings (id),
    checkpoint_id   text NOT NULL,
    model_id        text NOT NULL,
    step            bigint NOT NULL,
    train_loss      double precision,
    valid_loss      double precision,
    full_valid_loss double precision,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (training_id, checkpoint_id)
);

-- Jobs beside the one that a training follows: a create that was never answered was carried out after all. Each is written down before
-- it is cancelled, and counted once.
CREATE TABLE training_duplicates (
    training_id uuid NOT NULL REFERENCES trainings (id),
    job_id      text NOT NULL,
    found_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (training_id, job_id)
);

-- Notices of providers that were acted on, so that none is acted on twice.
CREATE TABLE webhook_receipts (
    provider    text NOT NULL,
    id          text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, id)
);
CREATE INDEX webhook_receipts_by_time ON webhook_receipts (received_at);
