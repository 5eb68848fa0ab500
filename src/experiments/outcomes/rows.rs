//! The new outcomes of a batch, by column.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Sent;
use super::outcome::Values;
use crate::experiments::statistics::Arm;

#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) number: Vec<i64>,
    pub(super) pipeline: Vec<String>,
    pub(super) id: Vec<String>,
    pub(super) version: Vec<Uuid>,
    pub(super) revision: Vec<i64>,
    pub(super) experiment: Vec<Option<Uuid>>,
    pub(super) candidate: Vec<Option<bool>>,
    pub(super) unit: Vec<String>,
    pub(super) persona: Vec<Option<String>>,
    pub(super) served_at: Vec<DateTime<Utc>>,
    pub(super) values: ValueColumns,
}

impl Rows {
    pub(super) fn of(fresh: Vec<(i64, Sent)>) -> Self {
        let mut rows = Self::default();
        for (number, Sent { outcome, values, place, .. }) in fresh {
            rows.values.push(&values);
            rows.number.push(number);
            rows.pipeline.push(outcome.pipeline);
            rows.id.push(outcome.id);
            rows.version.push(place.version);
            rows.revision.push(place.revision);
            rows.experiment.push(place.arm.map(|(experiment, _)| experiment));
            rows.candidate.push(place.arm.map(|(_, arm)| arm == Arm::Candidate));
            rows.unit.push(outcome.unit);
            rows.persona.push(outcome.persona);
            rows.served_at.push(outcome.served_at);
        }
        rows
    }

    pub(super) async fn insert(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        if self.number.is_empty() {
            return Ok(());
        }
        let values = &self.values;
        sqlx::query!(
            "INSERT INTO outcomes (number, pipeline, id, model_version_id, revision, experiment_id, candidate, unit,
                    persona, served_at, engagement_rate, engagements, impressions, cost, quality, latency_ms, failed)
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::uuid[],
                    $7::boolean[], $8::text[], $9::text[], $10::timestamptz[], $11::float8[], $12::bigint[],
                    $13::bigint[], $14::float8[], $15::float8[], $16::float8[], $17::boolean[])",
            &self.number,
            &self.pipeline,
            &self.id,
            &self.version,
            &self.revision,
            &self.experiment as &[Option<Uuid>],
            &self.candidate as &[Option<bool>],
            &self.unit,
            &self.persona as &[Option<String>],
            &self.served_at,
            &values.engagement_rate as &[Option<f64>],
            &values.engagements as &[Option<i64>],
            &values.impressions as &[Option<i64>],
            &values.cost as &[Option<f64>],
            &values.quality as &[Option<f64>],
            &values.latency_ms as &[Option<f64>],
            &values.failed as &[Option<bool>],
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// The measured values of rows.
#[derive(Debug, Default)]
pub(super) struct ValueColumns {
    pub(super) engagement_rate: Vec<Option<f64>>,
    pub(super) engagements: Vec<Option<i64>>,
    pub(super) impressions: Vec<Option<i64>>,
    pub(super) cost: Vec<Option<f64>>,
    pub(super) quality: Vec<Option<f64>>,
    pub(super) latency_ms: Vec<Option<f64>>,
    pub(super) failed: Vec<Option<bool>>,
}

impl ValueColumns {
    pub(super) fn at(&self, row: usize) -> Values {
        Values {
            engagement_rate: self.engagement_rate[row],
            engagements: self.engagements[row],
            impressions: self.impressions[row],
            cost: self.cost[row],
            quality: self.quality[row],
            latency_ms: self.latency_ms[row],
            failed: self.failed[row],
        }
    }

    pub(super) fn push(&mut self, values: &Values) {
        self.engagement_rate.push(values.engagement_rate);
        self.engagements.push(values.engagements);
        self.impressions.push(values.impressions);
        self.cost.push(values.cost);
        self.quality.push(values.quality);
        self.latency_ms.push(values.latency_ms);
        self.failed.push(values.failed);
    }
}
