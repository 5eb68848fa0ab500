//! Releases under fire: clients promote, roll back, split traffic and pull the kill switch at random, at once, through two
//! service processes that are killed in between; some give up waiting, some send a request again. What is left is compared
//! with a model that is kept by the test.
//!
//! The order of concurrent requests is not the seed's to choose, but what each client asks for is. `RELEASES_SEED` chooses the
//! last one's.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

mod client;
#[path = "../harness/database.rs"]
mod database;
mod history;
mod model;
#[path = "../killed/process.rs"]
#[expect(dead_code, reason = "nobody asks these processes to end in peace")]
mod process;
mod world;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use client::{Client, Outcome, Sent};
use world::World;

const CLIENTS: u64 = 4;
const REQUESTS: usize = 45;
/// Service processes that are killed in the middle of a sequence.
const KILLS: u32 = 4;

async fn sequence(seed: u64) {
    let world = World::new().await;
    let mut first = Client::new(&world, "first", seed).await;
    first.promote_the_winner().await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Client::new(&world, &format!("client-{number}"), seed * 1_000 + number).await;
        clients.push(tokio::spawn(async move {
            for _ in 0..REQUESTS {
                client.act().await;
            }
            client.sent
        }));
    }
    let observer = tokio::spawn(history::one_live_version_at_any_time(world.database.pool.clone()));
    let mut chance = StdRng::seed_from_u64(seed);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(chance.random_range(200..900))).await;
        world.kill_and_restart(chance.random_range(0..2)).await;
    }
    let mut sent = first.sent;
    for client in clients {
        sent.extend(client.await.unwrap());
    }
    observer.abort();
    assert!(observer.await.is_err_and(|ended| ended.is_cancelled()), "the observer saw nothing amiss");
    world.quiet().await;
    history::agrees_with_the_model(&world, &sent).await;
    tell(seed, &sent);
}

/// A sequence in which nothing succeeds shows nothing.
fn tell(seed: u64, sent: &[Sent]) {
    let count = |of: fn(&Outcome) -> bool| sent.iter().filter(|sent| of(&sent.outcome)).count();
    let (done, refused, unknown) = (
        count(|outcome| matches!(outcome, Outcome::Done(_))),
        count(|outcome| matches!(outcome, Outcome::Refused(_))),
        count(|outcome| matches!(outcome, Outcome::Unknown)),
    );
    println!("seed {seed}: {done} done, {refused} refused, {unknown} unknown");
    assert!(done >= 20 && refused >= 1 && unknown >= 1, "seed {seed}: {done}, {refused}, {unknown}");
}

macro_rules! sequences {
    ($($name:ident $seed:literal)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            sequence($seed).await;
        }
    )*};
}

sequences! {
    a_sequence_of_releases_is_what_the_model_says_1 1
    a_sequence_of_releases_is_what_the_model_says_2 2
    a_sequence_of_releases_is_what_the_model_says_3 3
    a_sequence_of_releases_is_what_the_model_says_4 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_of_a_seed_to_choose_is_what_the_model_says() {
    sequence(std::env::var("RELEASES_SEED").map_or(5, |seed| seed.parse().unwrap())).await;
}
