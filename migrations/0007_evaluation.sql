-- A new model shows what it can do before it meets traffic.
ALTER TABLE runs DROP CONSTRAINT runs_step_check;
ALTER TABLE runs ADD CONSTRAINT runs_step_check CHECK (step IN
    ('collect', 'preflight', 'upload', 'train', 'register', 'evaluate',
     'test', 'decide', 'promote', 'watch'));
ALTER TABLE runs ADD COLUMN evaluation jsonb;

-- What models answered in a run's evaluation, kept as it comes: what is here is not asked again.
CREATE TABLE evaluation_answers (
    run_id            uuid NOT NULL REFERENCES runs (id),
    -- The line of the dataset with the prompt, from 1.
    line              bigint NOT NULL CHECK (line >= 1),
    model_id          text NOT NULL CHECK (model_id <> ''),
    answer            text NOT NULL,
    refusal           text,
    finish_reason     text,
    prompt_tokens     bigint CHECK (prompt_tokens >= 0),
    completion_tokens bigint CHECK (completion_tokens >= 0),
    -- A judge's, from 0 to 1, with its reason.
    score             double precision CHECK (score BETWEEN 0 AND 1),
    judged_because    text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, line, model_id),
    CONSTRAINT evaluation_answers_judged CHECK ((score IS NULL) = (judged_because IS NULL))
);
