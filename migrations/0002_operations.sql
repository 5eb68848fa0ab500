-- Who may call, what was already answered, and who did what.
CREATE TABLE api_keys (
    id         uuid PRIMARY KEY,
    name       text NOT NULL CHECK (name <> ''),
    role       text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- SHA-256 of the whole key; the key itself is shown once and never stored.
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Answers to requests that carried an Idempotency-Key, written in the transaction of their effect.
CREATE TABLE idempotency_keys (
    api_key_id  uuid NOT NULL REFERENCES api_keys (id),
    key         text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of method, path and body: the same key with another request is refused.
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    status      smallint CHECK (status BETWEEN 200 AND 599),
    headers     jsonb,
    body        jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (api_key_id, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

CREATE TABLE audit_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    -- 'key:<name>', 'worker', 'scheduler' or 'system'.
    actor      text NOT NULL CHECK (actor <> ''),
    action     text NOT NULL CHECK (action <> ''),
    -- What it was done to, as kind and id: 'run' and its uuid, 'pipeline' and its name, …
    subject_kind text NOT NULL CHECK (subject_kind <> ''),
    subject_id text NOT NULL CHECK (subject_id <> ''),
    pipeline   text,
    before     jsonb,
    after      jsonb,
    reason     text,
    request_id text,
    trace_id   text
);
CREATE INDEX audit_events_subject ON audit_events (subject_kind, subject_id, id);
CREATE INDEX audit_events_pipeline ON audit_events (pipeline, id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: rows are never updated or deleted', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
