//! Delivering runs, oldest first.

use uuid::Uuid;

use super::delivered::{Delivered, Sent, digest_of};
use super::error::MlflowError;
use super::facts::RunPlace;
use super::job::Stop;
use super::look::{Look, Refused, restored, stored};
use super::record::RunRecord;
use super::store;
use super::wire::RunInfo;
use crate::halt;

/// The tag that a run is found by.
const TAG: &str = "tuneloop.run_id";
/// Parameters or tags in one call.
const ENTRIES: usize = 100;
/// Points of metrics in one call.
const POINTS: usize = 1_000;
/// Where artifacts are that go through the server.
const PROXIED: &str = "mlflow-artifacts:";

impl Look<'_> {
    /// Delivers what is left of each run. What MLflow refuses of one does not hold up the others.
    pub(super) async fn runs(&self, experiment: &str, refused: &mut Refused) -> Result<(), Stop> {
        let mut after = None;
        loop {
            let page = store::runs_left(self.db, self.pipeline, after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for id in page {
                match self.run(experiment, id).await {
                    Err(Stop::Mlflow(error)) if error.is_about_the_content() => {
                        let mut tx = self.begin().await?;
                        store::refused_run(&mut tx, id, &error.to_string()).await?;
                        tx.commit().await?;
                        refused.note(&format!("run {id}"), &error.to_string());
                    }
                    outcome => outcome?,
                }
            }
        }
    }

    async fn run(&self, experiment: &str, id: Uuid) -> Result<(), Stop> {
        let facts = store::run(self.db, id).await?;
        let record = RunRecord::of(&facts);
        let mut place = store::place(self.db, id, self.settle()).await?;
        let mut delivered: Delivered = restored(std::mem::take(&mut place.delivered))?;
        let complete = place.mlflow_run_id.is_some() && delivered.is_all_of(&record);
        if !complete {
            let Some(info) = self.find_or_create(experiment, id, &record, &place).await? else {
                let mut tx = self.begin().await?;
                store::forsake_run(&mut tx, id).await?;
                tx.commit().await?;
                return Ok(());
            };
            self.tell(&info, &record, &mut delivered).await?;
        }
        halt::point("tracking", "run_told");
        let mut tx = self.begin().await?;
        store::keep_delivered(&mut tx, id, facts.version, facts.settled, &stored(&delivered)?).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The run in MLflow; `None` where somebody deleted it there.
    async fn find_or_create(
        &self,
        experiment: &str,
        id: Uuid,
        record: &RunRecord,
        place: &RunPlace,
    ) -> Result<Option<RunInfo>, Stop> {
        if let Some(known) = &place.mlflow_run_id {
            return Ok(self.client.run(known).await?.filter(|info| !info.is_deleted()));
        }
        let run_id = id.to_string();
        let found = self.client.runs_with_tag(experiment, TAG, &run_id).await?;
        // Should there be two after all, one that is left is the one.
        let info = match found.into_iter().min_by_key(RunInfo::is_deleted) {
            Some(found) => found,
            None if place.unsettled => {
                let what = format!("whether it created run {id} before the connection was lost");
                return Err(Stop::Said(format!("MLflow is given time to show {what}")));
            }
            None => self.create(experiment, id, record).await?,
        };
        if info.is_deleted() {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        store::keep_run(&mut tx, id, &info.run_id).await?;
        tx.commit().await?;
        Ok(Some(info))
    }

    async fn create(&self, experiment: &str, id: Uuid, record: &RunRecord) -> Result<RunInfo, Stop> {
        let mut tx = self.begin().await?;
        store::mark_run(&mut tx, id).await?;
        tx.commit().await?;
        halt::point("tracking", "run_marked");
        self.lease.check_deadline()?;
        let run_id = id.to_string();
        let tags = [(TAG, run_id.as_str()), ("tuneloop.pipeline", self.pipeline)];
        let created = self.client.create_run(experiment, &record.name, record.start_time, &tags).await;
        halt::point("tracking", "run_created");
        if created.as_ref().is_err_and(MlflowError::changed_nothing) {
            let mut tx = self.begin().await?;
            store::unmark_run(&mut tx, id).await?;
            tx.commit().await?;
        }
        Ok(created?)
    }

    /// Sends what is left. Every call may be sent twice to the same effect.
    async fn tell(&self, info: &RunInfo, record: &RunRecord, delivered: &mut Delivered) -> Result<(), Stop> {
        let run = info.run_id.as_str();
        for params in delivered.params_left(record).chunks(ENTRIES) {
            self.client.log_params(run, params).await?;
        }
        delivered.params.extend(record.params.keys().cloned());
        halt::point("tracking", "params_sent");
        for input in delivered.inputs_left(record) {
            self.client.log_input(run, input).await?;
        }
        delivered.inputs.extend(record.inputs.iter().map(super::record::Input::key));
        halt::point("tracking", "inputs_sent");
        for points in delivered.metrics_left(record).chunks(POINTS) {
            self.client.log_metrics(run, points).await?;
        }
        let sent = record.metrics.iter().map(|(key, points)| (key.clone(), Sent::of(points)));
        delivered.metrics.extend(sent);
        halt::point("tracking", "metrics_sent");
        self.artifacts(info, record, delivered).await?;
        halt::point("tracking", "artifacts_sent");
        let tags = delivered.tags_left(record);
        for tags in tags.chunks(ENTRIES) {
            let tags: Vec<_> = tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            self.client.set_tags(run, &tags).await?;
        }
        delivered.tags.extend(tags);
        halt::point("tracking", "tags_sent");
        // Last: who waits for the end in MLflow finds the rest.
        if delivered.status_left(record) {
            self.client.update_run(run, record.status, record.end_time).await?;
            delivered.status = Some((record.status.to_owned(), record.end_time));
        }
        Ok(())
    }

    /// Writes files through the server. Where it does not pass them on, a tag says so.
    async fn artifacts(
        &self,
        info: &RunInfo,
        record: &RunRecord,
        delivered: &mut Delivered,
    ) -> Result<(), Stop> {
        for (name, content) in delivered.artifacts_left(record) {
            delivered.artifacts_note = match artifacts_path(&info.artifact_uri) {
                None => Some(format!(
                    "not stored: the artifacts of this run are at {}, where the server passes none on",
                    info.artifact_uri
                )),
                Some(path) => {
                    match self.client.put_artifact(&format!("{path}/{name}"), content.to_vec()).await {
                        Ok(()) => None,
                        Err(error) if error.is_about_the_content() || error.does_not_serve_artifacts() => {
                            Some(format!("not stored: {error}"))
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            delivered.artifacts.insert(name.to_owned(), digest_of(content));
        }
        Ok(())
    }
}

/// The part of a proxied place's address that names it to the server: `mlflow-artifacts:/1/abc/artifacts`, or with a host.
fn artifacts_path(uri: &str) -> Option<&str> {
    let rest = uri.strip_prefix(PROXIED)?;
    let path = match rest.strip_prefix("//") {
        Some(with_host) => with_host.split_once('/')?.1,
        None => rest,
    };
    Some(path.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_artifacts_that_go_through_the_server_are_written() {
        assert_eq!(artifacts_path("mlflow-artifacts:/1/abc/artifacts"), Some("1/abc/artifacts"));
        assert_eq!(artifacts_path("mlflow-artifacts://host:5000/1/abc/artifacts"), Some("1/abc/artifacts"));
        for elsewhere in ["s3://bucket/1/abc/artifacts", "file:///mlruns/1/abc", "/mlruns/1", ""] {
            assert_eq!(artifacts_path(elsewhere), None, "{elsewhere}");
        }
    }
}
