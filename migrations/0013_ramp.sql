-- The candidate's share may rise in steps during its test.
ALTER TABLE traffic_revisions DROP CONSTRAINT traffic_revisions_kind_check;
ALTER TABLE traffic_revisions ADD CONSTRAINT traffic_revisions_kind_check CHECK (kind IN
    ('created', 'test_started', 'ramp', 'test_ended', 'promotion', 'watch_ended', 'rollback', 'split',
     'kill_switch_on', 'kill_switch_off'));
