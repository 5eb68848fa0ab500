-- The chain over the audit trail, and the notices that applications are sent of what happens.

-- Who waits to be sealed. Written by the trigger below, a row of its own for each event, so that writers never
-- wait for each other; emptied by the sealer.
CREATE TABLE audit_unsealed (
    event_id bigint PRIMARY KEY
);
INSERT INTO audit_unsealed (event_id) SELECT id FROM audit_events;

CREATE FUNCTION queue_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unsealed (event_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_events_queue AFTER INSERT ON audit_events
    FOR EACH ROW EXECUTE FUNCTION queue_audit_event();

-- One row per event in the order of sealing. The hash is SHA-256 of the hash before it and the event in its
-- canonical form (docs/audit.md).
CREATE TABLE audit_seals (
    seq      bigint PRIMARY KEY CHECK (seq >= 1),
    event_id bigint NOT NULL UNIQUE REFERENCES audit_events (id),
    hash     bytea  NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE TRIGGER audit_seals_append_only BEFORE UPDATE OR DELETE ON audit_seals
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_seals_no_truncate BEFORE TRUNCATE ON audit_seals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE INDEX audit_events_actor ON audit_events (actor, id);
CREATE INDEX audit_events_action ON audit_events (action, id);
CREATE INDEX audit_events_at ON audit_events (at);

-- Where notices are sent.
CREATE TABLE webhook_endpoints (
    id              uuid        PRIMARY KEY,
    url             text        NOT NULL CHECK (url <> ''),
    -- Absent: all of them, also those of later releases.
    events          text[]      CHECK (cardinality(events) > 0),
    pipelines       text[]      CHECK (cardinality(pipelines) > 0),
    form            text        NOT NULL CHECK (form IN ('cloudevents', 'slack')),
    enabled         boolean     NOT NULL,
    -- The service signs with it, so it must be able to read it.
    secret          text        NOT NULL CHECK (secret LIKE 'whsec\_%'),
    previous_secret text        CHECK (previous_secret LIKE 'whsec\_%'),
    previous_until  timestamptz,
    version         bigint      NOT NULL DEFAULT 1 CHECK (version >= 1),
    -- Attempts that failed since the last one that did not.
    failures        integer     NOT NULL DEFAULT 0 CHECK (failures >= 0),
    failing_since   timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhook_endpoints_previous_secret_ends
        CHECK ((previous_secret IS NULL) = (previous_until IS NULL)),
    CONSTRAINT webhook_endpoints_failing_since
        CHECK ((failures = 0) = (failing_since IS NULL))
);

-- What is told: made of an audit event, at most once of each kind.
CREATE TABLE notifications (
    id             uuid        PRIMARY KEY,
    -- Absent for a test.
    audit_event_id bigint      REFERENCES audit_events (id),
    kind           text        NOT NULL CHECK (kind LIKE 'tuneloop.%'),
    -- What it is about, as the path of it under /v1.
    subject        text        NOT NULL CHECK (subject <> ''),
    pipeline       text,
    at             timestamptz NOT NULL,
    summary        text        NOT NULL CHECK (summary <> ''),
    data           jsonb       NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (audit_event_id, kind)
);
CREATE INDEX notifications_age ON notifications (created_at);

-- A notification on its way to an endpoint.
CREATE TABLE webhook_deliveries (
    id              uuid        PRIMARY KEY,
    -- The order in which an endpoint is told.
    position        bigint      GENERATED ALWAYS AS IDENTITY,
    endpoint_id     uuid        NOT NULL REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
    notification_id uuid        NOT NULL REFERENCES notifications (id),
    status          text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts        integer     NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- Attempts since it was begun, or begun again by a person: what the wait grows with.
    tries           integer     NOT NULL DEFAULT 0 CHECK (tries >= 0),
    next_attempt_at timestamptz DEFAULT now(),
    give_up_at      timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    created_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    UNIQUE (endpoint_id, notification_id),
    CONSTRAINT webhook_deliveries_pending_has_next CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT webhook_deliveries_finished_has_time CHECK ((status = 'pending') = (finished_at IS NULL))
);
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (endpoint_id, position) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, position);
CREATE INDEX webhook_deliveries_notification ON webhook_deliveries (notification_id);
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (finished_at) WHERE status <> 'pending';

-- What came of each attempt.
CREATE TABLE webhook_attempts (
    delivery_id uuid        NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number      integer     NOT NULL CHECK (number >= 1),
    at          timestamptz NOT NULL,
    latency_ms  integer     NOT NULL CHECK (latency_ms >= 0),
    -- The answer, or why there was none.
    status      integer     CHECK (status BETWEEN 100 AND 999),
    answer      text,
    error       text,
    PRIMARY KEY (delivery_id, number),
    CONSTRAINT webhook_attempts_answer_or_error CHECK ((status IS NULL) = (error IS NOT NULL))
);
