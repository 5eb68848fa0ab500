-- What the provider says that it trains with: hyperparameters and seed, those included that it chose by itself.
ALTER TABLE trainings ADD COLUMN in_use jsonb;
