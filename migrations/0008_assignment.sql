-- Pinned units, the kill switch, and notices of what serves.

-- While the kill switch is on, everything goes to the live version and nothing of it is analysed.
ALTER TABLE traffic_revisions ADD COLUMN kill_switch boolean NOT NULL DEFAULT false;
ALTER TABLE traffic_revisions DROP CONSTRAINT traffic_revisions_kind_check;
ALTER TABLE traffic_revisions ADD CONSTRAINT traffic_revisions_kind_check CHECK (kind IN
    ('created', 'test_started', 'test_ended', 'promotion', 'watch_ended', 'rollback', 'split',
     'kill_switch_on', 'kill_switch_off'));
ALTER TABLE traffic_revisions ADD CONSTRAINT traffic_revisions_kill_switch_kind CHECK
    (kill_switch OR kind <> 'kill_switch_on');
ALTER TABLE traffic_revisions ADD CONSTRAINT traffic_revisions_kill_switch_off_kind CHECK
    (NOT kill_switch OR kind <> 'kill_switch_off');

-- The split that a revision under the kill switch holds back, to be restored when it is switched off.
CREATE TABLE traffic_withheld (
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
CREATE TRIGGER traffic_withheld_append_only BEFORE UPDATE OR DELETE ON traffic_withheld
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION check_withheld_sum() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE total bigint;
DECLARE expected bigint;
BEGIN
    SELECT coalesce(sum(weight), 0) INTO total FROM traffic_withheld
     WHERE pipeline = NEW.pipeline AND revision = NEW.revision;
    SELECT CASE WHEN kill_switch THEN 10000 ELSE 0 END INTO expected FROM traffic_revisions
     WHERE pipeline = NEW.pipeline AND revision = NEW.revision;
    IF total <> expected THEN
        RAISE EXCEPTION 'the withheld weights of traffic revision % of % sum to %, not %',
            NEW.revision, NEW.pipeline, total, expected USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER traffic_revisions_withheld_sum AFTER INSERT ON traffic_revisions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_withheld_sum();
CREATE CONSTRAINT TRIGGER traffic_withheld_sum AFTER INSERT ON traffic_withheld
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_withheld_sum();

-- Counts the changes of a pipeline's pins. Bumped under the lock of the pipeline's row, so that it grows in
-- the order of commits and tells a reader whether there is anything to read again.
ALTER TABLE pipelines ADD COLUMN pins_revision bigint NOT NULL DEFAULT 0 CHECK (pins_revision >= 0);

-- Units that a person has tied to a version. A pin is released, never deleted: what a unit was served by at
-- some time must be told for as long as its outcomes may arrive.
CREATE TABLE unit_pins (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline         text NOT NULL REFERENCES pipelines (name),
    unit             text NOT NULL CHECK (octet_length(unit) BETWEEN 1 AND 200),
    model_version_id uuid NOT NULL REFERENCES model_versions (id),
    reason           text NOT NULL,
    actor            text NOT NULL,
    pinned_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    released_at      timestamptz,
    released_by      text,
    CHECK ((released_at IS NULL) = (released_by IS NULL)),
    CHECK (released_at >= pinned_at)
);
CREATE UNIQUE INDEX unit_pins_in_force ON unit_pins (pipeline, unit) WHERE released_at IS NULL;
CREATE INDEX unit_pins_history ON unit_pins (pipeline, unit, pinned_at);

-- Whether a unit was pinned when it was served. A pin counts for ten seconds after its release: a process that heard of
-- that late may have served by it in the meantime.
CREATE FUNCTION unit_pinned_at(of_pipeline text, of_unit text, served_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM unit_pins p
                    WHERE p.pipeline = of_pipeline AND p.unit = of_unit AND p.pinned_at <= served_at
                      AND (p.released_at IS NULL OR served_at < p.released_at + interval '10 seconds'))
$$;

CREATE FUNCTION keep_pin_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.released_at IS NULL AND NEW.released_at IS NOT NULL
       AND (NEW.id, NEW.pipeline, NEW.unit, NEW.model_version_id, NEW.reason, NEW.actor, NEW.pinned_at)
         = (OLD.id, OLD.pipeline, OLD.unit, OLD.model_version_id, OLD.reason, OLD.actor, OLD.pinned_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a pin is released once and never changed otherwise' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER unit_pins_history_kept BEFORE UPDATE OR DELETE ON unit_pins
    FOR EACH ROW EXECUTE FUNCTION keep_pin_history();

-- Processes that answer from memory read again when they hear of a change. Postgres sends one notice per
-- transaction, however many rows changed, and only when it commits.
CREATE FUNCTION notify_serving() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('tuneloop_serving', '');
    RETURN NULL;
END $$;
CREATE TRIGGER traffic_revisions_notify AFTER INSERT ON traffic_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION notify_serving();
CREATE TRIGGER unit_pins_notify AFTER INSERT OR UPDATE ON unit_pins
    FOR EACH STATEMENT EXECUTE FUNCTION notify_serving();
CREATE TRIGGER model_versions_notify AFTER UPDATE OF status, provider_model_id ON model_versions
    FOR EACH STATEMENT EXECUTE FUNCTION notify_serving();
CREATE TRIGGER api_keys_notify AFTER INSERT OR UPDATE OR DELETE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION notify_serving();
