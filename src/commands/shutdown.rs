//! The way a process is asked to end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process at once, with the
/// exit code a shell gives to that signal. To be called inside the runtime.
///
/// # Errors
///
/// When the system does not let the process listen to signals.
pub fn shutdown_signal() -> io::Result<CancellationToken> {
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    tokio::spawn(watch(terminate, interrupt, token.clone(), |code| std::process::exit(code)));
    Ok(token)
}

async fn watch(
    mut terminate: Signal,
    mut interrupt: Signal,
    token: CancellationToken,
    end: impl FnOnce(i32),
) {
    loop {
        let (name, kind) = tokio::select! {
            Some(()) = terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            Some(()) = interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
            else => return,
        };
        if token.is_cancelled() {
            tracing::warn!("{name} once more: ending at once");
            return end(128 + kind.as_raw_value());
        }
        tracing::info!("{name}: ending once the work in hand is done; a second signal ends at once");
        token.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::sync::oneshot;

    use super::*;

    fn send(signal: &str) {
        let sent = Command::new("kill").args([signal, &std::process::id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_ends() {
        let token = CancellationToken::new();
        let (sender, mut ended) = oneshot::channel();
        let terminate = signal(SignalKind::terminate()).unwrap();
        let interrupt = signal(SignalKind::interrupt()).unwrap();
        let end = |code| sender.send(code).unwrap();
        tokio::spawn(watch(terminate, interrupt, token.clone(), end));
        send("-INT");
        token.cancelled().await;
        assert!(ended.try_recv().is_err());
        send("-TERM");
        assert_eq!(ended.await, Ok(128 + 15));
    }
}
