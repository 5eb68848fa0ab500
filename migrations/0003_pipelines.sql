-- The application's posts. An existing table of this name is left as it is.
CREATE TABLE IF NOT EXISTS posts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    persona_id      text,
    original_input  text,
    hook            text,
    body            text,
    engagement_rate double precision,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS posts_created_at ON posts (created_at);

-- A named slot with one live model and the configuration of how it is improved.
CREATE TABLE pipelines (
    name             text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    config_version   integer NOT NULL CHECK (config_version >= 1),
    -- The newest traffic revision; the row is locked while a new one is written.
    traffic_revision bigint NOT NULL DEFAULT 0 CHECK (traffic_revision >= 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pipeline_configs (
    pipeline   text NOT NULL REFERENCES pipelines (name),
    version    integer NOT NULL CHECK (version >= 1),
    config     jsonb NOT NULL,
    actor      text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (pipeline, version)
);
ALTER TABLE pipelines ADD FOREIGN KEY (name, config_version)
    REFERENCES pipeline_configs (pipeline, version) DEFERRABLE INITIALLY DEFERRED;
CREATE TRIGGER pipeline_configs_append_only BEFORE UPDATE OR DELETE ON pipeline_configs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- An immutable snapshot of training examples, named by the SHA-256 of its bytes.
CREATE TABLE datasets (
    digest     text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    pipeline   text NOT NULL REFERENCES pipelines (name),
    examples   bigint NOT NULL CHECK (examples >= 0),
    bytes      bigint NOT NULL CHECK (bytes >= 0),
    -- Where the rows came from and how many were left out, and why.
    manifest   jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- A semantic version inside a pipeline, pointing at a provider's model id.
CREATE TABLE model_versions (
    id                uuid PRIMARY KEY,
    pipeline          text NOT NULL REFERENCES pipelines (name),
    major             integer NOT NULL CHECK (major >= 0),
    minor             integer NOT NULL CHECK (minor >= 0),
    patch             integer NOT NULL CHECK (patch >= 0),
    status            text NOT NULL CHECK (status IN
                      ('candidate', 'testing', 'live', 'hold_back', 'retired',
                       'rejected', 'rolled_back', 'unavailable')),
    provider          text NOT NULL CHECK (provider <> ''),
    provider_model_id text NOT NULL CHECK (provider_model_id <> ''),
    base_model        text NOT NULL CHECK (base_model <> ''),
    -- Lineage; all absent on version 0.0.0, which nobody here trained.
    run_id            uuid,
    training_id       uuid UNIQUE,
    dataset_digest    text REFERENCES datasets (digest),
    parent_id         uuid REFERENCES model_versions (id),
    -- Training figures: final loss, trained tokens.
    metrics           jsonb NOT NULL DEFAULT '{}',
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (pipeline, major, minor, patch)
);
CREATE UNIQUE INDEX model_versions_one_live ON model_versions (pipeline) WHERE status = 'live';
CREATE UNIQUE INDEX model_versions_one_hold_back ON model_versions (pipeline) WHERE status = 'hold_back';
CREATE UNIQUE INDEX model_versions_one_testing ON model_versions (pipeline) WHERE status = 'testing';
