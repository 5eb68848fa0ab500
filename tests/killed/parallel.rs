//! Many scenarios of one kind at once.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::runtime::Builder;

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
