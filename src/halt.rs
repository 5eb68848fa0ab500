//! Places at which a test can stop the process and kill it.
//!
//! In debug builds, a process whose `TUNELOOP_HALT_AT` names a point says so on standard error when it gets
//! there and then goes no further, so that a test can send it SIGKILL at exactly that place. Where
//! `TUNELOOP_HALT_UNTIL` names a file as well, it goes on once that file exists. Release builds have no such
//! points.
//!
//! Each step has the points `begun` (leased, nothing done), `committing` (all done but the commit) and
//! `committed`, and those of its own around what it does outside of the database.

/// A named place between two instructions that must survive being killed between them.
#[inline]
pub(crate) fn point(place: &str, moment: &str) {
    #[cfg(debug_assertions)]
    debug::point(place, moment);
    #[cfg(not(debug_assertions))]
    let _ = (place, moment);
}

#[cfg(debug_assertions)]
mod debug {
    use std::path::Path;
    use std::time::Duration;

    pub(super) fn point(place: &str, moment: &str) {
        let Ok(wanted) = std::env::var("TUNELOOP_HALT_AT") else { return };
        if wanted.split_once('.') != Some((place, moment)) {
            return;
        }
        let until = std::env::var_os("TUNELOOP_HALT_UNTIL");
        let over = || until.as_ref().is_some_and(|file| Path::new(file).exists());
        if over() {
            return;
        }
        eprintln!("halted at {wanted}");
        while !over() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
