-- Who let a model go live whose test was inconclusive, and why: kept with the run, since its request is cleared once it is
-- carried out.
ALTER TABLE runs
    ADD COLUMN approved_by     text,
    ADD COLUMN approval_reason text,
    ADD CONSTRAINT runs_approval CHECK ((approved_by IS NULL) = (approval_reason IS NULL));
