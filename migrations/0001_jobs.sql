-- The job table: one row per piece of work. It knows nothing of models.
CREATE TABLE jobs (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind             text NOT NULL,
    subject          text NOT NULL,
    payload          jsonb NOT NULL DEFAULT '{}',
    state            text NOT NULL DEFAULT 'ready'
                     CHECK (state IN ('ready', 'leased', 'done', 'failed')),
    run_at           timestamptz NOT NULL DEFAULT now(),
    -- Claims since the last success; a reschedule after progress sets it back to 0.
    attempt          integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    -- With the backoff's cap these take about an hour: outages of a provider are shorter as a rule.
    max_attempts     integer NOT NULL DEFAULT 20 CHECK (max_attempts >= 1),
    lease_token      uuid,
    lease_expires_at timestamptz,
    -- Set when the job is woken while a worker holds it, so that the wake is not lost.
    woken            boolean NOT NULL DEFAULT false,
    last_error       text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CONSTRAINT jobs_leased_has_token
        CHECK ((state = 'leased') = (lease_token IS NOT NULL)
           AND (state = 'leased') = (lease_expires_at IS NOT NULL)),
    CONSTRAINT jobs_finished_has_time
        CHECK ((state IN ('done', 'failed')) = (finished_at IS NOT NULL))
);

CREATE UNIQUE INDEX jobs_one_unfinished ON jobs (kind, subject) WHERE state IN ('ready', 'leased');
CREATE INDEX jobs_ready ON jobs (run_at, id) WHERE state = 'ready';
CREATE INDEX jobs_leases ON jobs (lease_expires_at) WHERE state = 'leased';
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state IN ('done', 'failed');

-- Leases are taken and given back all the time: leave room for updates within the page.
ALTER TABLE jobs SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
