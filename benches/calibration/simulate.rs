//! Random numbers with fixed seeds, and two threads.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const THREADS: usize = 2;

/// Counts how often each answer is yes. Every experiment has its own seed, so that the count does not depend
/// on the threads.
pub(crate) fn in_parallel<const N: usize>(
    experiments: u64,
    one: impl Fn(u64) -> [bool; N] + Sync,
) -> [u64; N] {
    std::thread::scope(|scope| {
        let one = &one;
        let part = |thread: u64| {
            let mut counts = [0; N];
            for index in (thread..experiments).step_by(THREADS) {
                for (count, yes) in counts.iter_mut().zip(one(index)) {
                    *count += u64::from(yes);
                }
            }
            counts
        };
        let threads: Vec<_> = (0..THREADS as u64).map(|thread| scope.spawn(move || part(thread))).collect();
        let mut total = [0; N];
        for thread in threads {
            let counts = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (sum, count) in total.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        total
    })
}

/// The generator of one experiment of a kind (FNV-1a of its name).
pub(crate) fn seeded(kind: &str, index: u64) -> StdRng {
    let hash = kind.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    StdRng::seed_from_u64(hash ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A normal number, by the polar method of Marsaglia.
pub(crate) fn normal(random: &mut StdRng) -> f64 {
    loop {
        let (x, y) = (2.0 * random.random::<f64>() - 1.0, 2.0 * random.random::<f64>() - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}
