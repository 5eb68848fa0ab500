//! Places at which a test can stop the process and kill it.
//!
//! In debug builds, a process whose `TUNELOOP_HALT_AT` names a point says so on standard error when it gets
//! there and then goes no further, so that a test can send it SIGKILL at exactly that place. Release
//! builds have no such points.

/// A named place between two instructions that must survive being killed between them.
#[inline]
pub(crate) fn point(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var("TUNELOOP_HALT_AT").is_ok_and(|wanted| wanted == name) {
        eprintln!("halted at {name}");
        loop {
            std::thread::park();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
