-- Outcomes by month, so that old ones can be dropped as a whole; their ids in one place, whatever the time says; and what
-- an analysis reads, kept up to date with every batch.

-- The callers' ids.
CREATE TABLE outcome_keys (
    pipeline  text        NOT NULL,
    id        text        NOT NULL CHECK (length(id) BETWEEN 1 AND 200),
    -- Names the outcome in what follows; ascending, so that its index stays small.
    number    bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    served_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline, id)
);

ALTER TABLE outcomes RENAME TO outcomes_unpartitioned;
ALTER TABLE outcomes_unpartitioned RENAME CONSTRAINT outcomes_pkey TO outcomes_unpartitioned_pkey;

-- One observation of a served version. The version, the revision and the experiment are looked up when it is recorded and
-- none of them is ever deleted; foreign keys would cost more than the rows.
CREATE TABLE outcomes (
    number           bigint NOT NULL,
    pipeline         text NOT NULL,
    id               text NOT NULL,
    model_version_id uuid NOT NULL,
    -- The traffic revision in force when it was served.
    revision         bigint NOT NULL,
    -- The experiment it is evidence in, if any, and the arm that served it.
    experiment_id    uuid,
    candidate        boolean,
    unit             text NOT NULL CHECK (unit <> ''),
    persona          text,
    served_at        timestamptz NOT NULL,
    engagement_rate  double precision CHECK (engagement_rate BETWEEN 0 AND 1),
    engagements      bigint CHECK (engagements >= 0),
    impressions      bigint CHECK (impressions >= 0),
    -- Dollars.
    cost             double precision CHECK (cost >= 0),
    quality          double precision CHECK (quality BETWEEN 0 AND 1),
    latency_ms       double precision CHECK (latency_ms >= 0),
    failed           boolean,
    received_at      timestamptz NOT NULL DEFAULT now(),
    -- When the values were last corrected.
    corrected_at     timestamptz,
    CHECK ((experiment_id IS NULL) = (candidate IS NULL)),
    PRIMARY KEY (number, served_at)
) PARTITION BY RANGE (served_at);

-- Sums per experiment, epoch, arm and cluster. Numeric, so that a correction takes out exactly what was put in.
CREATE TABLE experiment_sums (
    experiment_id uuid    NOT NULL REFERENCES experiments (id),
    -- The traffic revision under which the outcomes were served.
    epoch         bigint  NOT NULL,
    candidate     boolean NOT NULL,
    -- The persona or, where there is none, the unit.
    cluster       text    NOT NULL,
    outcomes      bigint  NOT NULL,
    -- Those of them that have a persona.
    personas      bigint  NOT NULL,
    -- Per metric: how many outcomes have it, sums of numerator (s) and denominator (d), of squares and of the product. The
    -- denominator of all but the cost per engagement is 1; the square of a failure is the failure.
    engagement_n  bigint NOT NULL, engagement_s numeric NOT NULL, engagement_ss numeric NOT NULL,
    cost_n        bigint NOT NULL, cost_s numeric NOT NULL, cost_d numeric NOT NULL,
    cost_ss       numeric NOT NULL, cost_sd numeric NOT NULL, cost_dd numeric NOT NULL,
    quality_n     bigint NOT NULL, quality_s numeric NOT NULL, quality_ss numeric NOT NULL,
    failed_n      bigint NOT NULL, failed_s bigint NOT NULL,
    latency_n     bigint NOT NULL, latency_s numeric NOT NULL, latency_ss numeric NOT NULL,
    PRIMARY KEY (experiment_id, epoch, candidate, cluster)
);

-- Each unit of an experiment at its first outcome, for the sample-ratio check.
CREATE TABLE experiment_units (
    experiment_id uuid        NOT NULL,
    unit          text        NOT NULL,
    epoch         bigint      NOT NULL,
    candidate     boolean     NOT NULL,
    served_at     timestamptz NOT NULL,
    number        bigint      NOT NULL,
    PRIMARY KEY (experiment_id, unit)
);
-- How many they are.
CREATE TABLE experiment_unit_counts (
    experiment_id uuid    NOT NULL REFERENCES experiments (id),
    epoch         bigint  NOT NULL,
    candidate     boolean NOT NULL,
    units         bigint  NOT NULL,
    PRIMARY KEY (experiment_id, epoch, candidate)
);

-- The partition of the month that a time belongs to (UTC). Made next to the table and attached, which lets writers go on.
CREATE FUNCTION make_outcomes_partition(served_at timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    month timestamp := date_trunc('month', served_at AT TIME ZONE 'UTC');
    name  text := 'outcomes_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    -- One at a time; attaching needs this lock anyway.
    LOCK TABLE outcomes IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    EXECUTE format('CREATE TABLE %I (LIKE outcomes INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE outcomes ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                   month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
END $$;

-- Brings the sums and units of an experiment to what its outcomes say. The caller keeps writers away.
CREATE FUNCTION recompute_experiment(experiment uuid) RETURNS void LANGUAGE sql AS $$
    DELETE FROM experiment_sums WHERE experiment_id = experiment;
    DELETE FROM experiment_units WHERE experiment_id = experiment;
    DELETE FROM experiment_unit_counts WHERE experiment_id = experiment;
    INSERT INTO experiment_sums
    SELECT experiment_id, revision, candidate, coalesce(persona, unit), count(*), count(persona),
           count(engagement_rate), coalesce(sum(engagement_rate::numeric), 0),
           coalesce(sum(engagement_rate::numeric * engagement_rate::numeric), 0),
           count(cost * engagements),
           coalesce(sum(cost::numeric) FILTER (WHERE engagements IS NOT NULL), 0),
           coalesce(sum(engagements::numeric) FILTER (WHERE cost IS NOT NULL), 0),
           coalesce(sum(cost::numeric * cost::numeric) FILTER (WHERE engagements IS NOT NULL), 0),
           coalesce(sum(cost::numeric * engagements), 0),
           coalesce(sum(engagements::numeric * engagements) FILTER (WHERE cost IS NOT NULL), 0),
           count(quality), coalesce(sum(quality::numeric), 0),
           coalesce(sum(quality::numeric * quality::numeric), 0),
           count(failed), count(*) FILTER (WHERE failed),
           count(latency_ms), coalesce(sum(latency_ms::numeric), 0),
           coalesce(sum(latency_ms::numeric * latency_ms::numeric), 0)
      FROM outcomes WHERE experiment_id = experiment GROUP BY 1, 2, 3, 4;
    INSERT INTO experiment_units
    SELECT DISTINCT ON (unit) experiment_id, unit, revision, candidate, served_at, number
      FROM outcomes WHERE experiment_id = experiment ORDER BY unit, served_at, number;
    INSERT INTO experiment_unit_counts
    SELECT experiment_id, epoch, candidate, count(*)
      FROM experiment_units WHERE experiment_id = experiment GROUP BY 1, 2, 3;
$$;

-- One text that differs where the sums, units or counts of an experiment do.
CREATE FUNCTION experiment_digest(experiment uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT md5(concat_ws('/',
        (SELECT string_agg(concat_ws(',', epoch, candidate, cluster, outcomes, personas,
                    engagement_n, trim_scale(engagement_s), trim_scale(engagement_ss),
                    cost_n, trim_scale(cost_s), trim_scale(cost_d), trim_scale(cost_ss), trim_scale(cost_sd),
                    trim_scale(cost_dd), quality_n, trim_scale(quality_s), trim_scale(quality_ss),
                    failed_n, failed_s, latency_n, trim_scale(latency_s), trim_scale(latency_ss)),
                    ';' ORDER BY epoch, candidate, cluster)
           FROM experiment_sums WHERE experiment_id = experiment),
        (SELECT string_agg(concat_ws(',', unit, epoch, candidate, number), ';' ORDER BY unit)
           FROM experiment_units WHERE experiment_id = experiment),
        (SELECT string_agg(concat_ws(',', epoch, candidate, units), ';' ORDER BY epoch, candidate)
           FROM experiment_unit_counts WHERE experiment_id = experiment AND units <> 0)));
$$;

-- Outcomes served before this time were deleted; absent while none were.
CREATE TABLE outcomes_kept_from (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    at      timestamptz NOT NULL
);

-- What was recorded so far.
INSERT INTO outcome_keys (pipeline, id, served_at)
SELECT pipeline, id, served_at FROM outcomes_unpartitioned ORDER BY received_at, id;
SELECT make_outcomes_partition(month)
  FROM (SELECT DISTINCT date_trunc('month', served_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month
          FROM outcomes_unpartitioned) months;
INSERT INTO outcomes
SELECT k.number, o.pipeline, o.id, o.model_version_id, o.revision, e.id,
       CASE WHEN e.id IS NOT NULL THEN o.model_version_id = e.candidate_id END, o.unit, o.persona, o.served_at,
       o.engagement_rate, o.engagements, o.impressions, o.cost, o.quality, o.latency_ms, o.failed, o.received_at
  FROM outcomes_unpartitioned o JOIN outcome_keys k USING (pipeline, id)
  LEFT JOIN experiments e ON e.id = o.experiment_id AND o.model_version_id IN (e.baseline_id, e.candidate_id);
DROP TABLE outcomes_unpartitioned;
SELECT recompute_experiment(experiment_id)
  FROM (SELECT DISTINCT experiment_id FROM outcomes WHERE experiment_id IS NOT NULL) tested;
