-- A version may be a checkpoint that the provider kept along a training; each is registered once.
ALTER TABLE model_versions DROP CONSTRAINT model_versions_training_id_key;
ALTER TABLE model_versions
    ADD COLUMN checkpoint_id text,
    -- What it becomes when the provider serves it again; kept by the trigger below.
    ADD COLUMN status_before text CHECK (status_before IN ('candidate', 'retired', 'rejected', 'rolled_back')),
    -- What the provider said when it was asked last.
    ADD COLUMN checked_at timestamptz,
    ADD COLUMN shutdown_date date,
    -- The nearest number of days before that date that was announced.
    ADD COLUMN warned_days integer CHECK (warned_days IN (60, 30, 7)),
    -- The run that was started to follow it.
    ADD COLUMN successor_run_id uuid REFERENCES runs (id),
    -- Since when the provider says that it does not know it, and since when that is taken to be so.
    ADD COLUMN missing_since timestamptz,
    ADD COLUMN gone_at timestamptz,
    ADD CONSTRAINT model_versions_gone CHECK (gone_at IS NULL OR missing_since IS NOT NULL),
    ADD CONSTRAINT model_versions_warned CHECK (warned_days IS NULL OR shutdown_date IS NOT NULL),
    ADD CONSTRAINT model_versions_checkpoint FOREIGN KEY (training_id, checkpoint_id)
        REFERENCES training_checkpoints (training_id, checkpoint_id);
UPDATE model_versions SET status_before = 'retired' WHERE status = 'unavailable';
ALTER TABLE model_versions
    ADD CONSTRAINT model_versions_status_before CHECK ((status = 'unavailable') = (status_before IS NOT NULL));
CREATE UNIQUE INDEX model_versions_one_of_training ON model_versions (training_id) WHERE checkpoint_id IS NULL;
CREATE UNIQUE INDEX model_versions_one_of_checkpoint ON model_versions (training_id, checkpoint_id)
    WHERE checkpoint_id IS NOT NULL;

-- The life of a version, whoever changes it.
CREATE FUNCTION check_model_version_status() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed text[] := CASE OLD.status
        WHEN 'candidate'   THEN ARRAY['testing', 'live', 'rejected', 'unavailable']
        WHEN 'testing'     THEN ARRAY['candidate', 'live', 'rejected', 'unavailable']
        WHEN 'live'        THEN ARRAY['hold_back', 'retired', 'rolled_back', 'unavailable']
        WHEN 'hold_back'   THEN ARRAY['live', 'retired', 'rolled_back', 'unavailable']
        WHEN 'retired'     THEN ARRAY['live', 'unavailable']
        WHEN 'rejected'    THEN ARRAY['candidate', 'live', 'unavailable']
        WHEN 'rolled_back' THEN ARRAY['live', 'unavailable']
        WHEN 'unavailable' THEN ARRAY['candidate', 'retired', 'rejected', 'rolled_back']
    END;
BEGIN
    IF NEW.status <> ALL (allowed) THEN
        RAISE EXCEPTION 'version %.%.% of % is % and cannot become %; it can become %',
            OLD.major, OLD.minor, OLD.patch, OLD.pipeline, OLD.status, NEW.status, array_to_string(allowed, ', ')
            USING ERRCODE = 'check_violation', CONSTRAINT = 'model_versions_status_transition';
    END IF;
    NEW.status_before := CASE
        WHEN NEW.status <> 'unavailable' THEN NULL
        WHEN OLD.status IN ('live', 'hold_back') THEN 'retired'
        WHEN OLD.status = 'testing' THEN 'candidate'
        ELSE OLD.status
    END;
    RETURN NEW;
END $$;
CREATE TRIGGER model_versions_status BEFORE UPDATE OF status ON model_versions
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION check_model_version_status();

-- What a model was made of: two trainings with the same row are the same training, done twice.
CREATE VIEW training_recipes AS
SELECT t.id AS training_id, t.provider, t.base_model, t.dataset_digest, t.hyperparameters,
       coalesce(nullif(r.collected -> 'settings' -> 'prompts', 'null'), r.collected -> 'settings' -> 'template', 'null')
           AS prompt,
       coalesce(c.config -> 'training' ->> 'method', 'supervised') AS method,
       (c.config -> 'training' ->> 'seed')::bigint AS seed
  FROM trainings t
  JOIN runs r ON r.id = t.run_id
  JOIN pipeline_configs c ON c.pipeline = r.pipeline AND c.version = r.config_version;

-- A run may train another base model than its configuration says: the successor of one that is about to end.
ALTER TABLE runs ADD COLUMN base_model text CHECK (base_model <> '');
ALTER TABLE runs DROP CONSTRAINT runs_trigger_check;
ALTER TABLE runs ADD CONSTRAINT runs_trigger_check CHECK (trigger IN ('api', 'schedule', 'end_of_life'));
