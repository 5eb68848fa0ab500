//! Reads the posts that people engaged with and writes them as JSONL.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tokio::sync::mpsc::{self, Sender};

use super::manifest::SCHEMA_VERSION;
use super::prepare::{Context, Preparation, Prepared, Selected};
use super::source::{self, Bounds, ID, LEADING, Layout, Parameter, Sql};
use super::spool::Spooled;
use super::stages::Stages;
use super::{Counts, DatasetError, DatasetSettings, Manifest, Parts, RowFault, Sources, prompts};

/// Rows handed over at once.
const BATCH: usize = 256;
/// Batches that are prepared at once.
const AT_ONCE: usize = 3;
/// Batches that wait for the stages before reading waits too.
const WAITING: usize = 4;

/// A dataset that is not stored yet.
#[derive(Debug)]
pub struct Snapshot {
    /// The training examples, one per line, highest engagement first. Its digest is the dataset's name.
    pub train: Spooled,
    /// The examples that were set aside, if any.
    pub validation: Option<Spooled>,
    /// Where it came from.
    pub manifest: Manifest,
}

impl Snapshot {
    /// Its files.
    pub fn files(&self) -> impl Iterator<Item = &Spooled> {
        std::iter::once(&self.train).chain(&self.validation)
    }
}

/// How much later than the server's own limit a silent source is given up.
const SLACK: Duration = Duration::from_secs(30);

/// Collects the examples of the posts that pass the filters at `now`, highest engagement first; equal posts newest first,
/// then by id. The same rows and settings give the same bytes; the pipeline's name chooses which are set aside to validate
/// with. Of each example a few dozen bytes of hashes are held in memory, and its text never longer than it takes to write it.
pub async fn collect(
    sources: &Sources,
    pipeline: &str,
    settings: &DatasetSettings,
    now: DateTime<Utc>,
) -> Result<Snapshot, DatasetError> {
    let compiled = prompts::compile(settings)?;
    let mut access = sources.open(&settings.source).await?;
    // One state of the data for all statements, so that counts and rows agree.
    let timeout = Duration::from_secs(settings.source.timeout_seconds.into());
    let mut tx = access.begin(timeout).await?;
    let layout = Arc::new(Layout::find(&mut tx, settings, &compiled).await?);
    let bounds = bounds(&mut tx, settings, &layout, now).await?;
    let counts = count(&mut tx, settings, &layout, &bounds).await?;
    let pairs = settings.pairs.is_some();
    let rows = source::rows(&settings.source, &layout, &bounds, pairs)?;

    let (batches, received) = mpsc::channel(WAITING);
    let stages = Stages::new(settings, pipeline, bounds.threshold)?;
    let work = tokio::task::spawn_blocking(move || stages.run(received));
    let preparation = Arc::new(Preparation::new(settings, compiled));
    let prepare = move |batch: Vec<PgRow>| -> Vec<Result<Prepared, DatasetError>> {
        batch.iter().map(|row| prepared(&preparation, &layout, row)).collect()
    };
    let read = read(&mut tx, &rows, &bounds, prepare, batches, timeout + SLACK).await;
    // What follows takes a while, and needs no more of the source: nothing there shall be kept for it.
    if matches!(read, Ok(Read::Whole)) {
        let _ = tx.rollback().await;
        drop(access);
    } else {
        drop(tx);
        access.abandon().await;
    }
    let made = work.await?;
    read.map_err(|error| match error {
        DatasetError::Database(error) => source::refused(settings, error).into(),
        other => other,
    })?;
    let (divided, made) = made?;

    let passed = counts.posts - counts.too_old - counts.too_young - counts.few_impressions;
    // Where pairs are made, every post with a rate is read: those with less engagement may be the worse half.
    let below_threshold = if pairs { passed.saturating_sub(made.rows) } else { counts.below_threshold };
    let selected = passed - below_threshold;
    let manifest = Manifest {
        schema_version: SCHEMA_VERSION,
        settings: settings.clone(),
        since: bounds.since,
        until: Some(bounds.until),
        threshold: Some(bounds.threshold),
        parameters: rows.parameters.iter().map(|parameter| value(*parameter, &bounds)).collect(),
        query: Some(rows.text),
        oldest_post: made.oldest,
        newest_post: made.newest,
        counts: Counts {
            posts: counts.posts,
            too_old: counts.too_old,
            too_young: counts.too_young,
            few_impressions: counts.few_impressions,
            below_threshold,
            over_maximum: selected.saturating_sub(made.rows) + made.counts.over_maximum,
            ..made.counts
        },
        cleaning: made.cleaning,
        bytes: divided.train.part.bytes,
        parts: Some(Parts {
            grouping: divided.grouping,
            train: divided.train.part.clone(),
            validation: divided.validation.as_ref().map(|file| file.part.clone()),
        }),
        warnings: divided.warnings,
    };
    Ok(Snapshot { train: divided.train, validation: divided.validation, manifest })
}

/// How far the rows were read.
enum Read {
    Whole,
    /// As far as anybody wanted them.
    InPart,
}

/// Reads the rows and hands them over prepared, in their order, until there are no more or nobody wants more. A source that is silent
/// for `limit` has gone.
async fn read<T: Send + 'static>(
    conn: &mut PgConnection,
    sql: &Sql,
    bounds: &Bounds,
    prepare: impl Fn(Vec<PgRow>) -> T + Clone + Send + 'static,
    batches: Sender<T>,
    limit: Duration,
) -> Result<Read, DatasetError> {
    let mut rows = sql.query(bounds).fetch(conn).map_err(DatasetError::from).try_chunks(BATCH);
    // The server ends a statement that takes too long, unless it is out of reach.
    let silence = || {
        let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "the source does not answer");
        DatasetError::from(sqlx::Error::Io(error))
    };
    let mut under_way = VecDeque::new();
    loop {
        let batch = tokio::time::timeout(limit, rows.try_next())
            .await
            .map_err(|_| silence())?
            .map_err(|error| error.1)?;
        let keep = if batch.is_some() { AT_ONCE } else { 0 };
        let ended = batch.is_none();
        if let Some(batch) = batch {
            let prepare = prepare.clone();
            under_way.push_back(tokio::task::spawn_blocking(move || prepare(batch)));
        }
        while under_way.len() > keep {
            let Some(oldest) = under_way.pop_front() else { break };
            if batches.send(oldest.await?).await.is_err() {
                return Ok(Read::InPart);
            }
        }
        if ended {
            return Ok(Read::Whole);
        }
    }
}

fn prepared(preparation: &Preparation, layout: &Layout, row: &PgRow) -> Result<Prepared, DatasetError> {
    let fault = match selected(layout, row) {
        Ok(selected) => match preparation.prepare(selected) {
            Ok(prepared) => return Ok(prepared),
            Err(fault) => fault,
        },
        Err(sqlx::Error::ColumnDecode { index, source }) => {
            let place = index.parse().ok().and_then(|index: usize| index.checked_sub(LEADING));
            let column = place.and_then(|place| layout.variables.get(place)).map(|(name, _)| name.clone());
            RowFault::Value { column: column.unwrap_or(index), reason: source.to_string() }
        }
        Err(error) => return Err(error.into()),
    };
    let id: Option<String> = row.try_get(ID)?;
    Err(DatasetError::Row { id: id.unwrap_or_default(), fault })
}

fn selected(layout: &Layout, row: &PgRow) -> sqlx::Result<Selected> {
    let mut values = prompts::Row::new();
    for (index, (name, text)) in layout.variables.iter().enumerate() {
        let index = LEADING + index;
        let value = if *text {
            row.try_get::<Option<String>, _>(index)?.map(Value::String)
        } else {
            row.try_get::<Option<Value>, _>(index)?
        };
        values.insert(name.clone(), value.unwrap_or_default());
    }
    let context = Context {
        created_at: row.try_get(0)?,
        persona: row.try_get(1)?,
        group: row.try_get(2)?,
        engagement: row.try_get::<Option<f64>, _>(3)?.unwrap_or_default(),
    };
    Ok(Selected { context, row: values })
}

/// The values of the parameters, with the threshold that is in force.
async fn bounds(
    conn: &mut PgConnection,
    settings: &DatasetSettings,
    layout: &Layout,
    now: DateTime<Utc>,
) -> Result<Bounds, DatasetError> {
    let mut bounds = Bounds {
        since: now - duration(settings.lookback_seconds),
        until: now - duration(settings.maturity_seconds),
        mature: settings.maturity_seconds > 0.0,
        threshold: settings.engagement_threshold,
        impressions: settings.minimum_impressions.into(),
        offset: 0,
    };
    let Some(dynamic) = &settings.dynamic_threshold else { return Ok(bounds) };
    bounds.threshold = dynamic.floor;
    bounds.offset = i64::from(dynamic.target_examples) - 1;
    let sql = source::threshold(&settings.source, layout, &bounds)?;
    // With fewer posts than wanted, the floor decides.
    if let Some(row) =
        sql.query(&bounds).fetch_optional(conn).await.map_err(|error| source::refused(settings, error))?
    {
        bounds.threshold = row.try_get(0)?;
    }
    Ok(bounds)
}

async fn count(
    conn: &mut PgConnection,
    settings: &DatasetSettings,
    layout: &Layout,
    bounds: &Bounds,
) -> Result<Counts, DatasetError> {
    let row = source::counts(&settings.source, layout, bounds)?.query(bounds).fetch_one(conn).await;
    let row = row.map_err(|error| source::refused(settings, error))?;
    let count = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    Ok(Counts {
        posts: count("posts")?,
        too_old: count("too_old")?,
        too_young: count("too_young")?,
        few_impressions: count("few_impressions")?,
        below_threshold: count("below_threshold")?,
        ..Counts::default()
    })
}

/// Whole milliseconds, and never further back than the calendar reaches.
fn duration(seconds: f64) -> TimeDelta {
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 saturates, then is clamped")]
    let millis = (seconds * 1000.0) as i64;
    TimeDelta::milliseconds(millis.clamp(0, 1000 * 365 * 86_400_000))
}

fn value(parameter: Parameter, bounds: &Bounds) -> std::collections::BTreeMap<String, Value> {
    let value = match parameter {
        Parameter::Since => json!(bounds.since),
        Parameter::Until => json!(bounds.until),
        Parameter::Threshold => json!(bounds.threshold),
        Parameter::Impressions => json!(bounds.impressions),
        Parameter::Offset => json!(bounds.offset),
    };
    [(parameter.name().to_owned(), value)].into()
}
