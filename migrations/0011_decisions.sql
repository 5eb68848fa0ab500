-- Several metrics are watched, each with the standard error that its looks are planned for: metric -> error. These take the
-- place of planned_se_test and planned_se_watch, which stay until no older process runs.
ALTER TABLE experiments
    ADD COLUMN planned_errors_test  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(planned_errors_test) = 'object'),
    ADD COLUMN planned_errors_watch jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(planned_errors_watch) = 'object'),
    -- Looks before the horizon that have spent a part of the level, oldest first.
    ADD COLUMN early_looks          jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(early_looks) = 'array'),
    -- When the test was extended, which moved horizon_at.
    ADD COLUMN extended_at          timestamptz;

UPDATE experiments
   SET planned_errors_test = jsonb_build_object(coalesce(settings ->> 'primary', 'engagement'), planned_se_test)
 WHERE planned_se_test IS NOT NULL;
UPDATE experiments
   SET planned_errors_watch = jsonb_build_object(coalesce(settings ->> 'primary', 'engagement'), planned_se_watch)
 WHERE planned_se_watch IS NOT NULL;
