//! Many scenarios at once: most of their time they wait, for a lease to run out or for a test's horizon.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures_util::future::LocalBoxFuture;
use tokio::runtime::Builder;

/// A scenario with its name.
pub(crate) type Scenario = (&'static str, fn() -> LocalBoxFuture<'static, ()>);

/// Runs these scenarios at once.
pub(crate) fn all(scenarios: &[Scenario]) {
    let names = scenarios.iter().map(|(name, _)| (*name).to_owned()).collect();
    each(names, scenarios.len(), async |wanted| {
        let (_, scenario) = scenarios.iter().find(|(name, _)| *name == wanted).unwrap();
        scenario().await;
    });
}

/// Runs the scenario for each name, `at_once` of them at a time, each on a thread with a runtime of its own.
/// Fails with the names of those that failed.
pub(crate) fn each(names: Vec<String>, at_once: usize, scenario: impl AsyncFn(&str) + Sync) {
    let waiting = Mutex::new(VecDeque::from(names));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(name) = waiting.lock().unwrap().pop_front() else { return };
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                        runtime.block_on(scenario(&name));
                    }));
                    if outcome.is_err() {
                        eprintln!("the scenario {name} failed");
                        failed.lock().unwrap().push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these scenarios failed, for the reasons above: {failed:?}");
}
