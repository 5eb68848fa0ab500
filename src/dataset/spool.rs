//! A temporary file that lines are written to while their SHA-256 is computed.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use sha2::{Digest, Sha256};

use super::Part;

/// A file in the making.
#[derive(Debug)]
pub(super) struct Spool {
    out: BufWriter<File>,
    hash: Sha256,
    examples: u64,
    bytes: u64,
}

/// A finished file, not stored yet.
#[derive(Debug)]
pub struct Spooled {
    /// What is in it.
    pub part: Part,
    pub(super) file: File,
}

impl Spool {
    /// A file without a name, which the system removes when it is closed, however the process ends.
    pub(super) fn new() -> io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
        Ok(Self { out, hash: Sha256::new(), examples: 0, bytes: 0 })
    }

    /// Writes a line, which brings its end along.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.hash.update(line);
        self.out.write_all(line)?;
        self.examples += 1;
        self.bytes += line.len() as u64;
        Ok(())
    }

    pub(super) fn examples(&self) -> u64 {
        self.examples
    }

    pub(super) fn finish(self) -> io::Result<Spooled> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let digest = hex::encode(self.hash.finalize());
        Ok(Spooled { part: Part { digest, examples: self.examples, bytes: self.bytes }, file })
    }
}
