//! Assignments by the whole service beside a bare axum handler, in turns: `cargo bench --bench assignment`.
//!
//! What the figures mean stands in `docs/benchmarks.md`.

mod load;
mod service;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use load::Load;

/// Baseline and product take turns this often; each figure is the median of its turns.
const TURNS: usize = 25;
/// How long a turn takes.
const TURN: Duration = Duration::from_millis(400);
/// Before the first turn, so that nobody pays for a cold start.
const WARM_UP: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(bench())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assignment: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn bench() -> Result<()> {
    let service = service::start().await?;
    let requests = load::requests(&service.key);
    let product = Load { address: service.address, requests: &requests };
    let answer = product.one().await?;
    println!("an assignment: {}", String::from_utf8_lossy(&answer));
    let baseline = Load { address: bare(answer).await?, requests: &requests };

    baseline.run(WARM_UP).await?;
    product.run(WARM_UP).await?;
    let (mut ratios, mut tails) = (Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        let (bare, assigned) = (baseline.run(TURN).await?, product.run(TURN).await?);
        println!(
            "turn {turn} of {TURNS}: bare {:.0} requests/s, p99 {:.2} ms; assignment {:.0} requests/s, p99 {:.2} ms",
            bare.per_second, bare.p99_ms, assigned.per_second, assigned.p99_ms
        );
        // Of neighbours in time, because machines have good and bad moments.
        ratios.push(assigned.per_second / bare.per_second);
        tails.push(assigned.p99_ms);
    }
    service.end().await?;
    println!("assignment: ratio={:.2} p99_ms={:.2}", median(ratios), median(tails));
    Ok(())
}

/// A handler that returns a constant of the size of an assignment, and nothing around it.
async fn bare(answer: Vec<u8>) -> Result<std::net::SocketAddr> {
    let answer: &'static [u8] = answer.leak();
    let router = Router::new().route(
        "/v1/pipelines/{pipeline}/assignment",
        get(async move || ([(CONTENT_TYPE, "application/json")], answer)),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(address)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
