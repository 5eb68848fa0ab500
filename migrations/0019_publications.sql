-- Where a pipeline's traffic is published, and how far each of these places is.
CREATE TABLE publications (
    pipeline           text    NOT NULL REFERENCES pipelines (name),
    target             text    NOT NULL CHECK (target ~ '^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'),
    kind               text    NOT NULL CHECK (kind IN ('config_map', 'file', 'http')),
    -- In words: 'the ConfigMap shop/models'. Another place under the same name begins anew.
    place              text    NOT NULL CHECK (place <> ''),
    -- False once the configuration no longer has it.
    active             boolean NOT NULL DEFAULT true,
    -- How often a person asked for it to be published again, and up to which request that was done.
    requests           integer NOT NULL DEFAULT 0 CHECK (requests >= 0),
    answered           integer NOT NULL DEFAULT 0 CHECK (answered BETWEEN 0 AND requests),
    -- What was written last and read back as written, and the SHA-256 of it.
    published_revision bigint,
    published_at       timestamptz,
    digest             text    CHECK (digest ~ '^[0-9a-f]{64}$'),
    -- Attempts that failed since the last that did not.
    failures           integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    last_error         text,
    failed_at          timestamptz,
    -- How often somebody changed what was published, and what stands there now in place of it.
    drifts             bigint  NOT NULL DEFAULT 0 CHECK (drifts >= 0),
    drift              text,
    drift_digest       text,
    drifted_at         timestamptz,
    checked_at         timestamptz,
    -- What Deployments were restarted for last.
    restarted_for      text,
    PRIMARY KEY (pipeline, target),
    FOREIGN KEY (pipeline, published_revision) REFERENCES traffic_revisions (pipeline, revision),
    CONSTRAINT publications_published CHECK (
        (published_revision IS NULL) = (published_at IS NULL) AND (published_revision IS NULL) = (digest IS NULL)),
    CONSTRAINT publications_failed CHECK (
        (failures = 0) = (last_error IS NULL) AND (failures = 0) = (failed_at IS NULL)),
    CONSTRAINT publications_drifted CHECK (
        (drift IS NULL) = (drifted_at IS NULL) AND (drift IS NULL) = (drift_digest IS NULL))
);

-- What was published where and when.
CREATE TABLE publication_history (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline     text NOT NULL,
    revision     bigint NOT NULL,
    target       text NOT NULL,
    place        text NOT NULL,
    digest       text NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The same again, after somebody had changed it or asked for it, is in the audit trail.
    UNIQUE (pipeline, target, revision, place),
    FOREIGN KEY (pipeline, revision) REFERENCES traffic_revisions (pipeline, revision),
    FOREIGN KEY (pipeline, target) REFERENCES publications (pipeline, target)
);
CREATE TRIGGER publication_history_append_only BEFORE UPDATE OR DELETE ON publication_history
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
