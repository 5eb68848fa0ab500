-- Ids and units of a batch are almost always new. `ON CONFLICT` looks for each row before it writes it and marks it once
-- more afterwards, which doubles its cost. So a batch is first inserted as if it were all new; the first row that is known
-- takes that back, and only then each row is looked for. What was tried in vain ends at the first known row, so that it is
-- least where most of a batch is known, and most where the only known row is the last.

-- Takes the callers' ids that are new, and gives each its number, in the order in which they came.
CREATE FUNCTION claim_outcome_keys(pipelines text[], ids text[], times timestamptz[])
RETURNS TABLE (number bigint, pipeline text, id text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    claimed outcome_keys[];
BEGIN
    -- Not returned while it may still fail: what was returned stays.
    WITH new AS (
        INSERT INTO outcome_keys (pipeline, id, served_at) SELECT * FROM unnest(pipelines, ids, times) RETURNING outcome_keys)
    SELECT array_agg(outcome_keys) INTO claimed FROM new;
    RETURN QUERY SELECT number, pipeline, id FROM unnest(claimed);
EXCEPTION WHEN unique_violation THEN
    RETURN QUERY
        INSERT INTO outcome_keys (pipeline, id, served_at) SELECT * FROM unnest(pipelines, ids, times)
        ON CONFLICT (pipeline, id) DO NOTHING RETURNING number, pipeline, id;
END $$;

-- Writes down the units that are new to their experiments, and tells how many they are by epoch and arm.
CREATE FUNCTION insert_experiment_units(
    experiments uuid[], names text[], times timestamptz[], numbers bigint[], epochs bigint[], arms boolean[])
RETURNS TABLE (experiment_id uuid, epoch bigint, candidate boolean, units bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO experiment_units (experiment_id, unit, served_at, number, epoch, candidate)
    SELECT * FROM unnest(experiments, names, times, numbers, epochs, arms);
    RETURN QUERY
        SELECT experiment, epoch, arm, count(*) FROM unnest(experiments, epochs, arms) AS new (experiment, epoch, arm)
         GROUP BY 1, 2, 3;
EXCEPTION WHEN unique_violation THEN
    RETURN QUERY
        WITH new AS (
            INSERT INTO experiment_units (experiment_id, unit, served_at, number, epoch, candidate)
            SELECT * FROM unnest(experiments, names, times, numbers, epochs, arms)
            ON CONFLICT (experiment_id, unit) DO NOTHING RETURNING experiment_id, epoch, candidate)
        SELECT experiment_id, epoch, candidate, count(*) FROM new GROUP BY 1, 2, 3;
END $$;
