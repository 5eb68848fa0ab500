-- One attempt to produce a better model for a pipeline.
CREATE TABLE runs (
    id               uuid PRIMARY KEY,
    pipeline         text NOT NULL REFERENCES pipelines (name),
    config_version   integer NOT NULL,
    trigger          text NOT NULL CHECK (trigger IN ('api', 'schedule')),
    -- The scheduled time that made this run; unique, so that replicas insert it once.
    slot             timestamptz,
    status           text NOT NULL CHECK (status IN
                     ('queued', 'running', 'waiting_approval', 'succeeded', 'skipped', 'rejected',
                      'inconclusive', 'failed', 'cancelled', 'rolled_back')),
    step             text NOT NULL DEFAULT 'collect' CHECK (step IN
                     ('collect', 'preflight', 'upload', 'train', 'register',
                      'test', 'decide', 'promote', 'watch')),
    -- The place the run holds in its pipeline; none once it has finished.
    place            text CHECK (place IN ('building', 'proving')),
    reason_code      text CHECK (reason_code ~ '^[a-z0-9_]+$'),
    reason           text,
    -- What a person asked for; the run's job carries it out.
    request          text CHECK (request IN ('cancel', 'approve', 'reject')),
    request_actor    text,
    request_reason   text,
    -- Grows with every transition, so that two jobs can never both move one run.
    version          bigint NOT NULL DEFAULT 1,
    dataset_digest   text REFERENCES datasets (digest),
    -- What this run looked at to make its dataset; another run may have made the same bytes from other rows.
    collected        jsonb,
    training_id      uuid,
    model_version_id uuid REFERENCES model_versions (id),
    experiment_id    uuid,
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    FOREIGN KEY (pipeline, config_version) REFERENCES pipeline_configs (pipeline, version),
    UNIQUE (pipeline, slot),
    CONSTRAINT runs_slot_is_scheduled CHECK ((trigger = 'schedule') = (slot IS NOT NULL)),
    CONSTRAINT runs_finished CHECK (
        (status IN ('queued', 'running', 'waiting_approval')) = (finished_at IS NULL)),
    CONSTRAINT runs_place CHECK ((place IS NULL) = (finished_at IS NOT NULL)),
    CONSTRAINT runs_reason CHECK ((reason_code IS NULL) = (reason IS NULL)),
    CONSTRAINT runs_collected CHECK ((dataset_digest IS NULL) = (collected IS NULL)),
    CONSTRAINT runs_request CHECK ((request IS NULL) = (request_actor IS NULL))
);
CREATE UNIQUE INDEX runs_one_building ON runs (pipeline) WHERE place = 'building';
CREATE UNIQUE INDEX runs_one_proving ON runs (pipeline) WHERE place = 'proving';
CREATE INDEX runs_by_pipeline ON runs (pipeline, id);
ALTER TABLE model_versions ADD FOREIGN KEY (run_id) REFERENCES runs (id);

-- One row per step that a run entered: when, how often it was tried, how it ended.
CREATE TABLE run_steps (
    run_id      uuid NOT NULL REFERENCES runs (id),
    step        text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    -- Errors met so far.
    retries     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, step)
);

CREATE TABLE run_events (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id  uuid NOT NULL REFERENCES runs (id),
    at      timestamptz NOT NULL DEFAULT now(),
    step    text NOT NULL,
    kind    text NOT NULL CHECK (kind IN
            ('entered', 'progress', 'waiting', 'retry', 'requested', 'finished')),
    message text NOT NULL,
    data    jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX run_events_by_run ON run_events (run_id, id);
CREATE TRIGGER run_events_append_only BEFORE UPDATE OR DELETE ON run_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- One paid job at a provider. The row is written before the provider is called.
CREATE TABLE trainings (
    id                uuid PRIMARY KEY,
    run_id            uuid NOT NULL REFERENCES runs (id),
    provider          text NOT NULL,
    base_model        text NOT NULL,
    dataset_digest    text NOT NULL REFERENCES datasets (digest),
    -- What it is measured on, where some examples were set aside.
    validation_digest text REFERENCES datasets (digest),
    -- Set before a call is sent and kept until its answer is known: while set, the object may exist
    -- at the provider although no answer came, so it is looked for until the settle time has passed.
    upload_sent_at    timestamptz,
    validation_sent_at timestamptz,
    create_sent_at    timestamptz,
    -- Calls sent; more than one create means that a duplicate may turn up late.
    uploads           integer NOT NULL DEFAULT 0,
    validation_uploads integer NOT NULL DEFAULT 0,
    creates           integer NOT NULL DEFAULT 0,
    provider_file_id  text,
    validation_file_id text,
    provider_job_id   text,
    provider_status   text,
    fine_tuned_model  text,
    trained_tokens    bigint,
    final_loss        double precision,
    -- Late duplicates that were cancelled at the provider.
    duplicates        integer NOT NULL DEFAULT 0,
    created_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz
);
CREATE INDEX trainings_by_run ON trainings (run_id);
ALTER TABLE runs ADD FOREIGN KEY (training_id) REFERENCES trainings (id);
ALTER TABLE model_versions ADD FOREIGN KEY (training_id) REFERENCES trainings (id);
