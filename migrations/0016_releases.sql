-- A revision names the decision it carries out, and keeps for ever that somebody overrode the safety checks.
ALTER TABLE traffic_revisions ADD COLUMN decision_id uuid REFERENCES decisions (id);
ALTER TABLE traffic_revisions ADD COLUMN forced boolean NOT NULL DEFAULT false;
