-- The A/B test of a run.
CREATE TABLE experiments (
    id           uuid PRIMARY KEY,
    pipeline     text NOT NULL REFERENCES pipelines (name),
    run_id       uuid NOT NULL REFERENCES runs (id),
    baseline_id  uuid NOT NULL REFERENCES model_versions (id),
    candidate_id uuid NOT NULL REFERENCES model_versions (id),
    -- The configuration it was started with; later changes of the pipeline do not touch it.
    settings     jsonb NOT NULL,
    status       text NOT NULL CHECK (status IN ('running', 'decided', 'aborted')),
    started_at   timestamptz NOT NULL DEFAULT now(),
    horizon_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    -- The standard error that the looks for harm are planned for, frozen at the first look allowed.
    planned_se_test  double precision,
    planned_se_watch double precision,
    CHECK (baseline_id <> candidate_id),
    CHECK (horizon_at > started_at),
    CHECK ((status = 'running') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX experiments_one_running ON experiments (pipeline) WHERE status = 'running';
ALTER TABLE runs ADD FOREIGN KEY (experiment_id) REFERENCES experiments (id);

-- A verdict with the evidence that led to it.
CREATE TABLE decisions (
    id            uuid PRIMARY KEY,
    experiment_id uuid NOT NULL UNIQUE REFERENCES experiments (id),
    verdict       text NOT NULL CHECK (verdict IN
                  ('promote', 'reject', 'inconclusive', 'stop_for_harm', 'invalid')),
    -- Inputs (sufficient statistics), parameters, every intermediate figure, engine version.
    record        jsonb NOT NULL,
    digest        text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER decisions_append_only BEFORE UPDATE OR DELETE ON decisions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Everything that serves is a numbered traffic revision; rollback is one more.
CREATE TABLE traffic_revisions (
    pipeline        text NOT NULL REFERENCES pipelines (name),
    revision        bigint NOT NULL CHECK (revision >= 1),
    live_version_id uuid NOT NULL REFERENCES model_versions (id),
    -- Hashed with the unit to assign it: the experiment's id, or the pipeline's name.
    salt            text NOT NULL,
    experiment_id   uuid REFERENCES experiments (id),
    kind            text NOT NULL CHECK (kind IN
                    ('created', 'test_started', 'test_ended', 'promotion', 'watch_ended',
                     'rollback', 'split')),
    reason          text NOT NULL,
    actor           text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (pipeline, revision)
);
CREATE TABLE traffic_weights (
    pipeline         text NOT NULL,
    revision         bigint NOT NULL,
    -- The order in which weights are accumulated when a unit is assigned.
    position         smallint NOT NULL CHECK (position >= 0),
    model_version_id uuid NOT NULL REFERENCES model_versions (id),
    -- Basis points.
    weight           integer NOT NULL CHECK (weight BETWEEN 0 AND 10000),
    PRIMARY KEY (pipeline, revision, position),
    UNIQUE (pipeline, revision, model_version_id),
    FOREIGN KEY (pipeline, revision) REFERENCES traffic_revisions (pipeline, revision)
);
CREATE TRIGGER traffic_revisions_append_only BEFORE UPDATE OR DELETE ON traffic_revisions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER traffic_weights_append_only BEFORE UPDATE OR DELETE ON traffic_weights
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION check_traffic_sum() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE total bigint;
BEGIN
    SELECT coalesce(sum(weight), 0) INTO total FROM traffic_weights
     WHERE pipeline = NEW.pipeline AND revision = NEW.revision;
    IF total <> 10000 THEN
        RAISE EXCEPTION 'the weights of traffic revision % of % sum to %, not 10000',
            NEW.revision, NEW.pipeline, total USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER traffic_revisions_sum AFTER INSERT ON traffic_revisions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_traffic_sum();
CREATE CONSTRAINT TRIGGER traffic_weights_sum AFTER INSERT ON traffic_weights
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_traffic_sum();

-- One observation of a served version.
CREATE TABLE outcomes (
    pipeline         text NOT NULL REFERENCES pipelines (name),
    -- The caller's id: a repeat is counted, never doubled.
    id               text NOT NULL CHECK (length(id) BETWEEN 1 AND 200),
    model_version_id uuid NOT NULL REFERENCES model_versions (id),
    -- The traffic revision in force when it was served, and its experiment, if any.
    revision         bigint NOT NULL,
    experiment_id    uuid REFERENCES experiments (id),
    unit             text NOT NULL CHECK (unit <> ''),
    persona          text,
    served_at        timestamptz NOT NULL,
    engagement_rate  double precision CHECK (engagement_rate BETWEEN 0 AND 1),
    engagements      bigint CHECK (engagements >= 0),
    impressions      bigint CHECK (impressions >= 0),
    -- Dollars.
    cost             double precision CHECK (cost >= 0),
    quality          double precision CHECK (quality BETWEEN 0 AND 1),
    latency_ms       double precision CHECK (latency_ms >= 0),
    failed           boolean,
    received_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, id),
    FOREIGN KEY (pipeline, revision) REFERENCES traffic_revisions (pipeline, revision)
);
CREATE INDEX outcomes_by_experiment ON outcomes (experiment_id, unit, served_at, id)
    WHERE experiment_id IS NOT NULL;
