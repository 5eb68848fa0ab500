-- After a promotion the share may rise in steps to its end.
ALTER TABLE traffic_revisions DROP CONSTRAINT traffic_revisions_kind_check;
ALTER TABLE traffic_revisions ADD CONSTRAINT traffic_revisions_kind_check CHECK (kind IN
    ('created', 'test_started', 'ramp', 'test_ended', 'promotion', 'rollout', 'watch_ended', 'rollback', 'split',
     'kill_switch_on', 'kill_switch_off'));

-- What was live before: a rollback looks for the newest revision of each version that may come back.
CREATE INDEX traffic_revisions_by_live ON traffic_revisions (pipeline, live_version_id, revision);
-- The tests of a version: promotion asks for the newest.
CREATE INDEX experiments_by_candidate ON experiments (candidate_id, started_at);

-- Triggers for each row do not see TRUNCATE.
CREATE TRIGGER traffic_revisions_no_truncate BEFORE TRUNCATE ON traffic_revisions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER traffic_weights_no_truncate BEFORE TRUNCATE ON traffic_weights
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER traffic_withheld_no_truncate BEFORE TRUNCATE ON traffic_withheld
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER decisions_no_truncate BEFORE TRUNCATE ON decisions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
