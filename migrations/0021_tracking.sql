-- What MLflow has been told. Nothing here decides anything: it is compared with the rest of the database, and the
-- difference is delivered.

-- When a point of the curve became known; absent for those from before this column.
ALTER TABLE training_metrics ADD COLUMN learned_at timestamptz;
ALTER TABLE training_metrics ALTER COLUMN learned_at SET DEFAULT now();

CREATE TABLE tracking_state (
    pipeline              text PRIMARY KEY REFERENCES pipelines (name),
    -- The newest audit event of the pipeline when it was last looked at and all was delivered.
    seen_event            bigint NOT NULL DEFAULT 0 CHECK (seen_event >= 0),
    -- A look is due at this time although no event came: figures without events, and events that were committed late.
    look_again_at         timestamptz,
    delivered_at          timestamptz,
    -- Why the newest attempt did not come to its end, and since when, how often and until when attempts fail.
    last_error            text,
    failing_since         timestamptz,
    failures              integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    retry_at              timestamptz,
    -- Which server, experiment and registered model were told: where another is met, all is told anew.
    server                text,
    experiment_id         text,
    experiment_created_at bigint,
    model_created_at      bigint,
    CONSTRAINT tracking_state_failing CHECK (
        (last_error IS NULL) = (failing_since IS NULL) AND (last_error IS NULL) = (failures = 0)
        AND (last_error IS NULL) = (retry_at IS NULL)),
    CONSTRAINT tracking_state_experiment CHECK ((experiment_id IS NULL) = (experiment_created_at IS NULL))
);

CREATE TABLE tracking_runs (
    run_id         uuid PRIMARY KEY REFERENCES runs (id),
    mlflow_run_id  text,
    -- Set while it is unknown whether a create was carried out.
    create_sent_at timestamptz,
    -- The run's version that was delivered, and whether nothing more can come of it.
    run_version    bigint NOT NULL DEFAULT 0,
    settled        boolean NOT NULL DEFAULT false,
    -- Somebody deleted it in MLflow: it is left alone.
    gone           boolean NOT NULL DEFAULT false,
    -- Parameters, tags, metrics, inputs, artifacts and status as far as they were delivered.
    delivered      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(delivered) = 'object'),
    -- Why MLflow refused something of it.
    error          text
);

CREATE TABLE tracking_versions (
    model_version_id uuid PRIMARY KEY REFERENCES model_versions (id),
    -- MLflow counts versions itself.
    mlflow_version   text,
    create_sent_at   timestamptz,
    gone             boolean NOT NULL DEFAULT false,
    delivered        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(delivered) = 'object'),
    error            text
);
